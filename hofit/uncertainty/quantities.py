"""Covariances as people read them: standard deviations, correlations, intraclass correlations, with intervals.

They are told of every matrix that is a parameter or latent of the model (by its support: a Cholesky factor, a
covariance, a correlation matrix, or the factor of one), and of every multivariate normal site whose rows share one,
however the model makes it. What is a parameter under a name of its own already is not said twice.

Intervals are by the delta method: of a standard deviation on the logarithmic scale, of a correlation by Fisher's z, of
an intraclass correlation on the logit's.

Source: lme4's VarCorr for what is shown; Fisher (1921), Metron 1, for z; Snijders & Bosker (2012), Multilevel
analysis, section 3.3, for the intraclass correlation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ModelError
from ..model.program import Program, Reading
from ..model.randomness import random_state_kept
from ..model.sites import InfeasibleError
from ..point import Params
from ..record import Quantity, indices, labelled
from .delta import (
    CORRELATION_FACTORS,
    CORRELATIONS,
    COVARIANCES,
    FACTORS,
    FISHER,
    LOGARITHM,
    LOGIT,
    Scale,
    delta_errors,
    interval,
    kind_of,
)
from .gaussian import Gaussian

LIMIT = 1000
"""Standard deviations and correlations of a matrix at most: each takes a gradient."""

EDGE, WIDEST = 10.0, 10.0
"""On the scale of an interval (Fisher's z, a logit): beyond this a number has reached its edge; and an error that is
larger, a factor of 20,000 of a standard deviation, is none."""

SAME = 1e-9
"""Relative difference within which two numbers, computed in two ways from the same parameters, are one."""


@dataclass(frozen=True)
class Matrix:
    """``name``, where its rows stand in plates, the covariance (…, d, d), and whether it has deviations of its own."""

    name: str
    value: Tensor
    with_deviations: bool = True


@dataclass(frozen=True)
class Numbers:
    """Flat numbers of one kind, by label. Shape (k,)."""

    labels: list[str]
    value: Tensor
    scale: Scale


def find_quantities(
    program: Program, gaussian: Gaussian | None, reading: Reading, leaves: Params, values: Params
) -> tuple[list[Quantity], list[str], list[str]]:
    """The quantities, the names of the matrices that they restate, and remarks.

    ``leaves`` stand at the end of the fit; without a ``gaussian`` there the quantities have no errors. ``values`` are
    those of all sites, constrained.
    """
    named, restated, remarks = _parameters(program, reading, leaves)
    found = [number for matrix in (*named, *_sites(reading, named)) for number in _numbers(matrix)]
    found += _intraclass(program, reading, leaves)
    own = [values[n].reshape(-1) for n in program.sites if n not in restated and values[n].is_floating_point()]
    known = torch.cat(own) if own else values[restated[0]].new_zeros(0)
    quantities = [one for numbers in found for one in _told(numbers, gaussian, leaves, known)]
    return quantities, restated, remarks


def _parameters(program: Program, reading: Reading, leaves: Params) -> tuple[list[Matrix], list[str], list[str]]:
    """Sites that are matrices by their supports; those that are correlations alone stand last."""
    whole: list[Matrix] = []
    correlations: list[Matrix] = []
    names, remarks = [], []
    # Of a singular one the inverse is no number, which is like no other; it must not end the fit.
    precisions = [torch.linalg.inv_ex(one.detach()).inverse for one in reading.spreads.covariances.values()]
    used = [one.detach() for one in reading.spreads.covariances.values()]
    for name, transform in reading.transforms.items():
        kind = kind_of(program.supports[name][1])
        if kind not in (*FACTORS, *COVARIANCES, *CORRELATION_FACTORS, *CORRELATIONS) or name not in leaves:
            continue
        value = transform(leaves[name])
        if kind in (*FACTORS, *CORRELATION_FACTORS):
            value = value @ value.mT
        size = value.shape[-1]
        if value.numel() // size * (size + 1) // 2 > LIMIT:
            remarks.append(
                f"covariance: {name} is not told as standard deviations and correlations, which would be "
                f"{value.numel() // size * (size + 1) // 2}; {LIMIT} at most are"
            )
            continue
        if _is_among(value, precisions) and not _is_among(value, used):
            continue  # a precision: the site that has it tells of its covariance
        names.append(name)
        alone = kind in (*CORRELATION_FACTORS, *CORRELATIONS)
        (correlations if alone else whole).append(Matrix(name, value, not alone))
    covered = [_correlation(one) for one in used]
    correlations = [one for one in correlations if not _is_among(one.value, covered)]
    return [*whole, *correlations], names, remarks


def _sites(reading: Reading, named: list[Matrix]) -> Iterator[Matrix]:
    """Multivariate normal sites whose covariance is no parameter as it stands."""
    told = [one.value.detach() for one in named if one.with_deviations]
    for name, value in reading.spreads.covariances.items():
        size = value.shape[-1]
        if size * (size + 1) // 2 <= LIMIT and not _is_among(value, told):
            told.append(value.detach())
            yield Matrix(name, value)


def _numbers(matrix: Matrix) -> Iterator[Numbers]:
    value = matrix.value
    size, batch = value.shape[-1], value.shape[:-2]
    rows = indices(batch)
    if matrix.with_deviations:
        deviations = value.diagonal(dim1=-2, dim2=-1).sqrt()
        labels = [labelled(f"{matrix.name}: sd", _joined(row, i)) for row in rows for i in range(size)]
        yield Numbers(labels, deviations.reshape(-1), LOGARITHM)
    first, second = torch.triu_indices(size, size, offset=1, device=value.device)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    labels = [labelled(f"{matrix.name}: corr", _joined(row, *pair)) for row in rows for pair in pairs]
    yield Numbers(labels, _correlation(value)[..., first, second].reshape(-1), FISHER)


def _correlation(covariance: Tensor) -> Tensor:
    deviations = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return covariance / (deviations[..., :, None] * deviations[..., None, :])


def _intraclass(program: Program, reading: Reading, leaves: Params) -> Iterator[Numbers]:
    """The share of each effect's variance, where a normal response is a sum of intercepts: else they mean nothing.

    An effect is an intercept where moving its levels moves the mean of each observation by what its own level moved.
    """
    effects = [n for n, site in program.sites.items() if site.role == "integrated" and not site.flat]
    spreads = reading.spreads
    data = [name for name in spreads.observed if name in spreads.deviations]
    if not effects or len(data) != 1 or reading.observed != data or program.discrete:
        return
    if not all(name in spreads.deviations and program.sites[name].shape.numel() > 1 for name in effects):
        return
    before = _mean(program, data[0])
    if before is None or not all(_is_intercept(program, data[0], before, name, leaves) for name in effects):
        return
    variances = {name: spreads.deviations[name].square() for name in (*effects, data[0])}
    total = torch.stack(list(variances.values())).sum()
    labels = [f"{name}: icc" for name in effects]
    yield Numbers(labels, torch.stack([variances[name] for name in effects]) / total, LOGIT)


def _mean(program: Program, response: str) -> Tensor | None:
    """The response's mean at the leaves; None where there is none."""
    try:
        with torch.no_grad(), random_state_kept():
            found: Tensor = program.observed_distributions(full=True)[response].mean
    except (InfeasibleError, ModelError, KeyError, AttributeError, NotImplementedError):
        return None
    return found


def _is_intercept(program: Program, response: str, before: Tensor, name: str, leaves: Params) -> bool:
    """Whether the response's mean, ``before``, has one level of an effect in every row, with the coefficient one."""
    generator = torch.Generator().manual_seed(43)
    drawn = torch.rand(leaves[name].shape, generator=generator, dtype=torch.float64) + 0.5
    moves = drawn.to(leaves[name])
    with torch.no_grad(), program.substituted({name: leaves[name] + moves}):
        after = _mean(program, response)
    if after is None:
        return False
    levels = moves.reshape(-1).sort().values
    found = (after - before).reshape(-1)
    near = torch.searchsorted(levels, found).clamp(1, max(1, len(levels) - 1))
    distance = torch.minimum((levels[near] - found).abs(), (levels[near - 1] - found).abs())
    rounding = 1e3 * torch.finfo(found.dtype).eps * float(before.detach().abs().max().clamp_min(1.0))
    return bool((distance <= rounding).all())


def _told(numbers: Numbers, gaussian: Gaussian | None, leaves: Params, known: Tensor) -> Iterator[Quantity]:
    """Those that no parameter is, with errors."""
    value = numbers.value
    flat = value.detach()
    new = ~((flat[:, None] - known).abs() <= _same(flat) * flat.abs()[:, None]).any(1)
    if not bool(new.any()):
        return
    places = new.nonzero()[:, 0]
    none = torch.full_like(flat[places], torch.nan)
    errors = none if gaussian is None else delta_errors(gaussian, leaves, value[places], numbers.scale)
    errors = torch.where(_at_an_edge(numbers.scale, flat[places], errors), torch.nan, errors)
    columns = (flat[places], errors, *interval(numbers.scale, flat[places], errors))
    for place, *row in zip(places.tolist(), *(column.tolist() for column in columns), strict=True):
        yield Quantity(numbers.labels[place], *(None if number != number else number for number in row))


def _at_an_edge(scale: Scale, value: Tensor, error: Tensor) -> Tensor:
    """Whether a number stands so near the edge of its scale, or is so little known there, that the slope tells nothing:
    a deviation that runs to zero, and the correlations of what does not vary. Shapes: (k,)."""
    there, _, slope = scale
    far = torch.zeros_like(value, dtype=torch.bool) if scale is LOGARITHM else there(value).abs() > EDGE
    return far | (error * slope(value) > WIDEST)


def _is_among(value: Tensor, others: list[Tensor]) -> bool:
    within = _same(value)
    return any(
        one.shape == value.shape and bool(((value - one).abs() <= within * one.abs().max()).all()) for one in others
    )


def _same(value: Tensor) -> float:
    """``SAME``, or what a hundred roundings make in the numbers of the run."""
    return max(SAME, 100 * torch.finfo(value.dtype).eps)


def _joined(row: str, *places: int) -> str:
    return ",".join([*([row] if row else []), *map(str, places)])
