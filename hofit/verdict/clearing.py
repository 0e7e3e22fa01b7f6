"""Back to where the loss is known: from so far out that it, or a number's part in it, is nothing but rounding."""

from __future__ import annotations

from math import inf, isfinite

import torch
from torch import Tensor

from .place import FAINT, FAR_OUT, Place

BELIEVED = 10.0
"""Times the rounding beyond which a slope may be believed where a number has gone far out."""

DRAWN_IN = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0)
"""Steps of e-folds, to both sides, on which it is sought where the loss is known best."""

DRIFTS = 0.01
"""Newton steps of more e-folds are more than what rounding leaves of one to a minimum."""

DRAWN_NEARER = (1.0, 2.0, 3.0)
"""Steps around the best of those, which stand up to eight apart."""

BACK_STEPS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Steps to both sides on which the loss rises, or does not: as far as a number is drawn in, or out."""

TRIED = 8
"""Numbers that are drawn in, at most."""

ROUNDS = 6
"""How often one is, at most."""


def in_the_clear(place: Place) -> Place:
    """From where the loss is nothing but rounding, so near that it can be told what it does."""
    for _ in range(ROUNDS):
        if not place.noise > FAINT * place.point.size:
            break
        there = _drawn_together(place)
        if there is None:
            drawn = drawn_in(place)
            there = None if drawn is None else drawn[0].polished()
        if there is None or torch.equal(there.here, place.here):
            break
        place = there
    return place


def _drawn_together(place: Place) -> Place | None:
    """The nearest place that is clear on the way back of all that have gone far out together; None where there is none.

    One of them leads, the others settle there: a Gamma's shape and rate, whose ratio the data know.
    """
    far = place.bounded & (place.here.abs() > FAR_OUT)
    if int(far.sum()) < 2:
        return None
    leads = torch.arange(len(far)) == int(torch.where(far, place.here.abs(), 0.0).argmax())
    for step in DRAWN_IN:
        for moved in (far, leads):  # one that is far out in its unit alone stays
            there = place.holding(leads).settled(place.here - torch.where(moved, step * place.here.sign(), 0.0))
            clear = there is not None and there.noise <= FAINT * there.point.size
            if there is not None and clear and 0.0 <= there.decrement <= max(there.noise, FAINT * there.point.size):
                return there.holding_only(place.held)
    return None


def drawn_in(place: Place, ended: bool = False) -> tuple[Place, Tensor] | None:
    """The number whose curvature drowns in rounding, drawn in to where the loss is known best, and its way out (d,),
    zero where there is none; None where no number has gone so far out.

    One whose slope may be believed stays where it is, and is told of only once the optimizer has ``ended``.
    """
    found: list[tuple[float, Tensor, Tensor]] = []
    for number in place.drowned.nonzero()[:TRIED, 0].tolist():
        way = place.way_of(number)
        slope, rounding = place.along(place.here, way)
        if abs(slope) > BELIEVED * rounding:
            found += [(rounding, place.here, way)] if ended else []
            continue
        least, best = doubt(place, place.here, way), place.here
        for steps in (DRAWN_IN, DRAWN_NEARER):
            around = best
            for step in (side * step for step in steps for side in (-1.0, 1.0)):
                if least <= place.least_rounding:  # further out nothing is left to be rounded, or to be told
                    break
                found_there = doubt(place, around + step * way, way, least)
                least, best = (found_there, around + step * way) if found_there < least else (least, best)
        found.append((least, best, way))
    for _, where, way in sorted(found, key=lambda one: one[0]):
        out = _way_out(place, where, way)
        there = place.at(where) if out != 0 or bool((where != place.here).any()) else None
        if there is not None:
            return there, out * way
    return None


def _way_out(place: Place, where: Tensor, way: Tensor) -> float:
    """The side, 1 or −1, on which the loss does not rise beyond its rounding where on the other it does; 0 if none."""
    middle, rounding = place.loss_at(where), max(place.least_rounding, place.along(where, way)[1])
    for steps in BACK_STEPS:
        rises = []
        for sign in (1.0, -1.0):
            end = where + sign * steps * way
            rise = place.loss_at(end) - middle
            # Where it cannot be computed nothing is known of it: in single precision e⁻³⁰ has no fourth power.
            rises.append(isfinite(rise) and rise > rounding and rise > place.along(end, way)[1])
        if any(rises):
            return 0.0 if all(rises) else (-1.0 if rises[0] else 1.0)
    return 0.0


def drift(place: Place, there: Place | None) -> Tensor:
    """Numbers with bounded supports, far out, that Newton's step takes further by what the loss does not show: (d,).

    Their curvature is rounding, or so little that the step leads nowhere (``there``). The longest goes an e-fold.
    """
    far = place.bounded & (place.here.abs() > FAR_OUT) & (place.step.abs() > DRIFTS) & (place.step * place.here > 0.0)
    if not bool(far.any()) or (there is not None and place.shows(place.decrement)):
        return torch.zeros_like(place.here)
    return torch.where(far, place.step / place.step.abs().max(), 0.0)


def doubt(place: Place, where: Tensor, outward: Tensor, most: float = inf) -> float:
    """What the loss has left to fall outwards, by its slope, and its rounding there: as far as it is below ``most``."""
    slope, rounding = place.along(where, outward, most)
    return abs(slope) + rounding
