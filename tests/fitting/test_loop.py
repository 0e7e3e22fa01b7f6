"""How a fit goes on and ends."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import hofit
from tests.tolerances import GRADIENT
from tests.verdict.problems import ADAM, NEWTON, of


@pytest.mark.parametrize(
    ("rule", "status"), [({"max_iterations": 3}, "max_iterations"), ({"max_seconds": 1e-9}, "time")]
)
def test_a_limit_ends_the_fit_resumably(rule: dict[str, float], status: str) -> None:
    result = hofit.fit(of(3.0, loss=lambda a: a**2), {"optimizers": ADAM, "stop": rule})
    assert result.status == status and result.exit_code == 3 and not result.converged


def test_a_step_size_that_dies_is_no_progress() -> None:
    dying = [{"params": "*", "optimizer": "sgd", "lr": 0.01, "schedule": {"name": "exponential", "gamma": 0.5}}]
    result = hofit.fit(of(3.0, loss=lambda a: a**2), {"optimizers": dying})
    assert result.status == "no_progress" and result.exit_code == 3


def test_a_fit_that_is_nearly_there_goes_on_until_its_gradient_is_small() -> None:
    """The loss is so large that its changes are below relative_loss long before the gradient is; nothing rounds yet."""
    sgd = [{"params": "*", "optimizer": "sgd", "lr": 0.7}]
    result = hofit.fit(of(3.0, loss=lambda a: 0.5 * a**2 + 1000.0), {"optimizers": sgd})
    assert result.status == "converged" and result.gradient_norm <= GRADIENT and result.remarks == []


def test_a_resumed_fit_counts_anew_under_another_stopping_rule(tmp_path: Any) -> None:
    path = tmp_path / "model.py"
    path.write_text("import pyro, pyro.distributions as d\ndef model():\n    pyro.sample('x', d.Normal(30., 1.))\n")
    entry = {"params": "*", "optimizer": "sgd", "lr": 0.05}
    first = hofit.fit(path, {"optimizers": [entry], "stop": {"relative_loss": 1e-3}}, run_dir=tmp_path / "run")
    assert first.status == "no_progress"
    again = hofit.resume(tmp_path / "run", set=["stop.relative_loss=0.0"])
    assert again.status == "converged" and again.iterations > first.iterations


def test_a_random_loss_is_a_model_error_before_the_first_step() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("noise", x * torch.randn(()))

    with pytest.raises(hofit.errors.ModelError, match="random"):
        hofit.fit(model, {"optimizers": NEWTON})


def test_a_loss_that_becomes_random_is_a_model_error() -> None:
    def model() -> None:
        x = pyro.param("x", torch.zeros(4))
        dropped = torch.nn.functional.dropout(x, 0.5)  # zero at the start, whatever is dropped
        pyro.sample("y", dist.Normal(dropped.sum(), 1.0), obs=torch.tensor(2.0))

    result = hofit.fit(model, {"optimizers": ADAM, "stop": {"max_iterations": 50}})
    assert result.status == "model_error" and any("random" in remark for remark in result.remarks)


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


def test_an_overshoot_that_raises_the_loss_is_not_called_unbounded() -> None:
    def model(y: Tensor) -> None:
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        with pyro.plate("n", len(y)):
            pyro.sample("y", dist.Normal(0.0, s), obs=y)

    sgd = [{"params": "*", "optimizer": "sgd", "lr": 3.0}]
    assert hofit.fit(model, {"optimizers": sgd}, y=torch.full((8,), 0.11)).status in ("non_finite", "max_iterations")


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
