"""What is better integrated out than optimised: latents of many numbers under scales that are free themselves.

With such a scale free the joint density has no bound, or its mode is far from where the scale's evidence lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.program import Program
from ..model.randomness import random_state_kept
from ..model.sites import InfeasibleError

MANY = 2
"""Numbers that make a latent one of many."""

AWAY = 0.5
"""Unconstrained size of the step away from the start, where slopes happen to be zero."""

EQUAL = 1e-8
"""How near two slopes must be, relative, to be one."""


@dataclass(frozen=True)
class Effect:
    """A latent, and the free site that scales it; ``by_prior``: through its prior, else where it is used."""

    name: str
    scale: str
    by_prior: bool


def effects(program: Program) -> list[Effect]:
    """Every latent of many numbers that depends on free scales or means, in the order of the trace.

    Its own density depends on another unknown, where it is flat with the factors that shape it; or, of one that is
    written free of it (η ~ N(0, 1), used as τ·η), the density of what is observed has the same slope along both:
    Σ η ∂/∂η = τ ∂/∂τ.
    Raises: ModelError.
    """
    many = [name for name, latent in program.latents.items() if latent.leaf.numel() >= MANY]
    if not many:
        return []
    leaves = program.leaves
    before = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    try:
        with random_state_kept(), torch.no_grad():
            for leaf in leaves.values():
                leaf += AWAY * torch.randn(leaf.shape, generator=torch.Generator().manual_seed(leaf.numel())).to(leaf)
        try:
            densities = program.log_density_by_site()
        except InfeasibleError:
            with torch.no_grad():
                for name, leaf in leaves.items():
                    leaf.copy_(before[name])
            densities = program.log_density_by_site()
        return _found(program, densities, many)
    finally:
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(before[name])


def _found(program: Program, densities: dict[str, Tensor], many: list[str]) -> list[Effect]:
    leaves = program.leaves
    observed = sum((value for name, value in densities.items() if name not in program.latents), torch.zeros(()))
    along = _slopes(observed, leaves)
    positive = [name for name, site in program.sites.items() if name in leaves and site.constraint == "positive"]
    of_factors = [_slopes(densities[name], leaves) for name in program.read().factors]
    found = []
    for name in many:
        own = _slopes(densities[name], leaves)
        if program.sites[name].flat:
            shaping = [slopes for slopes in of_factors if bool((slopes[name] != 0).any())]
            own = {other: sum((slopes[other].abs() for slopes in shaping), own[other]) for other in leaves}
        above = [other for other in leaves if other != name and bool((own[other] != 0).any())]
        here = float((along[name] * leaves[name].detach()).sum())
        scales = [s for s in positive if here != 0 and abs(float(along[s].sum()) - here) <= EQUAL * abs(here)]
        if above:
            found.append(Effect(name, next((one for one in above if one in positive), above[0]), True))
        elif scales:
            found.append(Effect(name, scales[0], False))
    return found


def _slopes(total: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    if not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    slopes = torch.autograd.grad(total, list(leaves.values()), retain_graph=True, materialize_grads=True)
    return dict(zip(leaves, slopes, strict=True))
