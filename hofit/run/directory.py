"""A run directory: one run at a time, files that appear whole, rows that are flushed."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ..config.source import dump_yaml
from ..errors import RunDirectoryError
from ..fitting.loop import IterationRecord
from ..fitting.state import Snapshot
from .checkpoint import NAME, Provenance, write_checkpoint

LOCK = ".lock"
CONFIG, PROGRESS, FIT, ESTIMATES = "config.yaml", "progress.csv", "fit.json", "estimates.csv"
DERIVED, DIAGNOSIS = "derived.csv", "diagnose.json"
OWN_FILES = (CONFIG, PROGRESS, FIT, ESTIMATES, DERIVED, DIAGNOSIS)

ESTIMATE_COLUMNS = ("name", "index", "role", "estimate", "std_error", "unconstrained", "optimizer", "lower", "upper")
DERIVED_COLUMNS = ("name", "index", "estimate", "std_error")


class RunDirectory:
    """The directory of one run, locked by the operating system while it is open: a killed run leaves no lock.

    Raises: RunDirectoryError when it holds a run already (unless ``overwrite``) or another process is using it.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, overwrite: bool = False) -> RunDirectory:
        """Take a new or empty directory; with ``overwrite``, one that holds a run."""
        refusal = taken(path)
        if refusal and not (overwrite and path.is_dir()):
            raise RunDirectoryError(f"{refusal}: choose another --run-dir, or --overwrite")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be made: {error.strerror}") from error
        directory = cls(path, _locked(path))
        if not overwrite and (refusal := taken(path)):  # another run was quicker
            directory.close()
            raise RunDirectoryError(f"{refusal}: choose another --run-dir")
        for entry in path.iterdir():
            if entry.name in OWN_FILES or entry.name.startswith("checkpoint"):
                entry.unlink()
        return directory

    @classmethod
    def next_free(cls, parent: Path, stem: str) -> RunDirectory:
        """``parent/stem``, or with -2, -3 … the first that is free."""
        number = 1
        while True:
            path = parent / (stem if number == 1 else f"{stem}-{number}")
            try:
                return cls.create(path)
            except RunDirectoryError:
                if not path.exists():
                    raise
            number += 1

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Take a directory that holds a run, to go on with it."""
        if not path.is_dir():
            raise RunDirectoryError(f"no run directory {path}")
        return cls(path, _locked(path))

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_text(self.path / CONFIG, dump_yaml(dict(config)))

    def write_fit(self, fit: Mapping[str, Any]) -> None:
        """fit.json; a diagnosis of an earlier end is taken away."""
        (self.path / DIAGNOSIS).unlink(missing_ok=True)
        self._write_json(FIT, fit)

    def write_diagnosis(self, diagnosis: Mapping[str, Any]) -> None:
        self._write_json(DIAGNOSIS, diagnosis)

    def write_estimates(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write_table(ESTIMATES, ESTIMATE_COLUMNS, rows)

    def write_derived(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The deterministic sites' file, where there are any."""
        if rows:
            self._write_table(DERIVED, DERIVED_COLUMNS, rows)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_text(self.path / name, json.dumps(_json_safe(content), indent=1) + "\n")

    def _write_table(self, name: str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
        lines = [",".join(columns)]
        for row in rows:
            lines.append(",".join(_cell(row[column]) for column in columns))
        write_text(self.path / name, "\n".join(lines) + "\n")


class RunRecorder:
    """Writes a row of progress.csv an iteration, and a checkpoint every so many iterations or seconds."""

    def __init__(self, directory: RunDirectory, provenance: Provenance, every: int, seconds: float, keep: int) -> None:
        self.directory, self.provenance = directory, provenance
        self.every, self.seconds, self.keep = every, seconds, keep
        self._file: IO[bytes] | None = None
        self._last_written = 0.0
        self._last_iteration = -1

    def on_iteration(self, record: IterationRecord, snapshot: Callable[[], Snapshot]) -> None:
        if self._file is None:
            self._open(record)
        assert self._file is not None
        self._file.write(_progress_row(record).encode())  # unbuffered: a row is there as soon as it is written
        if record.iteration == 0:
            self._last_written = record.seconds
        elif record.iteration % self.every == 0 or record.seconds - self._last_written >= self.seconds:
            self.checkpoint(snapshot())
            self._last_written = record.seconds

    def on_pause(self, snapshot: Callable[[], Snapshot]) -> None:
        taken_now = snapshot()
        if taken_now.loop.iteration != self._last_iteration:
            self.checkpoint(taken_now)

    def checkpoint(self, snapshot: Snapshot) -> None:
        # One iteration has one file: what is written of it later takes the place of what was written before.
        keep = 1 if snapshot.loop.iteration == self._last_iteration else self.keep
        write_checkpoint(self.directory.path, snapshot, self.provenance, keep)
        self._last_iteration = snapshot.loop.iteration

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, record: IterationRecord) -> None:
        path = self.directory.path / PROGRESS
        fresh = not path.exists()
        self._file = path.open("ab", buffering=0)
        if fresh:
            self._file.write((",".join(_progress_columns(record)) + "\n").encode())


def drop_rows_after(path: Path, iteration: int) -> None:
    """Leave out the rows of progress.csv that came after the checkpoint, and a torn last line."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        return
    width = len(rows[0])
    whole = [row for row in rows[1:] if len(row) == width and row[0].isdecimal()]
    kept = [rows[0]] + [row for row in whole if int(row[0]) <= iteration]
    write_text(path, "".join(",".join(row) + "\n" for row in kept))


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears whole: temporary name, fsync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def taken(path: Path) -> str | None:
    """Why a new run cannot go to ``path``; None if it can."""
    if not path.exists():
        return None
    if not path.is_dir():
        return f"{path} is a file, not a directory"
    held = sorted(entry.name for entry in path.iterdir() if entry.name != LOCK)
    if not held:
        return None
    if any(name in OWN_FILES or name == NAME for name in held):
        return f"{path} holds a run already"
    return f"{path} is not empty ({', '.join(held[:3])})"


def _locked(path: Path) -> FileLock:
    lock = FileLock(str(path / LOCK))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunDirectoryError(f"{path} is in use by another run") from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}") from error
    return lock


def _progress_columns(record: IterationRecord) -> list[str]:
    columns = ["iteration", "loss", "change", "gradient_norm", "step_norm", "seconds"]
    for i, part in enumerate(record.parts):
        columns += [f"{i}.{part.name}.trust_radius", f"{i}.{part.name}.accepted"]
    return columns


def _progress_row(record: IterationRecord) -> str:
    cells: list[object] = [
        record.iteration,
        record.loss,
        record.change,
        record.gradient_norm,
        record.step_norm,
        round(record.seconds, 6),
    ]
    for part in record.parts:
        cells += [part.trust_radius, None if part.accepted is None else int(part.accepted)]
    return ",".join("" if cell is None else repr(cell) for cell in cells) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".17g")
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def _json_safe(value: Any) -> Any:
    """JSON has no nan and no inf: they become null."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    return value
