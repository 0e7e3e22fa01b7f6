"""A left-to-right HMM: forbidden transitions have log probability −inf. Pyro has finite numbers here."""

import pyro
import pyro.distributions as dist
import torch

FORBIDDEN = torch.tensor([[0.0, 0.0, float("-inf")], [float("-inf"), 0.0, 0.0], [float("-inf"), float("-inf"), 0.0]])
START = torch.tensor([0.0, float("-inf"), float("-inf")])


def model(y):
    stay = pyro.param("stay", torch.zeros(3))
    mean = pyro.param("mean", torch.tensor([-2.0, 0.0, 2.0]))
    logits = FORBIDDEN + torch.diag(stay)
    z = None
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(logits=START if z is None else logits[z]))
        pyro.sample(f"y_{t}", dist.Normal(mean[z], 1.0), obs=y[t])
