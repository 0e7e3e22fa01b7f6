"""Radon in Minnesota homes: varying intercepts and floor effects by county, with a county-level predictor.

    log_radon_i ~ Normal(β₀ + b₀_c + (β₁ + b₁_c) floor_i + β₂ log_uranium_i, σ),   c = county_i
    b_c = (b₀_c, b₁_c) ~ Normal(0, Σ),   Σ = [τ₀², ρτ₀τ₁; ρτ₀τ₁, τ₁²]

Parameters: `beta` = (β₀, β₁, β₂), `sd_intercept` = τ₀, `sd_floor` = τ₁, `correlation` = ρ, `sigma` = σ;
all but ρ in log pCi/l (β₂ per log ppm).
Latent: `b` (counties, 2), each county's departure from β₀ and β₁.
With b free, hold the scales: at τ → 0 the joint density has no bound.

Data: data/radon.csv, 919 homes in 85 counties; floor 0 is the basement, 1 the first floor; log uranium is
measured by county.
Reference: Gelman & Hill (2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, chapters 12 and 13.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(log_radon: Tensor, floor: Tensor, log_uranium: Tensor, county: Tensor, n_counties: int) -> None:
    beta = pyro.param("beta", torch.zeros(3))
    sd_intercept = pyro.param("sd_intercept", torch.tensor(0.3), constraint=constraints.positive)
    sd_floor = pyro.param("sd_floor", torch.tensor(0.3), constraint=constraints.positive)
    correlation = pyro.param("correlation", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)

    scale_tril = cholesky_factor(sd_intercept, sd_floor, correlation)
    with pyro.plate("counties", n_counties):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=scale_tril))  # (counties, 2)

    line = beta[:2] + b[county]  # (homes, 2)
    mean = line[:, 0] + line[:, 1] * floor + beta[2] * log_uranium
    with pyro.plate("homes", len(log_radon)):
        pyro.sample("log_radon", dist.Normal(mean, sigma), obs=log_radon)


def cholesky_factor(sd_first: Tensor, sd_second: Tensor, correlation: Tensor) -> Tensor:
    """The lower triangle L of the 2 × 2 covariance Σ = L Lᵀ."""
    first_row = torch.stack([sd_first, torch.zeros(())])
    second_row = sd_second * torch.stack([correlation, (1 - correlation**2).sqrt()])
    return torch.stack([first_row, second_row])
