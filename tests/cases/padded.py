"""Repeated doses as a padded matrix (rows, doses), each row sums what is left of its doses."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def load_data(subjects=40, each=3, doses=15, seed=5):
    g = torch.Generator().manual_seed(seed)
    subject = torch.arange(subjects).repeat_interleave(each)
    rows = len(subject)
    given = 1 + torch.randint(0, doses, (rows,), generator=g)
    amount = torch.where(torch.arange(doses) < given[:, None], 25.0, 0.0)
    since = torch.cumsum(5 + 5 * torch.rand(rows, doses, generator=g), 1).flip(1)
    clearance = torch.exp(-5.0 + 0.3 * torch.randn(subjects, generator=g))[subject, None]
    volume = torch.exp(0.4 + 0.2 * torch.randn(subjects, generator=g))[subject, None]
    mean = (amount / volume * torch.exp(-clearance / volume * since)).sum(-1)
    return {
        "conc": mean + 2.0 * torch.randn(rows, generator=g),
        "since": since,
        "amount": amount,
        "subject": subject,
        "n": subjects,
    }


def model(conc, since, amount, subject, n):
    clearance = pyro.param("clearance", torch.tensor(-5.0))
    volume = pyro.param("volume", torch.tensor(0.5))
    sd = pyro.param("sd", torch.tensor([0.5, 0.5]), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(3.0), constraint=constraints.positive)
    with pyro.plate("subjects", n):
        b = pyro.sample("b", dist.Normal(0.0, sd).to_event(1))
        cl, v = torch.exp(clearance + b[:, 0]), torch.exp(volume + b[:, 1])
    mean = (amount / v[subject, None] * torch.exp(-cl[subject, None] / v[subject, None] * since)).sum(-1)
    with pyro.plate("rows", len(conc)):
        pyro.sample("conc", dist.Normal(mean, sigma), obs=conc)
