import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(y):
    root = pyro.param("root", torch.eye(2), constraint=constraints.lower_cholesky)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(2), scale_tril=root), obs=y)
