"""Cox's partial likelihood with a normal frailty a centre: risk sets by torch.logcumsumexp; `by_cumsum` is the same."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def load_data(centres=20, each=6, seed=9):
    g = torch.Generator().manual_seed(seed)
    centre = torch.arange(centres).repeat_interleave(each)
    x = torch.randn(len(centre), generator=g)
    rate = torch.exp(0.7 * x + 0.6 * torch.randn(centres, generator=g)[centre])
    time = -torch.rand(len(centre), generator=g).log() / rate
    died = (torch.rand(len(centre), generator=g) < 0.8).to(x.dtype)
    return {"time": time, "died": died, "x": x, "centre": centre, "n": centres}


def model(time, died, x, centre, n, risk=lambda eta: torch.logcumsumexp(eta, 0)):
    beta = pyro.param("beta", torch.tensor(0.0))
    sd = pyro.param("sd", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("centres", n):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    eta = (beta * x + b[centre])[torch.argsort(time, descending=True)]
    pyro.factor("partial", (died[torch.argsort(time, descending=True)] * (eta - risk(eta))).sum())


def by_cumsum(time, died, x, centre, n):
    model(time, died, x, centre, n, lambda eta: torch.cumsum(eta.exp(), 0).log())
