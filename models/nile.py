"""The flow of the Nile at Aswan: a level that wanders, observed with noise.

    volume_t ~ Normal(level_t, sigma),   level_{t+1} − level_t ~ Normal(0, sd_level)

The local level model; the first level has a flat prior, so that the evidence is the diffuse likelihood.
Parameters: `sigma` and `sd_level`, in 10⁸ m³. At sd_level → 0 the flow has one mean for ever.
Latent: `level` (years,). With it free, hold the scales: at sd_level → 0 the joint density has no bound.

Data: data/nile.csv, the flow of each year from 1871 to 1970 (Cobb 1978, Biometrika 65, 243-251).
Reference: Durbin & Koopman (2012), Time Series Analysis by State Space Methods, 2nd ed., chapter 2.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(volume: Tensor) -> None:
    sigma = pyro.param("sigma", torch.tensor(100.0), constraint=constraints.positive)
    sd_level = pyro.param("sd_level", torch.tensor(50.0), constraint=constraints.positive)

    years = len(volume)
    level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), (years,)))
    pyro.factor("wandering", dist.Normal(0.0, sd_level).log_prob(level[1:] - level[:-1]).sum())

    with pyro.plate("years", years):
        pyro.sample("volume", dist.Normal(level, sigma), obs=volume)
