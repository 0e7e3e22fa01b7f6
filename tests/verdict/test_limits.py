"""What runs to an edge or to infinity, and what may not matter to a verdict: the loss's unit, the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import exp, log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.verdict.limits import find_limit
from tests.verdict.problems import judged, of


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


@pytest.mark.parametrize("start", [(2.0, 90.0), (3.0, 80.0), (4.3, 88.6)])
def test_where_two_run_the_others_do_not_make_a_lower_place_of_the_way_back(start: tuple[float, float]) -> None:
    """The loss is 1e-12 and less there: further in by one number it is lower, for the other has run out meanwhile."""
    x = torch.tensor([-2.0, -1.5, -1.1, -0.4, 0.3, 0.8, 1.4, 2.2])

    def model() -> None:
        b = pyro.param("b", torch.zeros(2))
        with pyro.plate("rows", 8):
            pyro.sample("y", dist.Bernoulli(logits=b[0] + b[1] * x), obs=x.gt(0).double())

    result = fit(model, init={"values": {"b": list(start)}})
    assert result.status == "converged_on_boundary" and result.loss < 1e-11


@cache
def unscaled(model: Callable[[], None], optimizer: str) -> hofit.FitResult:
    """What every scale of the model is held against, fitted once."""
    return fit(model, optimizer)


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6, 1e12])
@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs", "newton_cg"])
@pytest.mark.parametrize(
    ("model", "status"),
    [(line, "converged"), (product, "flat_direction"), (separated, "converged_on_boundary")],
)
def test_a_scale_around_the_model_changes_no_verdict(
    model: Callable[[], None], status: str, optimizer: str, unit: float
) -> None:
    plain, scaled = unscaled(model, optimizer), fit(poutine.scale(model, unit), optimizer)
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


EVEN_COUNTS = [3.0, 4.0, 5.0, 4.0, 3.0, 5.0, 4.0, 4.0, 2.0, 6.0, 4.0, 3.0]
"""Less dispersed than Poisson's."""


@pytest.mark.parametrize("optimizer", ["trust_region", "newton_cg", "newton"])
@pytest.mark.parametrize("start", [16.63, 24.0, 38.5])
def test_a_size_that_has_drowned_in_the_rounding_of_lgamma_leaves_poisson_s_estimates(
    start: float, optimizer: str
) -> None:
    """At e¹⁶ curvature of rounding looks like a minimum, at e²⁴ like a saddle; at e³⁸ the loss itself is rounding."""
    counts = torch.tensor(EVEN_COUNTS)

    def model() -> None:
        size, mean = positive("size", exp(start)), positive("mean", 3.9)
        with pyro.plate("rows", len(counts)):
            pyro.sample("y", dist.GammaPoisson(size, size / mean), obs=counts)

    result, mean = fit(model, optimizer, init={"values": {"size": exp(start), "mean": 3.9}}), float(counts.mean())
    assert result.status == "converged_on_boundary" and any("size → ∞" in remark for remark in result.remarks)
    assert result.loss == pytest.approx(-float(dist.Poisson(mean).log_prob(counts).sum()), abs=1e-4)
    assert float(abs(result.values["mean"] - mean)) < 1e-6 * (mean / len(counts)) ** 0.5
    assert result.std_errors["size"].isnan()


@pytest.mark.parametrize("out", [18.0404, 20.0, 33.0, 38.0, 40.0, 44.0, 45.9906])
def test_what_the_loss_does_not_follow_is_rounding_however_steep_it_is(out: float) -> None:
    """Degrees of freedom of e³⁸ have a loss that is the same to the last digit, with a slope and a curvature of 20."""
    y = torch.special.ndtri((torch.arange(40.0) + 0.5) / 40.0).clamp(-1.9, 1.9)

    def model() -> None:
        with pyro.plate("rows", 40):
            student = dist.StudentT(positive("df", 5.0), pyro.param("m", torch.tensor(0.0)), positive("s", 1.0))
            pyro.sample("y", student, obs=y)

    start = {"df": torch.tensor(out), "m": torch.tensor(0.0), "s": y.std(correction=0).log()}
    with judged(model, start) as place:
        limit = find_limit(place, torch.zeros(3, dtype=torch.bool), place.point.size)
    assert limit is not None and limit.lower is None and limit.running.tolist() == [True, False, False]
    normal = dist.Normal(y.mean(), y.std(correction=0))
    assert limit.place.point.value == pytest.approx(-float(normal.log_prob(y).sum()), abs=2e-6)


@pytest.mark.parametrize("iterations", [36, 40])
def test_a_loss_that_falls_for_ever_is_no_limit_where_its_falls_differ_by_rounding(iterations: int) -> None:
    """A scale and its effects have no joint mode: the loss falls by three a fold of the scale, to the last digits."""

    def model() -> None:
        mean, tau = pyro.param("mean", torch.tensor(0.0)), positive("tau", 1.0)
        with pyro.plate("groups", 3):
            effect = pyro.sample("effect", dist.Normal(mean, tau))
        with pyro.plate("rows", 5):
            y = torch.tensor([1.5, 2.5, 0.5, 3.0, -0.7])
            pyro.sample("y", dist.Normal(effect[torch.tensor([0, 1, 0, 2, 1])], 1.0), obs=y)

    assert fit(model, stop={"max_iterations": iterations}).status in ("max_iterations", "unbounded")


def michaelis(top: Tensor, half: Tensor) -> Tensor:
    """Of a curve that bends upwards: of those that bend downwards a line is nearest."""
    x = torch.linspace(0.5, 2.0, 12)
    return 50.0 * (0.7 * x + 0.03 * x.square() - top * x / (half + x)).square().sum()


def sine(size: Tensor, frequency: Tensor, slope: float = -0.002) -> Tensor:
    """Of what hardly has a slope, which size · frequency is wherever both go: a line is nearest if it is negative."""
    x = torch.linspace(0.5, 2.0, 12)
    wave = (-1.0) ** torch.arange(12)
    return 12.5 * (wave - x * (x @ wave) / (x @ x) + slope * x - size * torch.sin(frequency * x)).square().sum()


@pytest.mark.parametrize("optimizer", ["trust_region", "newton_cg"])
@pytest.mark.parametrize(
    ("loss", "starts", "slope", "constraint"),
    [
        (michaelis, (1.0, 1.0), None, {"p0": constraints.positive, "p1": constraints.positive}),
        (sine, (3.0, -0.002 / 3.0), -0.002, {}),
        (sine, (20.0, -0.0001), -0.002, {}),
    ],
)
def test_the_floor_of_a_valley_that_leads_to_infinity_is_followed_there(
    loss: Callable[..., Tensor], starts: tuple[float, float], slope: float | None, constraint: Any, optimizer: str
) -> None:
    """Two numbers run away together: the infimum is the least squares of a line through the origin, at infinity."""
    result = fit(of(*starts, loss=loss, **constraint), optimizer)
    x = torch.linspace(0.5, 2.0, 12)
    if slope is None:
        slope = float(x @ (0.7 * x + 0.03 * x.square()) / (x @ x))
    far = torch.tensor(1e9)
    infimum = loss(slope * far, far) if constraint else loss(far, slope / far)
    assert result.status == "converged_on_boundary" and any("→ ∞" in remark for remark in result.remarks)
    assert result.loss == pytest.approx(float(infimum), abs=1e-6)


@pytest.mark.parametrize("optimizer", ["trust_region", "newton_cg"])
def test_a_valley_that_falls_inwards_is_gone_back(optimizer: str) -> None:
    """At the far end of one there is hardly a slope, nor a curvature: what is lower is found by following its floor."""
    wave = lambda size, frequency: sine(size, frequency, slope=0.002)  # noqa: E731
    result = fit(of(20.0, 0.0001, loss=wave), optimizer)
    assert result.status == "converged" and result.loss == pytest.approx(fit(of(0.15, 2.0, loss=wave)).loss, abs=1e-7)


def saturated() -> None:
    """As many coefficients as rows: the loss is 3 · log(sd), to the last digit, wherever they fit."""
    x = torch.tensor([-1.0, 0.5, 2.0])
    b = pyro.param("b", torch.zeros(3))
    with pyro.plate("rows", 3):
        mean = b[0] + b[1] * x + b[2] * x.square()
        pyro.sample("y", dist.Normal(mean, positive("sd", 0.05)), obs=torch.tensor([0.3, 1.1, -0.4]))


@pytest.mark.parametrize("unit", [1.0, 1e-12])
@pytest.mark.parametrize("optimizer", ["newton", "trust_region", "newton_cg"])
def test_a_loss_without_a_floor_is_unbounded_however_the_fit_ends(optimizer: str, unit: float) -> None:
    result = fit(poutine.scale(saturated, unit), optimizer, stop={"max_iterations": 200})
    assert result.status == "unbounded" and any("sd" in remark for remark in result.remarks)


def test_a_loss_without_a_floor_is_followed_where_its_curvature_is_rounding() -> None:
    """All coefficients fit to the last digit, and the scale is not small yet: its slope is three, whatever it is."""
    x, y = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.3, 1.1, -0.4])
    fitting = torch.linalg.solve(torch.stack([torch.ones_like(x), x, x.square()], -1), y)
    with judged(saturated, {"b": fitting, "sd": torch.tensor(-0.45)}) as place:
        limit = find_limit(place, torch.zeros(4, dtype=torch.bool), place.point.size)
    assert limit is not None and limit.running.tolist() == [False, False, False, True]
    assert limit.falls or limit.lower is not None


def test_a_loss_without_a_floor_is_unbounded_where_its_hessian_overflows() -> None:
    """The joint mode of effects and their scale: at a scale of 1e-120 one over its fourth power is infinite."""

    def joint() -> None:
        scale = positive("scale", 1e-120)
        with pyro.plate("rows", 3):
            b = pyro.sample("b", dist.Normal(0.0, scale))
            pyro.sample("y", dist.Normal(b, 1.0), obs=torch.tensor([0.4, -0.3, 0.2]))

    start = {"scale": 1e-120, "b": [3e-119, -2e-119, 1e-119]}
    result = fit(joint, "newton_cg", init={"values": start}, stop={"max_iterations": 1})
    assert result.status == "unbounded" and any("scale" in remark for remark in result.remarks)


def test_a_number_that_runs_is_seen_once_the_others_rest() -> None:
    """Their steps, divided a hundredfold, hide that its own are no shorter: a variance that runs to zero as e⁻²ᵘ."""
    loss = lambda a, b: 1e-6 * (50.0 * (a - 1.0).square() + (a - 1.0) ** 3 + 1e-9 * (-b).exp())  # noqa: E731
    result = fit(of(1.05, 0.0, loss=loss))
    assert result.status == "converged_on_boundary" and any("p1 → ∞" in remark for remark in result.remarks)


def test_a_gap_of_ordered_values_that_closes_is_named_by_both() -> None:
    def model() -> None:
        cut = pyro.param("cut", torch.tensor([-1.0, 0.0, 1.0]), constraint=dist.constraints.ordered_vector)
        with pyro.plate("rows", 6):
            pyro.sample("y", dist.OrderedLogistic(torch.zeros(6), cut), obs=torch.tensor([0, 0, 1, 1, 3, 3]))

    result = fit(model)
    assert result.status == "converged_on_boundary" and any("cut[2] → cut[1]" in remark for remark in result.remarks)
    assert result.loss == pytest.approx(6 * log(3), abs=1e-7)


def test_a_gap_that_closes_takes_no_other_along_in_whatever_unit() -> None:
    """The third level falls with the second; its own gap stays, and so does its error."""
    y = torch.tensor([[0.1, -0.1], [1.5, 1.7], [0.9, 1.1], [3.0, 2.8]])
    for unit in (1.0, 1e6):
        start = (unit * torch.arange(4.0)).tolist()

        def model(unit: float = unit) -> None:
            level = pyro.param("level", unit * torch.arange(4.0), constraint=dist.constraints.ordered_vector) / unit
            with pyro.plate("rows", 4):
                pyro.sample("y", dist.Normal(level[:, None], 1.0).to_event(1), obs=y)

        result = fit(model, init={"values": {"level": start}})
        assert result.status == "converged_on_boundary"
        assert any("(level[2] → level[1])" in remark for remark in result.remarks)
        assert result.std_errors["level"].isnan().tolist() == [False, False, True, False]
        assert float(result.std_errors["level"][3]) == pytest.approx(unit * 0.5**0.5, rel=1e-4)


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


def test_a_minimum_without_curvature_that_newton_s_steps_straddle_is_no_edge() -> None:
    """The loss (u − 1)⁴: Newton's step goes a third of the way, and two and four of them end equally low."""

    def model() -> None:
        pyro.factor("loss", -((positive("z", 3.0).log() - 1.0) ** 4))

    adam = {"params": "*", "optimizer": "adam", "lr": 0.01}
    result = hofit.fit(model, {"optimizers": [adam], "stop": {"max_iterations": 100}})
    assert result.status == "max_iterations" and not any("boundary" in remark for remark in result.remarks)


@pytest.mark.parametrize("optimizer", ["trust_region", "newton_cg", "lbfgs"])
@pytest.mark.parametrize("start", [1.0, 1e-3, 3e-4])
def test_in_single_precision_an_edge_is_seen_wherever_rounding_has_stopped_the_fit(
    optimizer: str, start: float
) -> None:
    """From 1e-3 on the loss no longer shows the scale: it was taken further out, for nothing was left to be rounded."""
    means = torch.tensor([0.1, -0.2, 0.15, 0.05, -0.1, 0.12, -0.07, 0.02])

    def model() -> None:
        mu, tau = pyro.param("mu", torch.tensor(0.0)), positive("tau", 1.0)
        with pyro.plate("groups", 8):
            pyro.sample("y", dist.Normal(mu, (tau**2 + 0.04).sqrt()), obs=means.to(mu))

    result = fit(model, optimizer, dtype="float32", init={"values": {"tau": start}})
    expected = -float(dist.Normal(means.mean(), 0.2).log_prob(means).sum())
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(expected, abs=1e-4)
    assert float(result.std_errors["mu"]) == pytest.approx(0.2 / 8**0.5, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["trust_region", "newton_cg", "lbfgs", "newton"])
@pytest.mark.parametrize("start", [0.3, exp(pi / 2), 3.0])
def test_what_nothing_is_left_of_beside_an_edge_is_flat_there(start: float, optimizer: str) -> None:
    """As a third correlation beside two of ±1: its curvature is the rounding of the loss, here 1e-8, of either sign."""

    def loss(x: Tensor, r: Tensor, q: Tensor) -> Tensor:
        rounding = 1e-8 * torch.sin(1e12 * (x + r + q).detach())
        return 50 * (x - 0.3) ** 2 + 1.0 + r * (1 + 0.5 * torch.sin(q.log())) + rounding

    edges = {"p1": constraints.positive, "p2": constraints.positive}
    result = fit(of(0.5, 1.0, start, loss=loss, **edges), optimizer)
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(1.0, abs=1e-7)
    assert "p1 → 0" in result.remarks[0] and result.remarks[1].endswith("no curvature along p2")
    assert result.std_errors["p0"] == pytest.approx(0.1, rel=1e-4) and result.std_errors["p2"].isnan()
