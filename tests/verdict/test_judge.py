"""The verdict as a whole: a false `converged` is the worst that can happen."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from tests.verdict.problems import ADAM, NEWTON, fit, loss, of, parameter


@pytest.mark.parametrize("optimizers", [NEWTON, ADAM])
def test_an_interior_minimum_converges_with_every_check_passed(optimizers: list[Any]) -> None:
    model = of(3.0, 1.0, loss=lambda a, b: (a - 1) ** 2 + (b - 2) ** 4 + (b - 2) ** 2)
    result = hofit.fit(model, {"optimizers": optimizers, "stop": {"relative_loss": 0.0}})
    assert result.status == "converged" and result.exit_code == 0 and result.remarks == []
    assert all(one.ok for one in result.checks)
    assert result.gradient_norm <= 1e-6
    assert result.values["p0"].item() == pytest.approx(1, abs=1e-5)
    assert result.values["p1"].item() == pytest.approx(2, abs=1e-5)


def test_a_fit_that_starts_at_its_minimum_takes_no_step() -> None:
    result = hofit.fit(of(0.0, loss=lambda a: a**2), {"optimizers": NEWTON})
    assert result.status == "converged" and result.iterations == 0


def test_a_small_gradient_in_a_large_unit_is_not_enough() -> None:
    """At mu = 0 the gradient is 9e-7 and the loss 13.5 above its minimum."""

    def model() -> None:
        mu = parameter(0.0)
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mu, 1e7), obs=torch.tensor([2.9e7, 3.0e7, 3.1e7]))

    result = fit(model)
    assert result.converged and result.values["a"].item() == pytest.approx(3e7, rel=1e-9)


def test_a_saddle_is_left_whatever_the_optimizer() -> None:
    sgd = [{"params": "*", "optimizer": "sgd", "lr": 0.1}]
    result = hofit.fit(of(1.0, 0.0, loss=lambda a, b: a**2 - b**2 + b**4), {"optimizers": sgd})
    assert result.status == "converged" and abs(result.values["p1"].item()) == pytest.approx(0.5**0.5)


def test_a_saddle_that_the_optimizer_can_leave_is_left() -> None:
    result = hofit.fit(of(1.0, 0.0, loss=lambda a, b: a**2 - b**2 + b**4), {"optimizers": NEWTON})
    assert result.status == "converged" and abs(result.values["p1"].item()) == pytest.approx(0.5**0.5)


def test_a_flat_direction_is_named() -> None:
    result = hofit.fit(of(1.0, 2.0, 0.0, loss=lambda a, b, c: (a + b - 5) ** 2 + (c - 1) ** 2), {"optimizers": ADAM})
    assert result.status == "flat_direction" and result.converged and result.exit_code == 0
    (remark,) = result.remarks
    assert "flat direction (singular)" in remark and "p0" in remark and "p1" in remark and "p2" not in remark


def test_a_parameter_that_the_loss_does_not_depend_on_is_named() -> None:
    result = hofit.fit(of(1.0, 2.0, loss=lambda a, b: (a - 1) ** 2 + 0.0 * b), {"optimizers": NEWTON})
    assert result.status == "flat_direction"
    assert any("unused" in remark and "'p1'" in remark for remark in result.remarks)


def test_a_vector_that_nothing_depends_on_is_named_and_no_crash() -> None:
    def model() -> None:
        pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.param("b", torch.ones(2))

    result = hofit.fit(model, {"optimizers": NEWTON})
    assert result.status == "flat_direction" and any("unused" in r and "'b'" in r for r in result.remarks)


def test_a_parameter_that_nothing_depends_on_stays_where_it_is() -> None:
    def model() -> None:
        pyro.param("unused", torch.tensor(1.0))
        a = parameter(3.0)
        loss((a - 1) ** 2 + a**4)

    result = fit(model)
    assert result.status == "flat_direction" and result.values["unused"].item() == 1.0


def test_a_hessian_that_is_not_finite_leaves_the_gradient_to_go_by() -> None:
    def model() -> None:
        a = pyro.param("a", torch.zeros(2))
        loss(a.norm() + ((a - 0.01) ** 2).sum())

    assert fit(model).status in ("no_progress", "flat_direction")


def test_a_model_without_second_derivatives_is_named() -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor([0.0, 1.0]))
        loss(torch.cdist(a[None, :], torch.ones(1, 2))[0, 0] ** 2 + a.sum() ** 2)

    for optimizer in ("trust_region", "lbfgs"):
        result = fit(model, optimizer)
        assert result.converged and any("second derivative" in remark for remark in result.remarks)


def test_where_rounding_limits_the_gradient_the_decrement_decides_and_a_remark_says_so() -> None:
    """The gradient is the difference of two numbers of 1e6, so it is rounding below 1e-10."""

    def model() -> None:
        a = pyro.param("a", torch.tensor(3.0))
        pyro.factor("loss", -(0.5e6 * a**2 - 1e6 * a * (torch.pi / 3) + 1e9))

    stop = {"gradient": 1e-14}
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 7e-7}], "stop": stop})
    assert result.status == "converged" and result.gradient_norm > 1e-14
    assert any(remark.startswith("precision") for remark in result.remarks)


def test_single_precision_ends_with_a_remark_on_precision_or_converged() -> None:
    y = torch.linspace(-3, 5, 200)

    def model(y: Tensor) -> None:
        mu = pyro.param("mu", torch.tensor(0.0))
        sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
        pyro.sample("y", dist.Normal(mu, sigma).expand([200]).to_event(1), obs=y)

    config = {"optimizers": NEWTON, "dtype": "float32", "order": "alternating"}
    result = hofit.fit(model, config, y=y)
    assert result.values["mu"].dtype == torch.float32
    assert result.values["mu"].item() == pytest.approx(1.0, abs=1e-4)
    if result.status == "converged" and result.gradient_norm > 1e-6:
        assert any("precision" in remark for remark in result.remarks)


def test_newton_converges_in_single_precision() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        with pyro.plate("n", len(x)):
            pyro.sample("y", dist.Normal(b[0] + b[1] * x, 1.0), obs=y)

    x = torch.linspace(-1, 1, 50)
    y = 3 * x + 1 + torch.randn(50, generator=torch.Generator().manual_seed(0))
    result = hofit.fit(model, {"optimizers": NEWTON, "dtype": "float32"}, x=x, y=y)
    assert result.status == "converged"
