"""A signal is noted, and the second interrupt ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from hofit.fitting.interruption import Interrupted
from hofit.run.signals import interruption_noted


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """A hangup has its default action, whatever the tests were started by: under nohup it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_the_handlers_are_put_back(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with interruption_noted() as interruption:
        assert not interruption()
        signal.raise_signal(number)
        assert interruption() and interruption.received == number
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_interrupt_does_not_wait() -> None:
    with interruption_noted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_hangup_stays_ignored_as_under_nohup() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption_noted() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert not interruption()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_user_s_signal_asks_once_for_a_checkpoint_and_ends_nothing() -> None:
    with interruption_noted() as interruption:
        signal.raise_signal(signal.SIGUSR1)
        assert [interruption.is_to_keep(), interruption.is_to_keep(), interruption()] == [True, False, False]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.parametrize("early", [False, True], ids=["inside", "before"])
def test_what_can_be_computed_again_is_not_waited_for(early: bool) -> None:
    with interruption_noted() as interruption:
        if early:
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted), interruption.at_once():
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("went on")
        assert interruption()


def test_what_a_finalizer_swallows_is_noted_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    class Loud:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    with interruption_noted() as interruption, interruption.at_once():
        one = Loud()
        del one
        assert interruption() and capsys.readouterr().err == ""


def test_an_interrupt_before_anything_began_is_one_without_hofit() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruption_noted() as interruption, interruption.at_once():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    found = []

    def elsewhere() -> None:
        with interruption_noted() as interruption:
            found.append((interruption(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [(False, True)]
