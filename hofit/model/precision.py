"""Which site of a model computes in a lower precision than the fit's, and where it begins to.

The graph of a log density tells: it has the dtype of every result on the way from the leaves.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..internals import result_dtypes
from .faults import is_library_file

FRAME = re.compile(r'File "(.+)", line (\d+), in [^\n]*\n\s*([^\n]*)')
"""A frame of a traceback as text: file, line, source."""


def lower_precision(log_densities: Callable[[], Iterable[tuple[Any, Tensor]]], dtype: torch.dtype) -> str | None:
    """The first site that depends on its leaves through a dtype coarser than ``dtype``, with what is to be done."""
    if _first(log_densities(), dtype) is None:
        return None
    with _frames_kept():  # which is slow
        found = _first(log_densities(), dtype)
    return None if found is None else _sentence(*found, dtype)


def _first(log_densities: Iterable[tuple[Any, Tensor]], dtype: torch.dtype) -> tuple[str, Any, torch.dtype] | None:
    """Site, node and dtype where what was in ``dtype`` becomes coarser."""
    seen: set[Any] = set()
    for message, log_prob in log_densities:
        for node in nodes(log_prob, seen):
            own = _coarser(node, dtype)
            if own is not None and all(_coarser(parent, dtype) is None for parent in _parents(node)):
                return message["name"], node, own
    return None


def _sentence(site: str, node: Any, own: torch.dtype, dtype: torch.dtype) -> str:
    low, high = (str(one).removeprefix("torch.") for one in (own, dtype))
    place = _place(node)
    return (
        f"precision: at site {site!r} the model computes in {low} though the fit is in {high}"
        f"{f' ({place})' if place else ''}: leave out .float() and its like, and give constants and modules the fit's "
        f"dtype (.to(torch.{high}), module.{'double' if high == 'float64' else 'float'}())"
    )


def _coarser(node: Any, dtype: torch.dtype) -> torch.dtype | None:
    """The dtype of a node's result where it has fewer digits."""
    for own in result_dtypes(node):
        if (own.is_floating_point or own.is_complex) and torch.finfo(own).eps > torch.finfo(dtype).eps:
            return own
    return None


def nodes(output: Tensor, seen: set[Any]) -> Iterator[Any]:
    """All that a tensor was computed by and that was not seen before."""
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(_parents(node))


def _parents(node: Any) -> list[Any]:
    return [parent for parent, _ in node.next_functions if parent is not None]


@contextmanager
def _frames_kept() -> Iterator[None]:
    """Inside, torch keeps of every node where it was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that this is slow
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            yield


def _place(node: Any) -> str:
    """``file:line: source`` of the last frame that is the user's."""
    frames = FRAME.findall("".join(node.metadata.get("traceback_", [])))
    own = [frame for frame in frames if not is_library_file(frame[0])]
    return "{}:{}: {}".format(*own[-1]) if own else ""
