"""Calls to a bank, five minutes by five minutes: a smooth rate for each day, whose smoothness is estimated.

    calls_t ~ Poisson(exp(f_t)),   f_t − 2 f_{t−1} + f_{t−2} ~ Normal(0, sd) within a day

A random walk of the second order that begins anew each morning, at any level and slope.
Parameter: `sd`, per (5 minutes)²: at sd → 0 the log rate of each day is a straight line.
Latent: `log_rate` = f (times,), 27,716 of them. With f free, hold sd: at sd → 0 the joint density has no bound.

Data: data/bank_calls.csv.gz, calls to a North American commercial bank from 7:00 to 21:05 on 164 weekdays,
3 March to 24 October 2003 (Weinberg, Brown & Stroud 2007, J. American Statistical Association 102, 1185-1198).
Reference: Fahrmeir & Lang (2001), Applied Statistics 50, 201-220, section 2.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints


def model(calls: Tensor, date: Tensor, n_dates: int) -> None:
    """calls, date (times,), day by day; each day has as many times."""
    sd = pyro.param("sd", torch.tensor(0.05), constraint=constraints.positive)

    log_rate = pyro.sample("log_rate", dist.ImproperUniform(constraints.real, (), (len(calls),)))
    second_differences = log_rate.reshape(n_dates, -1).diff(n=2)
    pyro.factor("smoothness", dist.Normal(0.0, sd).log_prob(second_differences).sum())

    with pyro.plate("times", len(calls)):
        pyro.sample("calls", dist.Poisson(log_rate.exp()), obs=calls)
