"""L-BFGS against torch's and scipy's, and where a loss is not finite."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import torch
from torch import Tensor

import hofit
from hofit.errors import OptionError
from hofit.optim.lbfgs import LBFGS
from hofit.point import Params, Point
from tests.optim.closed_form import ClosedForm


def descend(function: Callable[[Params], Tensor], start: Params, iterations: int, **options: Any) -> list[Point]:
    optimizer, objective = LBFGS(**options), ClosedForm(function)
    points = [objective.at(start)]
    for _ in range(iterations):
        if optimizer.exhausted():
            break
        point, accepted = optimizer.advance(points[-1])
        assert accepted == (point is not points[-1])
        if accepted:
            points.append(point)
        if not np.isfinite(point.value):
            break
    return points


def rosenbrock(params: Params) -> Tensor:
    x = torch.cat([params["a"].reshape(-1), params["b"].reshape(-1)])
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


START = {"a": torch.tensor([[-1.2, 1.0], [-0.5, 0.8]], dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}


@pytest.mark.parametrize("history", [1, 5, 100])
def test_iterates_equal_torchs_to_the_last_bit(history: int) -> None:
    leaves: Params = {name: torch.nn.Parameter(value.clone()) for name, value in START.items()}
    slope = torch.cat([g.flatten() for g in torch.autograd.grad(rosenbrock(leaves), list(leaves.values()))])
    theirs = torch.optim.LBFGS(
        list(leaves.values()),
        lr=float(slope.abs().sum()) / float(slope.norm()),  # of length one, where torch's own is of ‖·‖₁ one
        max_iter=1,
        max_eval=26,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        history_size=history,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        theirs.zero_grad()
        loss = rosenbrock(leaves)
        loss.backward()
        return loss

    points = descend(rosenbrock, START, 25, history_size=history)
    assert len(points) == 26
    for point in points[1:]:
        theirs.step(closure)
        theirs.param_groups[0]["lr"] = 1.0
        assert all(torch.equal(point.params[name], leaves[name]) for name in leaves)


def as_scipy(function: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    def both(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(flat, dtype=torch.float64, requires_grad=True)
        value = function(x)
        return float(value.detach()), torch.autograd.grad(value, x)[0].numpy()

    return both


def ill_conditioned(x: Tensor) -> Tensor:
    return 0.5 * (torch.logspace(-2, 3, len(x), dtype=x.dtype) * (x - 1) ** 2).sum() + 0.1 * (x**4).sum()


def logistic(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(300, len(x), generator=generator, dtype=x.dtype)
    y = (torch.rand(300, generator=generator, dtype=x.dtype) < 0.4).to(x.dtype)
    logits = features @ x
    return torch.nn.functional.softplus(logits).sum() - (y * logits).sum() + 0.5 * x.square().sum()


def valley(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


@pytest.mark.parametrize(
    ("function", "size"), [(ill_conditioned, 20), (ill_conditioned, 200), (logistic, 20), (valley, 20)]
)
def test_it_takes_about_as_many_evaluations_as_scipys(function: Callable[[Tensor], Tensor], size: int) -> None:
    start = torch.full((size,), -0.5, dtype=torch.float64)
    theirs = scipy.optimize.minimize(
        as_scipy(function), start.numpy(), jac=True, method="L-BFGS-B", options={"gtol": 1e-5, "ftol": 0, "maxcor": 20}
    )
    optimizer, objective = LBFGS(), ClosedForm(lambda params: function(params["x"]))
    point = objective.at({"x": start})
    while float(point.gradient()["x"].abs().max()) > 1e-5 and objective.evaluations.loss < 3000:
        point, _ = optimizer.advance(point)
    assert float(point.gradient()["x"].abs().max()) <= 1e-5
    assert point.value == pytest.approx(theirs.fun, abs=1e-8)
    assert objective.evaluations.loss <= 1.25 * theirs.nfev + 5
    assert objective.evaluations.gradient <= objective.evaluations.loss + 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("wall", [2.0, 1e-3, 1e-9])
def test_a_region_without_a_loss_is_never_entered(bad: float, wall: float) -> None:
    """The slope leads to x = 10; beyond ``wall`` there is no loss."""

    def function(params: Params) -> Tensor:
        x = params["x"]
        return torch.where(x.max() < wall, (0.5 * (x - 10) ** 2).sum(), bad + 0 * x.sum())

    points = descend(function, {"x": torch.zeros(3, dtype=torch.float64)}, 60)
    losses = [point.value for point in points]
    assert all(after < before for before, after in pairwise(losses))
    assert all(float(point.params["x"].max()) < wall for point in points)
    assert float(points[-1].params["x"].min()) > 0.5 * wall


def test_a_gradient_without_a_value_is_refused_too() -> None:
    def function(params: Params) -> Tensor:
        x = params["x"]
        loss = (0.5 * (x - 10) ** 2).sum()
        return loss + (x - x.detach()).abs().sqrt().sum() if bool((x > 1).any()) else loss  # its derivative is 0 · inf

    points = descend(function, {"x": torch.zeros(2, dtype=torch.float64)}, 30)
    assert all(torch.isfinite(point.gradient()["x"]).all() for point in points)
    assert 0.5 < float(points[-1].params["x"].max()) <= 1.0


@pytest.mark.parametrize("cliff", [1e12, 1e200])
def test_a_cliff_of_finite_height_is_climbed_back_from(cliff: float) -> None:
    def function(params: Params) -> Tensor:
        x = params["x"]
        return (0.5 * (x - 10) ** 2).sum() + cliff * (x - 2).clamp_min(0).sum()

    points = descend(function, {"x": torch.zeros(2, dtype=torch.float64)}, 60)
    assert 1.9 < float(points[-1].params["x"].min()) <= float(points[-1].params["x"].max()) <= 2.0 + 1e-9


def test_minus_infinity_is_shown_to_the_loop() -> None:
    points = descend(lambda params: params["x"].sum().log(), {"x": torch.tensor([1.0])}, 100)
    assert points[-1].value == -float("inf") or points[-1].value < -10  # 0 itself may be jumped over

    def model() -> None:
        x = pyro.param("x", torch.tensor(3.0))
        pyro.factor("f", torch.where(x < 1, torch.inf, -x))

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "lbfgs"}]})
    assert result.status == "unbounded" and np.isfinite(result.loss)


def test_a_plateau_and_a_minimum_leave_nothing_to_gain() -> None:
    flat = descend(lambda params: 0 * params["x"].sum() + 3.0, {"x": torch.ones(2)}, 10)
    assert len(flat) == 1
    rest = descend(lambda params: params["x"].square().sum(), {"x": torch.zeros(2)}, 10)
    assert len(rest) == 1


def test_it_goes_on_where_rounding_hides_the_loss() -> None:
    """1e6 beside a quadratic: differences of the loss end at gradients of 1e-4, those of the gradient do not."""
    scale = torch.logspace(0, 2, 10, dtype=torch.float64)

    def function(params: Params) -> Tensor:
        return 1e6 + 0.5 * (scale * (params["x"] - 1) ** 2).sum()

    points = descend(function, {"x": torch.zeros(10, dtype=torch.float64)}, 200)
    assert float(points[-1].gradient()["x"].abs().max()) < 1e-5
    losses = [point.value for point in points]
    assert all(after <= before + 1e-8 for before, after in pairwise(losses))


def test_in_float32() -> None:
    start = {name: value.float() for name, value in START.items()}
    points = descend(rosenbrock, start, 200)
    assert points[-1].value < 1e-6
    assert points[-1].params["a"].dtype == torch.float32


def test_a_fit_ends_converged_with_few_evaluations() -> None:
    def model(y: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        with pyro.plate("groups", 30):
            a = pyro.sample("a", dist.Normal(mu, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Poisson(a[torch.arange(len(y)) % 30].exp()), obs=y)

    y = torch.arange(300.0) % 7
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "lbfgs"}]}, y=y)
    assert result.converged and result.iterations <= 40
    assert result.evaluations["gradient"] <= 60


def test_bad_options_and_a_bare_loss_are_refused() -> None:
    for size in (0, -3, 2.5, True):
        with pytest.raises(OptionError, match="history_size"):
            LBFGS(size)  # type: ignore[arg-type]
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match="trial points"):
        LBFGS().step((x**2).sum(), {"x": x})
