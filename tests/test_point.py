"""What a point, and what counts its evaluations, does for every objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from hofit.point import Evaluations, Params, Point, Site, TracedPoint


def test_what_is_computed_uncounted_is_not_counted() -> None:
    counts = Evaluations(loss=3, gradient=2)
    with counts.uncounted():
        counts.loss += 5
        counts.hvp += 1
    assert asdict(counts) == {"loss": 3, "gradient": 2, "hvp": 0, "inner": 0}


def test_restored_counts_are_those_that_every_holder_sees() -> None:
    counts = Evaluations()
    held, before = counts, Evaluations(1, 2, 3, 4)
    counts.restore(before)
    held.inner += 1
    assert asdict(counts) == {"loss": 1, "gradient": 2, "hvp": 3, "inner": 5} and before.inner == 4


class Bowl:
    """½ |x|² of leaves that every evaluation overwrites, and counts."""

    def __init__(self) -> None:
        self.evaluations, self.unit, self.traces = Evaluations(), 1.0, 0
        self.sites: Mapping[str, Site] = {}
        self.leaf = torch.zeros(2, requires_grad=True)
        self.current: Point | None = None

    def at(self, params: Params) -> TracedPoint:
        point = TracedPoint(params, torch.zeros(()), {"x": self.leaf}, source=self)
        point.loss = self.retrace(point)
        return point

    def retrace(self, point: TracedPoint) -> Tensor:
        self.evaluations.loss += 1
        self.traces += 1
        with torch.no_grad():
            self.leaf.copy_(point.params["x"])
        self.current = point
        return 0.5 * self.leaf.square().sum()

    def is_current(self, point: Point) -> bool:
        return self.current is point

    def hear_of_differences(self, point: TracedPoint) -> None:
        raise AssertionError("torch has all derivatives here")

    def invalidate(self) -> None:
        self.current = None


def test_a_point_whose_leaves_were_overwritten_is_traced_again_to_differentiate() -> None:
    bowl = Bowl()
    here, there = (bowl.at({"x": torch.tensor(values)}) for values in ([1.0, 2.0], [3.0, 4.0]))
    assert here.gradient()["x"].tolist() == [1.0, 2.0] and bowl.traces == 3
    assert there.gradient()["x"].tolist() == [3.0, 4.0] and bowl.traces == 4
    assert bowl.evaluations.loss == 2  # places, however often they were traced


def test_a_gradient_is_computed_once_and_known_from_then_on() -> None:
    point = Bowl().at({"x": torch.ones(2)})
    assert point.known_gradient is None
    gradient = point.gradient()
    assert point.gradient() is gradient is point.known_gradient
    assert point.source is not None and point.source.evaluations.gradient == 1


def test_the_graph_of_a_loss_that_someone_wrote_into_is_made_anew() -> None:
    bowl = Bowl()
    point = bowl.at({"x": torch.ones(2)})
    point.loss_graph()
    with torch.no_grad():
        bowl.leaf.add_(1.0)  # as an optimizer of the user's does
    bowl.invalidate()
    found = torch.autograd.grad(point.loss_graph(), bowl.leaf)[0]
    assert found.tolist() == [1.0, 1.0] and point.hvp({"x": torch.eye(2)})["x"].tolist() == torch.eye(2).tolist()


def test_a_bare_loss_has_derivatives_and_no_other_place() -> None:
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    point = TracedPoint({"x": leaf.detach().clone()}, leaf.prod(), {"x": leaf})
    assert point.gradient()["x"].tolist() == [2.0, 1.0] and not point.sites
    with pytest.raises(TypeError, match="bare loss"):
        point.at(point.params)
