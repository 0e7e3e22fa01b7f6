"""Optimizers: the mix and its parts. Each is usable from plain Pyro code as ``pyro.optim.multi``'s are."""

from .base import Optimizer, Proposal
from .mixed import MixedMultiOptimizer
from .newton import Newton
from .torch_part import TorchOptimizer

__all__ = ["MixedMultiOptimizer", "Newton", "Optimizer", "Proposal", "TorchOptimizer"]
