import pyro
import pyro.distributions as dist


def model(y):
    rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
    gate = pyro.sample("gate", dist.Beta(1.0, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.ZeroInflatedPoisson(rate, gate=gate), obs=y)
