"""Van drivers killed on the roads of Great Britain, before and after seat belts became compulsory.

    killed_t ~ Poisson(exp(level_t + season · s_t + effect law_t)),   level_{t+1} − level_t ~ Normal(0, sd_level)

s_t are the cosines and sines of the month, eleven columns that sum to zero over a year. The first level, the season and
the effect of the law have flat priors and are integrated out too, so that the error of the effect holds all of theirs.
Parameter: `sd_level`, of the log rate. At sd_level → 0 the rate has one level for ever.
Latents: `level` (months,), `season` (11,), `effect`, the change of the log rate from February 1983 on.
`deterministic`: `change`, exp(effect) − 1, the part of deaths that the law has brought.

Data: data/van_drivers.csv, light goods vehicle drivers killed each month from 1969 to 1984
(Harvey & Durbin 1986, J. Royal Statistical Society A 149, 187-227).
Reference: Durbin & Koopman (2012), Time Series Analysis by State Space Methods, 2nd ed., chapter 14.
"""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

MONTHS = 12


def model(killed: Tensor, month: Tensor, law: Tensor) -> None:
    sd_level = pyro.param("sd_level", torch.tensor(0.1), constraint=constraints.positive)

    months = len(killed)
    level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), (months,)))
    season = pyro.sample("season", dist.ImproperUniform(constraints.real, (), (MONTHS - 1,)))
    effect = pyro.sample("effect", dist.ImproperUniform(constraints.real, (), ()))
    pyro.factor("wandering", dist.Normal(0.0, sd_level).log_prob(level.diff()).sum())
    pyro.deterministic("change", effect.expm1())

    log_rate = level + waves(month, killed.dtype) @ season + effect * law
    with pyro.plate("months", months):
        pyro.sample("killed", dist.Poisson(log_rate.exp()), obs=killed)


def waves(month: Tensor, dtype: torch.dtype) -> Tensor:
    """The columns s_t of a month from 1 to 12; (months, 11)."""
    angle = 2 * math.pi / MONTHS * month.to(dtype)[:, None] * torch.arange(1, MONTHS // 2 + 1, dtype=dtype)
    return torch.cat([angle.cos(), angle[:, :-1].sin()], 1)
