"""What a run has written, read back by the tests; nothing of hofit, so that its own reading cannot hide its writing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file, as text by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fit_json(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "fit.json").read_text(encoding="utf-8"))
    return found


def losses(run: Path) -> list[float]:
    """By iteration, the start first."""
    return [float(row["loss"]) for row in table(run / "progress.csv")]


def progress_but_time(run: Path) -> list[dict[str, str]]:
    """The rows of progress.csv without what a clock says."""
    return [{key: cell for key, cell in row.items() if key != "seconds"} for row in table(run / "progress.csv")]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, byte for byte."""
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}
