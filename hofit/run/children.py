"""Work in several processes: each takes the next task as soon as it is free, and sends what comes of it.

Processes are started anew, not forked: threads of torch do not survive a fork. A signal that ends the parent's work is
handed on, and what a child has begun ends as a fit does that is interrupted. A child whose parent is gone ends, too.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar

from ..errors import HofitError
from ..fitting.interruption import Interrupted, Interruption
from .signals import interruption_noted

LOOK = 0.2
"""Seconds after which it is asked again whether a signal has come."""

T = TypeVar("T")


class Work(Protocol):
    """What a child does: it takes tasks as they come, and sends one thing of each."""

    def __call__(self, tasks: Iterable[Any], send: Callable[[Any], None], interruption: Interruption) -> None: ...


@dataclass
class _Child:
    process: SpawnProcess
    connection: Connection
    task: Any = None


def in_children(
    work: Work,
    tasks: Sequence[Any],
    jobs: int,
    interruption: Interruption,
    lost: Callable[[Any, str], T],
    heard: Callable[[Any], bool] = lambda message: False,
) -> Iterator[T]:
    """What comes of each task, as it comes; fewer where that is interrupted.

    ``lost`` makes something of a task whose process ended without a word, or with an error. ``heard`` is given every
    message, and says whether it was one by the way.
    """
    context = multiprocessing.get_context("spawn")
    waiting, children = list(reversed(tasks)), list[_Child]()
    told = False
    try:
        while waiting or children:
            if interruption():
                waiting.clear()
                if not told:
                    for child in children:
                        child.process.terminate()
                    told = True
            while waiting and len(children) < jobs:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, work), daemon=True)
                process.start()
                theirs.close()
                children.append(_Child(process, ours))
                _hand(children[-1], waiting)
            ready = wait([child.connection for child in children], LOOK)
            for child in [one for one in children if one.connection in ready]:
                try:
                    message = child.connection.recv()
                except (EOFError, OSError):
                    children.remove(child)
                    child.process.join()
                    if child.task is not None and not interruption():
                        yield lost(child.task, f"its process ended by itself (exit code {child.process.exitcode})")
                    continue
                if isinstance(message, _Problem):
                    if child.task is not None:
                        yield lost(child.task, message.why)
                    child.task = None
                    continue
                if heard(message):
                    continue
                yield message
                child.task = None
                _hand(child, waiting)
    finally:
        for child in children:
            child.process.terminate()
            child.connection.close()
        for child in children:
            child.process.join()


@dataclass(frozen=True)
class _Problem:
    why: str


def _hand(child: _Child, waiting: list[Any]) -> None:
    """Give a child its next task, or nothing, after which it ends."""
    child.task = waiting.pop() if waiting else None
    with suppress(OSError):
        child.connection.send(None if child.task is None else (child.task,))


def _serve(connection: Connection, work: Work) -> None:
    """What a child runs: the work on the tasks that come, until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells all at once; the parent hands on what is meant

    def tasks() -> Iterator[Any]:
        with suppress(EOFError, OSError):
            while (task := connection.recv()) is not None:
                yield task[0]

    with suppress(BrokenPipeError, Interrupted, KeyboardInterrupt), interruption_noted() as interruption:
        try:
            work(tasks(), connection.send, interruption)
        except HofitError as error:
            connection.send(_Problem(str(error)))
