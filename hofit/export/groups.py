"""Draws, data and what the model says of them, as the groups that ArviZ knows, before any library sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..model.predictive import Dims
from ..model.program import Program
from ..point import Site
from ..uncertainty.errors import Uncertainty
from .draws import Drawn, at_draws


@dataclass(frozen=True)
class Variable:
    """A tensor with the plate that each dimension stands for; the first dimension of what is ``drawn`` is the draw."""

    values: Tensor
    dims: Dims
    drawn: bool = True


Group = dict[str, Variable]


@dataclass(frozen=True)
class Groups:
    """By the names of groups, those of them that are not empty; and what is to be said of them."""

    groups: dict[str, Group]
    remarks: list[str] = field(default_factory=list)


def groups_of(known: Uncertainty, sites: Mapping[str, Site], program: Program | None, count: int, seed: int) -> Groups:
    """Of draws from the Gaussian at the mode. Without a program, which is used inside its scope, of them alone.

    Raises: HofitError where there is no Gaussian.
    """
    unconstrained = known.unconstrained_draws(count, seed)
    values = known.constrained(unconstrained)
    fixed = {name: Variable(value, site_dims(sites[name]), False) for name, value in known.fixed.items()}
    drawn = None
    if program is not None and known.reading is not None:
        drawn = at_draws(program, unconstrained, known.reading.likelihood, seed)
        values = {name: value[drawn.kept] for name, value in values.items()}
    posterior = {name: Variable(values[name], site_dims(site)) for name, site in sites.items() if name in values}
    found = {"posterior": posterior, **({} if drawn is None else _of_the_data(drawn)), "constant_data": fixed}
    if drawn is not None:
        posterior |= _variables(drawn.deterministic, drawn.deterministic_dims)
    remarks = [] if drawn is None else drawn.remarks
    moved = known.reading.moved if known.reading is not None else []
    remarks += [f"{name} is drawn on the support that it has at the mode: it moves with other sites" for name in moved]
    return Groups({name: group for name, group in found.items() if group}, remarks)


def site_dims(site: Site) -> Dims:
    """The dims of a site's constrained value: those of plates stand first."""
    plates = {len(site.shape) + plate.dim: plate.name for plate in site.plates}
    return tuple(plates.get(place) for place in range(len(site.value_shape)))


def _of_the_data(drawn: Drawn) -> dict[str, Group]:
    return {
        "posterior_predictive": _variables(drawn.replicated, drawn.observed_dims),
        "log_likelihood": _variables(drawn.likelihood, drawn.likelihood_dims),
        "observed_data": _variables(drawn.observed, drawn.observed_dims, False),
    }


def _variables(values: Mapping[str, Tensor], dims: Mapping[str, Dims], drawn: bool = True) -> Group:
    return {name: Variable(value, dims[name], drawn) for name, value in values.items()}
