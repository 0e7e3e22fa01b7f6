"""Which sites are the locations of a mixture's components, and places for these spread over the observed data.

A site is a location where moving all of it by one moves the mean of what is observed by one: the means of normals, the
rates of Poisson counts. Its first dimension is that of the components, and a second one that of an observation. The
places are observations drawn as k-means++ draws its first centres: each with a probability that is proportional to the
squared distance from the nearest one drawn before.

Source: Arthur & Vassilvitskii (2007), k-means++: the advantages of careful seeding, SODA '07.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ..errors import ModelError
from ..point import Params
from .program import Program
from .randomness import random_state_kept, set_seed

COMPONENTS = 50
"""Of a mixture at most: a longer dimension is one of groups or observations."""

ROWS = 10_000
"""Observations that places are drawn among, at most: a sample of them is spread as they are."""

MOVED = 1e-6
"""What the mean of what is observed may be off by, relative, from having moved by one."""


def locations(program: Program, free: Sequence[str]) -> dict[str, Tensor]:
    """Of the ``free`` sites those that are locations, each with the observations that it may be placed at, (n, D).

    Empty where the model has no components: no discrete latent is summed out, nothing observed is a mixture.
    """
    own = {name: program.constrained(name, program.unconstrained(name).detach()).clone() for name in program.sites}
    before = _observed(program, own)
    if not (program.discrete or any(_is_mixture(fn) for fn, _ in before)):
        return {}
    found = {}
    for name in free:
        value = own[name]
        if value.dim() not in (1, 2) or not 2 <= value.shape[0] <= COMPONENTS:
            continue
        rows = _inside(program, name, _rows([seen for _, seen in before], value.shape[1:]))
        if len(rows) >= value.shape[0] and _moves_the_mean(program, name, own, before):
            found[name] = rows
    return found


def spread(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the rows (n, D), as k-means++ draws them, distances in units of each column. Shape (count, D)."""
    if len(rows) > ROWS:
        rows = rows[torch.randperm(len(rows), generator=generator)[:ROWS]]
    unit = rows.std(0, correction=0)
    scaled = rows / torch.where(unit > 0, unit, 1.0)
    chosen = [int(torch.randint(len(rows), (), generator=generator))]
    nearest = torch.full((len(rows),), torch.inf, dtype=rows.dtype)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (scaled - scaled[chosen[-1]]).square().sum(1))
        weights = nearest if bool(nearest.any()) else torch.ones_like(nearest)  # fewer values than components
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    return rows[chosen]


def _observed(program: Program, values: Mapping[str, Any]) -> list[tuple[Any, Tensor]]:
    """The distribution and value of each observed site, discrete latents being drawn, the same at every call."""
    with random_state_kept(), torch.no_grad():
        set_seed(0)
        _, messages = program.drawn_again("zero", values)
    observed = [m for m in messages if m["is_observed"] and isinstance(m["value"], Tensor)]
    return [(m["fn"], m["value"].detach()) for m in observed if hasattr(m["fn"], "event_shape")]


def _is_mixture(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, torch.distributions.MixtureSameFamily)


def _rows(seen: Sequence[Tensor], event: torch.Size) -> Tensor:
    """All observed values as rows: those whose last dimension is a location's, or every number where it has none."""
    dtype, width = torch.get_default_dtype(), event.numel()
    fitting = [value for value in seen if not event or value.shape[-1:] == event]
    parts = [value.to(dtype).reshape(-1, width) for value in fitting]
    rows = torch.cat(parts) if parts else torch.zeros(0, width)
    return rows[torch.isfinite(rows).all(1)]


def _inside(program: Program, name: str, rows: Tensor) -> Tensor:
    """The rows whose numbers the site may have: no rate is zero, as a count may be."""
    _, support = program.supports[name]
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support.event_dim:
        return rows
    inside: Tensor = support.check(rows).all(1)
    return rows[inside]


def _moves_the_mean(
    program: Program, name: str, own: Mapping[str, Tensor], before: Sequence[tuple[Any, Tensor]]
) -> bool:
    """Whether what is observed has a mean that moves by one as the site does, with the discrete latents held."""
    try:
        moved = program.constrained_like(name, own[name] + 1.0)
        after = _observed(program, {**own, name: moved})
    except (ValueError, ModelError):  # outside of its support, or of what the model computes
        return False
    finally:
        with torch.no_grad(), suppress(ValueError):
            program.unconstrained(name).copy_(program.unconstrained_of(name, own[name]))
    seen = False
    for (one, _), (other, _) in zip(before, after, strict=True):
        try:
            means = one.mean, other.mean
        except (NotImplementedError, AttributeError):
            continue
        if means[0].shape != means[1].shape:
            return False
        size = means[0].abs().clamp_min(1.0)
        seen = True
        if not bool(((means[1] - means[0] - 1.0).abs() <= MOVED * size).all()):
            return False
    return seen


def placed(program: Program, found: Mapping[str, Tensor], generator: torch.Generator) -> Params:
    """Unconstrained starts of locations, each site's components at places spread over its observations.

    Sites of one data share the places. What a support does not take is left out.
    """
    starts: Params = {}
    for name, rows in found.items():
        shape = program.sites[name].value_shape
        places = spread(rows, shape[0], generator)
        if program.sites[name].constraint.startswith("ordered"):
            places = places[places[:, 0].argsort()]
        with suppress(ValueError):
            start = program.unconstrained_of(name, places.reshape(shape).to(program.unconstrained(name)))
            if bool(torch.isfinite(start).all()):
                starts[name] = start
    return starts
