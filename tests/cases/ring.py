import pyro
import pyro.distributions as dist


def model(x):
    n, d = x.shape
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([d, 2]).to_event(2))
    with pyro.plate("rows", n):
        z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("x", dist.Normal(z @ w.T, 1.0).to_event(1), obs=x)
