"""What goes through without an error and is hardly ever meant: data that nothing observes, tolerances below rounding,
the joint mode of effects under a free scale."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config.schema import Config
from ..errors import ModelError
from ..model.program import Program
from ..model.sites import InfeasibleError
from ..objective.base import Objective
from ..status import Status

OBSERVED = ("is observed", "is a pyro.factor, which has no value")
"""What a site is said to be that tells of data."""


JOINT = ("map", "map_unconstrained")
"""Objectives that take latents and their scales together."""


def check_observed(program: Program, model: Callable[..., Any], arguments: Mapping[str, Any]) -> list[str]:
    """A warning where data are given and no site observes any.

    Raises: ModelError where, besides, a latent is called like an argument and has its shape: that is a forgotten obs=.
    """
    data = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.numel() > 1}
    if not data or any(what in OBSERVED for what in program.not_fitted.values()):
        return []
    for name, latent in program.latents.items():
        if name in data and data[name].shape == latent.site.value_shape:
            place = place_of_site(model, name)
            raise ModelError(
                f"{place}nothing observes the data, and {name!r} is a latent of the argument's name and shape: "
                f'write obs={name} (pyro.sample("{name}", …, obs={name}))'
            )
    names = ", ".join(map(repr, list(data)[:6]))
    shapes = [value.shape for value in data.values()]
    alike = [name for name, latent in program.latents.items() if latent.site.value_shape in shapes]
    latents = alike or list(program.latents)
    which = f'pyro.sample("{latents[0]}", …, obs=…)' if latents else "pyro.sample(…, obs=…)"
    place = place_of_site(model, latents[0]) if latents else ""
    return [
        f"data: {place}no site is observed, so that nothing is learned from {names}: give the site of the data its "
        f"obs= ({which})"
    ]


def check_tolerance(config: Config) -> list[str]:
    """A warning where stop.gradient asks for more than the numbers of the run can tell."""
    eps = torch.finfo(getattr(torch, config.dtype)).eps
    if not 0 < config.stop.gradient < eps:
        return []
    return [
        f"precision: stop.gradient {config.stop.gradient:g} is below the rounding of {config.dtype} ({eps:.1g}), so "
        "that no gradient of a loss of one or more can be known to be so small: "
        + ("set dtype: float64, or stop.gradient: 1e-4" if config.dtype == "float32" else "set stop.gradient: 1e-10")
    ]


def joint_mode(objective: Objective, status: Status, limiting: Collection[str]) -> list[str]:
    """A remark on a loss without a floor, where latents stand under a free scale of their own.

    ``limiting`` names what runs to a limit: a scale among them that runs to zero leaves the density no bound, wherever
    the fit has ended.
    """
    program = objective.program
    if status not in (Status.UNBOUNDED, Status.CONVERGED_ON_BOUNDARY) or objective.type not in JOINT:
        return []
    many = [name for name, site in program.sites.items() if site.role == "latent" and site.shape.numel() > 1]
    found = []
    with suppress(InfeasibleError, ModelError):
        densities = program.log_density_by_site() if many else {}
        leaves = {name: leaf for name, leaf in program.leaves.items() if program.sites[name].constraint == "positive"}
        for name in many:
            others = {other: leaf for other, leaf in leaves.items() if other != name}
            density = densities[name]
            if not others or not density.requires_grad:
                continue
            slopes = torch.autograd.grad(density, list(others.values()), retain_graph=True, allow_unused=True)
            scales = [other for other, slope in zip(others, slopes, strict=True) if slope is not None]
            if status is not Status.UNBOUNDED:
                # At a limit the unconstrained number is large: its sign tells zero from infinity.
                scales = [other for other in scales if other in limiting and float(others[other].detach().min()) < 0]
            found += [(name, scales[0])] if scales else []
    if not found:
        return []
    (name, scale), names = found[0], ", ".join(f'"{name}": laplace' for name, _ in found)
    return [
        f"joint mode: the density of {name} and its free scale {scale} together has no bound (at {scale} = 0 it is "
        f"infinite); integrate {name} out: objective: {{type: marginal, integrate: {{{names}}}}}"
    ]


def place_of_site(model: Callable[..., Any], name: str) -> str:
    """``file:line: `` of the call that samples a site, where it is written out; empty where it is not found."""
    with suppress(OSError, TypeError, UnicodeDecodeError):
        file = inspect.getsourcefile(inspect.unwrap(model))
        text = Path(file).read_text(encoding="utf-8") if file is not None else ""
        found = re.search(rf"""sample\(\s*["']{re.escape(name)}["']""", text)
        if found is not None:
            return f"{file}:{text.count(chr(10), 0, found.start()) + 1}: "
    return ""
