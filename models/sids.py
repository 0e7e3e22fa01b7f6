"""Sudden infant deaths in the counties of North Carolina: a risk that is smooth over neighbours, and beside them not.

    deaths_i ~ Poisson(births_i · exp(slope x_i + smooth_i + own_i))
    smooth ~ GMRF(R / sd_smooth²),   own_i ~ Normal(0, sd_own)

Besag, York & Mollié's model. R is the Laplacian of the graph of neighbours: its field, an intrinsic autoregression
(ICAR), has no level of its own but that of the counts, so there is no intercept. x is the share of births that are not
white, less its mean over the births. Parameters: `slope`, `sd_smooth`, `sd_own`, on the log scale.
Latents: `smooth`, `own` (counties,). With them free, hold the scales: at 0 the joint density has no bound.
`without_race` leaves x out; with it sd_smooth → 0, nothing that is smooth being left.
`deterministic`: `risk` (counties,), the rate over that of the whole state.

Data: data/sids.csv, births and deaths from July 1974 to June 1978 in 100 counties, with neighbours
(Cressie & Read 1985, Statistics and Decisions, Supplement 2, 333-349).
Reference: Besag, York & Mollié (1991), Annals of the Institute of Statistical Mathematics 43, 1-59.
"""

import csv
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from hofit.distributions import GMRF
from hofit.linalg import laplacian

DATA = Path(__file__).parent / "data" / "sids.csv"


def model(deaths: Tensor, births: Tensor, nonwhite: Tensor, neighbours: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(0.0))
    share = nonwhite / births
    observe(slope * (share - nonwhite.sum() / births.sum()), deaths, births, neighbours)


def without_race(deaths: Tensor, births: Tensor, nonwhite: Tensor, neighbours: Tensor) -> None:
    observe(torch.zeros(()), deaths, births, neighbours)


def observe(explained: Tensor, deaths: Tensor, births: Tensor, neighbours: Tensor) -> None:
    """What both have: the two effects of a county and its deaths."""
    sd_smooth = pyro.param("sd_smooth", torch.tensor(0.3), constraint=constraints.positive)
    sd_own = pyro.param("sd_own", torch.tensor(0.3), constraint=constraints.positive)

    counties = len(deaths)
    smooth = pyro.sample("smooth", GMRF(laplacian(neighbours, counties) / sd_smooth**2))
    with pyro.plate("counties", counties):
        own = pyro.sample("own", dist.Normal(0.0, sd_own))
        log_rate = explained + smooth + own
        pyro.deterministic("risk", log_rate.exp() * births.sum() / deaths.sum())
        pyro.sample("deaths", dist.Poisson(births * log_rate.exp()), obs=deaths)


def load_data() -> dict[str, Tensor]:
    """The model's arguments; neighbours (2, pairs), the numbers of counties from 0."""
    with DATA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [(i, int(j)) for i, row in enumerate(rows) for j in row["neighbours"].split() if i < int(j)]
    counts = {name: torch.tensor([float(row[name]) for row in rows]) for name in ("deaths", "births", "nonwhite")}
    return counts | {"neighbours": torch.tensor(pairs).T}
