"""success ~ treatment (4 levels) + x + (1 | pair), logistic; under treatment 3 nothing ever succeeds."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(success, t1, t2, t3, x, pair, n_pairs):
    beta = pyro.param("beta", torch.zeros(5))
    sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("pairs", n_pairs):
        u = pyro.sample("u", dist.Normal(0.0, sd))
    logits = beta[0] + beta[1] * t1 + beta[2] * t2 + beta[3] * t3 + beta[4] * x + u[pair]
    with pyro.plate("rows", len(success)):
        pyro.sample("success", dist.Bernoulli(logits=logits), obs=success)
