"""Whether a step kept its promise: actual over predicted reduction, with what rounding does to both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..errors import OptionError
from ..point import Params, Point, max_norm
from ..record import PartReport
from .base import Optimizer, Proposal, State
from .subproblem.step import Step

ACCEPT = 1e-4
"""The least ratio of an accepted step (Nocedal & Wright, algorithm 4.1: η in [0, ¼))."""

POOR, GOOD, CUT, GROWTH = 0.25, 0.75, 0.25, 2.0
"""Below POOR the radius becomes CUT times the step, above GOOD a step on the boundary multiplies it
by GROWTH (the same)."""

ROUNDING = 64.0
"""Units of eps · |loss| within which a difference of two losses is rounding."""

CANCELLED = 16.0
"""By how much more a loss may be rounded than its size says: its terms are larger than their sum."""

WINDFALL = 100.0
"""A fall of so many times what was promised is held against the slopes at both ends."""

FALL, RISE = 0.9, 0.5
"""What part of the gradient must be left where the loss falls, or rises, within rounding: so no fit goes in circles."""

LEAP = 4.0
"""What a radius is multiplied by where its step is too short to be judged."""

EDGEWARD = 5.0
"""Unconstrained units that a number with a bounded support goes at once: e⁻⁵ of its distance to the edge is left."""

PATIENCE = 4
"""Refusals in a row within rounding after which no better step is to be had."""


class Acceptance:
    """Compares losses. A step whose promise is below the loss's rounding is judged by the gradient too: it must not
    raise the loss beyond rounding, and must make the gradient smaller (Conn, Gould & Toint, section 17.4.2).
    """

    def __init__(self) -> None:
        self._refusals = 0

    @property
    def exhausted(self) -> bool:
        """Whether steps are refused again and again only because of rounding."""
        return self._refusals >= PATIENCE

    def ratio(self, point: Point, candidate: Point, proposal: Proposal, others: float) -> float:
        """Actual over predicted reduction; −inf where the candidate has no loss or no gradient.

        ``others``: gᵀs of other parts.
        """
        predicted = (proposal.predicted_reduction or 0.0) - others
        if candidate.failure is None and candidate.value == -inf:
            return inf  # unbounded, as the loop will say
        noise = rounding(point)
        own = abs(proposal.predicted_reduction or 0.0)
        if candidate.failure is not None or not isfinite(candidate.value):
            self._refusals += own <= noise  # and a shorter step gains less still
            return -inf
        actual = point.value - candidate.value
        if (own <= noise or actual == 0.0) and abs(actual) <= CANCELLED * noise + abs(others):
            better = _flattens(point, candidate, list(proposal.params), FALL if actual > 0 else RISE)
            better |= actual > 0 and others != 0.0  # who moves besides has changed the gradient too
            self._refusals = 0 if better else self._refusals + 1
            return 0.5 if better else 0.0
        ratio = actual / predicted if predicted > 0 else (1.0 if actual > 0 else -1.0)
        if ratio > ACCEPT and not isfinite(max_norm(candidate.gradient(point.has_graph))):
            return -inf  # nothing could go on from there
        if ratio > WINDFALL and not actual / WINDFALL <= abs(_by_slopes(point, candidate)) <= actual * WINDFALL:
            self._refusals += own <= noise
            return 0.0  # loss or slope is rounded that much: neither bears the other out
        if ratio > ACCEPT:
            self._refusals = 0
        elif own <= noise:  # the loss is rounder still than its size says
            self._refusals += 1
        return ratio

    def state_dict(self) -> State:
        return {"refusals": self._refusals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._refusals = int(state["refusals"])


def _flattens(point: Point, candidate: Point, names: list[str], part: float) -> bool:
    before, after = point.gradient(), candidate.gradient()
    return max_norm({n: after[n] for n in names}) <= part * max_norm({n: before[n] for n in names})


def _by_slopes(point: Point, candidate: Point) -> float:
    """The fall between two points by the mean of the slopes at both."""
    before, after = point.gradient(), candidate.gradient()
    moves = ((name, candidate.params[name] - value) for name, value in point.params.items())
    return -0.5 * sum(float(((before[name] + after[name]) * move).sum()) for name, move in moves)


def rounding(point: Point) -> float:
    """How small a difference the loss at ``point`` cannot show."""
    return ROUNDING * torch.finfo(point.loss.dtype).eps * abs(point.value)


@dataclass
class TrustRadius:
    """Δ, which follows how steps turn out; None until the first has said how long it ought to be."""

    value: float | None

    def update(self, ratio: float, step: Step, point: Point) -> None:
        """Hear of a step from ``point`` by its ratio of actual to predicted reduction."""
        short = step.on_boundary and step.predicted <= rounding(point)
        if -inf < ratio < POOR and short and self.value is not None:
            # So short a step cannot be judged; a shorter one even less. Only a longer one leads out of here.
            self.value *= LEAP
        elif ratio < POOR and step.length > 0:
            self.value = CUT * step.length
        elif ratio > GOOD and step.on_boundary and self.value is not None:
            self.value *= GROWTH


def without_leap(
    own: Coordinates,
    point: Point,
    solution: Step,
    gradient: Tensor,
    product: Callable[[Tensor], Tensor],
    unit: Tensor | float = 1.0,
) -> Step:
    """A step on which numbers that have an edge go EDGEWARD at most, or half as far as they are.

    Near an edge a quadratic model is none for long. Of the step with these numbers clipped, and of all of it so much
    shorter, it is the one that the model gᵀp + ½ pᵀHp falls by more along.
    Shapes: gradient (d,); product (d,) → (d,); both of parameters times ``unit`` (d,), as the step.
    """
    step, clipped = solution.step, solution.step.clone()
    for name in own.names:
        site = point.sites.get(name)
        if site is not None and site.is_bounded:
            most = torch.clamp(0.5 * point.params[name].reshape(-1).abs(), min=EDGEWARD)
            most = most * (unit if isinstance(unit, float) else unit[own.slices[name]])
            clipped[own.slices[name]] = clipped[own.slices[name]].clamp(-most, most)
    if bool((clipped == step).all()):
        return solution
    part = float((clipped / step)[step != 0].min())

    def fall(one: Tensor) -> float:
        return -float(gradient @ one) - 0.5 * float(one @ product(one))

    best = max(clipped, part * step, key=fall)
    return replace(solution, step=best, predicted=fall(best), length=solution.length * float(best.norm() / step.norm()))


class InsideRadius(Optimizer):
    """An optimizer whose step stays inside a radius, and is taken back where it does not keep its promise."""

    judges = True

    def __init__(self, initial_radius: float | None) -> None:
        if initial_radius is not None and not initial_radius > 0:
            raise OptionError(f"initial_radius must be a positive number, not {initial_radius!r}")
        self.acceptance = Acceptance()
        self.radius = TrustRadius(initial_radius)

    def moved(self, point: Point, step: Tensor) -> Params:
        """Where a flat step (d,) leads."""
        return {name: point.params[name] + move for name, move in self.own(point).unflatten(step).items()}

    def accept(self, point: Point, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        assert proposal.step is not None
        ratio = self.acceptance.ratio(point, candidate, proposal, others)
        self.radius.update(ratio, proposal.step, point)
        return ratio > ACCEPT

    def restart(self) -> None:
        self.acceptance, self.radius = Acceptance(), TrustRadius(None)

    def exhausted(self) -> bool:
        """Whether rounding refuses every step there is."""
        return self.acceptance.exhausted

    def reports(self) -> list[PartReport]:
        return [PartReport(self.name, self.radius.value)]

    def state_dict(self) -> State:
        state: State = {"judge": self.acceptance.state_dict()}
        return state if self.radius.value is None else {**state, "radius": self.radius.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.acceptance.load_state_dict(state["judge"])
        self.radius.value = state.get("radius")


def forcing(point: Point) -> Callable[[float], float]:
    """‖g‖ → how small a residual must be, relative to it: tighter where rounding leaves few steps to be judged."""
    floor = 1e3 * torch.finfo(point.loss.dtype).eps * point.size
    return lambda norm: min(0.5 if norm * norm > floor else 1e-2, sqrt(norm))
