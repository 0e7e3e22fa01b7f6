"""Propose, then accept: a part that judges its steps takes its own move back, and only its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

import hofit
from hofit.optim import MixedMultiOptimizer, Newton, Optimizer, Proposal
from hofit.point import Params, Point
from hofit.record import PartReport
from tests.optim.closed_form import ClosedForm


class Doubting(Optimizer):
    """Gradient descent whose rate doubles after a step that does what was predicted, else falls to a tenth."""

    name = "doubting"
    judges = True

    def __init__(self, rate: float = 100.0) -> None:
        self.rate = rate
        self.others: list[float] = []

    def propose(self, point: Point) -> Proposal:
        gradient, names = point.gradient(), self.own(point).names
        slope = sum(float(gradient[name].square().sum()) for name in names)
        self.before = point.value
        return Proposal({n: point.params[n] - self.rate * gradient[n] for n in names}, 0.5 * self.rate * slope)

    def accept(self, point: Point, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        assert proposal.predicted_reduction is not None
        self.others.append(others)
        accepted = self.before - candidate.value >= 0.1 * (proposal.predicted_reduction - others)
        self.rate *= 2.0 if accepted else 0.1
        return accepted

    def reports(self) -> list[PartReport]:
        return [PartReport(self.name, self.rate)]

    def state_dict(self) -> dict[str, Any]:
        return {"rate": self.rate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rate = state["rate"]


def bowl(params: Params) -> Tensor:
    return params["a"].square().sum() + (params["b"] - 1).square().sum() + 0.1 * params["a"].sum() * params["b"].sum()


START = {"a": torch.tensor([3.0, -2.0], dtype=torch.float64), "b": torch.tensor(5.0, dtype=torch.float64)}


def test_a_refused_move_is_taken_back_alone_and_the_rest_is_traced_again() -> None:
    source = ClosedForm(bowl)
    doubting = Doubting(rate=1e6)
    mix = MixedMultiOptimizer([(["a"], doubting), (["b"], Newton())])
    before = source.at(START)
    after, moved = mix.advance(before)
    assert moved and mix._accepted == [False, True]
    assert torch.equal(after.params["a"], START["a"])  # taken back
    assert after.params["b"].item() == pytest.approx(1 - 0.05 * 1.0)  # Newton's own move stands
    assert after.value == pytest.approx(float(bowl(after.params)))  # and the loss is that of the point reached
    assert source.traced == 3  # start, the whole move, what is left of it
    # gᵀs of the other part: 2 (5 − 1) + 0.1 · 1 = 8.1 times a step of −4.05.
    assert doubting.others == [pytest.approx(8.1 * (0.95 - 5.0))]


def test_when_every_part_refuses_the_point_stays_and_nothing_is_traced_again() -> None:
    source = ClosedForm(bowl)
    mix = MixedMultiOptimizer([(["a"], Doubting(1e6)), (["b"], Doubting(1e6))])
    before = source.at(START)
    after, moved = mix.advance(before)
    assert after is before and not moved and source.traced == 2


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_an_accepted_step_costs_one_trace_a_part_at_most(order: str) -> None:
    source = ClosedForm(bowl)
    mix = MixedMultiOptimizer([(["a"], Doubting(0.1)), (["b"], Newton())], order)
    mix.advance(source.at(START))
    assert mix._accepted == [True, True] and source.traced == 1 + (1 if order == "simultaneous" else 2)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
@pytest.mark.parametrize("first", ["a", "b"])
def test_judging_and_other_parts_converge_together_in_both_orders(order: str, first: str) -> None:
    source = ClosedForm(bowl)
    parts: list[tuple[list[str], Optimizer]] = [(["a"], Doubting()), (["b"], Newton())]
    mix = MixedMultiOptimizer(parts if first == "a" else parts[::-1], order)
    point = source.at(START)
    for _ in range(60):
        point, _ = mix.advance(point)
    # ∇ = 0: a = −b/20 (both), b = 1 − (a₁ + a₂)/20
    b = 1 / (1 - 2 / 400)
    assert point.params["b"].item() == pytest.approx(b, abs=1e-6)
    assert torch.allclose(point.params["a"], torch.full((2,), -b / 20), atol=1e-6)


def test_a_judging_part_takes_a_failure_inside_a_distribution_for_an_infinite_loss(tmp_path: Any) -> None:
    """The scale is negative beyond x = 1: another part would end non_finite; a judging part shrinks and goes on."""
    path = tmp_path / "model.py"
    path.write_text(
        "import pyro, pyro.distributions as dist, torch\n"
        "from tests.optim.test_mixed import Doubting\n"
        "optimizers = {'doubting': Doubting}\n"
        "def model():\n"
        "    x = pyro.param('x', torch.tensor(0.0))\n"
        "    pyro.sample('y', dist.Normal(0.0, 1.0 - x, validate_args=True), obs=torch.tensor(0.3))\n"
    )
    config: dict[str, list[dict[str, Any]]] = {"optimizers": [{"params": "x", "optimizer": "doubting"}]}
    result = hofit.fit(path, config, run_dir=tmp_path / "run")
    assert result.status == "converged" and result.values["x"].item() == pytest.approx(0.7, abs=1e-6)
    table = (tmp_path / "run" / "progress.csv").read_text().splitlines()
    assert table[0].endswith("0.doubting.trust_radius,0.doubting.accepted")
    assert any(line.endswith(",0") for line in table) and any(line.endswith(",1") for line in table)
    config["optimizers"] = [{"params": "x", "optimizer": "sgd", "lr": 100.0}]
    failed = hofit.fit(path, config)
    assert failed.status == "non_finite" and "scale" in failed.remarks[0]


def test_a_subsampled_plate_is_refused_to_a_part_that_judges_or_reads_curvature() -> None:
    def model(y: Tensor) -> None:
        mu = pyro.sample("mu", pyro.distributions.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y), subsample_size=2) as ind:
            pyro.sample("y", pyro.distributions.Normal(mu, 1.0), obs=y[ind])

    with pytest.raises(hofit.errors.HofitError, match="'rows' is subsampled") as refusal:
        hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton"}]}, y=[1.0, 2.0, 3.0])
    assert refusal.value.exit_code == 2


def test_the_state_of_a_mix_is_that_of_its_parts() -> None:
    mix = MixedMultiOptimizer([(["a"], Doubting(0.3)), (["b"], Newton())])
    mix.advance(ClosedForm(bowl).at(START))
    again = MixedMultiOptimizer([(["a"], Doubting()), (["b"], Newton())])
    again.load_state_dict(mix.state_dict())
    assert again.parts[0][1].rate == 0.6 and again.state_dict() == mix.state_dict()


def test_an_unknown_order_and_an_alternating_bare_step_are_value_errors() -> None:
    with pytest.raises(ValueError, match="order must be one of"):
        MixedMultiOptimizer([(["a"], Newton())], order="random")
    x = torch.tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match="alternating"):
        MixedMultiOptimizer([(["x"], Newton())], order="alternating").step(x.square().sum(), {"x": x})
