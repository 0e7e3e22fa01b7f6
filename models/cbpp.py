"""Contagious bovine pleuropneumonia: a binomial mixed model of new cases by period, with an effect of the herd.

    incidence_i ~ Binomial(size_i, p_i),   logit p_i = β₀ + β_period(i) + b_h,   h = herd_i
    β_period = 0 in the first period,   b_h ~ Normal(0, τ)

Parameters: `beta` = (β₀, effect of period 2, 3, 4) on the logit scale, `sd_herd` = τ.
Latent: `b` (herds,). With b free, hold τ: at τ → 0 the joint density has no bound.

Data: data/cbpp.csv, 56 herd-periods of 15 zebu herds in the Ethiopian highlands
(Lesnoff et al. 2004, Preventive Veterinary Medicine 64, 27-40).
Reference: Bates, Mächler, Bolker & Walker (2015), lme4, J. Statistical Software 67(1).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot


def model(incidence: Tensor, size: Tensor, period: Tensor, herd: Tensor, n_periods: int, n_herds: int) -> None:
    beta = pyro.param("beta", torch.zeros(n_periods))
    sd_herd = pyro.param("sd_herd", torch.tensor(1.0), constraint=constraints.positive)

    with pyro.plate("herds", n_herds):
        b = pyro.sample("b", dist.Normal(0.0, sd_herd))  # (herds,)

    design = one_hot(period, n_periods).to(beta.dtype)  # (herd-periods, n_periods)
    design[:, 0] = 1.0
    with pyro.plate("herd_periods", len(incidence)):
        pyro.sample("incidence", dist.Binomial(size, logits=design @ beta + b[herd]), obs=incidence)
