"""Numbers that run away while the loss levels off: to the edge of their support, or to infinity.

On the way there the loss nears its limit as e⁻ᵘ or 1/u: Newton's steps are no shorter and no minimum is ever confirmed.
Such numbers are held far out, the others are settled there, and walks outwards and back show whether the loss levels
off, falls for ever, or is lower inside: there a maximum likelihood by the regular parameter (a variance, a probability)
was passed by a leap.

Source: Self & Liang (1987), "Asymptotic properties of maximum likelihood estimators and likelihood ratio tests under
nonstandard conditions", on what may be said of the others; Albert & Anderson (1984) on separation.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..objective.base import Objective
from ..point import Params, Point
from ..status import Status
from .checks import Finding
from .clearing import doubt, drawn_in, drift, in_the_clear
from .place import FAINT, POLISHED, Place, confirmation, running_away
from .rounding import loss_at
from .valleys import DOUBLINGS, FOLDS, LEVEL, LOSING, TELLING, along_a_valley, followed, led_inwards, undiminished

EDGES = (20.0, 30.0, 40.0)
"""Unconstrained sizes at which an edge may be stood on: e⁻²⁰ is nearer than any data tell, and e⁻⁴⁰ rounds to it."""

OUT, OUTWARD = 4.0, 5
"""How far, and how often, one goes nearer to an edge while the loss shows it."""

MOVES = 1e-3
"""A Newton step of this part of max(1, |u|) moves the number."""

SHOWS = 4.0
"""Times the rounding by which the loss must rise on the way back."""

BACK_PARTS = (0.9, 0.75, 0.5, 0.25, 0.1, 0.0, -0.5, -1.0)
"""What is left of numbers that have run away on the way back from there."""

IDLE = (-4.0, -1.0, 1.0, 4.0)
"""Steps on which the loss stays the same of what it has no part of."""

BACKWARDS = 6
"""Steps back from where the loss shows no more, at most."""

NEAR_NOISE = 1e-2
"""A fall of less than this part of the loss's size is held against the rounding measured there."""

ROUNDS = 6
"""How often more numbers are found to run away once some are held."""

PARTS = (0.5, 0.75, 0.875)
"""Of the way to an edge, at which it is seen whether the loss falls for ever."""

LINEAR_FALL = 0.3
"""A linear fall loses half as much on an eighth of the way as on the quarter before; an exponential one, a tenth."""

LEAST_FALL = 1e-6
"""A fall of less than this part of the loss's size on the quarter of the way before is taken for levelling off."""

BEFORE_CLAMPS = 30.0
"""Unconstrained distance before which no distribution clamps its arguments: eps of double precision is at 36."""

TRIED = 8
"""Numbers that are walked along to see whether the loss falls for ever, at most."""

STRAIGHT = 0.02
"""How far, relative to it, a slope may change on the last half of a way that is straight."""

BACK = 12
"""Doublings of the way back from an edge, until the loss has changed."""


@dataclass(frozen=True, eq=False)
class Limit:
    """``place`` holds what runs away, ``outward`` (d,) says where to; ``lower`` is a place inside that is lower.

    ``falls`` says that the loss falls without end. ``idle`` (d,) are held too: nothing is left of them where the others
    have gone.
    """

    place: Place
    outward: Tensor
    lower: Params | None = None
    falls: bool = False
    idle: Tensor | None = None

    @property
    def running(self) -> Tensor:
        """Which numbers run away, (d,)."""
        return self.outward != 0


def find_limit(start: Place, edge: Tensor, unit: float, refuted: bool = False, ended: bool = True) -> Limit | None:
    """What runs away from a place, and what becomes of the others; None where that explains nothing.

    ``edge`` (d,) are numbers whose values are near the edge of their support; ``unit`` is the loss's; ``refuted`` says
    that the place is known to be no minimum, whatever a Newton step shows, ``ended`` that the optimizer goes no
    further: only then a valley is gone back.
    """
    place = in_the_clear(start)
    came_in = place is not start
    unit = place.point.size if came_in else unit
    edge = edge & ~rises_outwards(place, edge)
    outward = torch.where(edge, place.here.sign(), torch.zeros_like(place.here))
    bent, idle, before = torch.zeros_like(edge), torch.zeros_like(edge), place.here
    place = _on_edges(place.holding(edge), edge, unit) if bool(edge.any()) else place
    for _ in range(ROUNDS):
        place = place.polished() if bool(place.held.any()) else place
        if bool(place.held.all()):
            break
        found = confirmation(place)
        minimum = found.check.ok is True and not place.signs.negative.shape[1]
        minimum &= not place.slope_of_flat > FAINT * unit and (not refuted or bool((outward != 0).any()))
        onward = drift(place, found.there) if ended else torch.zeros_like(place.here)
        minimum &= not bool((onward != 0).any()) and not bool(place.adrift.shape[1])
        if minimum and not bool(place.unseen.any()):
            break
        way = place.step * running_away(place, None if minimum else found.there)
        way = way if bool((way != 0).any()) else onward
        if not bool((way != 0).any()):
            drawn = drawn_in(place, ended)
            valley = along_a_valley(place, ended) if drawn is None and not minimum else None
            if drawn is not None:
                (place, way), came_in = drawn, True
            elif minimum:
                break
            elif valley is not None:
                place, way, before = valley
                if not bool((way != 0).any()):
                    return Limit(place, outward, lower=place.point.params)
                bent = bent | (way != 0)
            elif bool((outward != 0).any()) and bool((left := _left_idle(place)).any()):
                place, idle = place.holding(left), idle | left
            else:
                back = _back_from_a_climb(place) if ended else None
                if back is None:
                    return None
                place = back
        outward = torch.where(way != 0, way, outward)
        place = place.holding(way != 0)
    else:
        return None
    if not bool((outward != 0).any()):
        goes_on = came_in and (place.point.value < start.point.value or start.noise > FAINT * start.point.size)
        return Limit(place, outward, lower=place.point.params) if goes_on else None
    far = torch.where(edge | bent, 0.0, outward)
    if bool((far != 0).any()):
        place, end = _far_out(place, far, unit)
        if end == "rises":
            return Limit(place, outward, lower=place.point.params)
        if end == "open":
            return None
        if end == "falls":
            return Limit(place, outward, falls=True)
    far = torch.where(edge, 0.0, outward)
    if bool((far != 0).any()):
        place = place.polished()
        if not bool(bent.any()):
            in_folds = place.holding_only(edge).bounded
            before = torch.where(
                in_folds, place.here - FOLDS * far.sign(), torch.where(far != 0, 0.5, 1.0) * place.here
            )
            inner = led_inwards(place, far, edge)
            if inner is not None and ended:
                return Limit(place, outward, lower=inner.point.params)
            if inner is not None or not _rises_inwards(place, far):
                return None
        place, end = followed(before, place, unit)
        if end == "open":
            return None
        if end != "level":
            return Limit(place, outward, place.point.params if end == "rises" else None, end == "falls")
    for number in edge.nonzero()[:, 0].tolist():
        if _falls_for_ever(place, number):
            return Limit(place, outward, falls=True)
        lower = _lower_inside(place, number)
        if lower is not None:
            return Limit(place, outward, lower=lower)
    return Limit(place.polished() if place.decrement > POLISHED * place.objective.unit else place, outward, idle=idle)


def _left_idle(place: Place) -> Tensor:
    """Numbers whose curvature the loss does not show, and that do not move it: a correlation beside one of ±1. (d,)"""
    idle = place.unseen.clone()
    for number in idle.nonzero()[:, 0].tolist():
        ends = [place.here + step * place.way_of(number) for step in IDLE]
        idle[number] = not any(_differs(place, end) for end in ends)
    return idle


def _differs(place: Place, where: Tensor) -> bool:
    """Whether the loss elsewhere is another, beyond its rounding at either place."""
    change = place.loss_at(where) - place.point.value
    return isfinite(change) and place.shows(change) and place.shows_at(where, change)


def _back_from_a_climb(place: Place) -> Place | None:
    """Where Newton's step climbs, as it does along a valley whose floor bends downwards: as far back as it is long.

    There the loss is higher, all that hardly moves settled, and steps lead out again, to where the fit goes on: it was
    stuck, and that may be a little higher. None where the step does not climb.
    """
    far = place.step.abs() >= MOVES * torch.clamp(place.here.abs(), min=1.0)
    if not place.decrement < 0.0 or not bool(far.any()):
        return None
    step = torch.where(far, place.step.abs().clamp_min(1.0), 0.0)
    for times in (1.0, 2.0, 4.0, 8.0, 16.0):
        back = torch.minimum(times * step, (1.0 - 0.5**times) * place.here.abs()) * place.here.sign()
        rise = place.loss_at(place.here - back) - place.point.value
        if rise > 0.0 and place.shows(rise / SHOWS):
            there = place.at(place.here - back)
            return None if there is None else there.holding(far).polished().holding_only(place.held)
    return None


def _rises_inwards(place: Place, far: Tensor) -> bool:
    """Whether the first change of the loss on the straight way back is a rise: on a plateau there is none."""
    for part in BACK_PARTS:
        change = place.loss_at(torch.where(far != 0, part * place.here, place.here)) - place.point.value
        if place.shows(0.5 * change):
            return change > 0.0
    return False


def rises_outwards(place: Place, edge: Tensor) -> Tensor:
    """Which numbers only look as if they were on an edge, in whatever unit: further out the loss is higher. (d,)"""
    rises = torch.zeros_like(edge)
    for number in edge.nonzero()[:, 0].tolist():
        rise = place.loss_at(place.here + place.here.sign() * place.way_of(number)) - place.point.value
        rises[number] = rise > 0.0 and place.shows(0.5 * rise)
    return rises


def _on_edges(place: Place, edge: Tensor, unit: float) -> Place:
    """On the edges as near as the loss shows, and no further: there it could be computed less well."""
    found = place
    for size in EDGES:
        there = place.at(torch.where(edge, place.here.clamp(-size, size), place.here))
        rise = inf if there is None else there.point.value - place.point.value
        if there is not None and (rise <= 1e2 * LEVEL * unit or not place.shows(rise)):
            found = there
            break
    outward = torch.where(edge, found.here.sign(), torch.zeros_like(found.here))
    here, value = found.here, found.point.value
    for _ in range(OUTWARD):
        loss = place.loss_at(here + OUT * outward)
        fall = value - loss
        if not (LEVEL * unit < fall < place.most_of_fall(here, OUT * outward) and found.shows(fall)):
            break
        here, value = here + OUT * outward, loss
    return found if here is found.here else place.at(here) or found


def _far_out(place: Place, outward: Tensor, unit: float) -> tuple[Place, str]:
    """Where the walk along a direction ended, all else held, and how: the loss is ``level`` there, or ``rises`` beyond.

    ``falls`` where it falls for ever, ``open`` where it cannot be told.
    """
    before, distance, end = place.point.value, 1.0, "open"
    falls: list[float] = []
    reached, level = place.here, LEVEL * unit

    def shows(change: float, where: Tensor) -> bool:
        near = abs(change) < NEAR_NOISE * place.point.size
        return abs(change) > level and place.shows(change) and (not near or place.shows_at(where, change))

    for _ in range(DOUBLINGS):
        where = place.here + distance * outward
        loss = place.loss_at(where)
        fall = before - loss
        seen = not isfinite(loss) or shows(fall, where)
        if seen and fall < 0.0:
            loses = len(falls) < 2 or not undiminished(falls[-2:])
            if isfinite(loss):  # a rise within rounding may hide a fall like those before
                end = "rises" if -fall > place.along(where, outward)[1] else "level" if loses else "open"
            break
        if not seen:
            # On a plateau the loss between two places is no lower than at both; in a valley they stand on its two
            # sides: Newton's step to a minimum like u⁴ goes a third of the way, and two and four of them end alike.
            middle = reached + 0.5 * (where - reached)
            between = place.loss_at(middle)
            lower = min(before, loss) - between
            rounding = max(place.along(at, outward)[1] for at in (middle, where)) if lower > 0.0 else inf
            if lower > rounding and shows(lower, middle):
                reached, before, end = middle, between, "rises"
                break
        jumps = len(falls) >= 2 and falls[-1] < LOSING * falls[-2] < LOSING * fall
        if not seen or jumps:  # and no further: there the loss may be rounded the more
            end = "level"
            break
        reached, before, distance = where, loss, 2.0 * distance
        falls.append(fall)
    while end == "level" and distance >= 1.0 and falls:
        distance *= 0.5  # between the last place and the one where the loss no longer showed a fall
        where = reached + 0.5 * distance * outward
        loss = place.loss_at(where)
        fall = before - loss
        if fall > level and isfinite(loss) and place.shows_at(where, fall):
            reached, before = where, loss
    if end == "level":
        reached = _where_it_is_known_best(place, reached, outward, unit)
    if end == "open" and len(falls) > TELLING and undiminished(falls[-TELLING:]):
        end = "falls"
    if end == "rises" and not (before < place.point.value and shows(place.point.value - before, reached)):
        end = "open"
    return place.at(reached) or place, end


def _where_it_is_known_best(place: Place, reached: Tensor, outward: Tensor, unit: float) -> Tensor:
    """Back from where the loss has levelled off, to where what is left to fall and its rounding are least together."""
    best, least = reached, doubt(place, reached, outward)
    for steps in range(1, BACKWARDS + 1):
        if least <= LEVEL * unit:
            break
        where = reached - steps * outward
        found = doubt(place, where, outward, least)
        best, least = (where, found) if found < least else (best, least)
    return best


def falling_numbers(objective: Objective, point: Point, tolerance: float, far: float) -> list[str]:
    """Numbers, in the user's terms, that the loss falls along for ever: on each doubling of them by no less.

    Where it cannot be computed further out, a slope that was the same all the way from half of it tells. Only numbers
    beyond ``far`` are asked: nearer, a minimum may still be ahead.
    """
    coordinates, gradient = Coordinates.of(point.params), point.gradient()
    here, slope = coordinates.flatten(point.params), coordinates.flatten(gradient)
    outwards = (slope * here.sign() < -tolerance) & (here.abs() > far)
    chosen = (outwards.nonzero()[:, 0])[slope[outwards].abs().argsort(descending=True)][:TRIED]

    def loss_of(number: int, part: float) -> float:
        where = here.clone()
        where[number] *= part
        return loss_at(objective, coordinates.unflatten(where))

    found = []
    for number in chosen.tolist():
        losses = [loss_of(number, part) for part in (0.5, 1.0, 2.0, 4.0, 8.0)]
        falls = [before - after for before, after in pairwise(losses)]
        endless = min(falls) > 0 and undiminished(falls)
        if not isfinite(losses[2]):
            inner = [loss_of(number, part) for part in (*PARTS, 1.0)]
            steps = [before - after for before, after in pairwise(inner)]
            endless = abs(steps[1] - 0.5 * steps[0]) < STRAIGHT * steps[0] > 0.0
            endless &= abs(steps[2] - steps[1]) < STRAIGHT * steps[1]
        if endless:
            found.append(coordinates.call(number))
    return found


def settled_on_edges(objective: Objective, point: Point, names: list[str]) -> Finding:
    """How a fit ends whose values have come to the edge of their support, where no curvature can be had."""
    losses = []
    for part in PARTS:
        moved = {name: part * point.params[name].clamp(-BEFORE_CLAMPS, BEFORE_CLAMPS) for name in names}
        losses.append(loss_at(objective, {**point.params, **moved}))
    listed, one = ", ".join(names), len(names) == 1
    if _is_linear(losses, point.size):
        remark = f"the loss falls without end as {listed} {'nears' if one else 'near'} the edge of the support"
        return Finding(status=Status.UNBOUNDED, remark=f"unbounded (diverges): {remark}")
    remark = f"boundary: {listed} {'runs' if one else 'run'} to the edge of the support"
    return Finding(status=Status.CONVERGED_ON_BOUNDARY, remark=remark)


def _is_linear(losses: list[float], size: float) -> bool:
    """Whether the loss falls to the end of the way as it did before: losses at PARTS of it."""
    first, second = losses[0] - losses[1], losses[1] - losses[2]
    return first > LEAST_FALL * size and second > LINEAR_FALL * first


def _falls_for_ever(place: Place, number: int) -> bool:
    """Whether the loss falls without end towards an edge, until a distribution's own clamp stops it.

    Towards a finite loss it falls as the value nears the edge, exponentially in the unconstrained u; towards −inf as
    the logarithm of that, linearly in u.
    """
    losses, most = [], 0.0
    for part in PARTS:
        where = place.here.clone()
        where[number] = part * float(where[number].clamp(-BEFORE_CLAMPS, BEFORE_CLAMPS))
        most = most or place.most_of_fall(where, (PARTS[-1] - part) / part * (where * place.way_of(number)))
        losses.append(place.loss_at(where))
    return _is_linear(losses, place.point.size) and losses[0] - losses[-1] < most


def _lower_inside(place: Place, number: int) -> Params | None:
    """The lowest place on the way back from an edge, where that is lower; the first change beyond rounding decides."""
    unit = place.here.sign() * place.way_of(number)
    here, whole = place.point.value, float(place.here[number].abs())
    distance, loss = 0.5, here
    for _ in range(BACK):
        loss = place.loss_at(place.here - distance * unit)
        if place.shows(0.5 * (loss - here)) or distance > whole + 4.0:
            break
        distance *= 2.0
    if not (loss < here and place.shows(0.5 * (here - loss))):
        return None
    best = distance
    while distance < whole + 8.0:
        distance += 1.0
        further = place.loss_at(place.here - distance * unit)
        if not further < loss:
            break
        best, loss = distance, further
    return place.coordinates.unflatten(place.here - best * unit)


def lower_along(place: Place, directions: Tensor, distances: tuple[float, ...]) -> Params | None:
    """The lowest place on walks both ways along directions (d, k), where that is lower beyond rounding."""
    best, found = place.point.value - 2.0 * place.noise, None
    for direction in directions.unbind(1):
        along = direction / max(1.0, float(direction.abs().max()))
        for distance in distances:
            for sign in (1.0, -1.0):
                where = place.here + sign * distance * along
                loss = place.loss_at(where)
                if -inf < loss < best:
                    best, found = loss, where
    return None if found is None else place.coordinates.unflatten(found)
