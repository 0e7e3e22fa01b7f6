"""Derivatives by central differences, where torch has none: in steps of the function's own unit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STEP = 0.01
"""Of a unit in which the function has a curvature of one: the error is of the order of its fourth power."""

SHORT = 1e-3
"""As STEP, of a difference of two values: its error is of the order of its square."""

WEIGHTS = ((1.0, 8.0), (-1.0, -8.0), (2.0, -1.0), (-2.0, 1.0))
"""Of twelve: places, in steps, and what the function there counts (Abramowitz & Stegun 1964, 25.3.6)."""


def central(function: Callable[[float], Tensor], unit: float) -> Tensor:
    """d function / dt at zero; ``unit`` is a length of t in which the function changes by an order of itself."""
    step = STEP * unit
    parts = [weight / 12.0 * function(place * step) for place, weight in WEIGHTS]
    return torch.stack(parts).sum(0) / step


def two_sided(function: Callable[[float], Tensor], unit: float) -> Tensor:
    """As ``central``, by two values: for a function that costs much and is known well."""
    step = SHORT * unit
    return (function(step) - function(-step)) / (2.0 * step)
