"""The verdict: a false `converged` is the worst that can happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit

NEWTON = [{"params": "*", "optimizer": "newton"}]
ADAM = [{"params": "*", "optimizer": "adam", "lr": 0.1, "schedule": {"name": "exponential", "gamma": 0.99}}]


def of(*starts: float, loss: Callable[..., Tensor], **constraint: Any) -> Callable[[], None]:
    """A model whose loss is ``loss`` of scalar parameters p0, p1, …"""

    def model() -> None:
        values = [
            pyro.param(f"p{i}", torch.tensor(start), constraint=constraint.get(f"p{i}", constraints.real))
            for i, start in enumerate(starts)
        ]
        pyro.factor("loss", -loss(*values))

    return model


def check(result: hofit.FitResult, name: str) -> bool | None:
    return next((check.ok for check in result.checks if check.name == name), None)


@pytest.mark.parametrize("optimizers", [NEWTON, ADAM])
def test_an_interior_minimum_converges_with_every_check_passed(optimizers: list[Any]) -> None:
    model = of(3.0, 1.0, loss=lambda a, b: (a - 1) ** 2 + (b - 2) ** 4 + (b - 2) ** 2)
    result = hofit.fit(model, {"optimizers": optimizers, "stop": {"relative_loss": 0.0}})
    assert result.status == "converged" and result.exit_code == 0 and result.remarks == []
    assert all(one.ok for one in result.checks)
    assert result.gradient_norm <= 1e-6
    assert result.values["p0"].item() == pytest.approx(1, abs=1e-5)
    assert result.values["p1"].item() == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("optimizers", [NEWTON, ADAM])
def test_an_escape_to_infinity_is_not_converged(optimizers: list[Any], others: int) -> None:
    """exp(−x) has no minimum; its gradient falls below any tolerance. Beside a well-behaved parameter as well."""
    loss = (lambda x: (-x).exp()) if not others else (lambda x, y: (-x).exp() + 50 * (y - 1) ** 2)
    result = hofit.fit(of(*([0.0] * (1 + others)), loss=loss), {"optimizers": optimizers})
    assert not result.converged and result.status in ("no_progress", "max_iterations")
    assert check(result, "confirming step") is not True


def test_a_plateau_is_not_converged() -> None:
    """Far out on −exp(−x²/2) the gradient is 1e-20 and the curvature is negative."""
    result = hofit.fit(of(10.0, loss=lambda x: -(-(x**2) / 2).exp()), {"optimizers": ADAM})
    assert not result.converged and result.status in ("saddle", "no_progress", "max_iterations")


def test_a_saddle_is_called_one_by_name() -> None:
    sgd = [{"params": "*", "optimizer": "sgd", "lr": 0.1}]
    result = hofit.fit(of(1.0, 0.0, loss=lambda a, b: a**2 - b**2 + b**4), {"optimizers": sgd})
    assert result.status == "saddle" and result.exit_code == 4
    assert any("saddle" in remark and "p1" in remark for remark in result.remarks)


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


def test_the_verdict_of_a_large_model_rests_on_its_structure() -> None:
    def model() -> None:
        with pyro.plate("rows", 600):
            pyro.sample("x", dist.Normal(torch.linspace(0, 1, 600), 1.0))

    result = hofit.fit(model, {"optimizers": NEWTON, "init": {"strategy": "zero"}})
    assert result.status == "converged" and check(result, "curvature") is True
    assert result.remarks == []


def test_a_random_loss_is_a_model_error_before_the_first_step() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("noise", x * torch.randn(()))

    with pytest.raises(hofit.errors.ModelError, match="random"):
        hofit.fit(model, {"optimizers": NEWTON})


def test_a_parameter_that_appears_later_ends_as_a_model_error() -> None:
    calls = []

    def model() -> None:
        calls.append(1)
        x = pyro.sample("x", dist.Normal(3.0, 1.0))
        if len(calls) > 25:
            pyro.param("late", torch.tensor(0.0))
        pyro.factor("f", -(x**2))

    config = {"optimizers": ADAM}
    result = hofit.fit(model, config)
    assert result.status == "model_error" and result.exit_code == 4
    assert any("'late'" in remark and "appeared" in remark for remark in result.remarks)


@pytest.mark.parametrize(
    ("rule", "status"), [({"max_iterations": 3}, "max_iterations"), ({"max_seconds": 1e-9}, "time")]
)
def test_a_limit_ends_the_fit_resumably(rule: dict[str, float], status: str) -> None:
    result = hofit.fit(of(3.0, loss=lambda a: a**2), {"optimizers": ADAM, "stop": rule})
    assert result.status == status and result.exit_code == 3 and not result.converged


def test_a_fit_that_starts_at_its_minimum_takes_no_step() -> None:
    result = hofit.fit(of(0.0, loss=lambda a: a**2), {"optimizers": NEWTON})
    assert result.status == "converged" and result.iterations == 0


def test_a_step_size_that_dies_is_no_progress() -> None:
    dying = [{"params": "*", "optimizer": "sgd", "lr": 0.01, "schedule": {"name": "exponential", "gamma": 0.5}}]
    result = hofit.fit(of(3.0, loss=lambda a: a**2), {"optimizers": dying})
    assert result.status == "no_progress" and result.exit_code == 3


def test_a_fit_that_is_nearly_there_goes_on_until_its_gradient_is_small() -> None:
    """The loss is so large that its changes are below relative_loss long before the gradient is; nothing rounds yet."""
    sgd = [{"params": "*", "optimizer": "sgd", "lr": 0.7}]
    result = hofit.fit(of(3.0, loss=lambda a: 0.5 * a**2 + 1000.0), {"optimizers": sgd})
    assert result.status == "converged" and result.gradient_norm <= 1e-6 and result.remarks == []


def test_where_rounding_limits_the_gradient_the_decrement_decides_and_a_remark_says_so() -> None:
    """The gradient is the difference of two numbers of 1e6, so it is rounding below 1e-10."""

    def model() -> None:
        a = pyro.param("a", torch.tensor(3.0))
        pyro.factor("loss", -(0.5e6 * a**2 - 1e6 * a * (torch.pi / 3) + 1e9))

    stop = {"gradient": 1e-14}
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 7e-7}], "stop": stop})
    assert result.status == "converged" and result.gradient_norm > 1e-14
    assert any(remark.startswith("precision") for remark in result.remarks)


def test_a_transform_that_has_saturated_is_on_the_boundary_and_not_unused() -> None:
    """At u = 60 the logistic map is 1 to the last bit: the gradient is exactly zero, and no remark may say unused."""

    def model() -> None:
        x = pyro.param("x", torch.tensor(0.5), constraint=constraints.unit_interval)
        pyro.factor("pull", 3.0 * x)

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 80.0}]})
    assert result.params["x"].item() > 40 and result.status == "converged_on_boundary"
    assert any(remark.startswith("boundary: x") for remark in result.remarks)


def test_a_resumed_fit_counts_anew_under_another_stopping_rule(tmp_path: Any) -> None:
    path = tmp_path / "model.py"
    path.write_text("import pyro, pyro.distributions as d\ndef model():\n    pyro.sample('x', d.Normal(30., 1.))\n")
    entry = {"params": "*", "optimizer": "sgd", "lr": 0.05}
    first = hofit.fit(path, {"optimizers": [entry], "stop": {"relative_loss": 1e-3}}, run_dir=tmp_path / "run")
    assert first.status == "no_progress"
    again = hofit.resume(tmp_path / "run", set=["stop.relative_loss=0.0"])
    assert again.status == "converged" and again.iterations > first.iterations


def test_a_vector_that_nothing_depends_on_is_named_and_no_crash() -> None:
    def model() -> None:
        pyro.sample("a", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.param("b", torch.ones(2))

    result = hofit.fit(model, {"optimizers": NEWTON})
    assert result.status == "flat_direction" and any("unused" in r and "'b'" in r for r in result.remarks)


@pytest.mark.parametrize("optimizers", [NEWTON, [{"params": "*", "optimizer": "adam", "lr": 0.01}]])
@pytest.mark.parametrize(
    ("starts", "loss"),
    [
        ((50.0,), lambda x: -(-((x - 3) ** 2)).exp()),  # a plateau
        ((0.0,), lambda x: -(x**4)),  # a maximum of fourth order
        ((0.0,), lambda x: x**3),  # an inflection
        ((0.0, 0.0, 0.0), lambda a, b, c: (a * b * c - 1) ** 2),  # a product from zero
        ((0.0, 0.0), lambda x, z: (z - 1) ** 2 - 9e-7 * x),  # a slope below the gradient's tolerance
        ((3000.0,), lambda b: torch.nn.functional.softplus(-b)),  # the far end of an escape
    ],
)
def test_no_curvature_is_no_proof_of_a_minimum(optimizers: Any, starts: Any, loss: Any) -> None:
    result = hofit.fit(of(*starts, loss=loss), {"optimizers": optimizers, "stop": {"max_iterations": 50}})
    assert not result.converged and not any("unused" in remark for remark in result.remarks)


def test_a_large_model_at_a_maximum_or_on_its_way_to_infinity_is_not_converged() -> None:
    def maximum() -> None:
        x = pyro.param("x", torch.zeros(600))
        pyro.factor("f", (x**2 - x**4 / 4).sum())

    def separated(X: Tensor, y: Tensor) -> None:
        b = pyro.param("b", torch.zeros(600))
        with pyro.plate("n", len(X)):
            pyro.sample("y", dist.Bernoulli(logits=X @ b), obs=y)

    adam = [{"params": "*", "optimizer": "adam", "lr": 1.0}]
    assert not hofit.fit(maximum, {"optimizers": adam, "stop": {"max_iterations": 5}}).converged
    X = torch.randn(100, 600, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] > 0).double()
    assert not hofit.fit(separated, {"optimizers": adam, "stop": {"max_iterations": 60}}, X=X, y=y).converged


def test_a_loss_that_becomes_random_is_a_model_error() -> None:
    def model() -> None:
        x = pyro.param("x", torch.zeros(4))
        dropped = torch.nn.functional.dropout(x, 0.5)  # zero at the start, whatever is dropped
        pyro.sample("y", dist.Normal(dropped.sum(), 1.0), obs=torch.tensor(2.0))

    result = hofit.fit(model, {"optimizers": ADAM, "stop": {"max_iterations": 50}})
    assert result.status == "model_error" and any("random" in remark for remark in result.remarks)


def test_an_overshoot_that_raises_the_loss_is_not_called_unbounded() -> None:
    def model(y: Tensor) -> None:
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(0.0, s), obs=y)

    sgd = [{"params": "*", "optimizer": "sgd", "lr": 3.0}]
    assert hofit.fit(model, {"optimizers": sgd}, y=torch.full((8,), 0.11)).status in ("non_finite", "max_iterations")


def test_newton_converges_in_single_precision() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        with pyro.plate("n", len(x)):
            pyro.sample("y", dist.Normal(b[0] + b[1] * x, 1.0), obs=y)

    x = torch.linspace(-1, 1, 50)
    y = 3 * x + 1 + torch.randn(50, generator=torch.Generator().manual_seed(0))
    result = hofit.fit(model, {"optimizers": NEWTON, "dtype": "float32"}, x=x, y=y)
    assert result.status == "converged"
