"""Optimizers: one file an algorithm, and the mix. Each is usable from plain Pyro code as ``pyro.optim.multi``'s are.

What enters is a way to step: it reads a point, proposes, and hears how it went (`base.py`); whether a step is kept, and
what becomes of a radius, is `acceptance.py`'s. Its file opens with its options and `OPTIMIZER` (`spec.py`), which
`registry.py` lists. How a loss came about is not known here. May import: curvature, coordinates, point, linear,
patterns, record, internals, errors.
"""

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
