"""The trust-region subproblem by truncated conjugate gradients: Hessian-vector products only.

Source: Steihaug (1983); Toint (1981); Conn, Gould & Toint (2000), algorithm 7.5.1, in the preconditioner's norm.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, sqrt

import torch
from torch import Tensor

from .step import Step

FIRST_RADIUS = 1.0
"""The least radius that negative curvature is followed to where none was given."""

PRODUCTS = 500
"""Products of one step at most, and at most twice the number of unknowns."""


def truncated_step(
    product: Callable[[Tensor], Tensor],
    gradient: Tensor,
    radius: float,
    precondition: Callable[[Tensor], Tensor],
    tolerance: Callable[[float], float],
    products: int,
) -> Step:
    """Go down gᵀp + ½ pᵀHp inside ‖p‖_M ≤ Δ: at least as far as the Cauchy point, at best to the minimiser.

    Ends where the residual is small, at the boundary, or, where a direction of no positive curvature is met, along it
    to the boundary. With an infinite Δ that boundary is twice what has been gone, or FIRST_RADIUS.

    Args:
        product: v → Hv.
        gradient: finite.
        radius: Δ > 0, may be inf.
        precondition: v → M⁻¹v with M positive definite.
        tolerance: ‖g‖ → the part of it, at most ½, at which the residual is small; norms are those of M⁻¹.
        products: at most so many.
    Shapes: gradient, v (d,).
    Cost: one Hessian-vector product and one M⁻¹v an iteration; five vectors of length d.
    """
    size = float(gradient.abs().max()) if gradient.numel() else 0.0
    p = torch.zeros_like(gradient)
    if size == 0.0:
        return Step(p, 0.0, False, 0.0)
    # The model of q = p / ‖g‖∞ has a gradient of order one, so that no square overflows.
    radius = radius / size
    g = gradient / size
    r, z = g, precondition(g)
    image = torch.zeros_like(g)  # H p
    d = -z
    rz = float(r @ z)
    target = tolerance(sqrt(max(rz, 0.0)) * size) * sqrt(max(rz, 0.0))
    pp, pd, dd = 0.0, 0.0, rz  # pᵀMp, pᵀMd, dᵀMd
    count, on_boundary = 0, False
    while count < products:
        hd = product(d)
        count += 1
        curvature = float(d @ hd)
        if not isfinite(curvature):
            if count == 1:
                p = torch.full_like(g, torch.nan)
            break
        alpha = rz / curvature if curvature > 0 else inf
        ahead = pp + alpha * (2 * pd + alpha * dd) if alpha < inf else inf
        if not ahead < radius * radius:
            if not isfinite(radius):
                radius = max(FIRST_RADIUS / size, 2 * sqrt(pp))
            tau = _to_boundary(pp, pd, dd, radius)
            p, image = p + tau * d, image + tau * hd
            pp, on_boundary = radius * radius, True
            break
        p, image, pp = p + alpha * d, image + alpha * hd, ahead
        r = r + alpha * hd
        z = precondition(r)
        after = float(r @ z)
        if not sqrt(max(after, 0.0)) > target:
            break
        beta = after / rz
        pd, dd, rz = beta * (pd + alpha * dd), after + beta * beta * dd, after
        d = beta * d - z
    predicted = -float(g @ p) - 0.5 * float(p @ image)
    return Step(p * size, max(predicted, 0.0) * size * size, on_boundary, sqrt(pp) * size, products=count)


def _to_boundary(pp: float, pd: float, dd: float, radius: float) -> float:
    """The positive root τ of ‖p + τd‖_M = Δ."""
    rest = max(radius * radius - pp, 0.0)
    root = sqrt(pd * pd + dd * rest)
    return rest / (pd + root) if pd > 0 else (root - pd) / dd
