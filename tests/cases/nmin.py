import pyro
import pyro.distributions as dist
import torch


def model(y):
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    n = pyro.sample("n", dist.Categorical(torch.ones(6)))
    with pyro.plate("visits", len(y)):
        pyro.sample("y", dist.Binomial(n.to(p.dtype), p), obs=y)
