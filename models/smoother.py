"""Coal-mining disasters: a smooth rate over the years, whose smoothness is estimated.

    disasters_t ~ Poisson(exp(f_t)),   f_t − 2 f_{t−1} + f_{t−2} ~ Normal(0, τ)

A random walk of the second order; f has a flat prior along straight lines, which have no second differences.
Parameter: `sd` = τ, per year²: at τ → 0 the log rate is a straight line.
Latent: `log_rate` = f (years,). With f free, hold τ: at τ → 0 the joint density has no bound.

Data: data/coal.csv, explosions in British coal mines that killed ten or more, 1851 to 1962, counted by year from the
dates (Jarrett 1979, Biometrika 66, 191-193).
Reference: Fahrmeir & Lang (2001), Applied Statistics 50, 201-220, section 2.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(disasters: Tensor) -> None:
    sd = pyro.param("sd", torch.tensor(0.1), constraint=constraints.positive)

    years = len(disasters)
    log_rate = pyro.sample("log_rate", dist.ImproperUniform(constraints.real, (), (years,)))
    second_differences = log_rate[2:] - 2 * log_rate[1:-1] + log_rate[:-2]
    pyro.factor("smoothness", dist.Normal(0.0, sd).log_prob(second_differences).sum())

    with pyro.plate("years", years):
        pyro.sample("disasters", dist.Poisson(log_rate.exp()), obs=disasters)
