"""What a signal does to a fit: SIGINT, SIGTERM and SIGHUP end it, resumable; SIGUSR1 writes a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..fitting.interruption import Interrupted, Interruption


@contextmanager
def interruption_noted() -> Iterator[Interruption]:
    """Inside, signals are noted instead of ending the process; outside the main thread nothing changes.

    A second SIGINT interrupts at once. Where nothing has begun that could be kept, a signal does afterwards what it
    would have done without hofit.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def end(number: int, frame: FrameType | None) -> None:
        if interruption() and number == signal.SIGINT:
            raise KeyboardInterrupt
        interruption.note(number)

    def keep(number: int, frame: FrameType | None) -> None:
        interruption.ask_to_keep()

    handlers = {signal.SIGINT: end, signal.SIGTERM: end}
    for name, handler in (("SIGHUP", end), ("SIGUSR1", keep)):  # Windows has neither
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one, a caller may hear it
            handlers[number] = handler
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    unraisable, ended = sys.unraisablehook, False

    def told(ignored: sys.UnraisableHookArgs) -> None:
        if ignored.exc_type is not Interrupted:  # in a finalizer nothing can be raised: the loop asks soon enough
            unraisable(ignored)

    sys.unraisablehook = told
    try:
        yield interruption
    except Interrupted:
        ended = True
    finally:
        for number, former in before.items():
            signal.signal(number, former)
        sys.unraisablehook = unraisable
    if ended:
        assert interruption.received is not None
        signal.raise_signal(interruption.received)
        raise KeyboardInterrupt  # whoever hears the signal has let it pass
