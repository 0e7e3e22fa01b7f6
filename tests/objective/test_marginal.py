"""The evidence with latents integrated by Laplace's method: its derivatives on each structure, references, failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

from hofit.curvature.dense import flatten

from .conftest import Make, slopes_along

GRADIENT, HESSIAN = 1e-6, 1e-5
"""Relative: the issue's bar of the gradient against central differences; the Hessian's, of a gradient's differences."""


def scalar(name: str, start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start))
    return value


def positive(name: str, *start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start).squeeze(), constraint=constraints.positive)
    return value


def observe_counts(y: Tensor, log_rate: Tensor) -> None:
    with pyro.plate("observations", len(y)):
        pyro.sample("y", dist.Poisson(log_rate.exp()), obs=y)


ROWS, EACH = 8, 5
GROUP = torch.arange(ROWS).repeat_interleave(EACH)


def counts(n: int = ROWS * EACH, seed: int = 3) -> Tensor:
    return torch.poisson(2.0 * torch.ones(n), generator=torch.Generator().manual_seed(seed))


def covariate(n: int = ROWS * EACH, seed: int = 4) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


# models, one for each structure -----------------------------------------------------------------------------------


def diagonal() -> None:
    sd, mu, slope = positive("sd", 1.2), scalar("mu", 0.1), scalar("slope", 0.3)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    observe_counts(counts(), mu + slope * covariate() + b[GROUP])


def noncentred() -> None:
    sd, mu, slope = positive("sd", 1.2), scalar("mu", 0.1), scalar("slope", 0.3)
    with pyro.plate("rows", ROWS):
        eta = pyro.sample("b", dist.Normal(0.0, 1.0))
    observe_counts(counts(), mu + slope * covariate() + (sd * eta)[GROUP])


def correlated(length: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", *[0.8] * length)
        low = pyro.param("low", torch.eye(length), constraint=constraints.corr_cholesky)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(length), scale_tril=sd[:, None] * low))
        powers = torch.stack([covariate() ** k / (k + 1) for k in range(length)], -1)
        observe_counts(counts(), mu + (powers * b[GROUP]).sum(-1))

    return model


def arrowhead() -> None:
    sd = positive("sd", 1.2)
    a = pyro.sample("a", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    observe_counts(counts(), a[0] + a[1] * covariate() + b[GROUP])


def nested() -> None:
    mu, within, between = scalar("mu", 0.1), positive("within", 1.2), positive("between", 0.8)
    with pyro.plate("schools", 3):
        a = pyro.sample("a", dist.Normal(0.0, between))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(a[torch.arange(ROWS) % 3], within))
    observe_counts(counts(), mu + 0.2 * covariate() + b[GROUP])


def nested_plates() -> None:
    mu, sigma, sd = scalar("mu", 0.1), positive("sigma", 1.2), positive("sd", 0.8, 0.5)
    with pyro.plate("rows", 5, dim=-2):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), sd).to_event(1))  # (5, 1, 2)
        with pyro.plate("columns", 8, dim=-1):
            line = mu + b[..., 0] + b[..., 1] * torch.linspace(-1, 1, 8)
            pyro.sample("y", dist.Normal(line, sigma), obs=covariate().view(5, 8))


def inner_rows() -> None:
    mu, outer, inner = scalar("mu", 0.1), positive("outer", 0.8), positive("inner", 0.5)
    with pyro.plate("columns", 5, dim=-1):
        a = pyro.sample("a", dist.Normal(0.0, outer))
        with pyro.plate("rows", 8, dim=-2):
            b = pyro.sample("b", dist.Normal(a, inner))  # (8, 5)
            pyro.sample("y", dist.Poisson((mu + b).exp()), obs=counts().view(8, 5))


def crossed(first: int, second: int, observations: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(8)
    one = torch.randint(0, first, (observations,), generator=generator)
    other = torch.randint(0, second, (observations,), generator=generator)

    def model() -> None:
        mu, sd_a, sd_b = scalar("mu", 0.1), positive("sd_a", 0.8), positive("sd_b", 0.5)
        with pyro.plate("first", first):
            a = pyro.sample("a", dist.Normal(0.0, sd_a))
        with pyro.plate("second", second):
            b = pyro.sample("b", dist.Normal(0.0, sd_b))
        observe_counts(counts(observations), mu + a[one] + b[other])

    return model


def gaussian_process(n: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd, length = scalar("mu", 0.1), positive("sd", 0.8), positive("length", 0.2)
        t = torch.linspace(0, 1, n)
        covariance = sd**2 * torch.exp(-(t[:, None] - t).abs() / length)
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(n), covariance))
        observe_counts(counts(n), mu + b)

    return model


def random_walk(n: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", 0.4)
        steps = pyro.sample("b", dist.Normal(0.0, sd).expand([n]).to_event(1))
        observe_counts(counts(n), mu + steps.cumsum(0))

    return model


def restricted() -> None:
    """Fixed effects integrated under a flat prior: the restricted likelihood."""
    sigma, sd = positive("sigma", 1.2), positive("sd", 0.8)
    a = pyro.sample("a", dist.ImproperUniform(constraints.real, (), (2,)))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("observations", ROWS * EACH):
        pyro.sample("y", dist.Normal(a[0] + a[1] * covariate() + b[GROUP], sigma), obs=covariate(seed=9))


def constrained(kind: str) -> Callable[[], None]:
    def model() -> None:
        mu, shape = scalar("mu", 0.2), positive("shape", 2.0)
        prior = {
            "gamma": lambda: dist.Gamma(shape, shape),
            "log_normal": lambda: dist.LogNormal(mu, shape / 2),
            "beta": lambda: dist.Beta(shape, 1 + shape),
            "dirichlet": lambda: dist.Dirichlet(torch.stack([shape, shape + 1, 2 * shape])),
        }[kind]()
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", prior)
        b = b[..., 0] if kind == "dirichlet" else b
        with pyro.plate("observations", ROWS * EACH):
            bounded = kind in ("beta", "dirichlet")
            pyro.sample(
                "y", dist.Binomial(20, b[GROUP]) if bounded else dist.Poisson(b[GROUP] * mu.exp()), obs=counts()
            )

    return model


def multivariate_likelihood() -> None:
    mu, sigma, sd, r = scalar("mu", 0.1), positive("sigma", 0.7), positive("sd", 0.6), scalar("r", 0.3)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
        covariance = sigma**2 * (torch.eye(EACH) + torch.sigmoid(r) * (1 - torch.eye(EACH)))
        mean = (mu + b)[:, None].expand(ROWS, EACH)
        pyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=covariate().view(ROWS, EACH))


def factor() -> None:
    mu, sd = scalar("mu", 0.1), positive("sd", 0.6)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    logit = mu + b[GROUP]
    with pyro.plate("observations", ROWS * EACH):
        pyro.factor("likelihood", (covariate() > 0) * logit - torch.nn.functional.softplus(logit))


def one_compartment() -> None:
    """Theophylline's curve, nonlinear in the logarithms of absorption and clearance."""
    means = [scalar(name, start) for name, start in (("lKe", -2.5), ("lKa", 0.5), ("lCl", -3.0))]
    sd, sigma = positive("sd", 0.5, 0.3), positive("sigma", 0.8)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd).to_event(1))
    ke, ka, cl = means[0].exp(), (means[1] + b[GROUP, 0]).exp(), (means[2] + b[GROUP, 1]).exp()
    time = torch.tensor([0.5, 1.0, 3.0, 9.0, 24.0]).repeat(ROWS)
    curve = 4.0 * ke * ka / cl * (torch.exp(-ke * time) - torch.exp(-ka * time)) / (ka - ke)
    seen = torch.tensor([4.0, 6.5, 7.5, 5.0, 1.4]).repeat(ROWS) + 0.8 * covariate()
    with pyro.plate("observations", ROWS * EACH):
        pyro.sample("y", dist.Normal(curve, sigma), obs=seen)


@dataclass(frozen=True)
class Case:
    model: Callable[[], None]
    found: str
    """What the structure of the integrated latents is described as."""
    integrated: tuple[str, ...] = ("b",)


STRUCTURES = {
    "diagonal": Case(diagonal, "diagonal: 8 rows of 1"),
    "not centred": Case(noncentred, "diagonal: 8 rows of 1"),
    "rows of 2": Case(correlated(2), "rows: 8 rows of 2"),
    "rows of 3": Case(correlated(3), "rows: 8 rows of 3"),
    "rows of 6": Case(correlated(6), "rows: 8 rows of 6"),
    "rows of 8": Case(correlated(8), "rows: 8 rows of 8"),
    "arrowhead": Case(arrowhead, "arrowhead: 8 rows of 1 (b); border of 2", ("a", "b")),
    "nested": Case(nested, "arrowhead: 8 rows of 1 (b); border of 3", ("a", "b")),
    "nested plates": Case(nested_plates, "rows: 5 rows of 2"),
    "inner rows": Case(inner_rows, "arrowhead: 40 rows of 1 (b); border of 5", ("a", "b")),
    "crossed": Case(crossed(10, 6, 50), "arrowhead: 10 rows of 1 (a); border of 6", ("a", "b")),
    "crossed, sparse": Case(crossed(80, 66, 120), "arrowhead: 80 rows of 1 (a); border of 66", ("a", "b")),
    "Gaussian process of 40": Case(gaussian_process(40), "dense (40)"),
    "Gaussian process of 100": Case(gaussian_process(100), "dense (100)"),
    "random walk of 40": Case(random_walk(40), "dense (40)"),
    "random walk of 100": Case(random_walk(100), "dense (100)"),
    "restricted": Case(restricted, "arrowhead: 8 rows of 1 (b); border of 2", ("a", "b")),
    "gamma": Case(constrained("gamma"), "diagonal: 8 rows of 1"),
    "log-normal": Case(constrained("log_normal"), "diagonal: 8 rows of 1"),
    "beta": Case(constrained("beta"), "diagonal: 8 rows of 1"),
    "dirichlet": Case(constrained("dirichlet"), ""),
    "multivariate likelihood": Case(multivariate_likelihood, "diagonal: 8 rows of 1"),
    "factor": Case(factor, "diagonal: 8 rows of 1"),
    "nonlinear": Case(one_compartment, "rows: 8 rows of 2"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_gradient_and_hessian_are_those_of_the_loss(name: str, path: str, evidence: Make) -> None:
    """Reference: central differences of the loss, and of the gradient, along a random direction."""
    case = STRUCTURES[name]
    own = evidence(case.model, list(case.integrated))
    x = own.near_start(0.2)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    point = own.at(x)
    assert point.failure is None
    gradient, hessian = flatten(point.gradient(), own.objective.outer), own.hessian(point)
    assert own.objective.curvature._what().startswith(case.found)
    slope, change = slopes_along(own, x, direction)
    assert abs(float(gradient @ direction - slope)) <= GRADIENT * float(gradient.norm() * direction.norm())
    assert float((hessian @ direction - change).abs().max()) <= HESSIAN * float(hessian.abs().max())
    assert torch.allclose(hessian, hessian.T, rtol=1e-9, atol=1e-9 * float(hessian.abs().max()))
