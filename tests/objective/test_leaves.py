"""The one writer of a program's leaves: what they hold, and who may still differentiate through them."""

from __future__ import annotations

import pytest
import torch

from hofit.objective.leaves import Leaves
from hofit.point import Params, TracedPoint


@pytest.fixture
def leaves() -> Leaves:
    return Leaves({name: torch.zeros(2, requires_grad=True) for name in ("a", "b", "c")})


def point(leaves: Leaves, **params: float) -> TracedPoint:
    values = {name: torch.full((2,), value) for name, value in params.items()}
    return TracedPoint(values, torch.zeros(()), leaves.tensors)


def held(leaves: Leaves) -> Params:
    return {name: leaf.detach().clone() for name, leaf in leaves.tensors.items()}


def test_what_is_written_is_held_in_place_and_the_rest_stays(leaves: Leaves) -> None:
    before = dict(leaves.tensors)
    leaves.write({"b": torch.tensor([1.0, 2.0])})
    assert all(leaves.tensors[name] is leaf and leaf.requires_grad for name, leaf in before.items())
    assert held(leaves)["b"].tolist() == [1.0, 2.0] and held(leaves)["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("write", [lambda leaves: leaves.write({}), lambda leaves: leaves.invalidate()])
def test_a_point_is_current_until_anyone_writes(leaves: Leaves, write: object) -> None:
    here = point(leaves, a=1.0)
    leaves.make_current(here)
    assert leaves.is_current(here) and not leaves.is_current(point(leaves, a=1.0))
    assert callable(write)
    write(leaves)
    assert not leaves.is_current(here)


def test_holding_writes_a_point_and_makes_constants_of_its_others_alone(leaves: Leaves) -> None:
    with leaves.holding(point(leaves, a=1.0, b=2.0), ["b"]):
        assert held(leaves)["a"].tolist() == [1.0, 1.0] and held(leaves)["b"].tolist() == [2.0, 2.0]
        assert [leaf.requires_grad for leaf in leaves.tensors.values()] == [False, True, True]
    assert all(leaf.requires_grad for leaf in leaves.tensors.values())


def test_a_current_point_is_held_without_being_written_so_that_its_graph_stays_good(leaves: Leaves) -> None:
    here = point(leaves, a=1.0)
    leaves.write(here.params)
    leaves.make_current(here)
    loss = leaves.tensors["a"].square().sum()
    with leaves.holding(here, ["a"]):
        pass
    assert torch.autograd.grad(loss, leaves.tensors["a"])[0].tolist() == [2.0, 2.0]


def test_constants_are_variables_again_after_an_error(leaves: Leaves) -> None:
    with pytest.raises(RuntimeError), leaves.constant(["a", "c"]):
        raise RuntimeError
    assert all(leaf.requires_grad for leaf in leaves.tensors.values())
