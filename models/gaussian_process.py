"""Gaussian process regression, simulated: the hyperparameters by type-II maximum likelihood.

    y ~ Normal(0, K + σ² I),   K_ij = α² exp(−(x_i − x_j)² / (2 ℓ²))

Parameters: `lengthscale` = ℓ, `amplitude` = α, `noise` = σ. The function itself is integrated out, so the loss is
minus the marginal log likelihood; every evaluation factorises an n × n matrix.

`load_data` takes `n`, the number of observations on [0, 10], and `seed`.
Reference: Rasmussen & Williams (2006), Gaussian Processes for Machine Learning, section 5.4.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

WIDTH = 10.0
TRUE_LENGTHSCALE, TRUE_AMPLITUDE, TRUE_NOISE = 0.7, 1.5, 0.3


def model(x: Tensor, y: Tensor) -> None:
    lengthscale = pyro.param("lengthscale", torch.tensor(1.0), constraint=constraints.positive)
    amplitude = pyro.param("amplitude", torch.tensor(1.0), constraint=constraints.positive)
    noise = pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)

    scale_tril = torch.linalg.cholesky(covariance(x, lengthscale, amplitude, noise))
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(len(x)), scale_tril=scale_tril), obs=y)


def covariance(x: Tensor, lengthscale: Tensor, amplitude: Tensor, noise: Tensor) -> Tensor:
    """K + σ² I, (n, n)."""
    distance = (x[:, None] - x) / lengthscale
    return amplitude**2 * (-0.5 * distance**2).exp() + noise**2 * torch.eye(len(x))


def load_data(n: int = 500, seed: int = 0) -> dict[str, Tensor]:
    """The model's arguments: x sorted, y drawn from the process; both (n,)."""
    generator = torch.Generator().manual_seed(seed)
    x = (WIDTH * torch.rand(n, generator=generator)).sort().values
    truth = (torch.tensor(value) for value in (TRUE_LENGTHSCALE, TRUE_AMPLITUDE, TRUE_NOISE))
    y = torch.linalg.cholesky(covariance(x, *truth)) @ torch.randn(n, generator=generator)
    return {"x": x, "y": y}
