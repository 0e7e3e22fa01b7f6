"""What a run directory holds, read back: its files, never the model."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

from ..errors import RunDirectoryError
from ..record import (
    CHECKPOINTS,
    CONFIG,
    DERIVED,
    DIAGNOSIS,
    ESTIMATES,
    FIT,
    PROGRESS,
    Derived,
    Estimate,
    Row,
    read_table,
)

NEEDED = ("status", "converged", "objective", "loss", "gradient_norm", "iterations", "seconds", "checks", "remarks")
"""Keys of fit.json without which there is nothing to report."""

GIVE = "give the directory that `hofit fit` printed after `Run:`"

UNREADABLE = (ValueError, KeyError, TypeError, RecursionError, csv.Error)
"""What a file raises that is no longer, or never was, what a run writes."""

COLUMNS = ("iteration", "loss", "gradient_norm", "seconds")
"""Columns of progress.csv without which there is nothing to draw."""


def load_run(path: Path) -> tuple[dict[str, Any], list[Estimate]]:
    """fit.json and the rows of estimates.csv, then those of derived.csv.

    Raises: RunDirectoryError when the directory holds no finished run.
    """
    if not path.is_dir():
        raise RunDirectoryError(f"no run directory {path}: {GIVE}")
    fit, estimates = path / FIT, path / ESTIMATES
    if not fit.is_file() or not estimates.is_file():
        unfinished = any(path.glob(CHECKPOINTS))
        hint = (
            f": the run is going on or was killed; `hofit resume {path}` goes on with it" if unfinished else f": {GIVE}"
        )
        raise RunDirectoryError(f"{path} holds no finished run{hint}")
    try:
        loaded = json.loads(fit.read_text(encoding="utf-8"))
        missing = [key for key in NEEDED if key not in loaded]
        if not isinstance(loaded, dict) or missing:
            raise ValueError(f"fit.json lacks {', '.join(missing)}")
        rows = read_table(Estimate, estimates)
        if (path / DERIVED).is_file():
            rows += map(Estimate.of, read_table(Derived, path / DERIVED))
        return loaded, rows
    except UNREADABLE as error:
        raise RunDirectoryError(f"{path} holds a damaged fit.json or estimates.csv: {error}") from error


def load_diagnosis(path: Path) -> dict[str, Any] | None:
    """diagnose.json, where there is one. Raises: RunDirectoryError when it is damaged."""
    file = path / DIAGNOSIS
    if not file.is_file():
        return None
    try:
        loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"reading": str(loaded["reading"]), "remarks": [str(remark) for remark in loaded["remarks"]]}
    except UNREADABLE as error:
        raise RunDirectoryError(f"{path} holds a damaged diagnose.json: {error}") from error


def load_rows(path: Path, name: str, kind: type[Row]) -> list[Row]:
    """The rows of one of the tables that a run may have besides; none where it has not. Raises: RunDirectoryError."""
    file = path / name
    if not file.is_file():
        return []
    try:
        return read_table(kind, file)
    except (OSError, *UNREADABLE) as error:
        raise RunDirectoryError(f"{path} holds a damaged {name}: {error}") from error


def load_progress(path: Path) -> dict[str, list[float]]:
    """The columns of progress.csv by their heads, nan for an empty cell; none where nothing was written.

    A last row that is torn, as a killed run leaves it, is left out. Raises: RunDirectoryError when another one is.
    """
    file = path / PROGRESS
    if not file.is_file():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if not whole:
            return {}
        heads, *rows = csv.reader(whole.splitlines())
        missing = [column for column in COLUMNS if column not in heads]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        if not rows:
            return {head: [] for head in heads}
        cells = zip(*rows, strict=True)
        return {
            head: [float(cell) if cell else math.nan for cell in column]
            for head, column in zip(heads, cells, strict=True)
        }
    except (OSError, *UNREADABLE) as error:
        raise RunDirectoryError(f"{path} holds a damaged progress.csv: {error}") from error


def load_config_text(path: Path) -> str | None:
    """config.yaml as it stands, where there is one. Raises: RunDirectoryError when it cannot be read."""
    file = path / CONFIG
    if not file.is_file():
        return None
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{file} cannot be read: {error}") from error
