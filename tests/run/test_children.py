"""Work in processes of their own: what comes back, and what is said of a process that ends by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from hofit.errors import HofitError
from hofit.fitting.interruption import Interruption
from hofit.run.children import in_children


class Squares:
    """Squares numbers; dies at 3, and cannot do 4."""

    def __call__(self, tasks: Iterable[int], send: Callable[[Any], None], interruption: Interruption) -> None:
        for task in tasks:
            if task == 3:
                os._exit(9)
            if task == 4:
                raise HofitError("four is too much")
            send(f"squaring {task}")
            send((task, task**2))


class Waits:
    """Waits until it is interrupted."""

    def __call__(self, tasks: Iterable[int], send: Callable[[Any], None], interruption: Interruption) -> None:
        for task in tasks:
            send("begun")
            while not interruption():
                time.sleep(0.02)
            send((task, interruption.received))


def test_tasks_come_back_and_lost_ones_say_why() -> None:
    said: list[str] = []

    def heard(message: Any) -> bool:
        if isinstance(message, str):
            said.append(message)
        return isinstance(message, str)

    found = dict(in_children(Squares(), [1, 2, 3, 4, 5], 2, Interruption(), lambda task, why: (task, why), heard))
    assert {task: found[task] for task in (1, 2, 5)} == {1: 1, 2: 4, 5: 25}
    assert found[3] == "its process ended by itself (exit code 9)" and found[4] == "four is too much"
    assert sorted(said) == ["squaring 1", "squaring 2", "squaring 5"]


def test_an_interruption_is_handed_on_and_nothing_is_begun_after_it() -> None:
    interruption = Interruption()

    def heard(message: Any) -> bool:
        if message == "begun":
            interruption.note(signal.SIGINT)
        return bool(message == "begun")

    found = list(in_children(Waits(), [1, 2, 3], 1, interruption, lambda task, why: (task, 0), heard))
    assert found == [(1, signal.SIGTERM)]
