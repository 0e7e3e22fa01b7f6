"""A better start where the given one is no place to begin: extreme, flat, or without a finite loss and gradient.

Stan draws starts until one has a finite density and gradient; here zero on the unconstrained scale is tried first, and
what is drawn does not depend on the fit's seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf, isfinite

import torch

from ..objective.base import Objective
from ..point import Params, Point, max_norm

EXTREME = 30.0
"""Unconstrained size beyond which a latent with a bounded support is nearer its edge than any prior means it: e⁻³⁰."""

ATTEMPTS = 24
"""Starts that are drawn, at most."""

RADII = (0.5, 1.0, 2.0)
"""How far draws go, in turn; the last is Stan's and Pyro's."""


def trouble_at(objective: Objective, point: Point) -> str | None:
    """Why a finite point is no place to start from; None if it is one. The gradient must be known."""
    extreme = [name for name in point.params if _is_extreme(objective, name, point.params[name])]
    if extreme:
        return f"{', '.join(extreme)} started at the edge of the support"
    if point.params and max_norm(point.gradient()) == 0.0:
        return "the loss was flat at the start"
    return None


def better_start(objective: Objective, params: Params, given: Collection[str]) -> Params | None:
    """A start with a finite loss and gradient, lower than at ``params`` if there is a loss; None if none was found.

    ``given`` are the names whose start the user has asked for: they stay. Latents that are integrated out start at
    zero, too, where the given ones have no loss.
    """
    before = objective.at_full(params)
    known = before.value if _usable(before) else inf
    if not isfinite(known) and objective.integrated:
        leaves = objective.leaves.tensors
        inner = {name: torch.zeros_like(leaves[name]) for name in objective.integrated}
        objective.resume_from(params, inner)
        before = objective.at_full(params)
        if _usable(before):
            return params
    for moved in _candidates(objective, params, given):
        point = objective.at_full(moved)
        if point.value < known and _usable(point) and max_norm(point.gradient()) > 0.0:
            return moved
    return None


def _usable(point: Point) -> bool:
    return point.failure is None and isfinite(point.value) and isfinite(max_norm(point.gradient()))


def _candidates(objective: Objective, params: Params, given: Collection[str]) -> Iterator[Params]:
    free = {name: value for name, value in params.items() if name not in given}
    latents = [name for name in free if objective.sites[name].role == "latent"]
    extreme = [name for name in free if _is_extreme(objective, name, params[name])]
    for names in (extreme, latents):
        if names:
            yield {**params, **{name: torch.zeros_like(params[name]) for name in names}}
    generator = torch.Generator().manual_seed(29)
    for attempt in range(ATTEMPTS):
        radius = RADII[attempt % len(RADII)]
        moved = {}
        for name, value in free.items():
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value)
            origin = torch.zeros_like(value) if name in latents or name in extreme else value
            moved[name] = origin + radius * (2.0 * noise - 1.0)
        yield {**params, **moved}


def _is_extreme(objective: Objective, name: str, value: torch.Tensor) -> bool:
    return objective.sites[name].is_bounded and bool((value.abs() > EXTREME).any())
