"""Models whose profiles are known: Davies' dyestuff and Box & Tiao's, one-way, and some with a closed form."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

MARGINAL: dict[str, Any] = {
    "objective": {"type": "marginal", "integrate": {"b": "laplace"}},
    "optimizers": [{"params": "*", "optimizer": "trust_region"}],
}
RESTRICTED: dict[str, Any] = {**MARGINAL, "objective": {"type": "marginal", "integrate": {"mu": "laplace"}}}
MAP: dict[str, Any] = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}

DYESTUFF = [1545, 1440, 1440, 1520, 1580, 1540, 1555, 1490, 1560, 1495, 1595, 1550, 1605, 1510, 1560]
DYESTUFF += [1445, 1440, 1595, 1465, 1545, 1595, 1630, 1515, 1635, 1625, 1520, 1455, 1450, 1480, 1445]
"""Yield (g) of six batches of five preparations each (Davies & Goldsmith 1972, table 6.1), as lme4 has it."""


def one_way_data(yields: list[float] | list[int]) -> dict[str, Any]:
    return {"y": torch.tensor(yields, dtype=torch.float64), "batch": torch.arange(6).repeat_interleave(5), "n": 6}


def one_way(y: Tensor, batch: Tensor, n: int) -> None:
    mu = pyro.param("mu", y.mean().detach())
    tau = pyro.param("tau", torch.tensor(5.0), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(5.0), constraint=constraints.positive)
    pyro.deterministic("icc", tau**2 / (tau**2 + sigma**2))
    with pyro.plate("batches", n):
        b = pyro.sample("b", dist.Normal(0.0, tau))
    pyro.deterministic("largest", b.max())
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu + b[batch], sigma), obs=y)


def normal(y: Tensor) -> None:
    mu = pyro.param("mu", torch.tensor(0.0))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, sigma), obs=y)


def excess(y: Tensor) -> None:
    """Normal data of variance 1 + τ²: τ is zero where they vary by less than one."""
    tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(0.0, (1 + tau**2).sqrt()), obs=y)


def with_prior(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def flat_mean(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, sigma), obs=y)


def refusing(y: Tensor) -> None:
    """Like ``normal``, of data that are nowhere below −1.2."""
    if bool((y < -1.2).any()):
        raise ValueError("too low")
    normal(y)


def pairs(y: Tensor) -> None:
    factor = pyro.param("L", torch.eye(2), constraint=constraints.lower_cholesky)
    mean = pyro.param("m", torch.zeros(2))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.MultivariateNormal(mean, scale_tril=factor), obs=y)


def semidefinite(y: Tensor) -> None:
    covariance = pyro.param("S", torch.eye(2), constraint=constraints.positive_semidefinite)
    mean = pyro.param("m", torch.zeros(2))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=y)


def shares(counts: Tensor) -> None:
    p = pyro.param("p", torch.ones(3) / 3, constraint=constraints.simplex)
    pyro.sample("counts", dist.Multinomial(50, p), obs=counts)


def overdispersed(y: Tensor) -> None:
    mu = pyro.param("mu", torch.tensor(2.0), constraint=constraints.positive)
    r = pyro.param("r", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.GammaPoisson(r, r / mu), obs=y)


def hills(y: Tensor) -> None:
    """Two normal hills at 0 and 1.6, the second lower (first, −1) or higher (first, +1)."""
    m = pyro.param("m", torch.tensor(-0.1))
    mixture = dist.MixtureSameFamily(
        dist.Categorical(logits=torch.stack([torch.zeros(()), y])), dist.Normal(torch.tensor([0.0, 1.6]), 0.4)
    )
    pyro.factor("hills", mixture.log_prob(m))
    pyro.sample("seen", dist.Normal(pyro.param("k", torch.tensor(0.0)), 1.0), obs=y)
