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

from ..point import Params
from .place import Place, confirmation, running_away

EDGES = (20.0, 30.0, 40.0)
"""Unconstrained sizes at which an edge may be stood on: e⁻²⁰ is nearer than any data tell, and e⁻⁴⁰ rounds to it."""

OUT, OUTWARD = 4.0, 5
"""How far, and how often, one goes nearer to an edge while the loss shows it."""

ROUNDS = 4
"""How often more numbers are found to run away once some are held."""

DOUBLINGS = 30
"""Of the way outwards, until the loss has levelled off."""

LEVEL = 1e-9
"""A fall on twice the way of no more than this part of the loss's unit is none."""

LOSING = 0.9
"""Where each fall, on twice the way, is less than this part of the one before, their sum is finite."""

BACK = 12
"""Doublings of the way back from an edge, until the loss has changed."""


@dataclass(frozen=True, eq=False)
class Limit:
    """``place`` holds what runs away, ``outward`` (d,) says where to; ``lower`` is a place inside that is lower.

    ``falls`` says that the loss falls without end.
    """

    place: Place
    outward: Tensor
    lower: Params | None = None
    falls: bool = False

    @property
    def running(self) -> Tensor:
        """Which numbers run away, (d,)."""
        return self.outward != 0


def find_limit(start: Place, edge: Tensor, unit: float) -> Limit | None:
    """What runs away from a place, and what becomes of the others; None where that explains nothing.

    ``edge`` (d,) are numbers whose values are near the edge of their support; ``unit`` is the loss's.
    """
    edge = edge & ~_rises_outwards(start, edge)
    outward = torch.where(edge, start.here.sign(), torch.zeros_like(start.here))
    place = _on_edges(start.holding(edge), edge, unit) if bool(edge.any()) else start
    for _ in range(ROUNDS):
        place = place.polished() if bool(place.held.any()) else place
        if bool(place.held.all()):
            break
        found = confirmation(place)
        if found.check.ok and not place.signs.negative.shape[1]:
            break
        running = running_away(place, found.there)
        if not bool(running.any()):
            return None
        outward = torch.where(running, place.step / place.step[running].abs().max(), outward)
        place = place.holding(running)
    else:
        return None
    far = torch.where(edge, 0.0, outward)
    if bool((far != 0).any()):
        place, falls = _far_out(place, far, unit)
        if falls:
            return Limit(place, outward, falls=True)
        place = place.polished()
    for number in (outward != 0).nonzero()[:, 0].tolist() if bool(edge.any()) else []:
        if not bool(edge[number]):
            continue
        kind, lower = _inside(place, number, float(outward[number]))
        if kind == "lower":
            return Limit(place, outward, lower=lower)
        if kind == "falls":
            return Limit(place, outward, falls=True)
    return Limit(place, outward)


def _rises_outwards(place: Place, edge: Tensor) -> Tensor:
    """Which numbers only look as if they were on an edge, in whatever unit: further out the loss is higher. (d,)"""
    rises = torch.zeros_like(edge)
    for number in edge.nonzero()[:, 0].tolist():
        where = place.here.clone()
        where[number] += float(where[number].sign())
        rises[number] = place.loss_at(where) - place.point.value > 2.0 * place.noise
    return rises


def _on_edges(place: Place, edge: Tensor, unit: float) -> Place:
    """On the edges as near as the loss shows, and no further: there it could be computed less well."""
    found = place
    for size in EDGES:
        there = place.at(torch.where(edge, place.here.clamp(-size, size), place.here))
        if there is not None and there.point.value <= place.point.value + max(place.noise, 1e2 * LEVEL * unit):
            found = there
            break
    outward = torch.where(edge, found.here.sign(), torch.zeros_like(found.here))
    here, value = found.here, found.point.value
    for _ in range(OUTWARD):
        loss = place.loss_at(here + OUT * outward)
        if not value - loss > max(found.noise, LEVEL * unit):
            break
        here, value = here + OUT * outward, loss
    return found if here is found.here else place.at(here) or found


def _far_out(place: Place, outward: Tensor, unit: float) -> tuple[Place, bool]:
    """Where the loss has levelled off along a direction, all else held; and whether it falls for ever instead."""
    before, distance, falls = place.point.value, 1.0, []
    reached = place.here
    for _ in range(DOUBLINGS):
        where = place.here + distance * outward
        loss = place.loss_at(where)
        fall = before - loss
        if not isfinite(loss) or fall < -place.noise:
            break
        reached, before, distance = where, loss, 2.0 * distance
        falls.append(fall)
        if fall <= max(place.noise, LEVEL * unit):
            break
    there = place.at(reached)
    late = falls[-4:]
    endless = len(falls) >= 5 and late[-1] > max(place.noise, LEVEL * unit)
    endless &= all(after >= LOSING * fall for fall, after in pairwise(late))
    return there or place, endless


def _inside(place: Place, number: int, outward: float) -> tuple[str, Params | None]:
    """What the loss does on the way back from an edge: ``rises``, or ``lower`` with the lowest place.

    ``falls`` where it falls without end towards the edge. The first change that is no rounding decides.
    """
    unit = torch.zeros_like(place.here)
    unit[number] = 1.0 if outward > 0 else -1.0
    noise = 2.0 * place.noise
    here = place.point.value
    out = place.loss_at(place.here + unit)
    losses, distances = [], []
    distance = 0.5
    for _ in range(BACK):
        loss = place.loss_at(place.here - distance * unit)
        change = loss - here
        losses.append(loss)
        distances.append(distance)
        if abs(change) > noise or distance > float(place.here[number].abs()) + 4.0:
            break
        distance *= 2.0
    if not losses[-1] - here < -noise:
        further = here - out
        endless = further > noise and further >= LOSING * 2.0 * (losses[0] - here)
        return ("falls" if endless else "rises"), None
    while isfinite(losses[-1]) and distance < float(place.here[number].abs()) + 8.0:
        distance += 1.0
        loss = place.loss_at(place.here - distance * unit)
        if not loss < losses[-1]:
            break
        losses.append(loss)
        distances.append(distance)
    best = distances[losses.index(min(losses))]
    return "lower", place.coordinates.unflatten(place.here - best * unit)


def lower_along(place: Place, directions: Tensor, distances: tuple[float, ...]) -> Params | None:
    """The lowest place on walks both ways along directions (d, k), where that is lower beyond rounding."""
    best, found = place.point.value - 2.0 * place.noise, None
    for direction in directions.unbind(1):
        along = direction / direction.abs().max() if bool(direction.any()) else direction
        for distance in distances:
            for sign in (1.0, -1.0):
                where = place.here + sign * distance * along
                loss = place.loss_at(where)
                if -inf < loss < best:
                    best, found = loss, where
    return None if found is None else place.coordinates.unflatten(found)
