"""Eight schools: the effect of coaching on test scores, non-centred.

    y_j ~ Normal(μ + τ η_j, σ_j),   η_j ~ Normal(0, 1)
    μ ~ Normal(0, 5),   τ ~ HalfCauchy(5)

Latents (points of the test): `mu` = μ, `tau` = τ, and `eta` = η (schools,), in units of τ. σ_j is known.
The joint mode lies on the boundary τ = 0; hold τ for a mode that is inside.

Data: data/eight_schools.csv, estimated effects and their standard errors
(Rubin 1981, J. Educational Statistics 6, 377-401).
Reference: Gelman et al. (2013), Bayesian Data Analysis, 3rd ed., section 5.5.
"""

import pyro
import pyro.distributions as dist
from torch import Tensor


def model(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))  # (schools,)
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)
