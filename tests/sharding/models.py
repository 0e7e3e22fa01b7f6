"""Models of grouped data in every shape that pieces must tell apart, each loading the piece that it is asked for."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

GROUPS, ROWS = 12, 6


def data(rank: int = 0, world_size: int = 1, seed: int = 5) -> dict[str, Tensor | int]:
    """Rows of some of the groups: ``rank`` of ``world_size``."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(GROUPS).repeat_interleave(ROWS)
    level = torch.randn(GROUPS, generator=generator)
    x = torch.randn(len(group), generator=generator)
    y = 0.5 + level[group] + 0.8 * x + 0.7 * torch.randn(len(group), generator=generator)
    first, last = rank * GROUPS // world_size, (rank + 1) * GROUPS // world_size
    own = (first <= group) & (group < last)
    return {"x": x[own], "y": y[own], "group": group[own] - first, "n_groups": last - first}


load_data = data


def intercepts(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """With a prior, a measurement and a penalty that all groups share."""
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    level = pyro.param("level", torch.tensor(0.0))
    tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
    sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
    pyro.sample("known", dist.Normal(level, 0.3), obs=torch.tensor(0.4))
    pyro.factor("penalty", -0.5 * slope**2)
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.Normal(0.0, tau))
    pyro.deterministic("total", level + b)
    pyro.deterministic("ratio", tau / sigma)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level + b[group] + slope * x, sigma), obs=y)


def held_scale(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """A joint mode: what is the groups' own is a parameter, and a latent with a positive support."""
    slope = pyro.sample("slope", dist.Normal(0.0, 2.0))
    with pyro.plate("groups", n_groups):
        level = pyro.param("level", lambda: torch.zeros(n_groups), event_dim=0)
        spread = pyro.sample("spread", dist.Gamma(3.0, 3.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level[group] + slope * x, spread[group]), obs=y)


def counts(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """Not Gaussian: Laplace's approximation and quadrature differ."""
    slope = pyro.param("slope", torch.tensor(0.0))
    tau = pyro.param("tau", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.Normal(0.0, tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((b[group] + slope * x).exp()), obs=(2.0 * y.abs()).round())


def mixture(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """A discrete latent in each row."""
    share = pyro.param("share", torch.tensor(0.4), constraint=constraints.unit_interval)
    far = pyro.param("far", torch.tensor(1.5))
    with pyro.plate("rows", len(y)):
        kind = pyro.sample("kind", dist.Bernoulli(share))
        pyro.sample("y", dist.Normal(kind * far, 0.8), obs=y)


def regression(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """Nothing is the groups' own."""
    beta = pyro.param("beta", torch.zeros(2))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(beta[0] + beta[1] * x, sigma), obs=y)


def own_size(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """A parameter as long as the plate, outside of it."""
    level = pyro.param("level", torch.zeros(n_groups))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level[group], sigma), obs=y)


def starts_from_data(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    level = pyro.param("level", y.mean())
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level, 1.0), obs=y)


def crossed(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """Beside the groups' own effects there are some that all share."""
    tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.Normal(0.0, tau))
    with pyro.plate("halves", 2):
        c = pyro.sample("c", dist.Normal(0.0, tau))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(b[group] + c[(x > 0).long()], 1.0), obs=y)


def own_prior(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """A prior of what all share, by the data of each piece."""
    level = pyro.sample("level", dist.Normal(y.mean(), 0.1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level, 1.0), obs=y)


def own_sum(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    level = pyro.param("level", torch.tensor(0.1))
    pyro.sample("sum", dist.Normal(level, 1.0), obs=y.sum())
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level, 1.0), obs=y)


def as_long(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """Data of all, as many as each of four pieces has rows."""
    level = pyro.param("level", torch.tensor(0.1))
    with pyro.plate("calibration", 18):
        pyro.sample("known", dist.Normal(level, 1.0), obs=torch.arange(18.0) / 18)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(level, 1.0), obs=y)


def own_factor(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """A density written by factors: one of them is a number in each piece, and zero at the start in all."""
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    level = pyro.param("level", torch.tensor(0.0))
    with pyro.plate("rows", len(y)):
        pyro.factor("squares", -0.5 * ((y - level) / sigma) ** 2)
    pyro.factor("normalised", -len(y) * sigma.log())


def shared_kind(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """A discrete latent that all pieces have."""
    level = pyro.param("level", torch.tensor(0.3))
    kind = pyro.sample("kind", dist.Bernoulli(0.5))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(kind * level, 1.0), obs=y)
