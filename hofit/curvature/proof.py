"""The proof of a structure: a product with the true Hessian, held against the structure's own.

What is asked everywhere is the same: are two products with one probe equal up to rounding? So the probe, and how far
apart two products may lie, stand here once.
"""

from __future__ import annotations

import torch
from torch import Tensor

AGREEMENT = 1e-6
"""How far two products may lie apart, relative to the largest number in either, and be the same.

A product is exact to about 1e-13 in float64 (to 1e-6 in float32, hence the dtype's own bound in ``differ``); a coupling
smaller than this changes a Newton step by as little.
"""

SEED = 20240607
"""Any number would do; a fixed one makes a proof come out the same at every run."""


def probe(like: Tensor, number: int = 0) -> Tensor:
    """A random vector, the same at every call with this number, of the shape and dtype of ``like``.

    No two entries are alike: of equal ones a product cannot tell a coupling from what stands on the diagonal.
    """
    generator = torch.Generator().manual_seed(SEED + number)
    signs = 2 * torch.randint(0, 2, like.shape, generator=generator) - 1
    return (signs * (0.5 + torch.rand(like.shape, generator=generator, dtype=torch.float64))).to(like)


def differ(claimed: Tensor, true: Tensor, agreement: float = AGREEMENT, floor: float = 0.0) -> bool:
    """Whether two products are not the same, up to rounding: relative to the larger, and within ``floor`` whatever it
    is. What is not finite tells nothing."""
    if not true.numel():
        return False
    scale = torch.maximum(true.abs().max(), claimed.abs().max())
    tolerance = max(agreement, 1e3 * torch.finfo(true.dtype).eps)
    return bool((true - claimed).abs().max() > tolerance * scale + floor)


def is_off(found: Tensor, expected: Tensor, tolerance: float, unit: float = 1.0) -> bool:
    """Whether a number is not what was expected: relative to a unit, or to the largest where that is above it."""
    if not expected.numel():
        return False
    return not float((found - expected).abs().max()) <= tolerance * max(unit, float(expected.abs().max()))


def refutes(claimed: Tensor, true: Tensor, agreement: float = AGREEMENT) -> bool:
    """Whether a true product refutes a claimed one; to claim that it is no number, where it is one, is refuted too."""
    if not bool(torch.isfinite(true).all()):
        return False
    return bool(claimed.isnan().any()) or differ(claimed, true, agreement)
