"""Quantile residuals by simulation: the place of each observation among data drawn for it from the fit.

Where the model holds, an observation and its S draws are exchangeable, so that with k draws below and e equal to it,
a uniform number from (k, k + e + 1) / (S + 1) is uniform on (0, 1), for counts as for continuous data.
Effects that are integrated out are drawn anew for each data set.

Source: Dunn & Smyth (1996), J. Comput. Graph. Stat. 5(3); Hartig, DHARMa: residual diagnostics for hierarchical models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import refusals_told
from ..record import RESIDUALS, Residual, table
from ..run.files import write_whole
from ..run.resume import ResumeRequest
from .fitted import fitted
from .simulate import Simulator

DRAWS = 250
"""Data sets: a residual is known to 1/250."""

MOST = 100_000
"""Observations of a site at most, evenly taken: a picture shows no more."""


def run_residuals(run: ResumeRequest, draws: int = DRAWS, seed: int = 0) -> list[Residual]:
    """The residuals of the fit's own rows, also in residuals.csv. Raises: HofitError."""
    with fitted(run) as fit:
        simulator = Simulator(fit)
        observed = {name: value.detach() for name, (_, value) in simulator.given.items()}
        places = {name: _places(value) for name, value in observed.items()}
        seen = {name: value.reshape(-1)[places[name]] for name, value in observed.items()}
        below = {name: torch.zeros(len(value), dtype=torch.long) for name, value in seen.items()}
        equal = {name: torch.zeros(len(value), dtype=torch.long) for name, value in seen.items()}
        total = {name: torch.zeros(len(value), dtype=torch.float64) for name, value in seen.items()}
        for draw in range(draws):
            for name, value in simulator.draw(seed + draw).items():
                flat = value.reshape(-1)[places[name]]
                below[name] += flat < seen[name]
                equal[name] += flat == seen[name]
                total[name] += flat
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for name, value in seen.items():
            uniform = torch.rand(len(value), generator=generator, dtype=torch.float64)
            residual = (below[name] + uniform * (equal[name] + 1)) / (draws + 1)
            rows += _rows(name, observed[name], places[name], value, total[name] / draws, residual)
        path = run.path / RESIDUALS
        with refusals_told(path):
            write_whole(path, table(Residual, rows).encode())
    return rows


def _places(value: Tensor) -> Tensor:
    """The entries that have a number, or evenly so many of them. Shape (n,)."""
    found = torch.isfinite(value.reshape(-1).to(torch.float64)).nonzero()[:, 0]
    if len(found) > MOST:
        found = found[torch.linspace(0, len(found) - 1, MOST).long()]
    return found


def _rows(
    name: str, value: Tensor, places: Tensor, seen: Tensor, fitted_values: Tensor, residual: Tensor
) -> list[Residual]:
    index = torch.stack(torch.unravel_index(places, value.shape), 1).tolist() if value.dim() else [[]] * len(places)
    labels = [",".join(map(str, one)) for one in index]
    numbers = zip(labels, seen.double().tolist(), fitted_values.tolist(), residual.tolist(), strict=True)
    return [Residual(name, *one) for one in numbers]
