"""Points that look like minima to one check or another, and are none."""

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
from hofit.config.schema import Stop
from hofit.status import Status
from hofit.verdict.checks import StopState
from hofit.verdict.judge import judge
from hofit.verdict.refute import matters
from tests.verdict.problems import ADAM, NEWTON, check, fit, judged, loss, of, parameter


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("optimizers", [NEWTON, ADAM])
def test_an_escape_to_infinity_is_named_with_what_the_loss_tends_to(optimizers: list[Any], others: int) -> None:
    """exp(−x) has no minimum; its gradient falls below any tolerance. Beside a well-behaved parameter as well."""
    loss = (lambda x: (-x).exp()) if not others else (lambda x, y: (-x).exp() + 50 * (y - 1) ** 2)
    result = hofit.fit(of(*([0.0] * (1 + others)), loss=loss), {"optimizers": optimizers})
    if optimizers is ADAM and result.status == "max_iterations":
        return  # its lr had decayed on the way
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(0.0, abs=1e-8)
    assert any("p0 → ∞" in remark for remark in result.remarks)
    assert check(result, "confirming step") is not True
    assert result.std_errors["p0"].isnan() and (not others or float(result.std_errors["p1"]) == pytest.approx(0.1))


def held(starts: tuple[float, ...]) -> dict[str, float]:
    """Starts that are asked for, and so are not replaced however flat the loss is there."""
    return {f"p{i}": start for i, start in enumerate(starts)}


def test_a_plateau_is_not_converged() -> None:
    """Far out on −exp(−x²/2) the gradient is 1e-20 and the curvature is negative; the minimum is at zero."""
    result = hofit.fit(of(10.0, loss=lambda x: -(-(x**2) / 2).exp()), {"optimizers": ADAM})
    assert not result.converged or result.loss == pytest.approx(-1.0, abs=1e-12)


@pytest.mark.parametrize("optimizers", [NEWTON, [{"params": "*", "optimizer": "adam", "lr": 0.01}]])
@pytest.mark.parametrize(
    ("starts", "loss"),
    [
        ((50.0,), lambda x: -(-((x - 3) ** 2)).exp()),  # a plateau
        ((0.0,), lambda x: -(x**4)),  # a maximum of fourth order
        ((0.0,), lambda x: x**3),  # an inflection
        ((0.0, 0.0, 0.0), lambda a, b, c: (a * b * c - 1) ** 2),  # a product from zero
        ((0.0, 0.0), lambda x, z: (z - 1) ** 2 - 9e-7 * x),  # a slope below the gradient's tolerance
    ],
)
def test_no_curvature_is_no_proof_of_a_minimum(optimizers: Any, starts: Any, loss: Any) -> None:
    config = {"optimizers": optimizers, "stop": {"max_iterations": 50}, "init": {"values": held(starts)}}
    result = hofit.fit(of(*starts, loss=loss), config)
    found = starts == (50.0,) and result.loss == pytest.approx(-1.0, abs=1e-12)  # the way back from the plateau
    assert (not result.converged or found) and not any("unused" in remark for remark in result.remarks)


def test_the_far_end_of_an_escape_is_on_the_boundary() -> None:
    """All that is left of softplus(−3000) is zero; only on the way back does the loss rise."""
    model = of(3000.0, loss=lambda b: torch.nn.functional.softplus(-b))
    result = hofit.fit(model, {"optimizers": NEWTON, "init": {"values": {"p0": 3000.0}}})
    assert result.status == "converged_on_boundary" and any("p0 → ∞" in remark for remark in result.remarks)


@pytest.mark.parametrize("far", [36.75, 37.0, 37.5])
def test_a_curvature_of_rounding_is_no_minimum_however_large_it_is(far: float) -> None:
    """Angles that are all alike: the loss falls by 3 log κ for ever, as the difference of two terms that are 6 κ."""

    def model() -> None:
        kappa = parameter(1.0, constraint=constraints.positive)
        with pyro.plate("rows", 6):
            pyro.sample("y", dist.VonMises(torch.tensor(0.3), kappa), obs=torch.full((6,), 0.3))

    with judged(model, {"a": torch.tensor(far)}) as place:
        verdict = judge(place.objective, place.point.params, place.curvature, Stop(), StopState())
    assert verdict.status is not Status.CONVERGED


@pytest.mark.parametrize("density", [dist.Normal, dist.Cauchy])
@pytest.mark.parametrize("unit", [1e10, 1e15])
def test_a_minimum_far_out_is_one_in_whatever_unit(density: Any, unit: float) -> None:
    """A positive location, and the loss far out along it as steep as a parabola or as flat as a logarithm."""

    def model() -> None:
        location = parameter(unit, constraint=constraints.positive)
        with pyro.plate("rows", 3):
            pyro.sample("y", density(location, 0.1 * unit), obs=unit * torch.tensor([0.9, 1.0, 1.1]))

    result = fit(model)
    assert result.status == "converged" and float(result.values["a"]) == pytest.approx(unit, rel=1e-9)


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
    if model is terrace:  # it may well go on to the minimum at −1
        assert not result.converged or result.values["a"].item() == pytest.approx(-1.0, abs=1e-6)
    else:
        assert not result.converged


def by_products(monkeypatch: pytest.MonkeyPatch, *starts: float, loss: Callable[..., Tensor]) -> hofit.FitResult:
    """A fit whose Hessian is called too large for any structure."""
    monkeypatch.setattr("hofit.curvature.choice.COLUMNS_LIMIT", 1)
    sgd = [{"params": "*", "optimizer": "sgd", "lr": 0.019}]
    return hofit.fit(of(*starts, loss=loss), {"optimizers": sgd, "init": {"values": held(starts)}})


def test_probes_let_a_minimum_pass_and_say_that_they_prove_none(monkeypatch: pytest.MonkeyPatch) -> None:
    result = by_products(monkeypatch, 3.0, 1.0, loss=lambda a, b: (a - 1) ** 2 + (b - 2) ** 2 + a * b)
    assert result.status == "converged" and check(result, "curvature") is None and check(result, "probes") is True
    assert any("rests on the gradient and 16 probes" in remark for remark in result.remarks)


def test_probes_find_a_saddle(monkeypatch: pytest.MonkeyPatch) -> None:
    result = by_products(monkeypatch, 0.0, 0.0, loss=lambda a, b: a**2 - b**2 + b**4)
    assert not result.converged and check(result, "probes") is False


def test_probes_find_an_escape_to_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    result = by_products(monkeypatch, 14.0, 1.0, loss=lambda a, b: (-a).exp() + 50 * (b - 1) ** 2)
    assert not result.converged and check(result, "probes") is False


def test_a_rate_whose_effect_is_over_where_it_stands_is_used() -> None:
    """In a unit of 1e-6 nothing of it is left at 1, nor at 1.6."""

    def over(rate: Tensor) -> Tensor:
        return torch.exp(-rate / 1e-6)

    with judged(of(1.0, loss=over, p0=constraints.positive), {"p0": torch.tensor(0.0)}) as place:
        assert matters(place.objective, place.point, "p0")
