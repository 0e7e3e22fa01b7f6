"""Penicillin assay: two crossed random effects.

    diameter_i ~ Normal(β₀ + p_j + s_k, σ),   j = plate_i, k = sample_i
    p_j ~ Normal(0, τ_plate),   s_k ~ Normal(0, τ_sample)

Parameters (mm): `intercept` = β₀, `sd_plate`, `sd_sample`, `sigma` = σ.
Latents (mm): `plate_effect` (plates,), `sample_effect` (samples,). Every sample is tried on every plate, so the
effects interact. With them free, hold the scales: at τ → 0 the joint density has no bound.

Data: data/penicillin.csv, the diameter of the zone without growth, 24 plates × 6 samples
(Davies & Goldsmith 1972, Statistical Methods in Research and Production, 4th ed.).
Reference: Bates, Mächler, Bolker & Walker (2015), lme4, J. Statistical Software 67(1).
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(diameter: Tensor, plate: Tensor, sample: Tensor, n_plates: int, n_samples: int) -> None:
    intercept = pyro.param("intercept", torch.tensor(20.0))
    sd_plate = pyro.param("sd_plate", torch.tensor(1.0), constraint=constraints.positive)
    sd_sample = pyro.param("sd_sample", torch.tensor(1.0), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)

    with pyro.plate("plates", n_plates):
        plate_effect = pyro.sample("plate_effect", dist.Normal(0.0, sd_plate))  # (plates,)
    with pyro.plate("samples", n_samples):
        sample_effect = pyro.sample("sample_effect", dist.Normal(0.0, sd_sample))  # (samples,)

    mean = intercept + plate_effect[plate] + sample_effect[sample]
    with pyro.plate("observations", len(diameter)):
        pyro.sample("diameter", dist.Normal(mean, sigma), obs=diameter)
