"""Fits whose posterior, likelihood and predictions are known in closed form."""

from __future__ import annotations

from functools import cache
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import hofit
from hofit.fitting.result import FitResult

ROWS, SIGMA = 40, 0.7


def config(**more: Any) -> dict[str, Any]:
    return {"optimizers": [{"params": "*", "optimizer": "trust_region"}], **more}


def regression_data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.stack([torch.ones(ROWS), torch.randn(ROWS, generator=generator)], 1)
    return x, x @ torch.tensor([0.4, -1.1]) + SIGMA * torch.randn(ROWS, generator=generator)


def regression(x: Tensor, y: Tensor) -> None:
    """A flat prior and a known error: the posterior is N(b̂, σ² (XᵀX)⁻¹)."""
    beta = pyro.param("beta", torch.zeros(2))
    pyro.deterministic("slope_twice", 2 * beta[1])
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ beta, SIGMA), obs=y)


@cache
def fitted_regression() -> FitResult:
    """A fit whose result no test changes."""
    x, y = regression_data()
    return hofit.fit(regression, config(), x=x, y=y)


def groups(y: Tensor, tau: float = 2.0) -> None:
    """Latents in plates, a scale, a simplex, and names that other formats have trouble with."""
    sd = pyro.sample("sd/all", dist.LogNormal(0.0, 0.5))
    weights = pyro.sample("weights", dist.Dirichlet(torch.tensor([4.0, 3.0, 5.0])))
    with pyro.plate("cells", y.shape[1]), pyro.plate("group", y.shape[0], dim=-2):
        mean = pyro.sample("mean", dist.Normal(weights[0], tau))
        pyro.sample("y", dist.Normal(mean, sd), obs=y)


def fitted_groups() -> FitResult:
    y = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    return hofit.fit(groups, config(fixed={"sd/all": 0.8}, objective="map_unconstrained"), y=y)
