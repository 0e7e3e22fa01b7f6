"""Values at the edge of their support, or on their way there: is it a boundary, or does the loss fall without end?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ..coordinates import NAMED, Coordinates
from ..objective.base import Objective
from ..point import Params, Point, Site

EDGE = 1e-4
"""A value is near the edge of its support when a unit of the unconstrained scale moves it by less than this, relative
to max(1, |value|)."""

JACOBIAN_LIMIT = 300
"""Numbers of a site at most whose transform is not elementwise and is asked for each of them."""

MOVED = 1e-4
"""A value is on its way, or nears a bound within, this part of max(1, |value|)."""

BOUNDED = ("simplex", "unit", "<", "corr", "sphere", "circular")
"""What the names of supports hold in which no value goes to infinity."""

UNBOUNDED_EDGE = 1e-8
"""As EDGE, for a value that is still falling towards the edge with a gradient above the tolerance."""


def unbounded_parameters(objective: Objective, point: Point, gradient_tolerance: float) -> list[str]:
    """Names whose value has come to the edge of its support while the loss still falls towards it.

    ``point`` is on the full plates, ``gradient_tolerance`` that of a loss in which one observation weighs one.
    """
    if point.failure is not None or not isfinite(point.value):
        return []
    gradient, tolerance = point.gradient(), gradient_tolerance * objective.unit
    found = []
    for name, sensitivity in _sensitivities(objective, point.params).items():
        falls_outwards = gradient[name] * torch.sign(point.params[name]) < -tolerance
        if bool(((sensitivity < UNBOUNDED_EDGE) & falls_outwards).any()):
            found.append(name)
    return found


def names_at_edge(objective: Objective, point: Point, edge: float = EDGE) -> list[str]:
    """Names that have an entry near the edge of its support, with the loss not rising towards it."""
    return [name for name, near in edge_entries(objective, point, edge).items() if bool(near.any())]


def edge_entries(objective: Objective, point: Point, edge: float = EDGE) -> Params:
    """Which entries are near the edge of their support, with the loss not rising towards it: booleans by name."""
    found: Params = {}
    params, gradient = point.params, point.gradient()
    for name, sensitivity in _sensitivities(objective, params).items():
        falls = gradient[name] * torch.sign(params[name]) <= 0
        found[name] = (sensitivity < edge) & falls & (params[name].abs() > 1.0)
    return found


def _sensitivities(objective: Objective, params: Params) -> Params:
    """How far a unit of each unconstrained number moves the site's value, relative to max(1, |value|), at most.

    For sites that have a bound; where a transform is not elementwise, for those of JACOBIAN_LIMIT numbers at most.
    """
    result: Params = {}
    for name, site in objective.sites.items():
        if name not in params or not site.is_bounded or not params[name].numel():
            continue
        value, slope = objective.program.value_and_slope(name, params[name])
        if slope is None and max(value.numel(), params[name].numel()) <= JACOBIAN_LIMIT:
            jacobian = objective.program.jacobian(name, params[name])
            relative = jacobian.abs() / torch.clamp(value.abs(), min=1.0).reshape(-1, 1)
            result[name] = relative.amax(0).reshape(params[name].shape)
        elif slope is not None and site.shape == site.value_shape:
            result[name] = slope.abs() / torch.clamp(value.abs(), min=1.0)
    return result


def edge_numbers(objective: Objective, params: Params) -> Tensor:
    """Which numbers of the flat vector stand where their value hardly moves with them: near an edge. Shape (d,)."""
    coordinates, unread = Coordinates.of(params), objective.program.unread
    near = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in params.items()}
    for name, sensitivity in _sensitivities(objective, params).items():
        near[name] = (sensitivity < EDGE) & (params[name].abs() > 1.0)
        if name in unread:
            near[name] &= ~unread[name]
    return coordinates.flatten(near)


@dataclass(frozen=True)
class Limiting:
    """Where the values of a site are going: which of them, in its shape, and each in the user's terms."""

    name: str
    values: Tensor
    words: list[str]


def where_to(objective: Objective, before: Params, after: Params, numbers: Tensor) -> list[Limiting]:
    """Where the values go that some numbers (d,) make, in the user's terms: ``corr → −1``, ``p[2] → 0``.

    ``before`` and ``after`` are places further in and further out.
    """
    coordinates, program = Coordinates.of(after), objective.program
    found = []
    for name in dict.fromkeys(coordinates.entry(place)[0] for place in numbers.nonzero()[:, 0].tolist()):
        with torch.no_grad():
            inner, outer = (program.constrained(name, place[name]) for place in (before, after))
        if program.is_elementwise(name):
            going = numbers[coordinates.slices[name]].reshape(outer.shape)
        else:
            moved = (outer - inner).abs()
            going = moved > MOVED * moved.max()
        words, values = [], torch.zeros_like(going)
        for index in going.reshape(-1).nonzero()[:, 0].tolist():
            limit = _limit(float(inner.reshape(-1)[index]), float(outer.reshape(-1)[index]), objective.sites[name])
            if index and objective.sites[name].constraint.startswith("ordered"):
                gaps = [float(v.reshape(-1)[index] - v.reshape(-1)[index - 1]) for v in (inner, outer)]
                limit = (
                    f"{name}[{index - 1}]" if gaps[1] < 0.5 * gaps[0] else limit if gaps[1] > 2.0 * gaps[0] else None
                )
            if limit is not None:
                values.view(-1)[index] = True
                place = torch.unravel_index(torch.tensor(index), outer.shape) if outer.dim() else ()
                label = ",".join(str(int(i)) for i in place)
                words.append(f"{name}[{label}] → {limit}" if label else f"{name} → {limit}")
        found.append(Limiting(name, values, words[:NAMED] or [name]))
    return found


def _limit(inner: float, outer: float, site: Site) -> str | None:
    """The number that a value is going to; None where it is none in particular."""
    constraint = site.constraint
    if outer < inner and constraint == "positive":
        return "0"
    if site.is_bounded:
        bounds = (0.0, 1.0, -1.0, *map(float, re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", constraint)))
        for bound in bounds:
            if abs(outer - bound) <= MOVED * max(1.0, abs(bound)):
                return f"{bound:g}".replace("-", "−")
    if any(word in constraint for word in BOUNDED):
        return None
    return "∞" if outer > inner else "−∞"
