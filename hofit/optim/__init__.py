"""Optimizers: the mix and its parts. Each is usable from plain Pyro code as ``pyro.optim.multi``'s are."""

from .base import Optimizer, Proposal
from .gauss_newton import GaussNewton
from .lbfgs import LBFGS
from .mixed import MixedMultiOptimizer
from .newton import Newton
from .newton_cg import NewtonCG
from .torch_part import TorchOptimizer
from .trust_region import TrustRegion

__all__ = [
    "LBFGS",
    "GaussNewton",
    "MixedMultiOptimizer",
    "Newton",
    "NewtonCG",
    "Optimizer",
    "Proposal",
    "TorchOptimizer",
    "TrustRegion",
]
