"""The growth of rats on three diets: a line a rat, and around it what a rat is ahead or behind for some weeks.

    weight_i ~ Normal(β_d + b₀ᵣ + (γ_d + b₁ᵣ) week_i + e_rt, sigma),   r = rat_i, d its diet, t = time_i
    bᵣ = (b₀ᵣ, b₁ᵣ) ~ Normal(0, Σ),   Σ = [τ₀², ρτ₀τ₁; ρτ₀τ₁, τ₁²]
    e_r,t ~ Normal(φ e_r,t−1, sd_ahead² (1 − φ²)),   φ = exp(−weeks between / range),   e_r,0 ~ Normal(0, sd_ahead)

A first-order autoregression in continuous time: rats were weighed weekly, and once more on day 44.
Parameters: `intercept` = β (3,), g; `growth` = γ (3,), g a week; `sd_intercept` = τ₀, `sd_growth` = τ₁,
`correlation` = ρ; `sd_ahead`, g, and `range`, weeks; `sigma`, g.
Latents: `b` (rats, 2), `ahead` = e (rats, times). With them free, hold the scales: at 0 the joint density has no bound.

Data: data/body_weight.csv, 16 rats on 11 days over nine weeks (Crowder & Hand 1990, Analysis of Repeated Measures).
Reference: Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, chapter 5.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

DAYS_A_WEEK = 7


def model(weight: Tensor, day: Tensor, rat: Tensor, diet: Tensor, n_rats: int, n_diets: int) -> None:
    """weight, day (weighings,); rat and diet count from 0."""
    intercept = pyro.param("intercept", 300.0 * torch.ones(n_diets))
    growth = pyro.param("growth", torch.zeros(n_diets))
    sd_intercept = pyro.param("sd_intercept", torch.tensor(30.0), constraint=constraints.positive)
    sd_growth = pyro.param("sd_growth", torch.tensor(2.0), constraint=constraints.positive)
    correlation = pyro.param("correlation", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))
    sd_ahead = pyro.param("sd_ahead", torch.tensor(5.0), constraint=constraints.positive)
    range_ = pyro.param("range", torch.tensor(2.0), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(5.0), constraint=constraints.positive)

    week = day / DAYS_A_WEEK
    times, time = week.unique(return_inverse=True)  # time: the number of a day among all
    kept = (-times.diff() / range_).exp()  # φ, (times − 1,)
    first_row = torch.stack([sd_intercept, torch.zeros(())])
    second_row = sd_growth * torch.stack([correlation, (1 - correlation**2).sqrt()])
    with pyro.plate("rats", n_rats):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=torch.stack([first_row, second_row])))
        ahead = pyro.sample("ahead", dist.ImproperUniform(constraints.real, (), (len(times),)))  # (rats, times)
    pyro.factor("first", dist.Normal(0.0, sd_ahead).log_prob(ahead[:, 0]).sum())
    step = dist.Normal(kept * ahead[:, :-1], sd_ahead * (1 - kept**2).sqrt())
    pyro.factor("steps", step.log_prob(ahead[:, 1:]).sum())

    line = intercept[diet] + b[rat, 0] + (growth[diet] + b[rat, 1]) * week
    with pyro.plate("weighings", len(weight)):
        pyro.sample("weight", dist.Normal(line + ahead[rat, time], sigma), obs=weight)
