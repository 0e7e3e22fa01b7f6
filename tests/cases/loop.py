"""Log volatility as an AR(1), a site a day. `vector` is the same density as one site."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def parameters():
    mu = pyro.param("mu", torch.tensor(0.0))
    phi = pyro.param("phi", torch.tensor(0.9), constraint=constraints.interval(-1.0, 1.0))
    sigma = pyro.param("sigma", torch.tensor(0.3), constraint=constraints.positive)
    return mu, phi, sigma


def load_data(days=200, seed=3):
    generator = torch.Generator().manual_seed(seed)
    noise, shocks = torch.randn(days, generator=generator), torch.randn(days, generator=generator)
    h, y = torch.tensor(-0.2), []
    for t in range(days):
        h = -0.2 + 0.95 * (h + 0.2) + 0.25 * shocks[t]
        y.append(torch.exp(h / 2) * noise[t])
    return {"y": torch.stack(y)}


def model(y):
    mu, phi, sigma = parameters()
    h = pyro.sample("h_0", dist.Normal(mu, sigma / torch.sqrt(1 - phi**2)))
    pyro.sample("y_0", dist.Normal(0.0, torch.exp(h / 2)), obs=y[0])
    for t in range(1, len(y)):
        h = pyro.sample(f"h_{t}", dist.Normal(mu + phi * (h - mu), sigma))
        pyro.sample(f"y_{t}", dist.Normal(0.0, torch.exp(h / 2)), obs=y[t])


def vector(y):
    mu, phi, sigma = parameters()
    n = len(y)
    h = pyro.sample("h", dist.Normal(0.0, 1.0).expand([n]).to_event(1).mask(False))
    pyro.factor("first", dist.Normal(mu, sigma / torch.sqrt(1 - phi**2)).log_prob(h[0]))
    pyro.factor("steps", dist.Normal(mu + phi * (h[:-1] - mu), sigma).log_prob(h[1:]).sum())
    with pyro.plate("days", n):
        pyro.sample("y", dist.Normal(0.0, torch.exp(h / 2)), obs=y)
