"""A gradient that is not the slope of the loss is found at the start; what only looks like one is let through."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.errors import ModelError
from hofit.fitting.slopes import wrong_slopes
from tests.verdict.problems import judged, of

X = torch.randn(60, generator=torch.Generator().manual_seed(6)).double()
Y = 0.5 + 2.0 * X + 0.3 * torch.randn(60, generator=torch.Generator().manual_seed(7)).double()
TRUST_REGION = [{"params": "*", "optimizer": "trust_region"}]
OBJECTIVES: list[Any] = ["map", "map_unconstrained", {"type": "marginal", "integrate": {"b": "laplace"}}]


def line(through: Callable[[Tensor], Any]) -> Callable[[], None]:
    """A regression whose slope goes through ``through``; its prior has a gradient all the same."""

    def model() -> None:
        a, b = pyro.param("a", torch.tensor(0.1)), pyro.sample("b", dist.Normal(0.2, 5.0))
        sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(a + through(b) * X, sd), obs=Y)

    return model


def without_grad(b: Tensor) -> Tensor:
    with torch.no_grad():
        return b * 1.0


THROUGH: dict[str, Callable[[Tensor], Any]] = {
    "detach": lambda b: b.detach(),
    "data": lambda b: b.data,
    "item": lambda b: b.item(),
    "tolist": lambda b: torch.tensor(b.tolist()),
    "numpy": lambda b: torch.as_tensor(b.detach().numpy()),
    "no_grad": without_grad,
    "in part": lambda b: 0.5 * (b + b.detach()),
}


def fit(model: Callable[..., Any], objective: Any = "map", **more: Any) -> hofit.FitResult:
    return hofit.fit(model, {"optimizers": TRUST_REGION, "objective": objective, **more})


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["map", "map_unconstrained", "marginal"])
@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH)
def test_a_value_that_was_taken_out_of_torch_is_named(through: Callable[[Tensor], Any], objective: Any) -> None:
    with pytest.raises(ModelError) as caught:
        fit(line(through), objective)
    assert "part of what depends on 'b' has none" in str(caught.value) and ".item()" in str(caught.value)
    assert "'a'" not in str(caught.value) and "'sd'" not in str(caught.value)


def test_single_precision_finds_it_too() -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor(0.1))
        b = pyro.param("b", torch.tensor(0.2))
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(a + b.detach() * X.float(), 1.0), obs=Y.float())

    with pytest.raises(ModelError, match="depends on 'b' has none"):
        fit(model, dtype="float32")


def test_it_is_found_through_a_lower_precision_too() -> None:
    with pytest.raises(ModelError, match="depends on 'b' has none"):
        fit(line(lambda b: b.detach().float().double()))
    fit(line(lambda b: b.float().double()), stop={"max_iterations": 1})


@pytest.mark.parametrize("optimizer", ["adam", "trust_region"])
def test_a_step_function_is_named(optimizer: str) -> None:
    def model() -> None:
        a, edge = pyro.param("a", torch.tensor(0.1)), pyro.param("edge", torch.tensor(0.3))
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(a + (edge < X).double(), 1.0), obs=Y)

    with pytest.raises(ModelError, match=r"changes with 'edge', but its gradient is zero.*step function"):
        hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": optimizer}]})


def test_a_call_of_numpy_is_told_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"requires grad(.|\n)*by functions of torch in the place of numpy's"):
        fit(line(lambda b: torch.as_tensor(b.numpy())))


# what is no such thing ------------------------------------------------------------------------------------------------


def test_kinks_are_none() -> None:
    """Reference: at a median start |u| and relu have slopes of both sides."""

    def model() -> None:
        weights = pyro.sample("weights", dist.Laplace(torch.zeros(3), 1.0).to_event(1))
        bent = pyro.param("bent", torch.tensor(0.0))
        mean = weights[0] * X + torch.relu(bent) + 0.1 * bent
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=Y)

    fit(model, stop={"max_iterations": 2})


def test_a_start_at_the_mode_is_none() -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor([1.0, 2.0]))
        pyro.factor("loss", -(1e6 * (a[0] - 1) ** 2 + (a[1] - 2) ** 2) + 1e4)

    assert fit(model).converged


def test_a_parameter_that_the_loss_does_not_depend_on_is_none() -> None:
    def model() -> None:
        pyro.param("idle", torch.tensor(1.0))
        line(lambda b: b)()

    assert fit(model).status == "flat_direction"


def test_a_plateau_is_none() -> None:
    """The gradient is zero at the start, and not where the loss is another."""

    def model() -> None:
        a = pyro.param("a", torch.tensor(3.0))
        pyro.factor("loss", -((a.clamp(max=2.9) - 1.0) ** 2))

    assert float(fit(model).values["a"]) == pytest.approx(1.0, abs=1e-6)


def test_a_stiff_loss_is_none() -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor([1.0, 0.5]))
        pyro.factor("loss", -torch.cosh(200.0 * (a[0] - 0.99)) - math.pi * (a[1] - a[0]) ** 4 * 1e6)

    fit(model, stop={"max_iterations": 2})


@pytest.mark.filterwarnings("ignore:Converting a tensor")
@pytest.mark.parametrize("objective", OBJECTIVES[::2], ids=["map", "marginal"])
def test_a_gradient_that_is_the_slope_at_the_start_alone_is_named_where_the_fit_is_stuck(objective: Any) -> None:
    def model() -> None:
        a = pyro.param("a", torch.tensor(0.0))
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(a * math.sqrt(float(a) ** 2 + 1.0) + b * X, 1.0), obs=2.0 + Y)

    result = fit(model, objective)
    assert result.status == "no_progress"
    assert any("the gradient of the loss is not its slope" in one and "'a'" in one for one in result.remarks)


def test_a_fit_that_is_stuck_in_a_kink_has_the_gradient_that_is_its_slope() -> None:
    def model() -> None:
        a, b = pyro.param("a", torch.tensor(0.7)), pyro.param("b", torch.tensor(0.3))
        pyro.factor("kinks", -(a - 0.2).abs() - 2 * (a - b).abs() - (b + 1.0).abs())

    result = fit(model)
    assert result.status == "no_progress" and not any("slope" in remark for remark in result.remarks)


def test_differences_of_a_loss_that_is_rounding_are_no_slopes() -> None:
    """Beside lgamma(1e15) the logarithm of the scale is lost: each difference is off by as much, steadily."""

    def loss(df: Tensor, scale: Tensor) -> Tensor:
        found: Tensor = -dist.StudentT(df.exp(), 0.0, scale.exp()).log_prob(Y).sum()
        return found

    params = {"p0": torch.tensor(36.0), "p1": torch.tensor(-0.05)}
    with judged(of(36.0, -0.05, loss=loss), params) as place:
        assert wrong_slopes(place.objective, place.point) == []
