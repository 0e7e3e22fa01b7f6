"""The delta method: errors of functions of the parameters, and the ends of intervals on the scale where they belong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints

from ..linear.operator import MEMORY_BUDGET
from ..point import Params
from .gaussian import SOLVES, Gaussian

NORMAL_975 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""

MOVES = 1e-2
"""What runs to a limit moves by less than this, on the scale of its interval, with a unit of the number that takes it
there: a correlation of −1 moves by one, on Fisher's, wherever the walk there has ended."""

Scale = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""A function to the scale of an interval, the one back, and the slope of the first."""

PLAIN: Scale = (lambda x: x, lambda x: x, torch.ones_like)
LOGARITHM: Scale = (torch.log, torch.exp, torch.reciprocal)
LOGIT: Scale = (torch.logit, torch.sigmoid, lambda x: 1.0 / (x * (1.0 - x)))
FISHER: Scale = (torch.atanh, torch.tanh, lambda x: 1.0 / (1.0 - x.square()))
"""Fisher's z of a correlation."""


def delta_errors(gaussian: Gaussian, leaves: Params, flat: Tensor, scale: Scale | None = None) -> Tensor:
    """√(gᵀ Σ g) of functions of the leaves, g by one gradient each; nan where there is none. Shapes: (k,) → (k,).

    There is none for what moves on ``scale`` by more than ``MOVES`` with a unit of a number that is parked; without a
    scale, by more than that part of its error.
    """
    if not flat.requires_grad:
        return torch.zeros_like(flat)
    wanted = [leaves[name] for name in gaussian.coordinates.names]
    chunk = max(1, min(SOLVES, MEMORY_BUDGET // (8 * gaussian.coordinates.size * flat.element_size())))
    parts = []
    for some in flat.split(chunk):
        rows = []
        for one in some:
            gradients = torch.autograd.grad(one, wanted, retain_graph=True, allow_unused=True, materialize_grads=True)
            rows.append(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        whole = torch.stack(rows)
        error = gaussian.variances_of(whole).clamp_min(0.0).sqrt()
        unit = error if scale is None else scale[2](some.detach()).reciprocal()
        parts.append(torch.where(gaussian.moves_with_parked(whole) > MOVES * unit, torch.nan, error))
    return torch.cat(parts)


def interval(scale: Scale, value: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the 95 % interval of values, symmetric on ``scale``; nan where there is none.

    There is none where the value stands on the edge of that scale, or its error is none or zero: it is a constant.
    """
    there, back, slope = scale
    centre, half = there(value), NORMAL_975 * error * slope(value)
    known = (error > 0) & centre.isfinite() & half.isfinite()
    ends = (back(centre - half), back(centre + half))
    lower, upper = (torch.where(known, end, torch.nan) for end in ends)
    return lower, upper


def interval_of_site(support: constraints.Constraint, value: Tensor, error: Tensor) -> tuple[Tensor, Tensor] | None:
    """The intervals of a site whose transform is not elementwise, each on the scale of its entries; None where it is
    not known what values the entries can take."""
    kind = kind_of(support)
    if kind in SIMPLEX:
        return interval(LOGIT, value, error)
    if kind in ("_OrderedVector",):
        return interval(PLAIN, value, error)
    if kind in ("_PositiveOrderedVector",):
        return interval(LOGARITHM, value, error)
    if kind in (*CORRELATION_FACTORS, *CORRELATIONS):
        return interval(FISHER, value, error)
    if kind in (*FACTORS, *COVARIANCES):
        diagonal = torch.eye(value.shape[-1], dtype=torch.bool, device=value.device)
        scaled, plain = interval(LOGARITHM, value, error), interval(PLAIN, value, error)
        lower, upper = (torch.where(diagonal, one, other) for one, other in zip(scaled, plain, strict=True))
        return lower, upper
    return None


SIMPLEX = ("_Simplex",)
FACTORS = ("_LowerCholesky", "_SoftplusLowerCholesky")
CORRELATION_FACTORS = ("_CorrCholesky",)
COVARIANCES = ("_PositiveDefinite", "_PositiveSemidefinite")
CORRELATIONS = ("_CorrMatrix",)
"""Supports by the names of their classes: torch and Pyro have them as single objects of private ones."""


def kind_of(support: constraints.Constraint) -> str:
    """The name of a support's class, whatever plates have made of it."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return type(support).__name__
