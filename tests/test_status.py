"""The ways for a fit to end are those of the agreement with users."""

from __future__ import annotations

from hofit.status import Status

AGREED = {
    "converged": (True, 0),
    "converged_on_boundary": (True, 0),
    "flat_direction": (True, 0),
    "no_progress": (False, 3),
    "max_iterations": (False, 3),
    "time": (False, 3),
    "non_finite": (False, 4),
    "unbounded": (False, 4),
    "saddle": (False, 4),
    "model_error": (False, 4),
    "interrupted": (False, 130),
}


def test_every_status_has_the_word_and_the_exit_code_that_was_agreed() -> None:
    assert {status.word: (status.converged, status.exit_code) for status in Status} == AGREED


def test_all_but_converged_say_what_to_do() -> None:
    assert [status for status in Status if not status.remedy] == [Status.CONVERGED]
