"""Fitted values of an observed site with their standard errors, and intervals for new observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError, HofitError, ModelError
from ..model.program import Program
from ..model.randomness import random_state_kept, set_seed
from ..model.table import Table, read_table
from ..model.text import Column
from ..run.resume import ResumeRequest
from .fitted import Fitted, fitted
from .loaded import loaded_arguments, loader_of
from .new_data import NewArguments, new_arguments, own_rows, table_of
from .predictive import Change, Fresh, Predictive, responses

LEVEL = 0.95
"""Of the intervals, whose ends are the quantiles (1 ∓ LEVEL) / 2 of draws."""

ROWS = 256
"""Rows whose slopes are taken at once."""

SLOPES_LIMIT = 2**28
"""Slopes, rows times unknowns, beyond which standard errors are taken from the draws."""

DRAWS_LIMIT = 2**28
"""Drawn numbers that are held at once."""


@dataclass(frozen=True)
class Prediction:
    """Of each row: the mean of the observed site at the estimate, the standard error of that mean, and an interval.

    ``std_error``, ``lower`` and ``upper`` are nan where the fit has no Gaussian. ``table`` holds the rows that were
    asked for; None where these are the fit's own, which come from no table. Shapes: (rows,).
    """

    site: str
    estimate: Tensor
    std_error: Tensor
    lower: Tensor
    upper: Tensor
    table: Table | None
    remarks: list[str]

    def columns(self) -> dict[str, Column]:
        """Those of the table, then the prediction's. Raises: DataError where a column has the name of one of these."""
        own: dict[str, Column] = {} if self.table is None else dict(self.table.columns)
        found = {name: getattr(self, name).numpy() for name in ("estimate", "std_error", "lower", "upper")}
        taken = [name for name in found if name in own]
        if taken:
            raise DataError(f"the table has a column {taken[0]!r} itself: give it another name")
        return own | found


@dataclass(frozen=True)
class PredictRequest:
    """A run, and the rows: ``data`` None means those that it was fitted to.

    ``population``: take latents in plates for new ones of their population, as lme4's ``re.form = NA``. ``site`` is
    needed where several are observed. ``draws`` are for the intervals.
    """

    run: ResumeRequest
    data: Path | None = None
    site: str | None = None
    population: bool = False
    draws: int = 1000
    seed: int = 0


def run_predict(request: PredictRequest) -> Prediction:
    """Raises: HofitError; DataError with the row of the table where it is one's."""
    if request.draws < 2:
        raise HofitError(f"--draws {request.draws}: an interval needs at least 2")
    with fitted(request.run) as fit:
        if fit.program.discrete:
            names = ", ".join(fit.program.discrete)
            raise HofitError(f"no prediction: the discrete latents {names} are summed out; hofit simulate draws them")
        own = fit.program.arguments
        observed = Predictive(fit.program).on(own).observed
        name = _chosen(observed, request.site)
        if request.data is None:
            arguments, change, table = dict(own), None, own_rows(fit.session.config.data)
        else:
            table = read_table(request.data)
            made = _new(fit, request.data, table, observed)
            arguments, change = {**own, **made.values}, Change(made.levels, (made.rows_before, made.rows))
        effects = frozenset(site.name for site in fit.program.sites.values() if site.plates)
        anew = effects & set(fit.program.latents) if request.population else frozenset()
        return _predicted(fit, _Asked(arguments, change, anew, name), table, request)


def _new(fit: Fitted, path: Path, table: Table, observed: Mapping[str, tuple[Any, Tensor]]) -> NewArguments:
    """The arguments of the table's rows: by the config's columns, or as the module itself reads a file."""
    config, own = fit.session.config, fit.program.arguments
    load_data = loader_of(config)
    if load_data is not None:
        return loaded_arguments(load_data, config, own, path)
    return new_arguments(config.data, table_of(config.data), table, responses(own, observed))


def _chosen(observed: Mapping[str, Any], site: str | None) -> str:
    names = ", ".join(map(repr, observed))
    if not observed:
        raise HofitError("no prediction: the model observes no site (a likelihood by pyro.factor has no distribution)")
    if site is None and len(observed) > 1:
        raise HofitError(f"several sites are observed: choose one of {names} with --site")
    if site is not None and site not in observed:
        raise HofitError(f"--site {site}: the observed sites are {names}")
    return site or next(iter(observed))


@dataclass(frozen=True)
class _Asked:
    """A site of the model on these arguments; ``anew`` are latents of which only the population is taken."""

    arguments: Mapping[str, Any]
    change: Change | None
    anew: frozenset[str]
    site: str

    def run(self, program: Program, middle: bool) -> tuple[Any, Tensor, Mapping[str, Fresh]]:
        """The site's distribution and value: as given in the ``middle`` of populations, else drawn."""
        found = Predictive(program, self.change, self.anew, middle, observe=middle).on(self.arguments)
        return (*found.observed[self.site], found.fresh)


def _predicted(fit: Fitted, asked: _Asked, table: Table | None, request: PredictRequest) -> Prediction:
    name = asked.site
    distribution, _, fresh = asked.run(fit.program, middle=True)
    mean = _mean(name, distribution)
    count = mean.numel()
    if table is not None and count != len(next(iter(table.columns.values()))):
        what = f"the site {name!r} has {count} values, and the table {len(next(iter(table.columns.values())))} rows"
        raise DataError(f"{what}: a prediction is a number a row")
    nothing = torch.full((count,), torch.nan)
    remarks, gaussian = list(fit.remarks), fit.gaussian
    estimate = mean.detach().reshape(-1)
    if gaussian is None or not gaussian.is_joint:
        return Prediction(name, estimate, nothing, nothing, nothing, table, [*remarks, "no errors, no intervals"])
    if count * request.draws > DRAWS_LIMIT:
        raise HofitError(
            f"--draws {request.draws}: {count} rows of as many draws do not fit into memory; ask for fewer"
        )
    error = None
    if count * gaussian.coordinates.size <= SLOPES_LIMIT:
        error = _standard_errors(fit, mean.reshape(-1), fresh)
    means, values = _draws(fit, asked, request)
    lower, upper = _interval(values)
    return Prediction(name, estimate, means.std(0) if error is None else error, lower, upper, table, remarks)


def _interval(values: Tensor) -> tuple[Tensor, Tensor]:
    """Both ends, of counts as counts. Shapes: (draws, rows) → (rows,) each."""
    ways = ("lower", "higher") if bool((values == values.round()).all()) else ("linear", "linear")
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    parts = [
        [values[:, some].quantile(tail, 0, interpolation=way) for tail, way in zip(tails, ways, strict=True)]
        for some in torch.arange(values.shape[1]).split(ROWS)
    ]
    lower, upper = (torch.cat(ends) for ends in zip(*parts, strict=True))
    return lower, upper


def _mean(name: str, distribution: Any) -> Tensor:
    try:
        mean: Tensor = distribution.mean
    except NotImplementedError as error:
        raise ModelError(f"the site {name!r} ({type(distribution).__name__}) has no known mean") from error
    if bool(mean.isnan().all()):
        raise ModelError(f"the site {name!r} ({type(distribution).__name__}) has no mean: its values are categories")
    return mean


def _standard_errors(fit: Fitted, mean: Tensor, fresh: Mapping[str, Fresh]) -> Tensor:
    """By the delta method, a population's spread included where a row's level is new. Shapes: (rows,) → (rows,)."""
    assert fit.gaussian is not None
    if not mean.requires_grad:
        return torch.zeros_like(mean)
    coordinates, leaves = fit.gaussian.coordinates, fit.program.leaves
    inputs = [*(leaves[name] for name in coordinates.names), *(one.offset for one in fresh.values())]
    variances = []
    for rows in torch.arange(len(mean)).split(ROWS):
        units = mean.new_zeros(len(rows), len(mean))
        units[torch.arange(len(rows)), rows] = 1.0
        found = torch.autograd.grad(mean, inputs, units, retain_graph=True, is_grads_batched=True, allow_unused=True)
        slopes = [
            one.new_zeros(len(rows), *one.shape) if slope is None else slope
            for one, slope in zip(inputs, found, strict=True)
        ]
        known = torch.cat([slope.reshape(len(rows), -1) for slope in slopes[: len(coordinates.names)]], 1)
        total = torch.where(known.any(1), fit.gaussian.variances_of(known), 0.0)
        for one, slope in zip(fresh.values(), slopes[len(coordinates.names) :], strict=True):
            total = total + _spread(slope, one.covariance)
        variances.append(total)
    return torch.cat(variances).sqrt()


def _spread(slopes: Tensor, covariance: Tensor) -> Tensor:
    """gᵀ C g. Shapes: (k, …), (n,) or (…, m, m) → (k,)."""
    if covariance.dim() == 1:
        return (slopes.reshape(len(slopes), -1) ** 2 @ covariance).reshape(-1)
    return torch.einsum("k...i,...ij,k...j->k...", slopes, covariance, slopes).reshape(len(slopes), -1).sum(1)


def _draws(fit: Fitted, asked: _Asked, request: PredictRequest) -> tuple[Tensor, Tensor]:
    """Means and values of the site for draws of everything from the Gaussian. Shapes: (draws, rows) each."""
    assert fit.gaussian is not None
    generator = torch.Generator().manual_seed(request.seed)
    drawn = fit.gaussian.draw(request.draws, generator)
    means, values = [], []
    with random_state_kept(), torch.no_grad():
        set_seed(request.seed)
        for k in range(request.draws):
            fit.write({one: value[k].clone() for one, value in drawn.items()})
            distribution, value, _ = asked.run(fit.program, middle=False)
            means.append(_mean(asked.site, distribution).reshape(-1).clone())  # the leaves are written to again
            values.append(value.reshape(-1).to(means[-1]))
    return torch.stack(means), torch.stack(values)
