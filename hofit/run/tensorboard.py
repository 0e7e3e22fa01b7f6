"""``metrics: [tensorboard]``: the progress of a fit as event files in its run directory, for TensorBoard.

They are written by TensorBoard's own records, without torch's writer, which takes seconds to import. A session has a
file of its own, so that a record that a kill has torn hides no later one; it begins by taking back what the sessions
before had written beyond the checkpoint that it goes on from.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable
from typing import IO, Any

from ..record import EVENTS, Progress
from .directory import RunDirectory

HINT = "tensorboard is not installed: pip install 'hofit[tensorboard]', or leave metrics out"

FILE_VERSION = "brain.Event:2"
"""What every file of events begins with."""

ROWS_AT_ONCE = 0.1
"""Seconds that an iteration may wait for others."""


def is_available() -> bool:
    """Whether the library is there; it is not imported."""
    return importlib.util.find_spec("tensorboard") is not None


class EventRecorder:
    """Writes an event an iteration: loss, gradient_norm, step_norm, seconds, and each part's trust radius."""

    keeps_every = None

    def __init__(self, directory: RunDirectory) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._log, self._summary = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary
        self._writer_of = RecordWriter
        self.directory = directory
        self._file: IO[bytes] | None = None
        self._writer: Any = None
        self._waiting: list[tuple[float, Progress]] = []
        self._last_written = 0.0

    def on_iteration(self, record: Progress, snapshot: Callable[[], object] | None) -> None:
        if self._file is None:
            self._open(record.iteration)
        self._waiting.append((time.time(), record))
        if record.iteration == 0 or record.seconds - self._last_written >= ROWS_AT_ONCE:
            self._write()
            self._last_written = record.seconds

    def on_pause(self, snapshot: Callable[[], object]) -> None:
        self._write()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._write()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, iteration: int) -> None:
        number = len(list(self.directory.path.glob(f"{EVENTS}*"))) + 1
        path = self.directory.path / f"{EVENTS}.{number:010d}.hofit"
        self._file = path.open("xb", buffering=0)  # a new file: no link is written through
        self._writer = self._writer_of(self._file)
        self._put(wall_time=time.time(), file_version=FILE_VERSION)
        if number > 1:
            self._put(wall_time=time.time(), step=iteration, session_log=self._log(status=self._log.START))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for now, record in waiting:
            values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(record).items()]
            self._put(wall_time=now, step=record.iteration, summary=self._summary(value=values))

    def _put(self, **content: Any) -> None:
        self._writer.write(self._event(**content).SerializeToString())


def _scalars(record: Progress) -> dict[str, float]:
    """Those that are finite numbers, by their tags: the heads of progress.csv."""
    rows = zip(record.columns(), record.cells(), strict=True)
    found = {head: float(cell) for head, cell in rows if head != "iteration" and cell is not None}
    return {head: value for head, value in found.items() if math.isfinite(value)}
