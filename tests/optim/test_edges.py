"""No number with an edge leaps: near an edge a quadratic model is none for long."""

from __future__ import annotations

import torch

from hofit.coordinates import Coordinates
from hofit.optim.acceptance import EDGEWARD, without_leap
from hofit.point import Site
from tests.optim.closed_form import ClosedForm


def test_a_step_of_a_bounded_number_is_clipped_and_that_of_a_real_one_is_not() -> None:
    source = ClosedForm(lambda params: params["sd"].square().sum() + params["b"].square().sum())
    shapes = {"sd": torch.Size([3]), "b": torch.Size([1])}
    constraint = {"sd": "positive", "b": "real"}
    source.sites = {n: Site(n, "parameter", shape, shape, constraint[n]) for n, shape in shapes.items()}
    point = source.at({"sd": torch.tensor([0.0, -30.0, 1.0]), "b": torch.zeros(1)})
    own = Coordinates.of(point.params)
    short = without_leap(own, point, torch.tensor([-80.0, -80.0, 2.0, 500.0]))
    assert short is not None and short.tolist() == [-EDGEWARD, -15.0, 2.0, 500.0]
    assert without_leap(own, point, torch.tensor([-4.0, 4.0, 2.0, 500.0])) is None
