"""Parts of a fit that take long, so that something can happen in the middle of them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

SECONDS = 5.0


def verdict(reached: str) -> None:
    _before("hofit.fitting.loop", "judge", reached)


def errors(reached: str) -> None:
    _before("hofit.run.finish", "gaussian_of", reached)


def start(reached: str) -> None:
    _before("hofit.fitting.loop", "trouble_at", reached)


def saves(seconds: float) -> None:
    """Each call that lets a file survive."""
    fsync = os.fsync

    def slowly(handle: int) -> None:
        time.sleep(seconds)
        fsync(handle)

    os.fsync = slowly  # type: ignore[assignment]


def until(go: str) -> None:
    """The first iteration: until a file is there."""
    from hofit.fitting.loop import Loop

    step = Loop._step

    def waiting(self: Any, *arguments: Any) -> Any:
        while not Path(go).exists():
            time.sleep(0.01)
        return step(self, *arguments)

    Loop._step = waiting  # type: ignore[assignment, method-assign]


def iterations(seconds: float) -> None:
    from hofit.fitting.loop import Loop

    step = Loop._step

    def slowly(self: Any, *arguments: Any) -> Any:
        time.sleep(seconds)
        return step(self, *arguments)

    Loop._step = slowly  # type: ignore[assignment, method-assign]


def on_terminal(name: str) -> None:
    """Let a terminal be what is printed to."""
    handle = os.open(name, os.O_RDWR | os.O_NOCTTY)
    for target in (1, 2):
        os.dup2(handle, target)


def _before(module: str, name: str, reached: str) -> None:
    """Let a function tell that it was called, and take its time; in steps, as a computation does."""
    from importlib import import_module

    owner = import_module(module)
    function = getattr(owner, name)

    def slowly(*arguments: Any, **more: Any) -> Any:
        end = time.monotonic() + (0.0 if Path(reached).exists() else SECONDS)
        Path(reached).touch()
        while time.monotonic() < end:
            time.sleep(0.01)
        return function(*arguments, **more)

    setattr(owner, name, slowly)
