"""The trust-region subproblem on many small rows at once: min gᵀp + ½ pᵀHp subject to ‖p‖₂ ≤ Δ.

Source: Moré & Sorensen (1983), "Computing a trust region step"; Nocedal & Wright (2006), sections 3.4 and 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SECULAR_ITERATIONS = 60
"""Safeguarded Newton on the secular equation; bisection alone would gain a bit a step, and double has 53."""


@dataclass(frozen=True)
class RowSteps:
    """The steps of all rows. p solves (H + modification) p = −g, plus ``extra`` where that is not enough.

    Shapes: step, extra (N, D); modification (N, D, D); predicted (N,), what the quadratic model falls by.
    """

    step: Tensor
    modification: Tensor
    extra: Tensor
    predicted: Tensor


def solve_rows(gradient: Tensor, hessian: Tensor, radius: Tensor) -> RowSteps:
    """The minimiser of each row's quadratic model inside its radius.

    An infinite radius gives the full Newton step where the row is positive definite. Elsewhere the model has no
    minimiser: directions of positive curvature take their Newton step, the others go downhill by |λ|, at most one
    unconstrained unit, and away from a saddle by exactly that (Nocedal & Wright, section 3.4).

    Shapes: gradient (N, D), hessian (N, D, D) symmetric and finite, radius (N,), positive, may be inf.
    """
    modification = torch.zeros_like(hessian)
    extra = torch.zeros_like(gradient)
    factor, info = torch.linalg.cholesky_ex(hessian)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    easy = (info == 0) & torch.isfinite(step).all(-1) & (step.norm(dim=-1) <= radius)
    if not bool(easy.all()):
        hard = ~easy
        g, H, delta = gradient[hard], hessian[hard], radius[hard]
        scale = H.abs().amax((-1, -2))
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        eigenvalues, basis = torch.linalg.eigh(H / scale[:, None, None])
        rotated = (basis.transpose(-1, -2) @ (g / scale[:, None])[..., None])[..., 0]
        bounded = torch.isfinite(delta)
        curvature, kick = torch.empty_like(eigenvalues), torch.zeros_like(rotated)
        if bool(bounded.any()):
            curvature[bounded], kick[bounded] = _bounded(eigenvalues[bounded], rotated[bounded], delta[bounded])
        if not bool(bounded.all()):
            free = ~bounded
            curvature[free], kick[free] = _unbounded(eigenvalues[free], rotated[free])
        p = -rotated / curvature + kick
        step[hard] = (basis @ p[..., None])[..., 0]
        extra[hard] = (basis @ kick[..., None])[..., 0]
        change = (curvature - eigenvalues) * scale[:, None]
        modification[hard] = basis @ (change[..., None] * basis.transpose(-1, -2))
    predicted = -(gradient * step).sum(-1) - 0.5 * (step * (hessian @ step[..., None])[..., 0]).sum(-1)
    return RowSteps(step, modification, extra, predicted)


def _bounded(eigenvalues: Tensor, gradient: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """λ + σ for each row, and the kick of the hard case, in the eigenbasis. Shapes (N, D)."""
    eps = torch.finfo(eigenvalues.dtype).eps
    lowest = eigenvalues[:, 0]
    size = gradient.norm(dim=-1)
    floor = torch.clamp(-lowest, min=0.0)
    # ‖p(σ)‖ ≤ Δ for certain at this σ; the root lies in [floor, ceiling].
    ceiling = floor * (1 + 4 * eps) + size / radius
    low, high, shift = floor, ceiling, ceiling
    for _ in range(SECULAR_ITERATIONS):
        denominators = eigenvalues + shift[:, None]
        positive = denominators > 0
        safe = torch.where(positive, denominators, torch.ones_like(denominators))
        p = torch.where(positive, gradient / safe, torch.zeros_like(gradient))
        length = p.norm(dim=-1)
        inside = length <= radius
        high = torch.where(inside, torch.minimum(high, shift), high)
        low = torch.where(inside, low, torch.maximum(low, shift))
        slope = (p * torch.where(positive, p / safe, torch.zeros_like(p))).sum(-1)
        newton = shift + (length / radius - 1) * length.square() / torch.where(slope > 0, slope, torch.ones_like(slope))
        middle = (low + high) / 2
        shift = torch.where((slope > 0) & (newton > low) & (newton < high), newton, middle)
    curvature = eigenvalues + high[:, None]
    noise = 8 * eps * eigenvalues.abs().amax(-1, keepdim=True)
    # A direction of no curvature and no gradient but rounding is left alone; so is a nearly singular one of a row that
    # is not convex, which the kick below takes care of.
    dead = (curvature <= noise) & (gradient.abs() <= noise)
    dead |= (lowest[:, None] < -noise) & (curvature <= eps**0.5)
    curvature = torch.where(dead | (curvature <= 0), torch.ones_like(curvature), curvature)
    # Where the lowest curvature is negative the solution lies on the boundary: the lowest eigenvector takes up what the
    # shift leaves (all of it in the hard case, where the gradient has no part along that vector).
    p = -gradient / curvature
    rest = p[:, 1:].norm(dim=-1)
    along = torch.sqrt(torch.clamp((radius - rest) * (radius + rest), min=0.0))
    signed = torch.where(gradient[:, 0] > 0, -along, along)
    kick = torch.zeros_like(gradient)
    kick[:, 0] = torch.where(lowest < -noise[:, 0], signed - p[:, 0], kick[:, 0])
    return curvature, kick


def _unbounded(eigenvalues: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The modified curvature of rows without a radius, and the kick off a saddle. Shapes (N, D)."""
    eps = torch.finfo(eigenvalues.dtype).eps
    largest = eigenvalues.abs().amax(-1, keepdim=True)
    noise = 10 * eigenvalues.shape[-1] * eps * largest
    downhill = torch.maximum(eigenvalues.abs(), gradient.abs())
    curvature = torch.where(eigenvalues > noise, eigenvalues, downhill)
    dead = (eigenvalues.abs() <= noise) & (gradient.abs() <= noise)
    curvature = torch.where(dead | (curvature <= 0), torch.ones_like(curvature), curvature)
    at_saddle = (eigenvalues < -noise) & (gradient.abs() <= noise)
    return curvature, torch.where(at_saddle, torch.ones_like(gradient), torch.zeros_like(gradient))
