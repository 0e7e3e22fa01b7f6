"""Trust radii follow how steps turn out (Nocedal & Wright 2006, Alg. 4.1)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hofit.optim.acceptance import ACCEPT, Acceptance, TrustRadius
from hofit.optim.subproblem.step import Step
from hofit.point import TracedPoint

POINT = TracedPoint({}, torch.tensor(1.0), {})


@pytest.mark.parametrize(
    ("ratio", "on_boundary", "length", "expected"),
    [
        (0.1, True, 2.0, 0.5),  # poor: a quarter of the step
        (0.1, False, 1.0, 0.25),
        (0.5, True, 2.0, 2.0),  # fair: as it was
        (0.9, True, 2.0, 4.0),  # good, and held back by the radius: twice
        (0.9, False, 1.0, 2.0),  # good, and not held back
        (float("-inf"), True, 2.0, 0.5),  # nothing there
        (0.1, False, 0.0, 2.0),  # no step says nothing of a radius
    ],
)
def test_a_radius_follows_the_ratio(ratio: float, on_boundary: bool, length: float, expected: float) -> None:
    radius = TrustRadius(2.0)
    radius.update(ratio, Step(torch.tensor([length]), 0.3, on_boundary, length), POINT)
    assert radius.value == expected


def test_a_step_too_short_to_be_judged_leads_to_a_longer_one() -> None:
    radius = TrustRadius(1e-9)
    radius.update(0.0, Step(torch.tensor([1e-9]), 1e-18, True, 1e-9), POINT)
    assert radius.value == 4e-9


def test_a_radius_that_is_not_known_stays_unknown_but_for_a_refused_step() -> None:
    radius = TrustRadius(None)
    radius.update(0.9, Step(torch.tensor([1.0]), 0.3, True, 1.0), POINT)
    assert radius.value is None
    radius.update(0.1, Step(torch.tensor([1.0]), 0.3, False, 1.0), POINT)
    assert radius.value == 0.25


def at(x: float, value: float, slope: float) -> Any:
    """A point of one number, with what is known of it."""
    gradient = {"x": torch.tensor(slope)}
    return SimpleNamespace(
        params={"x": torch.tensor(x)},
        value=value,
        loss=torch.tensor(value, dtype=torch.float64),
        failure=None,
        has_graph=False,
        gradient=lambda graph=False: gradient,
    )


@pytest.mark.parametrize(
    ("value", "slope", "accepted"),
    [
        (19.0, -0.5, True),  # a fall a thousand times what was promised, which the slope at its end bears out
        (19.0, -1e-4, False),  # by slopes of a tenth of a thousandth it has fallen by hardly anything
        (19.0, -4e4, False),  # by the slope at the end it has fallen by a hundred thousand
    ],
)
def test_a_windfall_is_taken_where_loss_and_slopes_agree(value: float, slope: float, accepted: bool) -> None:
    proposal: Any = SimpleNamespace(predicted_reduction=1e-3, params={"x": None})
    ratio = Acceptance().ratio(at(0.0, 20.0, -1e-4), at(5.0, value, slope), proposal, 0.0)
    assert (ratio > ACCEPT) is accepted
