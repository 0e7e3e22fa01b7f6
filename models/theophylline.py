"""Theophylline after an oral dose: one compartment, first-order absorption and elimination, varying subjects.

    concentration_i ~ Normal(f(time_i, dose_i; Ke, Kaₛ, Clₛ), σ),   s = subject_i
    f(t, D; Ke, Ka, Cl) = D Ke Ka / Cl · (exp(−Ke t) − exp(−Ka t)) / (Ka − Ke)
    log Ke = lKe,   log Kaₛ = lKa + bₛ₀,   log Clₛ = lCl + bₛ₁
    bₛ₀ ~ Normal(0, τ₀),   bₛ₁ ~ Normal(0, τ₁)

Parameters: `lKe` (log 1/h), `lKa` (log 1/h), `lCl` (log l/h/kg), `sd_lKa` = τ₀, `sd_lCl` = τ₁, `sigma` = σ (mg/l).
Latent: `b` (subjects, 2). With b free, hold the scales: at τ → 0 the joint density has no bound.

Data: data/theoph.csv, 12 subjects, 11 concentrations each over 25 h, dose in mg/kg
(Boeckmann, Sheiner & Beal 1994, NONMEM Users Guide V).
Reference: Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, section 8.2.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(concentration: Tensor, time: Tensor, dose: Tensor, subject: Tensor, n_subjects: int) -> None:
    lKe = pyro.param("lKe", torch.tensor(-2.5))
    lKa = pyro.param("lKa", torch.tensor(0.5))
    lCl = pyro.param("lCl", torch.tensor(-3.0))
    sd_lKa = pyro.param("sd_lKa", torch.tensor(0.5), constraint=constraints.positive)
    sd_lCl = pyro.param("sd_lCl", torch.tensor(0.5), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)

    with pyro.plate("subjects", n_subjects):
        b = pyro.sample("b", dist.Normal(0.0, torch.stack([sd_lKa, sd_lCl])).to_event(1))  # (subjects, 2)

    departure = b[subject]  # (observations, 2)
    mean = one_compartment(time, dose, lKe, lKa + departure[:, 0], lCl + departure[:, 1])
    with pyro.plate("observations", len(concentration)):
        pyro.sample("concentration", dist.Normal(mean, sigma), obs=concentration)


def one_compartment(time: Tensor, dose: Tensor, lKe: Tensor, lKa: Tensor, lCl: Tensor) -> Tensor:
    """Concentration after an oral dose at time 0; the rates and the clearance come as logarithms."""
    elimination, absorption = lKe.exp(), lKa.exp()
    decay = (-elimination * time).exp() - (-absorption * time).exp()
    return dose * (lKe + lKa - lCl).exp() * decay / (absorption - elimination)
