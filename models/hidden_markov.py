"""Major earthquakes of the world, 1900-2006: counts a year, in calm and active years that follow each other.

    count_t ~ Poisson(λ_z(t)),   z(1) ~ δ,   P(z(t + 1) = z(t)) = stay_z(t)
    δ, the stationary distribution, is proportional to (1 − stay_1, 1 − stay_0)

Parameters: `rate` = λ (states,), earthquakes a year; `stay` (states,). The states may change places: 0 starts calm.
Summed out: `state_t` for every year t.

Data: data/earthquakes.csv, 107 years (US Geological Survey: earthquakes of magnitude 7 or more).
Reference: Zucchini, MacDonald & Langrock (2016), Hidden Markov Models for Time Series, 2nd ed., section 3.1.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(count: Tensor) -> None:
    rate = pyro.param("rate", torch.tensor([10.0, 30.0]), constraint=constraints.positive)
    stay = pyro.param("stay", torch.tensor([0.9, 0.9]), constraint=constraints.unit_interval)
    to_active = torch.stack([1.0 - stay[0], stay[1]])  # by state
    stationary = (1.0 - stay[0]) / (2.0 - stay.sum())  # the share of active years
    active = stationary
    for t in pyro.markov(range(len(count))):
        state = pyro.sample(f"state_{t}", dist.Bernoulli(active)).long()
        pyro.sample(f"count_{t}", dist.Poisson(rate[state]), obs=count[t])
        active = to_active[state]
