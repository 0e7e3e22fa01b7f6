"""BUGS' vague precision prior: its median is near 1e-305."""

import pyro
import pyro.distributions as dist


def model(y):
    tau = pyro.sample("tau", dist.Gamma(1e-3, 1e-3))
    mu = pyro.sample("mu", dist.Normal(0.0, 1000.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, tau.rsqrt()), obs=y)
