import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(y, g):
    alpha = pyro.param("alpha", torch.tensor(0.0))
    sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
    level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), ()))
    with pyro.plate("groups", 4):
        u = pyro.sample("u", dist.Normal(level, sd))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(torch.exp(alpha + u[g.long()])), obs=y)
