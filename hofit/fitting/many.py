"""Many fits at once: Newton's method in a trust region, on the evidences of many data sets as one batch.

A data set whose minimum is not plain (a boundary, a flat direction, a mode that is not found) is left to a fit of its
own: only what a verdict would call converged without a second look is said to be found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..objective.stacked import Arguments, Stacked, StackedEvidence, chunks
from ..optim.acceptance import ACCEPT, CUT, GOOD, GROWTH, POOR
from ..optim.subproblem.by_rows import solve_rows

ITERATIONS, INNER_ITERATIONS = 40, 50

SETTLED = 1e-20
"""Of the loss's size, what a Newton step may promise where a mode is found: 1e-10 standard errors of a loss of one."""

NOISE = 1e-13
"""Of the loss's size, what is rounding."""

SHRUNK = 1e-6
"""A data set whose step has been shortened to this part has no mode to be found."""

PLAIN = 1e-6
"""The lowest eigenvalue of the Hessian, scaled to unit diagonal, from which on a minimum is plain."""

KEPT = 1e-2
"""Of the largest curvature that a number has shown, what it must have in the end: else it may run to infinity."""

FAR = 2.0
"""Standard errors, unconstrained, of a number with a bounded support, beyond which an edge may be near."""

RADIUS = 10.0
"""Standard errors that a first step may go."""

NEAR, SAME = 1e-9, 1e-20
"""Of the loss's size, what a step may promise that leads to where the Hessian is computed, and one after which it is
the same: to 1e-9 of itself. On the way there differences of gradients do."""

SKIPPED = 1e-8
"""Least cosine between a step and what the Hessian has missed along it, for that to be learned from."""


@dataclass
class Minima:
    """What was found of each data set; ``plain`` says where it is a minimum beyond doubt.

    Shapes: theta, gradient (B, p); u (B, d); hessian (B, p, p); moves, dû/dθ, (B, p, d); inner, the Hessian in u,
    (B, d, d); loss, plain, iterations, decrement (B,).
    """

    theta: Tensor
    u: Tensor
    loss: Tensor
    gradient: Tensor
    hessian: Tensor
    moves: Tensor
    inner: Tensor
    decrement: Tensor
    iterations: Tensor
    plain: Tensor

    def some(self, places: Tensor) -> Minima:
        return Minima(*(getattr(self, name)[places] for name in Minima.__dataclass_fields__))

    def take(self, places: Tensor, other: Minima, which: Tensor) -> None:
        """Put those of another, of which ``places`` are here, where ``which`` (of the other) says so."""
        for name in ("theta", "u", "loss", "gradient", "hessian", "moves", "inner"):
            getattr(self, name)[places[which]] = getattr(other, name)[which]


def minimise(source: Stacked, arguments: Arguments, theta: Tensor, u: Tensor, terms: int, unit: float) -> Minima:
    """From one start, (p,) and (d,), for all data sets. ``terms``: of one loss; ``unit``: what an observation weighs.

    Raises: NotStacked.
    """
    count = len(next(iter(arguments.stacked.values())))
    parts = [
        _minimised(source, arguments.some(some), theta.expand(len(some), -1), u.expand(len(some), -1), unit)
        for some in chunks(source, terms, count)
    ]
    return Minima(*(torch.cat([getattr(part, name) for part in parts]) for name in Minima.__dataclass_fields__))


def _minimised(source: Stacked, arguments: Arguments, theta: Tensor, u: Tensor, unit: float) -> Minima:
    count = len(theta)
    here = _evaluated(source, arguments, theta, u, unit)
    radius = theta.new_full((count,), RADIUS)
    scale = here.hessian.diagonal(dim1=1, dim2=2).abs()
    exact = torch.ones(count, dtype=torch.bool)
    done = ~torch.isfinite(here.loss)
    quiet = torch.zeros_like(here.iterations)
    for _ in range(ITERATIONS):
        active = (~done).nonzero()[:, 0]
        if not len(active):
            break
        known, own = here.some(active), exact[active]
        diagonal = torch.where(own[:, None], known.hessian.diagonal(dim1=1, dim2=2).abs(), 0.0)
        scale[active] = torch.maximum(scale[active], diagonal)
        root = torch.where(scale[active] > 0, scale[active], 1.0).sqrt()
        matrix = known.hessian / (root[:, :, None] * root[:, None, :])
        solved = solve_rows(known.gradient / root, matrix, radius[active])
        size = known.loss.abs().clamp_min(unit)
        same = own & (solved.predicted <= SAME * size)
        wanted = ~same & (solved.predicted <= NEAR * size)
        # Those of one kind go on, the others wait: a Hessian costs as much for a few data sets as for a hundred.
        second = 2 * int(wanted.sum()) >= len(active)
        now = (wanted if second else ~wanted).nonzero()[:, 0]
        active, known, own, same, size = active[now], known.some(now), own[now], same[now], size[now]
        step, promise, length = (solved.step / root)[now], solved.predicted[now], solved.step[now].norm(dim=1)
        here.decrement[active] = 2 * promise
        ends = promise <= NOISE * size  # Newton's steps, which the loss cannot judge any more: two of them
        moved = torch.einsum("bp,bpd->bd", step, known.moves)
        there = _evaluated(source, arguments.some(active), known.theta + step, known.u + moved, unit, second)
        if not second:
            learned = _learned(known.hessian, step, there.gradient - known.gradient)
            known.hessian = torch.where(same[:, None, None], known.hessian, learned)
            there.hessian, there.moves = known.hessian, known.moves
        fall = known.loss - there.loss
        good = torch.isfinite(there.loss) & (fall >= ACCEPT * promise - NOISE * size)
        grown = torch.where((fall > GOOD * promise) & (length >= 0.99 * radius[active]), GROWTH, 1.0) * radius[active]
        poor = ~good | (fall < POOR * promise - NOISE * size)
        radius[active] = torch.where(poor, CUT * length, grown)
        here.take(active, known, ~good)
        here.take(active, there, good)
        exact[active] = same | (own | good if second else torch.zeros_like(own))
        here.iterations[active] += good.long()
        quiet[active] += (ends & good & own).long()
        done[active] |= (ends & own & ~good) | (quiet[active] >= 2) | (radius[active] < SHRUNK)
    here.plain &= (quiet >= 2) & exact & _is_plain(source, here, scale)
    return here


def _learned(hessian: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """A Hessian that gives the change of the gradient along a step, corrected by one of rank one (SR1).

    Shapes: (B, p, p), (B, p), (B, p). Source: Nocedal & Wright (2006), section 6.2.
    """
    missed = change - torch.einsum("bij,bj->bi", hessian, step)
    along = (missed * step).sum(1)
    usable = along.abs() > SKIPPED * missed.norm(dim=1) * step.norm(dim=1)
    part = torch.where(usable, 1.0 / torch.where(usable, along, 1.0), 0.0)
    missed = torch.where(usable[:, None], missed, 0.0)
    return hessian + part[:, None, None] * missed[:, :, None] * missed[:, None, :]


def _evaluated(
    source: Stacked, arguments: Arguments, theta: Tensor, u: Tensor, unit: float, second: bool = True
) -> Minima:
    """Evidence, gradient and perhaps Hessian, the mode sought from ``u``; a loss of nan where there is none."""
    u, found = _modes(source, arguments, theta, u, unit)
    evidence = StackedEvidence(source.at(theta, u, arguments))
    p, d = theta.shape[1], u.shape[1]
    hessian, moves = evidence.hessian() if second else (theta.new_zeros(len(u), p, p), theta.new_zeros(len(u), p, d))
    loss = torch.where(found, evidence.loss, torch.nan)
    zeros = torch.zeros_like(loss)
    inner = evidence.inner_hessian
    return Minima(theta.clone(), u, loss, evidence.gradient, hessian, moves, inner, zeros, zeros.long(), found.clone())


def _modes(source: Stacked, arguments: Arguments, theta: Tensor, u: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """The modes in u, (B, d), and whether they were found, (B,): Newton's method, steps halved where the loss rises."""
    u, count = u.clone(), len(u)
    found = torch.zeros(count, dtype=torch.bool)
    if not source.inner.size:
        return u, ~found
    before = u.new_full((count,), torch.inf)
    start, step, part = u.clone(), torch.zeros_like(u), u.new_ones(count)
    active = torch.arange(count)
    for _ in range(INNER_ITERATIONS):
        point = source.at(theta[active], u[active], arguments.some(active))
        loss = point.loss.detach()
        size = loss.abs().clamp_min(unit)
        higher = ~(loss <= before[active] + NOISE * size)
        newton, promise = point.newton()
        part[active] = torch.where(higher, 0.5 * part[active], 1.0)
        lower = active[~higher]
        before[lower], start[lower], step[lower] = loss[~higher], u[lower], newton[~higher]
        ends = ~higher & (promise <= SETTLED * size)
        u[active] = start[active] + part[active, None] * step[active]
        found[active[ends]] = True
        stuck = (part[active] < SHRUNK) | ~torch.isfinite(u[active]).all(1)
        u[active[stuck]] = start[active[stuck]]
        active = active[~(ends | stuck)]
        if not len(active):
            break
    return u, found


def _is_plain(source: Stacked, here: Minima, scale: Tensor) -> Tensor:
    """Where the Hessians are clearly positive, nothing has run to where it has lost its curvature, and no number with a
    bounded support is loosely known. Shapes: scale, the largest |hᵢᵢ| of each, (B, p) → (B,)."""
    root = here.hessian.diagonal(dim1=1, dim2=2).clamp_min(1e-300).sqrt()
    unit = here.hessian / (root[:, :, None] * root[:, None, :])
    usable = torch.isfinite(unit).all(2).all(1)
    unit = torch.where(usable[:, None, None], unit, torch.eye(unit.shape[1], dtype=unit.dtype))
    plain = usable & (torch.linalg.eigvalsh(unit)[:, 0] >= PLAIN) & torch.isfinite(here.loss)
    plain &= (here.hessian.diagonal(dim1=1, dim2=2) >= KEPT * scale).all(1)
    deviations = torch.linalg.inv(torch.where(plain[:, None, None], here.hessian, torch.eye(unit.shape[1]).to(unit)))
    deviations = deviations.diagonal(dim1=1, dim2=2).sqrt()
    sites = source.program.sites
    outer = zip(source.outer.names, source.outer.lengths, strict=True)
    bounded = torch.cat([torch.full((length,), sites[name].is_bounded) for name, length in outer])
    found: Tensor = plain & ~((deviations > FAR) & bounded).any(1)
    return found
