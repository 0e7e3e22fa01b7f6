"""Reaction times under sleep deprivation: a linear mixed model with correlated intercepts and slopes.

    reaction_i ~ Normal(β₀ + b₀ₛ + (β₁ + b₁ₛ) days_i, σ),   s = subject_i
    bₛ = (b₀ₛ, b₁ₛ) ~ Normal(0, Σ),   Σ = [τ₀², ρτ₀τ₁; ρτ₀τ₁, τ₁²]

Parameters: `beta` = (β₀ ms, β₁ ms/day), `sd_intercept` = τ₀ (ms), `sd_days` = τ₁ (ms/day), `correlation` = ρ,
`sigma` = σ (ms).
Latent: `b` (subjects, 2), each subject's departure from `beta`.
With b free, hold the scales: at τ → 0 the joint density has no bound.
`restricted` has β as a latent under a flat prior: integrated out like b, it leaves the restricted likelihood (REML).

Data: data/sleepstudy.csv, 18 subjects on days 0 to 9 of three hours in bed a night
(Belenky et al. 2003, J. Sleep Research 12, 1-12).
Reference: Bates, Mächler, Bolker & Walker (2015), Fitting linear mixed-effects models using lme4,
J. Statistical Software 67(1).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(reaction: Tensor, days: Tensor, subject: Tensor, n_subjects: int) -> None:
    beta = pyro.param("beta", torch.tensor([300.0, 0.0]))
    observe(beta, reaction, days, subject, n_subjects)


def restricted(reaction: Tensor, days: Tensor, subject: Tensor, n_subjects: int) -> None:
    beta = pyro.sample("beta", dist.ImproperUniform(constraints.real, (), (2,)))
    observe(beta, reaction, days, subject, n_subjects)


def observe(beta: Tensor, reaction: Tensor, days: Tensor, subject: Tensor, n_subjects: int) -> None:
    """What both have: the scales, the subjects and their reaction times."""
    sd_intercept = pyro.param("sd_intercept", torch.tensor(25.0), constraint=constraints.positive)
    sd_days = pyro.param("sd_days", torch.tensor(5.0), constraint=constraints.positive)
    correlation = pyro.param("correlation", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))
    sigma = pyro.param("sigma", torch.tensor(30.0), constraint=constraints.positive)

    scale_tril = cholesky_factor(sd_intercept, sd_days, correlation)
    with pyro.plate("subjects", n_subjects):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=scale_tril))  # (subjects, 2)

    line = beta + b[subject]  # (observations, 2)
    with pyro.plate("observations", len(reaction)):
        pyro.sample("reaction", dist.Normal(line[:, 0] + line[:, 1] * days, sigma), obs=reaction)


def cholesky_factor(sd_first: Tensor, sd_second: Tensor, correlation: Tensor) -> Tensor:
    """The lower triangle L of the 2 × 2 covariance Σ = L Lᵀ."""
    first_row = torch.stack([sd_first, torch.zeros(())])
    second_row = sd_second * torch.stack([correlation, (1 - correlation**2).sqrt()])
    return torch.stack([first_row, second_row])
