"""How a tape is run again: one seam, behind which the way may change.

torch's own interpreter of traced graphs needs a third of the time of the same calls from Python; `torch.jit.trace` is
deprecated, and where it is gone, or cannot take a tape, Python calls them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..internals import optimized_execution
from .tape import Tape

Replay = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]


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


def replay_of(tape: Tape, inputs: Sequence[Tensor]) -> Replay:
    """The fastest way that is there."""
    try:
        return by_script(tape, inputs)
    except Exception:  # whatever the interpreter cannot take, or no longer has
        return by_python(tape)
