"""A transform with a cache, made once for the module, as Pyro's reparameterisers do."""

import pyro
import pyro.distributions as dist
from torch.distributions.transforms import SoftplusTransform

SOFTPLUS = SoftplusTransform(cache_size=1)


def model(y):
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(SOFTPLUS(x), 0.5), obs=y)
