"""What a run directory holds, read back: its files, never the model."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from ..errors import RunDirectoryError
from ..record import CHECKPOINTS, DERIVED, DIAGNOSIS, ESTIMATES, FIT, Derived, Estimate, read_table

NEEDED = ("status", "converged", "objective", "loss", "gradient_norm", "iterations", "seconds", "checks", "remarks")
"""Keys of fit.json without which there is nothing to report."""

UNREADABLE = (ValueError, KeyError, TypeError, RecursionError, csv.Error)
"""What a file raises that is no longer, or never was, what a run writes."""


def load_run(path: Path) -> tuple[dict[str, Any], list[Estimate]]:
    """fit.json and the rows of estimates.csv, then those of derived.csv.

    Raises: RunDirectoryError when the directory holds no finished run.
    """
    if not path.is_dir():
        raise RunDirectoryError(f"no run directory {path}")
    fit, estimates = path / FIT, path / ESTIMATES
    if not fit.is_file() or not estimates.is_file():
        unfinished = any(path.glob(CHECKPOINTS))
        hint = f": the run is going on or was killed; `hofit resume {path}` goes on with it" if unfinished else ""
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
