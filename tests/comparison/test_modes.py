"""Which fits share a mode: by loss, by estimates in standard errors, up to labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hofit.comparison.modes import best_of, places_of
from hofit.comparison.outcome import Outcome
from hofit.comparison.starts import sentence_of
from hofit.record import Estimate


def fit(loss: float | None, status: str = "converged", error: float | None = 0.1, **values: object) -> Outcome:
    """An outcome with these values, each number with the same standard error."""
    rows = []
    for name, value in values.items():
        array = np.asarray(value, dtype=float)
        for index in np.ndindex(array.shape):
            rows.append(Estimate(name, ",".join(map(str, index)), "parameter", float(array[index]), error))
    whole = {"status": status, "converged": status == "converged", "loss": loss, "unit": 1.0}
    return Outcome(f"{status} {loss}", whole, rows)


def modes(outcomes: Sequence[Outcome]) -> list[tuple[int | None, str]]:
    return [(place.mode, place.relation) for place in places_of(outcomes)]


def test_modes_are_numbered_by_their_loss_and_what_has_not_converged_founds_none() -> None:
    outcomes = [fit(12.0, x=3.0), fit(10.0, x=1.0), fit(10.0002, x=1.002), fit(9.0, "max_iterations", x=7.0), fit(None)]
    assert modes(outcomes) == [(2, ""), (1, ""), (1, ""), (None, ""), (None, "")]
    assert best_of(outcomes) == 1
    difference = places_of(outcomes)[0].difference
    assert difference is not None and difference.errors == pytest.approx(20.0) and difference.where == "x"


def test_a_fit_that_has_not_converged_may_have_reached_a_mode() -> None:
    assert modes([fit(10.0, x=1.0), fit(10.0001, "max_iterations", x=1.001)]) == [(1, ""), (1, "")]


def test_of_losses_that_are_equal_up_to_rounding_the_first_is_best() -> None:
    assert best_of([fit(11.0, x=0.0), fit(10.0 + 1e-12, x=1.0), fit(10.0, x=1.0)]) == 1


def test_components_in_another_order_are_the_same_mode_up_to_labels() -> None:
    order = [2, 0, 1]
    weight, mean = np.array([0.2, 0.3, 0.5]), np.array([[1.0, 9.0], [2.0, 8.0], [3.0, 9.0]])
    moves = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
    one = fit(10.0, weight=weight, mean=mean, moves=moves)
    other = fit(10.0, weight=weight[order], mean=mean[order], moves=moves[np.ix_(order, order)])
    (_, _), (mode, relation) = modes([one, other])
    assert (mode, relation) == (1, "labels 1, 2, 0")
    difference = places_of([one, other])[1].difference
    assert difference is not None and difference.errors == 0.0


def test_the_probability_of_the_one_of_two_components_becomes_that_of_the_other() -> None:
    one, other = fit(5.0, w=0.2, mean=[1.0, 4.0]), fit(5.0, w=0.8, mean=[4.0, 1.0])
    assert modes([one, other])[1] == (1, "labels 1, 0")


def test_one_loss_with_other_estimates_is_called_that() -> None:
    outcomes = [fit(10.0, x=1.0, y=[2.0, 3.0]), fit(10.0, x=-1.0, y=[2.0, 3.0])]
    assert modes(outcomes)[1] == (1, "same loss, other estimates")
    assert "1 of 2 starts reached the best mode" in sentence_of(outcomes)
    assert "1 its loss with other estimates" in sentence_of(outcomes)


def test_without_standard_errors_values_are_compared_themselves() -> None:
    one, near, far = (fit(10.0, error=None, x=value) for value in (100.0, 100.001, 101.0))
    assert modes([one, near, far]) == [(1, ""), (1, ""), (1, "same loss, other estimates")]


def test_a_loss_in_another_unit_has_modes_of_its_own_size() -> None:
    outcomes = [fit(1e-6, x=1.0), fit(2e-6, x=1.0)]
    for one in outcomes:
        assert isinstance(one.fit, dict)
        one.fit["unit"] = 1e-6
    assert modes(outcomes) == [(1, ""), (2, "")]


def test_what_is_said_of_starts_counts_all_of_them() -> None:
    failed = Outcome("start 6", {}, problem="the model raised ValueError")
    outcomes = [fit(12.0, x=3.0), fit(10.0, x=1.0), fit(10.0, x=1.0), fit(9.0, "unbounded", x=9.0), fit(12.0, x=3.0)]
    said = sentence_of([*outcomes, failed])
    assert said.startswith("2 of 6 starts reached the best mode (loss 10); the others: 2 a mode of loss 12, ")
    assert "1 unbounded" in said and "1 failed (the model raised ValueError)" in said
    assert said.endswith("Lower, but no minimum: unbounded 9.0 (unbounded, loss 9)")
    assert sentence_of([failed]) == "none of 1 starts could be fitted: the model raised ValueError"
    cut = sentence_of([fit(9.0, "time", x=1.0), fit(8.0, "time", x=1.0)])
    assert cut == "none of 2 starts converged; the lowest loss is 8 (time 8.0): 2 time"
