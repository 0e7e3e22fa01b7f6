"""Which quantities of a fit can be profiled, and which of them are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from ..coordinates import Coordinates
from ..errors import ConfigError
from ..objective.base import Objective
from ..patterns import invalid, matches, near_misses
from ..point import Params
from ..record import indices
from ..uncertainty.delta import CORRELATION_FACTORS, COVARIANCES, FACTORS, SIMPLEX, kind_of
from .quantities import Function, Number, Quantity, label_of, spreads

GRADIENT = 1e-12
"""A function whose slopes are all below this is a constant, as above a triangle."""


@dataclass(frozen=True, eq=False)
class Known:
    """What there is to be profiled: ``usual`` without being asked for, ``others`` by name."""

    usual: Sequence[Quantity]
    others: Sequence[Quantity]
    refused: dict[str, str]
    """Name → why it has no profile."""


def quantities_of(objective: Objective, params: Params, has_error: Params) -> Known:
    """Every number of a parameter or latent that is optimised, deviations and correlations of covariances, and
    deterministic sites.

    Args: has_error: name → which numbers of a value have a standard error, or stand at an edge: those are usual.
    The objective's leaves hold ``params``.
    """
    coordinates, program = Coordinates.of(params), objective.program
    flat = coordinates.flatten(params)
    usual: list[Quantity] = []
    others: list[Quantity] = []
    refused = {name: f"{name} is held fixed" for name, site in program.sites.items() if site.role == "fixed"}
    for name, site in program.sites.items():
        if site.role == "integrated" or name in objective.integrated:
            refused[name] = (
                f"{name} is integrated out: its interval is in estimates.csv, a profile is of what is optimised"
            )
    reading = program.read()
    for name in coordinates.names:
        transform, support = reading.transforms[name], program.supports[name][1]
        if name in reading.moved:
            refused[name] = f"the support of {name} moves with other sites"
        elif program.is_elementwise(name):
            for number in _numbers(name, params[name], support, coordinates, transform):
                wanted = bool(has_error[name].reshape(-1)[number.entry])
                (usual if wanted else others).append(number)
        else:
            entries, spread = _of_matrix(name, params[name], support, coordinates, transform)
            known = has_error[name].reshape(-1)
            for entry, wanted in zip(entries, known.tolist(), strict=True):
                (usual if wanted and not spread and _varies(entry, flat) else others).append(entry)
            (usual if bool(known.any()) else others).extend(spread)
    inner = {name: program.leaves[name] for name in objective.integrated if name in program.leaves}
    for name, value in reading.deterministic.items():
        if not value.is_floating_point():
            continue
        if _depends_on(value, inner):
            refused[name] = f"{name} depends on {', '.join(inner)}, which is integrated out: it has no profile"
            continue
        others.extend(_derived(name, value.shape, coordinates, objective))
    return Known(usual, others, refused)


def chosen(known: Known, patterns: Sequence[str], flat: Tensor) -> list[Quantity]:
    """Those that the patterns match, all usual ones without a pattern. Raises: ConfigError."""
    everything = [*known.usual, *known.others]
    if not patterns:
        if not known.usual:
            raise ConfigError("no number of this fit has a standard error; name what is to be profiled with --params")
        return list(known.usual)
    found: list[Quantity] = []
    for pattern in patterns:
        wrong = invalid(pattern)
        if wrong:
            raise ConfigError(f"--params {pattern!r}: {wrong}")
        mine = [one for one in everything if _is_meant(pattern, one)]
        varying = [one for one in mine if _varies(one, flat)]
        if not varying:
            reasons = [why for name, why in known.refused.items() if matches(pattern.partition("[")[0], name)]
            if mine:
                reasons = [f"{label_of(mine[0])} is a constant"]
            names = dict.fromkeys(one.name for one in everything)
            why = (
                "; ".join(reasons) if reasons else f"it matches nothing that is optimised{near_misses(pattern, names)}"
            )
            raise ConfigError(f"--params {pattern!r}: {why}")
        found += [one for one in varying if one not in found]
    return found


def _is_meant(pattern: str, quantity: Quantity) -> bool:
    """By name, or by name and index, as ``beta[3]`` or ``beta[*]``: there a bracket is a bracket."""
    if matches(pattern, quantity.name) or pattern == label_of(quantity):
        return True
    name, bracket, rest = pattern.partition("[")
    if pattern.startswith("re:") or not bracket or not rest.endswith("]"):
        return False
    return bool(quantity.index) and fnmatchcase(quantity.name, name) and fnmatchcase(quantity.index, rest[:-1])


def _varies(quantity: Quantity, flat: Tensor) -> bool:
    if isinstance(quantity, Function):
        _, gradient = quantity.gradient(flat)
        return not bool((gradient.abs() < GRADIENT).all())
    return True


def _numbers(
    name: str, leaf: Tensor, support: constraints.Constraint, coordinates: Coordinates, transform: Any
) -> list[Number]:
    lower, upper = (bound.expand(leaf.shape).reshape(-1).tolist() for bound in _bounds(support, leaf))
    places = coordinates.numbers(name).reshape(-1).tolist()
    labels = indices(leaf.shape)
    return [
        Number(name, labels[k], lower[k], upper[k], places[k], k, coordinates, transform, transform.inv)
        for k in range(leaf.numel())
    ]


def _bounds(support: constraints.Constraint, leaf: Tensor) -> tuple[Tensor, Tensor]:
    """Of an elementwise support."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    lower, upper = getattr(support, "lower_bound", -inf), getattr(support, "upper_bound", inf)
    return torch.as_tensor(lower).detach().to(leaf), torch.as_tensor(upper).detach().to(leaf)


def _of_matrix(
    name: str, leaf: Tensor, support: constraints.Constraint, coordinates: Coordinates, transform: Any
) -> tuple[list[Function], list[Function]]:
    """The entries of a site whose transform is not elementwise; and the deviations and correlations it makes."""

    def value(flat: Tensor) -> Tensor:
        found: Tensor = transform(coordinates.unflatten(flat)[name])
        return found

    def entry(k: int) -> Callable[[Tensor], Tensor]:
        return lambda flat: value(flat).reshape(-1)[k]

    shape, kind = transform(leaf).shape, kind_of(support)
    ends = (0.0, 1.0) if kind in SIMPLEX else (-inf, inf)
    entries = [Function(name, index, *ends, entry(k)) for k, index in enumerate(indices(shape))]
    if kind not in (*CORRELATION_FACTORS, *FACTORS, *COVARIANCES) or len(shape) != 2:
        return entries, []

    def covariance(flat: Tensor) -> Tensor:
        matrix = value(flat)
        return matrix if kind in COVARIANCES else matrix @ matrix.T

    return entries, list(spreads(covariance, name, shape[0], kind in CORRELATION_FACTORS))


def _derived(name: str, shape: torch.Size, coordinates: Coordinates, objective: Objective) -> list[Function]:
    """A deterministic site's numbers: the model is traced for each value of theirs."""

    def entry(k: int) -> Callable[[Tensor], Tensor]:
        def of(flat: Tensor) -> Tensor:
            with objective.program.substituted(coordinates.unflatten(flat)):
                return objective.program.read().deterministic[name].reshape(-1)[k]

        return of

    return [Function(name, index, -inf, inf, entry(k)) for k, index in enumerate(indices(shape))]


def _depends_on(value: Tensor, inner: Params) -> bool:
    if not value.requires_grad or not inner:
        return False
    slopes = torch.autograd.grad(value.sum(), list(inner.values()), retain_graph=True, allow_unused=True)
    return any(slope is not None and bool((slope != 0).any()) for slope in slopes)
