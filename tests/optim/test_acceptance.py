"""Trust radii follow how steps turn out (Nocedal & Wright 2006, Alg. 4.1)."""

from __future__ import annotations

import pytest
import torch

from hofit.optim.acceptance import TrustRadius
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
