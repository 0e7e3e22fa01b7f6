"""Values that run to the edge of their support: a boundary, or without end."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from tests.verdict.problems import NEWTON, fit, loss, of, parameter


def test_a_scale_that_runs_to_zero_is_on_the_boundary() -> None:
    """The joint mode of eight schools, non-centred; the reference gives log density −42.32544191907389 at tau = 0."""

    def model(y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)

    data = {"y": [28.0, 8, -3, 7, -1, 1, 18, 12], "sigma": [15.0, 10, 16, 11, 9, 11, 10, 18]}
    result = hofit.fit(model, {"optimizers": NEWTON}, data=data)
    assert result.status == "converged_on_boundary" and result.converged
    assert any("boundary" in remark and "tau" in remark for remark in result.remarks)
    assert result.loss == pytest.approx(42.32544191907389, abs=1e-8)
    assert result.values["mu"].item() == pytest.approx(4.620923261571919, abs=1e-4)


def test_a_centred_scale_that_diverges_is_unbounded() -> None:
    def model(y: Tensor) -> None:
        tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, tau))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    mix = [{"params": "z", "optimizer": "newton"}, {"params": "tau", "optimizer": "adam", "lr": 0.1}]
    result = hofit.fit(model, {"optimizers": mix, "order": "alternating"}, y=[0.1, -0.2, 0.3])
    assert result.status == "unbounded" and result.exit_code == 4
    assert any("unbounded" in remark and "tau" in remark for remark in result.remarks)


def test_a_small_scale_inside_its_support_is_no_boundary() -> None:
    loss = lambda s: 0.5 * (s.log() + 14.0) ** 2  # noqa: E731 (minimum at 8e-7)
    model = of(1e-3, loss=loss, p0=constraints.positive)
    result = hofit.fit(model, {"optimizers": NEWTON})
    assert result.status == "converged" and result.values["p0"].item() == pytest.approx(8.315287e-07, rel=1e-5)


@pytest.mark.parametrize("name", ["x", "x[left]"])
def test_a_transform_that_has_saturated_is_on_the_boundary_and_not_unused(name: str) -> None:
    """At u = 60 the logistic map is 1 to the last bit: the gradient is exactly zero, and no remark may say unused."""

    def model() -> None:
        x = pyro.param(name, torch.tensor(0.5), constraint=constraints.unit_interval)
        pyro.factor("pull", 3.0 * x)

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 80.0}]})
    assert result.params[name].item() > 19 and result.status == "converged_on_boundary"
    assert any(remark.startswith(f"boundary: {name} ") for remark in result.remarks)


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
