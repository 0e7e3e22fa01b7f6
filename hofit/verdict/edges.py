"""Values at the edge of their support, or on their way there: is it a boundary, or does the loss fall without end?"""

from __future__ import annotations

from math import isfinite

import torch

from ..objective.base import Objective
from ..point import Params, Point
from ..status import Status
from .checks import Finding

LINEAR_FALL = 0.3
"""A linear fall loses half as much on an eighth of the way as on the quarter before; an exponential one, a tenth."""

LEAST_FALL = 1e-6
"""A fall of less than this part of max(1, |loss|) on the quarter of the way before is taken for levelling off."""

BEFORE_CLAMPS = 30.0
"""Unconstrained distance before which no distribution clamps its arguments: eps of double precision is at 36."""

EDGE = 1e-4
"""A value is near the edge of its support when a unit of the unconstrained scale moves it by less than this, relative
to max(1, |value|)."""

UNBOUNDED_EDGE = 1e-8
"""As EDGE, for a value that is still falling towards the edge with a gradient above the tolerance."""


def unbounded_parameters(objective: Objective, params: Params, gradient_tolerance: float) -> list[str]:
    """Names whose value has come to the edge of its support while the loss still falls towards it."""
    point = objective.at_full(params)
    if point.failure is not None or not isfinite(point.value):
        return []
    gradient = point.gradient()
    return [
        name
        for name, sensitivity in _sensitivities(objective, params).items()
        if bool(
            (
                (sensitivity < UNBOUNDED_EDGE)
                & (gradient[name] * torch.sign(params[name]) < -gradient_tolerance)  # falls outwards
            ).any()
        )
    ]


def settled_on_boundary(objective: Objective, point: Point, names: list[str]) -> Finding:
    """How a fit ends whose values have come to the edge of their support: the loss levels off there, or falls for ever.

    Towards a finite loss it falls as the value nears the edge, exponentially in the unconstrained u; towards −inf as
    the logarithm of that, linearly in u, until a distribution's own clamp stops it.
    """
    losses = []
    for part in (0.5, 0.75, 0.875):
        moved = {name: part * point.params[name].clamp(-BEFORE_CLAMPS, BEFORE_CLAMPS) for name in names}
        there = objective.at_full({**point.params, **moved})
        losses.append(there.value if there.failure is None else float("nan"))
    first, second = losses[0] - losses[1], losses[1] - losses[2]
    listed, one = ", ".join(names), len(names) == 1
    if first > LEAST_FALL * max(1.0, abs(point.value)) and second > LINEAR_FALL * first:
        remark = f"the loss falls without end as {listed} {'nears' if one else 'near'} the edge of the support"
        return Finding(status=Status.UNBOUNDED, remark=f"unbounded (diverges): {remark}")
    remark = f"boundary: {listed} {'runs' if one else 'run'} to the edge of the support"
    return Finding(status=Status.CONVERGED_ON_BOUNDARY, remark=remark)


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
    """|d value / d unconstrained| / max(1, |value|) for sites whose transform is elementwise and bounded."""
    result: Params = {}
    for name, site in objective.sites.items():
        if name not in params or site.shape != site.value_shape or site.constraint.startswith("real"):
            continue
        value, slope = objective.program.value_and_slope(name, params[name])
        if slope is not None:
            result[name] = slope.abs() / torch.clamp(value.abs(), min=1.0)
    return result
