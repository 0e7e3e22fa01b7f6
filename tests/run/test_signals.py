"""A signal is noted, and the second interrupt ends at once."""

from __future__ import annotations

import signal
import threading

import pytest

from hofit.run.signals import interruption_noted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
