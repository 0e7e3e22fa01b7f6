"""What holds of every part: which parameters are its own, and how it says that it cannot step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import hofit
from hofit.curvature.choice import StructureRefuted
from hofit.errors import StepImpossible
from hofit.optim import MixedMultiOptimizer, Optimizer, Proposal
from hofit.optim.foreign import ForeignFault
from hofit.optim.newton import RowsInteract
from hofit.optim.registry import build, registry
from hofit.point import Params, Point
from tests.contracts.test_optimizers import entry
from tests.optim.closed_form import ClosedForm

NAMES = sorted(registry())


def made(name: str) -> Optimizer:
    options = {key: value for key, value in entry(name).items() if key != "optimizer"}
    return build(registry()[name], options, None)


def bowl(params: Params) -> Tensor:
    return torch.stack([x.square().sum() + 0.1 * x.pow(4).sum() for x in params.values()]).sum()


def start() -> Point:
    return ClosedForm(bowl).at({"x": torch.tensor([[1.0, 2.0]]), "y": torch.tensor([3.0])})


def test_an_unbound_part_owns_every_parameter_and_a_bound_one_its_own() -> None:
    part, point = made("adam"), start()
    assert part.own(point).names == ("x", "y")
    part.bind(["y"])
    assert part.own(point).names == ("y",) and part.own(point) is part.own(point)
    part.bind([])
    assert part.own(point).names == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_part_bound_to_nothing_moves_nothing(name: str) -> None:
    part, point = made(name), start()
    part.bind([])
    reached, accepted = part.advance(point)
    assert reached is point and accepted and not part.exhausted()


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
@pytest.mark.parametrize("name", NAMES)
def test_in_a_mix_a_part_that_others_leave_nothing_moves_nothing(name: str, order: str) -> None:
    """As if the part were not there: step for step, and at no more cost."""

    def descended(*idle: tuple[str, Optimizer]) -> tuple[Params, int, bool]:
        mix, source = MixedMultiOptimizer([("*", made("adam")), *idle], order), ClosedForm(bowl)
        point = source.at({"x": torch.tensor([[1.0, 2.0]])})
        mix.bind(["x"])
        for _ in range(3):
            point, _ = mix.advance(point)
        return point.params, source.traced, mix.second_order or mix.judges or mix.exhausted()

    alone, traced, _ = descended()
    beside, traced_too, asks_for_more = descended(("x", made(name)))
    assert torch.equal(alone["x"], beside["x"]) and traced_too == traced and not asks_for_more


class Refusing(Optimizer):
    name = "refusing"

    def propose(self, point: Point) -> Proposal:
        raise StepImpossible("there is no step like that", ValueError("because of this"))


def test_a_step_that_is_impossible_ends_the_fit_and_says_why(tmp_path: Path) -> None:
    """By the one class that the loop knows: an optimizer brings no failure of its own to it."""
    path = tmp_path / "model.py"
    path.write_text(
        "import pyro, torch\n"
        "from tests.optim.test_base import Refusing\n"
        "optimizers = {'refusing': Refusing}\n"
        "def model():\n    pyro.factor('bowl', -pyro.param('x', torch.tensor(1.0)) ** 2)\n"
    )
    result = hofit.fit(path, {"optimizers": [{"params": "*", "optimizer": "refusing"}]})
    assert (result.status, result.exit_code, result.iterations) == ("model_error", 4, 0)
    assert result.remarks[0].startswith("there is no step like that: ValueError: because of this")
    assert all(issubclass(kind, StepImpossible) for kind in (RowsInteract, ForeignFault, StructureRefuted))
