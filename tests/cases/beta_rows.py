"""Rates with a common beta prior by mean and concentration: rows are independent given the two parameters."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def load_data(rows=3000, seed=4):
    torch.manual_seed(seed)
    n = torch.randint(5, 40, (rows,)).to(torch.get_default_dtype())
    phi = torch.distributions.Beta(0.27 * 12, 0.73 * 12).sample((rows,))
    return {"hits": torch.distributions.Binomial(n, phi).sample(), "n": n}


def model(hits, n):
    m = pyro.param("m", torch.tensor(0.3), constraint=constraints.unit_interval)
    kappa = pyro.param("kappa", torch.tensor(20.0), constraint=constraints.positive)
    with pyro.plate("rows", len(hits)):
        phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        pyro.sample("hits", dist.Binomial(n, phi), obs=hits)
