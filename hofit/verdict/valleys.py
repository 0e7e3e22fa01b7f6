"""The floor of a valley, followed by one number with all else settled at every step: where does it lead?

Two numbers may run to infinity together, as in `size · sin(frequency · x)`, where their product stays: of them one is
held further and further out, and the other follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

import torch
from torch import Tensor

from .place import Place, running_away
from .signs import EXPLAINS_AT_MOST

FOLDS = 4.0
"""Unconstrained units that a number with a bounded support goes further at once, where others follow it."""

DOUBLINGS = 30
"""Of the way outwards, until the loss has levelled off."""

LEVEL = 1e-9
"""A fall on twice the way of no more than this part of the loss's unit is none."""

UNBENT = 0.1
"""Of a step of the way, over which no valley bends as much as it falls: there slopes tell what is rounding."""

WAYS_BACK = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Times FOLDS that a number with a bounded support goes back, and twice as far until it has come to where it is one."""

NEARER = (0.125, 0.25, 0.5)
"""Parts of the way between a place where the loss is the same and one where it differs, at which it may differ, too."""

TELLING = 4
"""Falls that do not lose tell that it falls without end."""

LOSING = 0.9
"""Where each fall, on twice the way, is less than this part of the one before, their sum is finite."""


def along_a_valley(place: Place, ended: bool) -> tuple[Place, Tensor, Tensor] | None:
    """The floor of a valley that bends, the number that leads along it, outwards (d,), and a place further in (d,).

    Outwards the loss does not rise, and inwards it does; where inwards it falls, that lower place, and no number. The
    one that leads goes furthest for its size.
    """
    flat = torch.cat([place.signs.zero, place.signs.negative, place.adrift], dim=1)
    if not flat.shape[1] or place.signs.lowest < -EXPLAINS_AT_MOST:
        return None
    bounded, direction = place.bounded, flat[:, 0]
    number = int((direction / torch.where(bounded, FOLDS, place.here.abs().clamp_min(1.0))).abs().argmax())
    leads = torch.arange(len(direction)) == number
    floor = place.holding(leads).polished()
    tangent = direction / direction[number] * (FOLDS if bool(bounded[number]) else float(place.here[number].abs()))
    for sign in (1.0, -1.0) if bool(bounded[number]) else (float(place.here[number].sign()),):
        inner = _first_change_inwards(floor, sign * tangent, bool(bounded[number]))
        if inner is not None and ended and _fall(inner, floor) < 0.0 < _fall(place, inner):
            return inner.holding_only(place.held), torch.zeros_like(tangent), inner.here
        if inner is not None and _fall(inner, floor) > 0.0:
            outer = floor.settled(_ahead(inner.here, floor))
            rises = outer is None or _fall(floor, outer) < 0.0
            return None if rises else (floor.holding_only(place.held), sign * leads.to(tangent), inner.here)
    return None


def _first_change_inwards(floor: Place, way: Tensor, in_folds: bool) -> Place | None:
    """The first place on the way back, all that is not held settled there, whose loss differs; None on a plateau."""
    flat = 0.0
    for steps in _ways_back(floor.here, way) if in_folds else (0.5, 0.75, 0.9, 1.0):
        inner = floor.settled(floor.here - steps * way)
        if inner is None or _fall(inner, floor) == 0.0:
            flat = steps
            continue
        for part in NEARER if _fall(inner, floor) > 0.0 else ():
            # Between the two the loss may rise from nothing to what no valley is followed through.
            nearer = floor.settled(floor.here - (flat + part * (steps - flat)) * way)
            if nearer is not None and _fall(nearer, floor) > 0.0:
                return nearer
        return inner
    return None


def _ways_back(here: Tensor, way: Tensor) -> list[float]:
    """How many times a way (d,) one goes back from a place (d,): to where nothing is left of what goes furthest."""
    ways, furthest = list(WAYS_BACK), float(torch.where(way != 0, here / way, 0.0).max())
    while isfinite(furthest) and ways[-1] < furthest:
        ways.append(2.0 * ways[-1])
    return ways


def led_inwards(place: Place, far: Tensor, edge: Tensor) -> Place | None:
    """A lower place on the way back of the number that has gone furthest for its size, all but the edges settled.

    The first change decides; None where it is a rise, or none, or where others still run: there is no floor.
    """
    leads = torch.arange(len(far)) == int((far / place.here.abs().clamp_min(1.0)).abs().argmax())
    floor = place.holding_only((place.held & (far == 0)) | leads | edge)
    in_folds = bool((floor.holding_only(edge).bounded & leads).any())
    size = FOLDS * far.sign() if in_folds else place.here
    floor = floor.polished()
    inner = _first_change_inwards(floor, torch.where(leads, size, 0.0), in_folds)
    if inner is None or not (_fall(place, inner) > 0.0 < _fall(floor, inner)):
        return None
    return None if bool(running_away(inner, inner.at(inner.here + inner.step)).any()) else inner


def _ahead(before: Tensor, place: Place) -> Tensor:
    """As far again as from another place (d,) to this: in steps where a support is bounded, else in ratios; (d,).

    Or in steps throughout, where the loss is lower so: a model may write a scale as the exponential of its number.
    """
    bounded = place.holding_only(torch.zeros_like(place.held)).bounded
    ratio = torch.where(before * place.here > 0, place.here / before, 1.0)
    steps = 2.0 * place.here - before
    ratios = torch.where(bounded, steps, ratio * place.here)
    return steps if not torch.equal(steps, ratios) and place.loss_at(steps) < place.loss_at(ratios) else ratios


def _fall(before: Place, after: Place) -> float:
    """How much lower a place is than another beyond rounding; 0 where that does not show."""
    fall = before.point.value - after.point.value
    return fall if before.shows(fall) and after.shows(fall) else 0.0


def undiminished(falls: Sequence[float]) -> bool:
    """Whether each of some falls, on ways of which each is twice the one before or as long, is no less than that."""
    return all(after >= LOSING * fall for fall, after in pairwise(falls))


def followed(before: Tensor, place: Place, unit: float) -> tuple[Place, str]:
    """Where it ends, and how (``level``, ``falls`` for ever, ``rises``), on the way from another place (d,) to this.

    All that is not held is settled at every step. What the slopes further out do not bear out is rounding: it is
    ``open`` how the way ends where that hides a fall like those before.
    """
    first, inner = place, before
    falls: list[float] = []
    ends: list[Place] = []
    for _ in range(DOUBLINGS):
        where = _ahead(before, place)
        there = place.settled(where)
        if there is None:
            break
        fall = _fall(place, there)
        most = place.most_of_fall(place.here, torch.where(place.held, where - place.here, 0.0))
        rounding = there.along(there.here, UNBENT * (there.here - place.here))[1]
        level = max(LEVEL * unit, rounding)
        if not level < fall < most:
            break
        falls.append(fall)
        ends.append(there)
        before, place = place.here, there
    hidden = falls and there is not None and max(rounding, there.noise) > LOSING * falls[-1]
    sure = list(falls)  # the last may be rounded by as much as they lose; a single place may be exact by luck
    while sure and max(end.noise for end in ends[: len(sure)][-TELLING:]) > (1.0 - LOSING) * sure[-1]:
        sure.pop()
    while hidden and len(sure) < TELLING:
        further_in = first.settled(inner)
        if further_in is None:
            break
        sure = [_fall(further_in, first), *sure]
        first, inner = further_in, _ahead(first.here, further_in)
    if len(sure) >= 2 and undiminished(sure[-TELLING:]):
        if len(sure) >= TELLING:
            return place, "falls"
        if hidden:
            return place, "open"
    return place, "rises" if falls and there is not None and fall < -level else "level"
