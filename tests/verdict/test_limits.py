"""What runs to an edge or to infinity, and what may not matter to a verdict: the loss's unit, the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

import hofit
from tests.verdict.problems import of


def fit(model: Callable[[], None], optimizer: str = "trust_region", **more: Any) -> hofit.FitResult:
    return hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": optimizer}], **more})


def positive(name: str, start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start), constraint=constraints.positive)
    return value


def line() -> None:
    x, y = torch.arange(6.0), torch.tensor([0.3, 1.2, -0.4, 2.2, 0.7, 1.9])
    a, b = (pyro.param(name, torch.tensor(0.0)) for name in "ab")
    with pyro.plate("rows", 6):
        pyro.sample("y", dist.Normal(a + b * x, positive("s", 1.0)), obs=y)


def product() -> None:
    a, b = pyro.param("a", torch.tensor(0.2)), pyro.param("b", torch.tensor(1.0))
    with pyro.plate("rows", 4):
        pyro.sample("y", dist.Normal(a * b, 1.0), obs=torch.tensor([0.3, 1.2, -0.4, 2.2]))


def separated() -> None:
    b = pyro.param("b", torch.zeros(2))
    with pyro.plate("rows", 6):
        pyro.sample("y", dist.Bernoulli(logits=b[0] + b[1] * torch.arange(6.0)), obs=torch.arange(6).gt(2).double())


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs", "newton_cg"])
@pytest.mark.parametrize(
    ("model", "status"),
    [(line, "converged"), (product, "flat_direction"), (separated, "converged_on_boundary")],
)
def test_a_scale_around_the_model_changes_no_verdict(
    model: Callable[[], None], status: str, optimizer: str, unit: float
) -> None:
    plain, scaled = fit(model, optimizer), fit(poutine.scale(model, unit), optimizer)
    assert scaled.status == plain.status == status
    assert scaled.loss / unit == pytest.approx(plain.loss, abs=1e-7)
    if status == "converged":
        for name, value in plain.values.items():
            assert float(abs(scaled.values[name] - value) / plain.std_errors[name]) < 1e-6


@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs", "newton_cg"])
def test_degrees_of_freedom_that_run_to_infinity_leave_the_normal_s_estimates(optimizer: str) -> None:
    """The supremum is the normal's maximum likelihood, in closed form."""
    y = torch.linspace(-1.5, 1.5, 20)

    def model() -> None:
        with pyro.plate("rows", 20):
            student = dist.StudentT(positive("df", 5.0), pyro.param("m", torch.tensor(1.0)), positive("s", 1.0))
            pyro.sample("y", student, obs=y)

    result, variance = fit(model, optimizer), float(y.square().mean())
    assert result.status == "converged_on_boundary" and any("df → ∞" in remark for remark in result.remarks)
    assert result.loss == pytest.approx(10 * (log(2 * pi * variance) + 1), abs=1e-5)
    assert float(result.values["s"]) == pytest.approx(variance**0.5, rel=1e-5)
    assert float(result.std_errors["m"]) == pytest.approx((variance / 20) ** 0.5, rel=1e-4)
    assert result.std_errors["df"].isnan()


def test_a_gap_of_ordered_values_that_closes_is_named_by_both() -> None:
    def model() -> None:
        cut = pyro.param("cut", torch.tensor([-1.0, 0.0, 1.0]), constraint=dist.constraints.ordered_vector)
        with pyro.plate("rows", 6):
            pyro.sample("y", dist.OrderedLogistic(torch.zeros(6), cut), obs=torch.tensor([0, 0, 1, 1, 3, 3]))

    result = fit(model)
    assert result.status == "converged_on_boundary" and any("cut[2] → cut[1]" in remark for remark in result.remarks)
    assert result.loss == pytest.approx(6 * log(3), abs=1e-7)


@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs", "newton_cg"])
def test_a_loss_that_falls_for_ever_along_a_real_parameter_is_unbounded(optimizer: str) -> None:
    result = fit(of(0.0, loss=lambda x: -x), optimizer, stop={"max_iterations": 200})
    assert result.status == "unbounded" and any("p0" in remark for remark in result.remarks)


def test_a_fit_that_leapt_over_a_minimum_to_the_edge_goes_back() -> None:
    """The variance is not zero at the maximum: the edge, started from, is lower only nearby."""

    def model() -> None:
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(0.0, (1.0 + positive("sd", 1.0) ** 2).sqrt()), obs=torch.full((4,), 2.0))

    result = fit(model, init={"values": {"sd": 1e-12}})
    assert result.status == "converged" and float(result.values["sd"]) == pytest.approx(3.0**0.5, rel=1e-6)
