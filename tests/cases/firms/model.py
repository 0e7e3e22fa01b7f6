"""pq ~ size + gdp + (1 + size | country) on raw columns: no signal at all."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(pq, size, gdp, country, n_countries):
    beta = pyro.param("beta", torch.zeros(3))
    sd = pyro.param("sd", torch.ones(2), constraint=constraints.positive)
    rho = pyro.param("rho", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    zero = torch.zeros_like(rho)
    tril = torch.stack([torch.stack([sd[0], zero]), torch.stack([rho * sd[1], (1 - rho**2).sqrt() * sd[1]])])
    with pyro.plate("countries", n_countries):
        u = pyro.sample("u", dist.MultivariateNormal(torch.zeros(2), scale_tril=tril))
    mean = beta[0] + beta[1] * size + beta[2] * gdp + u[country, 0] + u[country, 1] * size
    with pyro.plate("rows", len(pq)):
        pyro.sample("pq", dist.Normal(mean, sigma), obs=pq)


def rescaled(pq, size, gdp, country, n_countries):
    """What the warning asks for: both columns in tens of thousands."""
    model(pq, size / 1e4, gdp / 1e4, country, n_countries)
