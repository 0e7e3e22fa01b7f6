"""The trust-region subproblem on a structured Hessian: min gᵀp + ½ pᵀHp subject to ‖p‖₂ ≤ Δ.

The shift λ ≥ 0 with (H + λI)p = −g, H + λI positive semidefinite and λ(Δ − ‖p‖) = 0 is found by factorisations of the
structure alone; nothing is densified and no spectrum is computed.

Source: Moré & Sorensen (1983), "Computing a trust region step"; Conn, Gould & Toint (2000), "Trust-region methods",
section 7.3 (algorithm 7.3.4 and the bounds of 7.3.8).
"""

from __future__ import annotations

from math import exp, inf, isfinite, log, sqrt

import torch
from torch import Tensor

from ...linear.operator import Factor, Operator
from .step import Step

EASY = 0.05
"""How far from the radius, relative to it, ‖p(λ)‖ may be (κ_easy of Conn, Gould & Toint is 0.1); none ends outside."""

HARD = 0.05
"""In the hard case the model is within this part of its minimum (κ_hard of Conn, Gould & Toint is 0.2)."""

FLAT = 64.0
"""Units of eps · the matrix's norm within which a negative curvature is rounding."""

FACTORISATIONS = 60
"""Two or three are usual; the safeguards halve the interval of the shift, in logarithm, each time."""


def trust_region_step(operator: Operator, gradient: Tensor, radius: float, shift: float = 0.0) -> Step:
    """The minimiser of the model inside the radius: on the boundary to within EASY, inside exactly.

    Negative curvature is used: where the Hessian is not positive definite the step ends on the boundary, and in the
    hard case (a gradient without a part along the lowest eigenvector) it goes along that vector. ``predicted`` is never
    negative. ``shift`` is a guess of λ, as from the step before. Shapes: gradient (d,), finite. ``radius`` is positive
    and finite.
    """
    largest_gradient = float(gradient.abs().max()) if gradient.numel() else 0.0
    largest_entry = operator.largest()
    if largest_gradient == 0.0 and largest_entry == 0.0:
        return Step(torch.zeros_like(gradient), 0.0, False, 0.0)
    # The unit problem: p = Δ q, ‖q‖ ≤ 1, and the model divided by s, so that no square overflows.
    log_size = max(
        log(largest_gradient) + log(radius) if largest_gradient > 0 else -inf,
        log(largest_entry) + 2 * log(radius) if largest_entry > 0 else -inf,
    )
    g = _times(gradient, log(radius) - log_size)
    root = log(radius) - log_size / 2
    # e^root may overflow: then as congruences, each by a part of it.
    parts = 1 + int(abs(root) / 300) if isfinite(root) else 0
    unit = operator
    for _ in range(parts):
        unit = unit.scaled(gradient.new_full(gradient.shape, exp(root / parts)))
    to_unit = exp(max(min(2 * log(radius) - log_size, 700.0), -700.0))
    q, shift, on_boundary = _unit_step(unit, g, shift * to_unit)
    fall = -float(g @ q) - 0.5 * float(q @ unit.matvec(q))
    step = q * radius
    predicted = max(fall, 0.0) * exp(min(log_size, 700.0))
    shift = shift * exp(min(log_size - 2 * log(radius), 700.0))
    return Step(step, predicted, on_boundary, float(step.norm()), shift)


def _unit_step(operator: Operator, gradient: Tensor, guess: float) -> tuple[Tensor, float, bool]:
    """The unit problem: radius 1, entries of order one. Returns (q, λ, whether q is on the boundary)."""
    eps = torch.finfo(gradient.dtype).eps
    size = float(gradient.norm())
    norm = operator.norm_bound()
    # A bound by Jensen's inequality, next to the answer where λ is large: ‖p(λ)‖ is at least ‖g‖ / (λ + gᵀHg / gᵀg).
    steepest = gradient / max(size, 1e-300)
    lower = max(0.0, -float(operator.diagonal().min()), size - float(steepest @ operator.matvec(steepest)))
    upper = size + norm
    shift = 0.0 if lower == 0.0 else min(max(lower, 1e-3 * upper), upper)
    flat = FLAT * eps * norm
    if max(lower, flat) < guess < upper:
        shift = guess
    best: tuple[Tensor, float] | None = None
    null = _Null(operator)
    for _ in range(FACTORISATIONS):
        factor = operator.factor(shift)
        if not factor.positive and shift == 0.0:
            # Curvature that is negative by rounding alone is none, and no way down.
            beside = operator.factor(flat)
            if beside.positive:
                q = -beside.solve(gradient)
                if float(q.norm()) <= 1.0:
                    return q, 0.0, False
        if not factor.positive:
            lower = max(lower, shift)
            direction = factor.direction
            if direction is not None:
                lower = max(lower, -float(direction @ operator.matvec(direction)))
                null.seen(direction)
            if upper <= lower * (1 + 4 * eps) + 4 * eps * norm:
                upper = lower * (1 + 8 * eps) + 16 * eps * max(norm, size)
                upper += max(upper, size, norm) * eps * 64 if best is None else 0.0
            shift = _between(lower, upper)
            continue
        q = -factor.solve(gradient)
        length = float(q.norm())
        if not torch.isfinite(q).all():
            lower = max(lower, shift)
            shift = _between(lower, upper)
            continue
        if length <= 1.0:
            if shift == 0.0 or length >= 1.0 - EASY:
                return q, shift, shift > 0.0
            upper = shift
            best = (q, shift)
            hard = null.step(factor, q, shift)
            if hard is not None:
                kick, curvature = hard
                lower = max(lower, shift - curvature)
                tau = float((kick @ kick).sqrt())
                # The model lies within this of its minimum (Conn, Gould & Toint, lemma 7.3.5).
                if curvature * tau * tau <= HARD * (-float(gradient @ q) + shift):
                    return _inside(q + kick), shift, True
        elif length <= 1.0 + EASY:
            return q / length, shift, True  # convex along q in the shifted model: a little less of it still goes down
        else:
            lower = max(lower, shift)
        slope = float(q @ factor.solve(q))
        newton = shift + (length * length / slope) * (length - 1.0) if slope > 0 else inf
        if upper - lower <= 4 * eps * upper:
            break
        shift = newton if lower < newton < upper else _between(lower, upper)
        if newton <= 0.0 == lower:
            shift = 0.0  # none at all may do
    if best is None:  # rounding left no shift that works: straight downhill is always inside and never up
        curvature = float(gradient @ operator.matvec(gradient)) / max(size * size, 1e-300)
        along = 1.0 if curvature <= 0 else min(1.0, size / curvature)
        return -gradient / max(size, 1e-300) * along, shift, along == 1.0
    q, shift = best
    last = null.boundary(q)
    return (_inside(q + last) if last is not None else q), shift, last is not None


class _Null:
    """The approximate lowest eigenvector, kept between shifts."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._vector: Tensor | None = None

    def seen(self, direction: Tensor) -> None:
        self._vector = direction

    def step(self, factor: Factor, q: Tensor, shift: float) -> tuple[Tensor, float] | None:
        """(kick to the boundary along the vector, its curvature uᵀ(H + λI)u)."""
        if self._vector is None:
            generator = torch.Generator().manual_seed(11)
            start = torch.randn(q.shape, generator=generator, dtype=torch.float64).to(q)
            self._vector = start / start.norm()
        for _ in range(3):
            vector = factor.solve(self._vector)
            size = vector.norm()
            if not bool(torch.isfinite(size)) or float(size) == 0.0:
                return None
            self._vector = vector / size
        kick = self.boundary(q)
        if kick is None:
            return None
        return kick, max(float(self._vector @ self._operator.matvec(self._vector)) + shift, 0.0)

    def boundary(self, q: Tensor) -> Tensor | None:
        """τu with ‖q + τu‖ = 1, of the two roots the one of smaller size, which gives the lower model."""
        if self._vector is None:
            return None
        along = float(q @ self._vector)
        rest = 1.0 - float(q @ q)
        if rest <= 0.0:
            return None
        root = sqrt(along * along + rest)
        tau = rest / (along + root) if along >= 0 else rest / (along - root)
        return tau * self._vector


def _inside(q: Tensor) -> Tensor:
    length = float(q.norm())
    return q if length <= 1.0 else q / length


def _between(lower: float, upper: float) -> float:
    return max(sqrt(lower * upper), lower + 0.01 * (upper - lower))


def _times(vector: Tensor, exponent: float) -> Tensor:
    """vector · e^exponent, without overflow on the way."""
    half = exp(max(min(exponent / 2, 700.0), -700.0))
    return vector * half * half
