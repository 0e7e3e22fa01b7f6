"""What may be said of a point: is it a minimum? Every claim rests on derivatives computed anew at the point itself.

Where the structure makes the Hessian affordable, `converged` also needs positive curvature and a confirming step: a
full Newton step divides the decrement by at least 100, or is itself no more than 1e-8 standard errors. A plateau
or an escape to infinity has a small gradient and fails it. Where only products with the Hessian can be had, a few of
them look for a way down: they can refute a minimum, not prove one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from ..coordinates import HEAVY, Coordinates
from ..curvature.structure import Curvature
from ..errors import ModelError
from ..linear.matrix_free import MatrixFree
from ..objective.base import Objective
from ..point import Params, Point, max_norm
from ..status import Status
from .checks import Check, Finding, StopRules, StopState, Verdict
from .edges import UNBOUNDED_EDGE, edge_numbers, names_at_edge, where_to
from .limits import EDGES, find_limit, lower_along, rises_outwards, settled_on_edges
from .place import FAINT, POLISHED, Confirmation, Place, confirmation, running_away
from .refute import PROBES, matters, refuted_by_probes, refuted_by_rises, refuted_by_walks
from .signs import DENSE_LIMIT

NEAR = 100.0
"""Where the curvature is not known, a fit is nearly there within this factor of the gradient's tolerance."""

HOPELESS = 1e4
"""Beyond this factor of the gradient's tolerance no curvature is computed: it could not make a minimum of the point."""

FAR = 1e-6
"""A minimum is not further below than this part of the loss's size, by the quadratic model."""

DECREMENT = 1e-12
"""The decrement's tolerance where the config gives none, relative to the loss's size."""

LEFT = 1e-3
"""A decrement of more than this part of one observation's weight is no end of a way to infinity."""

SADDLE_WALKS = (0.01, 0.1, 1.0, 10.0)
"""How far walks go from a saddle along its directions of negative curvature, whose largest entry is one
at most."""

DROWNED = 1e5
"""Units of eps · the loss's size from which on its rounding hides what is flat, in any precision."""

FLAT_WALKS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""As SADDLE_WALKS, along directions of no curvature."""

FLOOR_WALKS = (0.1, 1.0)
"""How far the floor of a valley is followed, in units of the curvature of single numbers."""

INSIDE = 4.0
"""Unconstrained size at which a value is clearly not at the edge of its support."""


def judge_end(objective: Objective, params: Params, stop: StopRules, curvature: Curvature | None = None) -> Verdict:
    """The verdict on where a fit has ended, taken anew of a run that is opened again."""
    state = StopState(stalled=True, rounding=True, final=True)
    return judge(objective, params, curvature or Curvature(), stop, state)


def judge(objective: Objective, params: Params, curvature: Curvature, stop: StopRules, state: StopState) -> Verdict:
    """Look at ``params`` on the full plates, with a trace and a gradient of its own.

    ``curvature`` is the verdict's own, over all parameters, and keeps what it learned from one verdict to the next.
    """
    point = objective.at_full(params)
    if point.failure is not None or not isfinite(point.value):
        explained = point.failure or objective.explain_non_finite(params)
        check = Check("loss", False, point.value, explained)
        failed = Verdict(Status.NON_FINITE, float("nan"), point.value, checks=[check])
        failed.lower = _back_from_the_edge(objective, params)
        return failed
    gradient = point.gradient()
    norm = max_norm(gradient)
    verdict = Verdict(None, norm, point.value, point=point)
    if not isfinite(norm):
        bad = [name for name, g in gradient.items() if not bool(torch.isfinite(g).all())]
        check = Check("gradient", False, norm, f"the gradient is not finite in {', '.join(bad)}")
        verdict.take(Finding(check, Status.NON_FINITE))
        return verdict
    tolerance = gradient_tolerance(objective, stop)
    small = norm <= tolerance
    verdict.take(Finding(Check("gradient", small, norm, f"max-norm {norm:.3g}, tolerance {tolerance:.3g}")))
    at_edge = names_at_edge(objective, point)
    unused = [
        name
        for name, g in gradient.items()
        if g.numel() and name not in at_edge and not bool(g.any()) and not matters(objective, point, name)
    ]
    for name in unused:
        message = f"the loss does not depend on {name!r}"
        verdict.take(Finding(Check("used", False, 0.0, message), remark=f"unused: {message}"))
    gone = state.final and bool(edge_numbers(objective, params).any())
    if not small and not state.stalled and not gone and norm > HOPELESS * tolerance:
        verdict.take(Finding(Check("curvature", None, None, "not checked: the gradient is far from small")))
        return verdict
    minimum = Status.FLAT_DIRECTION if unused else Status.CONVERGED
    try:
        verdict.hessian = curvature.at(point, list(point.params))
    except ModelError as error:
        verdict.take(Finding(Check("curvature", None, None, f"not checked: {error}")))
        if small and not at_edge:
            remark = f"curvature was not checked ({error}): the verdict rests on the gradient alone"
            verdict.take(Finding(status=minimum, remark=remark))
        return verdict
    questions = _Questions(objective, point, stop, state, norm, at_edge)
    if isinstance(verdict.hessian, MatrixFree):
        for finding in questions.by_products(minimum):
            verdict.take(finding)
    else:
        unread = Coordinates.of(params).flatten(
            {n: objective.program.unread.get(n, torch.zeros_like(v, dtype=torch.bool)) for n, v in params.items()}
        )
        place = Place.of(objective, curvature, point, verdict.hessian, unread)
        for finding in questions.by_curvature(place):
            verdict.take(finding)
        settled = questions.settled
        if settled is not None:
            verdict.settle(settled.point, settled.hessian, settled.held)
            verdict.limiting = questions.limiting
    return verdict


def gradient_tolerance(objective: Objective, stop: StopRules) -> float:
    """``stop.gradient``, in the loss's own unit where that is larger than one."""
    return stop.gradient * max(1.0, objective.unit)


@dataclass
class _Questions:
    """What is asked of the curvature at a point whose gradient is known, in order, until the answer is settled.

    ``settled`` is where an answer was found that ends the fit: at the point itself or a few Newton steps from it.
    """

    objective: Objective
    point: Point
    stop: StopRules
    state: StopState
    norm: float
    at_edge: list[str]
    settled: Place | None = None
    limiting: Params = field(default_factory=dict)
    """Name → which values of a site run to a limit, in its shape."""

    @property
    def small(self) -> bool:
        return self.norm <= self.gradient_tolerance

    @property
    def gradient_tolerance(self) -> float:
        return gradient_tolerance(self.objective, self.stop)

    @cached_property
    def edge(self) -> Tensor:
        """Which numbers of the judged point stand near an edge of their support, (d,)."""
        return edge_numbers(self.objective, self.point.params)

    @property
    def unit(self) -> float:
        return self.point.size

    @property
    def tolerance(self) -> float:
        return self.stop.decrement if self.stop.decrement is not None else DECREMENT * self.unit

    def by_curvature(self, place: Place) -> Iterator[Finding]:
        """Where the Hessian is affordable."""
        if not isfinite(place.hessian.largest()):
            yield Finding(Check("curvature", None, None, "not checked: the Hessian is not finite"))
            back = self._back(place) if self.state.ends else None
            yield from self._of_limits(back, False) if back is not None else ()
            return
        yield Finding(place.signs.check())
        decrement, tolerance = place.decrement, self.tolerance
        within = 0 <= decrement <= tolerance
        yield Finding(Check("decrement", within, decrement, f"a Newton step lowers the loss by {decrement:.3g}"))
        found = confirmation(place)
        yield Finding(found.check)
        settles = self.small or (self.state.stalled and within)
        if not settles and not self.state.ends:
            return
        regular = settles and found.check.ok and decrement <= FAR * self.unit
        if regular and not self.small and not self.state.rounding:
            yield Finding(nearly=True)
            return
        there = found.there
        stuck = found.check.ok and not settles and self.state.judged
        if stuck and there is not None and there.point.value < place.point.value:  # short of what a Newton step reaches
            yield Finding(lower=there.point.params)
            return
        best = _better(place, found) if regular else place
        if regular and not best.signs.negative.shape[1]:
            edge = self.edge & ~place.held
            if not best.signs.zero.shape[1]:
                # What lies on an edge may look like a minimum by rounding; further out the loss would rise.
                gone = bool((edge & ~rises_outwards(best, edge)).any()) or _still_running(best)
                limits = list(self._of_limits(best, settles)) if gone else []
                yield from limits or self._of_minimum(best, decrement)
                return
            heavy = (best.signs.zero.abs() / best.signs.zero.norm(dim=0)).amax(1) > HEAVY
            if not bool((heavy & edge).any()):
                hidden = bool((heavy & best.unseen).any()) or bool(best.adrift.shape[1])
                limits = list(self._of_limits(best, settles)) if hidden else []
                yield from limits or self._of_flat(best, decrement)
                return
        limits = list(self._of_limits(best, settles))
        if limits:
            yield from limits
        elif best.signs.negative.shape[1] and settles and self.state.ends:  # before that, the optimizer may leave it
            lower = lower_along(best, best.signs.negative, SADDLE_WALKS)
            remark = f"saddle: the curvature is negative along {best.coordinates.label(best.signs.negative)}"
            yield Finding(lower=lower) if lower is not None else Finding(status=Status.SADDLE, remark=remark)

    def _back(self, place: Place) -> Place | None:
        """From a place so near an edge that its Hessian is not finite, the others settled where it is."""
        for size in reversed(EDGES):
            there = place.at(torch.where(self.edge, place.here.clamp(-size, size), place.here))
            if there is not None:
                return there.holding(self.edge).polished().holding_only(place.held)
        return None

    def _of_minimum(self, place: Place, decrement: float) -> Iterator[Finding]:
        hidden = bool(place.unseen.any()) or bool(place.adrift.shape[1])
        limits = list(self._of_limits(place, True)) if hidden else []
        if limits:
            yield from limits
            return
        faint = place.signs.faint(place.here, FAINT * self.unit)
        faint = place.signs.faint(place.here, place.rounding) if faint.shape[1] else faint
        refuted = refuted_by_walks(place, faint, self.state) if faint.shape[1] else None
        refuted = refuted or refuted_by_rises(place, self.state)
        if refuted is not None:
            yield from self._or_a_limit(place, refuted)
            return
        self.settled = place
        yield self._converged(decrement)

    def _or_a_limit(self, place: Place, refuted: Finding) -> Iterator[Finding]:
        """Of a point that looks like a minimum and is refuted: something may run away."""
        yield from (list(self._of_limits(place, True, refuted=True)) if self.state.ends else []) or [refuted]

    def _of_flat(self, place: Place, decrement: float) -> Iterator[Finding]:
        """Of a confirmed point with directions of no curvature."""
        flat = place.signs.zero
        directions = place.coordinates.label(flat)
        slope = place.slope_of_flat
        if not self.small and slope > self.tolerance**0.5:
            check = Check("flat", False, slope, f"the loss slopes by {slope:.3g} along {directions}")
            yield from self._or_a_limit(place, Finding(check))
            return
        if place.noise > max(FAINT, DROWNED * torch.finfo(place.here.dtype).eps) * place.point.size:
            remark = f"the loss is rounded by {place.noise:.3g}: what has no curvature here may have any"
            yield from self._or_a_limit(place, Finding(Check("flat", False, place.noise, remark)))
            return
        sides = {_side(place, direction) for direction in flat.unbind(1)} if flat.shape[0] <= DENSE_LIMIT else {"flat"}
        if sides == {"up"}:  # faint, and yet a minimum
            yield from self._of_minimum(place, decrement)
            return
        if "down" in sides:
            lower = lower_along(place, flat, FLAT_WALKS) if self.state.ends else None
            check = Check("flat", False, None, f"the loss has no curvature but falls along {directions}")
            status = Status.NO_PROGRESS if self.state.ends and lower is None else None
            yield from self._or_a_limit(place, Finding(check, status, lower=lower))
            return
        refuted = refuted_by_walks(place, flat, self.state)
        if refuted is not None:
            yield from self._or_a_limit(place, refuted)
            return
        self.settled = place
        yield Finding(status=Status.FLAT_DIRECTION, remark=_flat_remark(place, flat))

    def _of_limits(self, place: Place, settles: bool, refuted: bool = False) -> Iterator[Finding]:
        """Of a point that is no minimum: does something run to an edge, or away, while all else settles?"""
        edge = self.edge
        if not settles and not self.state.ends and not bool(edge.any()):
            return
        if not bool(edge.any()) and not self.state.ends and place.decrement > LEFT * self.objective.unit:
            return  # in whatever unit the gradient is small: there is a way to go
        limit = find_limit(place, edge & ~place.held, self.unit, refuted, self.state.ends)
        if limit is None:
            return
        there = limit.place
        if limit.lower is not None:
            yield Finding(lower=limit.lower)
            return
        back = there.here.clamp(-INSIDE, INSIDE)
        back = torch.where(there.here == back, back - INSIDE * limit.outward.sign(), back)
        inner = there.coordinates.unflatten(torch.where(limit.running, back, there.here))
        going = where_to(self.objective, inner, there.point.params, limit.running)
        listed = ", ".join(word for site in going for word in site.words)
        if limit.falls:
            remark = f"unbounded (diverges): the loss falls without end as {listed}"
            yield Finding(status=Status.UNBOUNDED, remark=remark)
            return
        left = float(there.gradient.abs().max())
        if left > self.gradient_tolerance and not 0 <= there.decrement <= max(self.tolerance, there.noise):
            return
        names = [site.name for site in going]
        at_edge = all(self.objective.sites[name].is_bounded for name in names)
        what = "to the edge of the support" if at_edge else "away while the loss levels off"
        self.settled, self.limiting = there, {site.name: site.values for site in going}
        remark = (
            f"boundary: {', '.join(names)} {'runs' if len(names) == 1 else 'run'} {what} ({listed}): "
            f"the loss tends to {there.point.value:.10g}"
        )
        yield Finding(status=Status.CONVERGED_ON_BOUNDARY, remark=remark)
        flat = there.signs.zero
        if limit.idle is not None:
            flat = torch.cat([flat, torch.eye(len(limit.idle)).to(flat)[:, limit.idle]], 1)
        if flat.shape[1]:
            yield Finding(remark=_flat_remark(there, flat))

    def _converged(self, decrement: float) -> Finding:
        if self.small:
            return Finding(status=Status.CONVERGED)
        remark = (
            f"precision: rounding limits the gradient to {self.norm:.3g}; "
            f"a Newton step could lower the loss by {decrement:.3g} only"
        )
        return Finding(status=Status.CONVERGED, remark=remark)

    def by_products(self, minimum: Status) -> Iterator[Finding]:
        """Where no structure makes the Hessian affordable. ``minimum`` is how a fit ends that nothing refutes."""
        state, size = self.state, sum(p.numel() for p in self.point.params.values())
        message = f"not checked: {size} unknowns, and no structure that would make their Hessian affordable"
        yield Finding(Check("curvature", None, None, message))
        gone = names_at_edge(self.objective, self.point, UNBOUNDED_EDGE)
        if not self.small:
            yield Finding(nearly=state.stalled and not state.rounding and self.norm <= NEAR * self.gradient_tolerance)
        elif not gone:
            refuted = refuted_by_probes(self.point)
            check = Check("probes", refuted is None, None, refuted or "no probe found a way down")
            if refuted is None:
                remark = f"curvature was {message}; the verdict rests on the gradient and {2 * PROBES} probes"
                yield Finding(check, minimum, remark)
            else:
                yield Finding(check, Status.NO_PROGRESS if state.ends else None)
        elif state.stalled:
            yield settled_on_edges(self.objective, self.point, gone)


def _better(place: Place, found: Confirmation) -> Place:
    """Where the confirming step led, if the gradient is smaller there."""
    there = found.there
    if there is not None and there.decrement > POLISHED * place.objective.unit:
        there = there.polished()
    if there is None or not float(there.gradient.abs().max()) < float(place.gradient.abs().max()):
        return place
    return there


def _still_running(place: Place) -> bool:
    """Whether a number runs away that the steps of others have hidden."""
    if place.decrement <= POLISHED * place.objective.unit:
        return False
    again = confirmation(place)
    return not again.check.ok and bool(running_away(place, again.there).any())


def _side(place: Place, direction: Tensor) -> str:
    """What the floor of the valley does along a direction: ``flat``, ``up`` on both sides, or ``down``."""
    noise = 4.0 * place.noise
    # First no further than half the size of any number: a standard error may be longer than the valley.
    unit = direction / (direction / place.signs.scale).norm() * place.objective.unit**0.5
    near = 0.5 * float((place.here.abs().clamp_min(1.0) / unit.abs()).min())
    for distance in (*(min(near, 1.0) * walk for walk in FLOOR_WALKS), *FLOOR_WALKS):
        changes = [place.floor(direction, sign * distance) for sign in (1.0, -1.0)]
        if min(changes) < -noise:
            return "down"
        if min(changes) > noise:
            return "up"
    return "flat"


def _flat_remark(place: Place, directions: Tensor) -> str:
    return f"flat direction (singular): the loss has no curvature along {place.coordinates.label(directions)}"


def _back_from_the_edge(objective: Objective, params: Params) -> Params | None:
    """From a place so near an edge that nothing can be computed there, the nearest where it can; None if none."""
    for size in reversed(EDGES):
        edge = edge_numbers(objective, params)
        coordinates = Coordinates.of(params)
        here = coordinates.flatten(params)
        back = coordinates.unflatten(torch.where(edge, here.clamp(-size, size), here))
        point = objective.at_full(back)
        if point.failure is None and isfinite(point.value) and isfinite(max_norm(point.gradient())):
            return back
    return None
