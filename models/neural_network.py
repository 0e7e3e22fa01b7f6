"""A neural network on the radon data: one hidden layer, Gaussian priors on its weights (weight decay).

    log_radon_i ~ Normal(v · tanh(W x_i + a) + c, σ),   x_i = (floor_i, log_uranium_i)
    every entry of W, a, v and c ~ Normal(0, 0.5)

Parameters: `net.hidden.weight` = W (4, 2), `net.hidden.bias` = a (4,), `net.output.weight` = v (1, 4),
`net.output.bias` = c (1,), `sigma` = σ (log pCi/l). The prior bounds the weights; the density keeps the symmetries of
the hidden units (their order, their signs), so a mode has up to 4! 2⁴ copies.

Data: data/radon.csv, 919 homes in Minnesota (Gelman & Hill 2007).
Reference: MacKay (1992), A practical Bayesian framework for backpropagation networks, Neural Computation 4, 448-472.
"""

from collections import OrderedDict

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

HIDDEN_UNITS = 4
PRIOR_SD = 0.5
SEED = 0


def build_network() -> nn.Module:
    """The network at its start: the same weights every time, and the global generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return nn.Sequential(
            OrderedDict(hidden=nn.Linear(2, HIDDEN_UNITS), activation=nn.Tanh(), output=nn.Linear(HIDDEN_UNITS, 1))
        )


network = build_network()


def model(log_radon: Tensor, floor: Tensor, log_uranium: Tensor) -> None:
    net = pyro.module("net", network)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)

    prior = dist.Normal(0.0, PRIOR_SD)
    pyro.factor("weight_decay", sum(prior.log_prob(weight).sum() for weight in net.parameters()))

    mean = net(torch.stack([floor, log_uranium], -1)).squeeze(-1)  # (homes,)
    with pyro.plate("homes", len(log_radon)):
        pyro.sample("log_radon", dist.Normal(mean, sigma), obs=log_radon)
