"""Adaptive Gauss-Hermite quadrature against brute force, on each kind of row; what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.errors import ConfigError, ModelError

from .conftest import Make, slopes_along

ROWS, EACH = 6, 4
GROUP = torch.arange(ROWS).repeat_interleave(EACH)
Y = torch.poisson(2.0 * torch.ones(ROWS * EACH), generator=torch.Generator().manual_seed(3)).double()
X = torch.randn(ROWS * EACH, generator=torch.Generator().manual_seed(4)).double()

EXACT = 1e-9
"""Relative to the brute-force integral, whose own error is below."""


def positive(name: str, *start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start).squeeze(), constraint=constraints.positive)
    return value


def mean() -> Tensor:
    value: Tensor = pyro.param("mu", torch.tensor(0.4))
    return value


def intercepts() -> None:
    mu, sd = mean(), positive("sd", 0.9)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson((mu + b[GROUP]).exp()), obs=Y)


def noncentred() -> None:
    mu, sd = mean(), positive("sd", 0.9)
    with pyro.plate("rows", ROWS):
        eta = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson((mu + (sd * eta)[GROUP]).exp()), obs=Y)


def written_in_place() -> None:
    mu, sd = mean(), positive("sd", 0.9)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    line = torch.zeros(len(Y))
    line[:] = mu + b[GROUP]  # cannot be batched: the buffer has no batch dimension
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson(line.exp()), obs=Y)


def slopes() -> None:
    mu, sd = mean(), positive("sd", 0.7, 0.4)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), sd).to_event(1))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson((mu + b[GROUP, 0] + b[GROUP, 1] * X).exp()), obs=Y)


def gamma_rates() -> None:
    mu, shape = mean(), positive("shape", 1.5)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Gamma(shape, shape))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson(b[GROUP] * mu.exp()), obs=Y)


def one_latent() -> None:
    mu, sd = mean(), positive("sd", 0.9)
    b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson((mu + b).exp()), obs=Y)


def two_plates() -> None:
    mu, sd_a, sd_b = mean(), positive("sd_a", 0.9), positive("sd_b", 0.5)
    with pyro.plate("first", ROWS):
        a = pyro.sample("a", dist.Normal(0.0, sd_a))
    with pyro.plate("second", 3):
        b = pyro.sample("b", dist.Normal(0.0, sd_b))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson((mu + a[GROUP]).exp()), obs=Y)
    with pyro.plate("others", 9):
        pyro.sample("z", dist.Poisson((mu + b[torch.arange(9) % 3]).exp()), obs=Y[:9])


# brute force ------------------------------------------------------------------------------------------------------


def poisson_row(counts: np.ndarray[Any, Any], log_rate: Callable[..., Any], prior: Callable[..., Any]) -> float:
    constant = float(torch.lgamma(torch.tensor(counts) + 1).sum())

    def density(b: float) -> float:
        line = log_rate(b)
        return float(np.exp(counts.sum() * line - len(counts) * np.exp(line) - constant + prior(b)))

    found, _ = integrate.quad(density, -12, 8, points=[-1.0, 0.0, 1.0], epsabs=0, epsrel=1e-12, limit=400)
    return float(np.log(found))


def normal_rows(counts: Tensor, group: Tensor, mu: float, sd: float) -> float:
    def prior(b: float) -> float:
        return float(-0.5 * (b / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi))

    each = (counts[group == row].numpy() for row in group.unique())
    return -sum(poisson_row(row, lambda b: mu + b, prior) for row in each)


def test_many_nodes_are_the_integral_over_rows_of_one(path: str, evidence: Make) -> None:
    own = evidence(intercepts, ["b"], nodes=40)
    expected = normal_rows(Y, GROUP, 0.4, 0.9)
    assert float(own.loss(own.start)) == pytest.approx(expected, rel=EXACT)


def test_many_nodes_are_the_integral_over_rows_of_two(path: str, evidence: Make) -> None:
    """Reference: a fine trapezoid grid, which converges exponentially on the whole plane."""
    own = evidence(slopes, ["b"], nodes=30)
    grid = np.linspace(-6, 6, 1201)
    total = 0.0
    for row in range(ROWS):
        one, other = np.meshgrid(grid * 0.7, grid * 0.4, indexing="ij")
        log = stats.norm(0, 0.7).logpdf(one) + stats.norm(0, 0.4).logpdf(other)
        own_rows = slice(row * EACH, (row + 1) * EACH)
        for y, x in zip(Y[own_rows].numpy(), X[own_rows].numpy(), strict=True):
            line = 0.4 + one + other * x
            log += y * line - np.exp(line) - np.log(float(np.prod(np.arange(1, y + 1))))
        total -= np.log(np.exp(log).sum() * (grid[1] - grid[0]) ** 2 * 0.7 * 0.4)
    assert float(own.loss(own.start)) == pytest.approx(total, rel=EXACT)


def test_a_constrained_latent_is_integrated_with_its_jacobian(path: str, evidence: Make) -> None:
    """Reference: the negative binomial, a row of counts at a time."""
    own = evidence(gamma_rates, ["b"], nodes=60)
    shape, rate = 1.5, EACH * np.exp(0.4)
    total = 0.0
    for row in range(ROWS):
        y = Y[row * EACH : (row + 1) * EACH].numpy()
        log_gamma = torch.lgamma
        total -= float(
            shape * np.log(shape)
            - log_gamma(torch.tensor(shape))
            + log_gamma(torch.tensor(shape + y.sum()))
            - (shape + y.sum()) * np.log(shape + rate)
            + 0.4 * y.sum()
            - log_gamma(torch.tensor(y + 1)).sum()
        )
    assert float(own.loss(own.start)) == pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("methods", [{"a": "aghq", "b": "aghq"}, {"a": "aghq", "b": "laplace"}])
def test_rows_of_two_plates_have_a_method_each(path: str, methods: dict[str, str], evidence: Make) -> None:
    first = normal_rows(Y, GROUP, 0.4, 0.9)
    if methods["b"] == "aghq":
        second = normal_rows(Y[:9], torch.arange(9) % 3, 0.4, 0.5)
    else:
        both = evidence(two_plates, ["a", "b"])
        second = float(both.loss(both.start))
        alone = evidence(intercepts, ["b"])
        second -= float(alone.loss(alone.start))
    own = evidence(two_plates, ["a", "b"], nodes=40, methods=methods)
    assert float(own.loss(own.start)) == pytest.approx(first + second, rel=EXACT)


def test_a_latent_in_no_plate_is_one_row(path: str, evidence: Make) -> None:
    own = evidence(one_latent, ["b"], nodes=40)
    expected = normal_rows(Y, torch.zeros(len(Y)), 0.4, 0.9)
    assert float(own.loss(own.start)) == pytest.approx(expected, rel=EXACT)


def test_the_rows_of_many_observations_are_found_in_any_precision(evidence: Make) -> None:
    """More rows than a digit of their number holds. Reference: brute force."""
    group = torch.arange(70).repeat(2)
    y = Y.repeat(6)[:140]

    def model() -> None:
        mu, sd = mean(), positive("sd", 0.9)
        with pyro.plate("rows", 70):
            b = pyro.sample("b", dist.Normal(0.0, sd))
        with pyro.plate("observations", len(y)):
            pyro.sample("y", dist.Poisson((mu + b[group]).exp()), obs=y.to(mu.dtype))

    own = evidence(model, ["b"], nodes=25)
    double = float(own.loss(own.start))
    assert double == pytest.approx(normal_rows(y, group, 0.4, 0.9), rel=EXACT)
    torch.set_default_dtype(torch.float32)
    own = evidence(model, ["b"], nodes=25)
    assert float(own.loss(own.start)) == pytest.approx(double, rel=1e-5)


# against Laplace's method, and finite differences -----------------------------------------------------------------

MODELS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "rows of 1": (intercepts, ["b"]),
    "not centred": (noncentred, ["b"]),
    "rows of 2": (slopes, ["b"]),
    "constrained": (gamma_rates, ["b"]),
    "one latent": (one_latent, ["b"]),
    "two plates": (two_plates, ["a", "b"]),
    "written in place": (written_in_place, ["b"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_one_node_is_laplace_s_method(name: str, path: str, evidence: Make) -> None:
    model, integrated = MODELS[name]
    one = evidence(model, integrated, nodes=1)
    x = one.near_start()
    loss, gradient = float(one.loss(x)), one.gradient(x)
    laplace = evidence(model, integrated)
    assert loss == pytest.approx(float(laplace.loss(x)), rel=1e-12)
    assert torch.allclose(gradient, laplace.gradient(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_and_hessian_are_those_of_the_loss(name: str, path: str, evidence: Make) -> None:
    model, integrated = MODELS[name]
    own = evidence(model, integrated, nodes=5)
    x = own.near_start()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    point = own.at(x)
    gradient, hessian = own.flat(point.gradient()), own.hessian(point)
    slope, change = slopes_along(own, x, direction)
    assert abs(float(gradient @ direction - slope)) <= 1e-6 * float(gradient.norm() * direction.norm())
    assert float((hessian @ direction - change).abs().max()) <= 1e-5 * float(hessian.abs().max())


def test_a_count_at_its_own_mean_still_belongs_to_a_row(path: str) -> None:
    """Where μ = 0 the row of mean one has its mode at 0, and the slope of its entries of one is rounding."""
    rows = [
        [5, 2, 3, 1, 2, 1, 3, 1],
        [4, 4, 3, 1, 4, 1, 3, 1],
        [3, 3, 4, 2, 0, 1, 3, 7],
        [5, 2, 4, 1, 5, 0, 4, 11],
        [2, 2, 5, 1, 3, 2, 2, 6],
    ]
    y, group = torch.tensor(rows).double().reshape(-1), torch.arange(8).repeat(5)

    def model() -> None:
        mu, sd = pyro.param("mu", torch.tensor(0.0)), positive("sd", 3.0)
        with pyro.plate("rows", 8):
            b = pyro.sample("b", dist.Normal(0.0, sd))
        with pyro.plate("observations", len(y)):
            pyro.sample("y", dist.Poisson((mu + b[group]).exp()), obs=y)

    assert fit(model, b="aghq").converged


def test_observations_that_no_row_reaches_at_the_start_are_found_as_the_parameters_move() -> None:
    """Closed form: the beta-binomial. At Beta(1, 1) the prior of a row has no slope in it."""
    heads, flips = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4]), 10

    def model() -> None:
        a, b = positive("a", 1.0), positive("b", 1.0)
        with pyro.plate("rows", len(heads)):
            p = pyro.sample("p", dist.Beta(a, b))
            pyro.sample("y", dist.Binomial(flips, p), obs=heads)

    objective = {"type": "marginal", "integrate": {"p": "aghq"}, "nodes": 40}
    found = hofit.fit(model, {"objective": objective, "optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    assert found.converged
    expected = -dist.BetaBinomial(found.values["a"], found.values["b"], flips).log_prob(heads).sum()
    assert found.loss == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("start", [0.58, 0.9, 1.14, 1.26, 1.46])
def test_rows_are_told_apart_in_single_precision(start: float) -> None:
    """From some of these starts the gradient rounds about alike at the two ends of the confirming step."""

    def model() -> None:
        mu, sd = mean(), positive("sd", start)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.Normal(0.0, sd))
        with pyro.plate("observations", len(Y)):
            pyro.sample("y", dist.Poisson((mu + b[GROUP]).exp()), obs=Y.to(b.dtype))

    single, double = (
        hofit.fit(
            model,
            {
                "objective": {"type": "marginal", "integrate": {"b": "aghq"}},
                "optimizers": [{"params": "*", "optimizer": "trust_region"}],
                "dtype": dtype,
            },
        )
        for dtype in ("float32", "float64")
    )
    assert single.converged and single.loss == pytest.approx(double.loss, rel=1e-5)


# what is refused --------------------------------------------------------------------------------------------------


def crossed() -> None:
    mu, sd = mean(), positive("sd", 0.9)
    with pyro.plate("first", ROWS):
        a = pyro.sample("a", dist.Normal(0.0, sd))
    with pyro.plate("second", EACH):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("observations", len(Y)):
        pyro.sample("y", dist.Poisson((mu + a[GROUP] + b[torch.arange(len(Y)) % EACH]).exp()), obs=Y)


def summed() -> None:
    mu, sd = mean(), positive("sd", 0.9)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    line = mu + b[GROUP]
    pyro.factor("likelihood", (Y * line - line.exp()).sum())


def together(length: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd = mean(), positive("sd", 0.9)
        with pyro.plate("rows", ROWS):
            a = pyro.sample("a", dist.Normal(torch.zeros(length), sd).to_event(1))
            b = pyro.sample("b", dist.Normal(torch.zeros(length), sd).to_event(1))
        with pyro.plate("observations", len(Y)):
            pyro.sample("y", dist.Poisson((mu + (a + b * X[::EACH, None])[GROUP].sum(-1)).exp()), obs=Y)

    return model


def fit(model: Callable[[], None], **methods: str) -> hofit.FitResult:
    objective, optimizers = {"type": "marginal", "integrate": methods}, [{"params": "*", "optimizer": "trust_region"}]
    return hofit.fit(model, {"objective": objective, "optimizers": optimizers})


@pytest.mark.parametrize("methods", [{"a": "aghq", "b": "aghq"}, {"a": "aghq", "b": "laplace"}])
def test_rows_that_interact_are_refused(methods: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="not independent of the others: use laplace"):
        fit(crossed, **methods)


def test_an_observation_of_several_rows_is_refused() -> None:
    with pytest.raises(ModelError, match="an observation depends on several rows of 'b'"):
        fit(summed, b="aghq")


def test_rows_too_wide_and_rows_of_two_methods_are_refused_by_key() -> None:
    with pytest.raises(ConfigError, match=r"integrate.a: aghq: a row of 'a' has 4 numbers, and 3 are the most"):
        fit(together(4), a="aghq", b="aghq")
    with pytest.raises(ConfigError, match=r"integrate.a: aghq: a row of 'a' and 'b' has 4 numbers, and 3 are the most"):
        fit(together(2), a="aghq", b="aghq")
    with pytest.raises(ConfigError, match=r"integrate.b: 'a' and 'b' form one row: integrate them by one method"):
        fit(together(1), a="laplace", b="aghq")
