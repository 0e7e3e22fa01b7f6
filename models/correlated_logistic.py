"""Logistic regression with correlated intercepts and slopes, simulated: what lme4 writes y ~ x + (1 + x | group).

    y_i ~ Bernoulli(logit⁻¹(β₀ + b₀_g + (β₁ + b₁_g) x_i)),   g = group_i
    b_g = (b₀_g, b₁_g) ~ Normal(0, Σ),   Σ = [τ₀², ρτ₀τ₁; ρτ₀τ₁, τ₁²]

Parameters, on the logit scale: `beta` = (β₀, β₁), `sd_intercept` = τ₀, `sd_slope` = τ₁, `correlation` = ρ.
Latent: `b` (groups, 2). With b free, hold the scales: at τ → 0 the joint density has no bound.

`load_data` takes `groups`, of ten rows each, and `seed`; x ~ Normal(0, 1), and the truth is β = (−0.5, 1),
τ = (1, 0.7), ρ = 0. Of a fit in pieces (`shard`) each has some of the groups: `rank` of `world_size`.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

ROWS_PER_GROUP = 10
TRUE_BETA, TRUE_SD = (-0.5, 1.0), (1.0, 0.7)


def model(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """x, y and group (rows,); group counts from 0."""
    beta = pyro.param("beta", torch.zeros(2))
    sd_intercept = pyro.param("sd_intercept", torch.tensor(1.0), constraint=constraints.positive)
    sd_slope = pyro.param("sd_slope", torch.tensor(1.0), constraint=constraints.positive)
    correlation = pyro.param("correlation", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))

    scale_tril = cholesky_factor(sd_intercept, sd_slope, correlation)
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=scale_tril))  # (groups, 2)

    line = beta + b[group]  # (rows, 2)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=line[:, 0] + line[:, 1] * x), obs=y)


def cholesky_factor(sd_first: Tensor, sd_second: Tensor, correlation: Tensor) -> Tensor:
    """The lower triangle L of the 2 × 2 covariance Σ = L Lᵀ."""
    first_row = torch.stack([sd_first, torch.zeros(())])
    second_row = sd_second * torch.stack([correlation, (1 - correlation**2).sqrt()])
    return torch.stack([first_row, second_row])


def load_data(groups: int = 1000, seed: int = 0, rank: int = 0, world_size: int = 1) -> dict[str, Tensor | int]:
    """The model's arguments: group after group, ten rows each, of one piece of `world_size`."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.tensor(TRUE_BETA) + torch.tensor(TRUE_SD) * torch.randn(groups, 2, generator=generator)
    group = torch.arange(groups).repeat_interleave(ROWS_PER_GROUP)
    x = torch.randn(len(group), generator=generator)
    logits = line[group, 0] + line[group, 1] * x
    y = torch.bernoulli(logits.sigmoid(), generator=generator)
    first, last = rank * groups // world_size, (rank + 1) * groups // world_size
    own = slice(first * ROWS_PER_GROUP, last * ROWS_PER_GROUP)
    return {"x": x[own], "y": y[own], "group": group[own] - first, "n_groups": last - first}
