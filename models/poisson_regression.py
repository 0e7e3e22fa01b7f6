"""Poisson regression, simulated: counts on many rows, a dense design.

    y_i ~ Poisson(exp(x_i · β)),   β_j ~ Normal(0, 2.5)

Latent: `beta` = β (covariates,). The first covariate is 1: β₁ is the intercept.

`load_data` takes `rows`, `covariates` (the intercept among them) and `seed`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

TRUE_INTERCEPT, TRUE_SD = 0.5, 0.1


def model(x: Tensor, y: Tensor) -> None:
    beta = pyro.sample("beta", dist.Normal(torch.zeros(x.shape[1]), 2.5).to_event(1))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((x @ beta).exp()), obs=y)


def load_data(rows: int = 200_000, covariates: int = 50, seed: int = 0) -> dict[str, Tensor]:
    """The model's arguments: x (rows, covariates), its first column ones, and y (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, covariates, generator=generator)
    x[:, 0] = 1.0
    beta = TRUE_SD * torch.randn(covariates, generator=generator)
    beta[0] = TRUE_INTERCEPT
    return {"x": x, "y": torch.poisson((x @ beta).exp(), generator=generator)}
