"""The console of the command line: what it shows never ends a fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from ..errors import printable

PIPE_WIDTH = 160
"""Columns where nobody looks: a log or a pipe has no width of its own, and rich would cut tables at 80."""


class FitConsole(Console):
    """A console on standard output that falls silent once its reader has gone away or its disk is full."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        self._lost = False

    def on_broken_pipe(self) -> None:  # rich would leave the process
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        if self._lost or sys.stdout is None:  # a model may have closed it
            return
        try:
            super().print(*objects, **options)
            sys.stdout.flush()
        except OSError:
            self._lost = True
            # What is still buffered must not fail once more when Python exits.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
