"""What a fit leaves behind while it goes on: a row of progress.csv an iteration, and checkpoints."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..config.schema import CheckpointPolicy
from ..fitting.interruption import Interruption
from ..fitting.state import Snapshot
from ..record import PROGRESS, Progress, as_csv
from .checkpoint import write_checkpoint
from .directory import RunDirectory
from .files import write_whole
from .provenance import Provenance

LONGEST = 20
"""Digits that no iteration's number has: Python refuses to read thousands of them."""

ROWS_AT_ONCE = 0.1
"""Seconds that a row may wait for others, so that a thousand short iterations are not a thousand calls."""


class RunRecorder:
    """Writes a row of progress.csv an iteration; a checkpoint when asked, and every so many iterations or seconds."""

    def __init__(
        self, directory: RunDirectory, provenance: Provenance, policy: CheckpointPolicy, interruption: Interruption
    ) -> None:
        self._interruption = interruption
        self.directory, self.provenance, self.policy = directory, provenance, policy
        self._file: IO[bytes] | None = None
        self._last_written = 0.0
        self._last_iteration = -1
        self._rows: list[list[float | None]] = []
        self._last_rows = 0.0

    @property
    def keeps_every(self) -> int | None:
        return self.policy.every

    def on_iteration(self, record: Progress, snapshot: Callable[[], Snapshot] | None) -> None:
        if self._file is None:
            self._open(record)
        self._rows.append(record.cells())
        if record.iteration == 0 or record.seconds - self._last_rows >= ROWS_AT_ONCE:
            self._write_rows()
            self._last_rows = record.seconds
        if record.iteration == 0:
            self._last_written = record.seconds
            return
        late = record.seconds - self._last_written >= self.policy.seconds
        due = late or (self.keeps_every is not None and record.iteration % self.keeps_every == 0)
        if snapshot is not None and (self._interruption.is_to_keep() or due):
            self.checkpoint(snapshot())
            self._last_written = record.seconds

    def on_pause(self, snapshot: Callable[[], Snapshot]) -> None:
        self._write_rows()
        taken_now = snapshot()
        if taken_now.loop.iteration != self._last_iteration:
            self.checkpoint(taken_now)

    def checkpoint(self, snapshot: Snapshot) -> None:
        self._write_rows()
        # One iteration has one file: what is written of it later takes the place of what was written before.
        keep = 1 if snapshot.loop.iteration == self._last_iteration else self.policy.keep
        write_checkpoint(self.directory.path, snapshot, self.provenance, keep)
        self._last_iteration = snapshot.loop.iteration

    def close(self) -> None:
        self._write_rows()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_rows(self) -> None:
        if self._file is not None and self._rows:
            rows, self._rows = self._rows, []
            self._file.write(as_csv(rows).encode())  # unbuffered: they are there as soon as they are written

    def _open(self, record: Progress) -> None:
        path = self.directory.path / PROGRESS
        fresh = not path.exists()
        self._file = path.open("ab", buffering=0)
        if fresh:
            self._file.write(as_csv([record.columns()]).encode())


def drop_rows_after(path: Path, iteration: int) -> int:
    """Leave out the rows of progress.csv that came after the checkpoint, and a torn last line: how many came after."""
    if not path.is_file():
        path.unlink(missing_ok=True)  # a link to nowhere, or a pipe: nobody's rows go there
        return 0
    rows: list[list[str]] = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file, suppress(csv.Error):
        rows.extend(csv.reader(file))  # up to where it is damaged
    if not rows or rows[0][:1] != ["iteration"]:
        path.unlink()  # it begins anew, with its heads
        return 0
    width = len(rows[0])
    whole = [row for row in rows[1:] if len(row) == width and row[0].isdecimal() and len(row[0]) < LONGEST]
    kept = [rows[0]] + [row for row in whole if int(row[0]) <= iteration]
    write_whole(path, as_csv(kept).encode())
    return len(whole) + 1 - len(kept)
