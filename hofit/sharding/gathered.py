"""What all pieces say of an end, put together: values and errors of all rows, in the order of the pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log, pi

import torch
from torch import Tensor

from ..model.program import Reading
from ..point import Params, Site
from ..uncertainty.errors import Uncertainty, pooling
from ..uncertainty.gaussian import Gaussian
from .message import Message
from .objective import ShardedObjective


@dataclass(frozen=True)
class Gathered:
    """The sites as they would be of the whole, with their values and errors."""

    sites: dict[str, Site]
    values: Params
    params: Params
    unread: Params
    uncertainty: Uncertainty


def gathered(
    objective: ShardedObjective,
    point_params: Params,
    gaussian: Gaussian | None,
    hessian: Tensor | None,
    limiting: Params,
    full: bool,
) -> Gathered:
    """All of it, at the point where the fit has ended. ``hessian`` (p, p) is that of the sum there."""
    integrates = objective.type == "marginal"
    point = objective.at_full(point_params)
    told: Message | None = None
    if gaussian is not None and hessian is not None:
        told = {
            "hessian": hessian,
            "held": gaussian.held,
            "parked": gaussian.parked,
            "unused": gaussian.unused,
            "flat": gaussian.flat,
            "scale": gaussian.scale,
        }
    answers = objective.ending(point, told, limiting, full or not integrates)
    own = objective.own.known
    assert own is not None
    first, dims = answers[0], answers[0]["dims"]

    def joined(key: str) -> Params:
        names = [name for name in first[key] if all(name in answer[key] for answer in answers)]
        return {
            name: torch.cat([answer[key][name] for answer in answers], dims[name]) if name in dims else first[key][name]
            for name in names
        }

    values, params = joined("values"), joined("params")
    sites = {
        name: _of_the_whole(site, values[name], params[name], dims.get(name)) for name, site in objective.sites.items()
    }
    derived, left_out = _derived(answers, _sizes(answers, dims))
    remarks = list(dict.fromkeys(remark for answer in answers for remark in answer["remarks"]))
    if left_out:
        remarks.append(f"derived: without {', '.join(left_out)}, which are of each piece's own rows of the data")
    known = replace(
        own,
        std_errors=joined("std_errors"),
        lower=joined("lower"),
        upper=joined("upper"),
        derived=derived,
        shrinkage=pooling(joined("conditional"), params, sites) if integrates else {},
        reading=None if own.reading is None else _counted(own.reading, answers),
        remarks=remarks,
        gaussian=gaussian,
        transforms={name: one for name, one in own.transforms.items() if name not in dims},
        log_evidence=_log_evidence(objective, answers, gaussian, point.value),
    )
    return Gathered(sites, values, params, joined("unread"), known)


def _of_the_whole(site: Site, value: Tensor, leaf: Tensor, dim: int | None) -> Site:
    if dim is None:
        return site
    at = dim - leaf.dim()
    plates = tuple(replace(one, size=leaf.shape[one.dim]) if one.dim == at else one for one in site.plates)
    return replace(site, shape=leaf.shape, value_shape=value.shape, plates=plates)


def _sizes(answers: Sequence[Message], dims: Mapping[str, int]) -> list[int] | None:
    """How many rows of the plate each piece has; None where nothing stands in it."""
    name = next(iter(dims), None)
    return None if name is None else [answer["values"][name].shape[dims[name]] for answer in answers]


def _derived(answers: Sequence[Message], sizes: list[int] | None) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """Deterministic sites: those with a row for each of the plate's put together, those that are the same in all
    pieces; and the names of all others."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    left_out = []
    for name in answers[0]["derived"]:
        pairs = [answer["derived"][name] for answer in answers if name in answer["derived"]]
        values = [pair[0] for pair in pairs]
        dim = None if sizes is None or len(pairs) < len(answers) else _dim_of_rows(values, sizes)
        if dim is not None:
            found[name] = torch.cat(values, dim), torch.cat([pair[1] for pair in pairs], dim)
        elif all(value.shape == values[0].shape and torch.equal(value, values[0]) for value in values):
            found[name] = pairs[0][0], pairs[0][1]
        else:
            left_out.append(name)
    return found, left_out


def _dim_of_rows(values: Sequence[Tensor], sizes: Sequence[int]) -> int | None:
    """The only dimension that has as many entries in each piece as there are rows of the plate."""
    fitting = [
        dim
        for dim in range(values[0].dim())
        if all(value.dim() == values[0].dim() and value.shape[dim] == n for value, n in zip(values, sizes, strict=True))
    ]
    return fitting[0] if len(fitting) == 1 else None


def _counted(reading: Reading, answers: Sequence[Message]) -> Reading:
    """The reading of the first piece with the observations, and sums of what is observed, of all pieces."""
    factors: dict[str, int] = {}
    for answer in answers:
        for name, count in answer["factors"].items():
            factors[name] = factors.get(name, 0) + count
    known = [answer["sums"] for answer in answers if answer["sums"]]
    sums = [sum(one) for one in zip(*known, strict=True)]
    return replace(reading, observations=sum(one["observations"] for one in answers), factors=factors, sums=sums)


def _log_evidence(
    objective: ShardedObjective, answers: Sequence[Message], gaussian: Gaussian | None, loss: float
) -> float | None:
    """By Laplace's method, where all that is unknown is a latent on the unconstrained scale."""
    roles = {site.role for site in objective.sites.values()}
    whole = objective.type == "map_unconstrained" and "parameter" not in roles
    if gaussian is None or not whole or bool(gaussian.held.any()):
        return None
    size: int = gaussian.outer.size + sum(
        answer["params"][name].numel() for answer in answers for name in objective.own.local
    )
    halves = [0.5 * float(gaussian.factor.log_determinant())]
    halves += [float(answer["half_log_determinant"]) for answer in answers]
    return -loss + 0.5 * size * log(2 * pi) - sum(halves)
