"""Two crossed effects that are not there: both variances may be zero at the maximum, lme4's commonest singular fit."""

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def load_data(rows=20000, groups=10000, stores=300, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {
        "y": torch.randn(rows, generator=g),
        "x": torch.randn(rows, generator=g),
        "group": torch.randint(groups, (rows,), generator=g),
        "store": torch.randint(stores, (rows,), generator=g),
        "groups": groups,
        "stores": stores,
    }


def model(y, x, group, store, groups, stores):
    b = pyro.param("b", torch.zeros(2))
    sd_group = pyro.param("sd_group", torch.tensor(1.0), constraint=constraints.positive)
    sd_store = pyro.param("sd_store", torch.tensor(1.0), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("groups", groups):
        u = pyro.sample("u", dist.Normal(0.0, sd_group))
    with pyro.plate("stores", stores):
        v = pyro.sample("v", dist.Normal(0.0, sd_store))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(b[0] + b[1] * x + u[group] + v[store], sigma), obs=y)
