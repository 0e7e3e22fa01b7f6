"""What questions find is gathered in the order of the questions."""

from __future__ import annotations

import pytest

from hofit.status import Status
from hofit.verdict.checks import Check, Finding, StopState, Verdict


def test_a_verdict_gathers_checks_and_remarks_in_order_and_keeps_the_last_status() -> None:
    first, second = Check("gradient", True, 0.0, "small"), Check("curvature", None, None, "not checked")
    verdict = Verdict(None, 0.0, 1.0)
    for finding in (
        Finding(first),
        Finding(second, Status.CONVERGED, "flat"),
        Finding(),
        Finding(nearly=True),
        Finding(status=Status.FLAT_DIRECTION, remark="unused"),
        Finding(remark="more"),
    ):
        verdict.take(finding)
    assert verdict.checks == [first, second]
    assert verdict.remarks == ["flat", "unused", "more"]
    assert verdict.status is Status.FLAT_DIRECTION and verdict.nearly


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        (StopState(), False),
        (StopState(rounding=True), False),
        (StopState(stalled=True), True),
        (StopState(final=True), True),
    ],
)
def test_a_point_that_is_refuted_ends_a_fit_that_cannot_go_on(state: StopState, ends: bool) -> None:
    assert state.ends is ends
