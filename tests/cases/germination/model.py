"""days ~ treated + (1 + treated | accession), ten accessions; the correlation of the two effects is -1 at the maximum.

`model` has the correlation as a number, `cholesky` as the Cholesky factor of a correlation matrix.
"""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def likelihood(days, treated, accession, n_accessions, scale_tril):
    beta = pyro.param("beta", torch.tensor([30.0, 0.0]))
    sigma = pyro.param("sigma", torch.tensor(3.0), constraint=constraints.positive)
    with pyro.plate("accessions", n_accessions):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=scale_tril))
    mean = beta[0] + b[accession, 0] + (beta[1] + b[accession, 1]) * treated
    with pyro.plate("rows", len(days)):
        pyro.sample("days", dist.Normal(mean, sigma), obs=days)


def model(days, treated, accession, n_accessions):
    sd = pyro.param("sd", torch.ones(2), constraint=constraints.positive)
    rho = pyro.param("rho", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))
    zero = torch.zeros_like(rho)
    tril = torch.stack([torch.stack([sd[0], zero]), torch.stack([rho * sd[1], (1 - rho**2).sqrt() * sd[1]])])
    likelihood(days, treated, accession, n_accessions, tril)


def cholesky(days, treated, accession, n_accessions):
    sd = pyro.param("sd", torch.ones(2), constraint=constraints.positive)
    corr = pyro.param("corr", torch.eye(2), constraint=constraints.corr_cholesky)
    likelihood(days, treated, accession, n_accessions, torch.diag(sd) @ corr)
