"""How long a fit will still take: a straight line of log gradients has its end in closed form."""

from __future__ import annotations

import math

import pytest

from hofit.record import Progress
from hofit.report.remaining import Remaining, in_words


def told(of: Remaining, iterations: int, seconds: float, rate: float) -> float | None:
    """After so many iterations, whose gradient falls as exp(−rate · seconds)."""
    for k in range(iterations):
        now = k * seconds
        of.hear(Progress(k, 1.0, None, math.exp(-rate * now), None, now, []))
    return of.seconds()


def test_a_geometric_fall_ends_where_it_reaches_the_target() -> None:
    left = told(Remaining(1e-6, 10**6, None), 200, 0.1, 0.5)
    assert left == pytest.approx(math.log(1e6) / 0.5 - 19.9, rel=1e-9)


@pytest.mark.parametrize(("most", "limit", "expected"), [(250, None, 5.1), (10**6, 22.0, 2.1)])
def test_the_fit_is_cut_short_first(most: int, limit: float | None, expected: float) -> None:
    assert told(Remaining(1e-6, most, limit), 200, 0.1, 0.01) == pytest.approx(expected, rel=1e-9)


def test_a_minibatch_fit_runs_all_its_iterations_whatever_its_gradient() -> None:
    assert told(Remaining(None, 300, None), 200, 0.1, 0.0) == pytest.approx(10.1, rel=1e-9)


def test_nothing_is_said_early_without_a_trend_or_at_the_end() -> None:
    assert told(Remaining(1e-6, 10**6, None), 5, 1.0, 1.0) is None
    assert told(Remaining(1e-6, 10**6, None), 200, 0.1, 0.0) is None
    assert told(Remaining(0.0, 10**6, None), 200, 0.1, 0.5) is None
    assert told(Remaining(1e-6, 200, None), 200, 0.1, 0.01) is None


def test_seconds_in_words() -> None:
    assert [in_words(one) for one in (1.2, 89.0, 200.0, 9000.0)] == ["1 s", "89 s", "3 min", "2 h"]
