"""Points that look like minima to one check or another, and are none; and models that used to end in a traceback."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit


def parameter(start: float, **options: object) -> Tensor:
    value: Tensor = pyro.param("a", torch.tensor(start), **options)
    return value


def loss(value: Tensor) -> None:
    pyro.factor("loss", -value)


def fit(model: Callable[[], None], optimizer: str = "trust_region", **stop: float) -> hofit.FitResult:
    entry = {"params": "*", "optimizer": optimizer}
    return hofit.fit(model, {"optimizers": [entry], "stop": {"max_iterations": 300, **stop}})


def wall() -> None:
    a = parameter(0.0)
    loss(-a if a < 3 else torch.sqrt(3 - a - 1))


def kink() -> None:
    m = parameter(0.3)
    with pyro.plate("rows", 5):
        pyro.sample("y", dist.Laplace(m, 1.0), obs=torch.tensor([1.0, 2.0, 4.0, 7.0, 9.0]))


def inflection() -> None:
    loss(parameter(1.0) ** 3)


def terrace() -> None:
    a = parameter(1.0)
    loss(3 * a**4 + 4 * a**3)


def hilltop() -> None:
    a = parameter(0.0)
    loss(1e3 * a**6 - 0.1 * a**4)


@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs"])
@pytest.mark.parametrize("model", [wall, kink, inflection, terrace, hilltop])
def test_what_is_no_minimum_is_never_converged(model: Callable[[], None], optimizer: str) -> None:
    result = fit(model, optimizer)
    if model is terrace and optimizer == "trust_region":  # it may well go on to the minimum at −1
        assert not result.converged or result.values["a"].item() == pytest.approx(-1.0, abs=1e-6)
    else:
        assert not result.converged


def test_a_small_gradient_in_a_large_unit_is_not_enough() -> None:
    """At mu = 0 the gradient is 9e-7 and the loss 13.5 above its minimum."""

    def model() -> None:
        mu = parameter(0.0)
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mu, 1e7), obs=torch.tensor([2.9e7, 3.0e7, 3.1e7]))

    result = fit(model)
    assert result.converged and result.values["a"].item() == pytest.approx(3e7, rel=1e-9)


def beta_half() -> None:
    p = pyro.sample("p", dist.Beta(0.5, 0.5))
    with pyro.plate("rows", 10):
        pyro.sample("y", dist.Bernoulli(p), obs=torch.ones(10))


def beta_one() -> None:
    p = pyro.sample("p", dist.Beta(1.0, 1.0))
    with pyro.plate("rows", 10):
        pyro.sample("y", dist.Bernoulli(p), obs=torch.ones(10))


@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs"])
def test_an_infinite_density_at_the_edge_is_unbounded_and_a_finite_one_a_boundary(optimizer: str) -> None:
    """Beta(½, ½) has an infinite density at 1, where torch clamps it; Beta(1, 1) has not."""
    assert fit(beta_half, optimizer).status == "unbounded"
    assert fit(beta_one, optimizer).status == "converged_on_boundary"


@pytest.mark.parametrize("optimizer", ["trust_region", "gauss_newton", "newton_cg", "lbfgs"])
def test_a_density_that_becomes_infinite_is_unbounded(optimizer: str) -> None:
    result = fit(lambda: loss(torch.log(parameter(1.0, constraint=constraints.positive))), optimizer)
    assert not result.converged


def test_a_hessian_that_is_not_finite_leaves_the_gradient_to_go_by() -> None:
    def model() -> None:
        a = pyro.param("a", torch.zeros(2))
        loss(a.norm() + ((a - 0.01) ** 2).sum())

    assert fit(model).status in ("no_progress", "flat_direction")


def test_a_model_without_second_derivatives_is_named() -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor([0.0, 1.0]))
        loss(torch.cdist(a[None, :], torch.ones(1, 2))[0, 0] ** 2 + a.sum() ** 2)

    assert fit(model).status == "model_error"
    result = fit(model, "lbfgs")
    assert result.converged and any("second derivative" in remark for remark in result.remarks)


def test_gauss_newton_takes_cauchy_likelihoods_and_priors() -> None:
    def model() -> None:
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Cauchy(parameter(0.0), scale), obs=torch.tensor([1.0, 2.0, 2.5, 3.0]))

    reference = fit(model)
    result = fit(model, "gauss_newton")
    assert result.converged and result.loss == pytest.approx(reference.loss, abs=1e-9)


def test_a_parameter_that_nothing_depends_on_stays_where_it_is() -> None:
    def model() -> None:
        pyro.param("unused", torch.tensor(1.0))
        a = parameter(3.0)
        loss((a - 1) ** 2 + a**4)

    result = fit(model)
    assert result.status == "flat_direction" and result.values["unused"].item() == 1.0


def test_a_fit_is_the_same_to_the_bit_when_it_is_run_again() -> None:
    """Sums over observations are taken in an order that does not depend on addresses."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, generator=generator), torch.randn(60, generator=generator)
    group = torch.arange(30).repeat_interleave(2)

    def model(x: Tensor, y: Tensor, group: Tensor) -> None:
        beta = pyro.param("beta", torch.zeros(2))
        with pyro.plate("groups", 30):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("rows", 60):
            mean = beta[0] + b[group, 0] + (beta[1] + b[group, 1]) * x + b[group, 2] * x**2
            pyro.sample("y", dist.StudentT(3.0, mean, 0.5), obs=y)

    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    results = [hofit.fit(model, config, x=x, y=y, group=group) for _ in range(4)]
    for other in results[1:]:
        assert all(torch.equal(results[0].params[name], other.params[name]) for name in other.params)
