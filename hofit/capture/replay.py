"""How a tape is run again: one seam, behind which the way may change.

Python calls the operations at once. torch's own interpreter of traced graphs needs half of that time and takes long to
set up, so that it follows where there are many calls; `torch.jit.trace` is deprecated, and where it is gone, or cannot
take a tape, it stays with Python.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from ..internals import optimized_execution
from .tape import Tape

Replay = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]

MANY = 60
"""Calls from Python that take longer than the interpreter's by as much as that takes to set up."""


def by_python(tape: Tape) -> Replay:
    """The operations called one by one."""
    function = tape.function()

    def replay(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tape.filled(function(*inputs))

    return replay


def by_script(tape: Tape, inputs: Sequence[Tensor]) -> Replay:
    """The operations called by torch's interpreter, unchanged: nothing is fused, no bit differs."""
    with torch.no_grad():
        graph = by_trace(tape.function(), inputs)
    return lambda inputs: tape.filled(graph(inputs))


def by_trace(function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]) -> Replay:
    """A function by torch's interpreter, its derivatives included.

    No tape is needed, and torch does not know that somebody looks on; neither does anybody see random numbers, or
    values that decide.
    """
    with warnings.catch_warnings(), optimized_execution(False):
        warnings.simplefilter("ignore")
        graph = torch.jit.trace(function, tuple(one.detach() for one in inputs), check_trace=False)

    def replay(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad(), optimized_execution(False):
            found: tuple[Tensor, ...] = graph(*inputs)
            return found

    return replay


class ByBoth:
    """By Python for so many calls, then by the interpreter, if that gives the same bits there."""

    def __init__(self, tape: Tape) -> None:
        self._tape, self._replay, self._calls = tape, by_python(tape), 0

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = self._replay(inputs)
        self._calls += 1
        if self._calls == MANY:
            with suppress(Exception):  # whatever the interpreter cannot take, or no longer has
                script = by_script(self._tape, inputs)
                if all(map(torch.equal, script(inputs), found)):
                    self._replay = script
        return found
