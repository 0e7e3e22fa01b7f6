"""What a point, and what counts its evaluations, does for every objective."""

from __future__ import annotations

from dataclasses import asdict

from hofit.point import Evaluations


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
