"""What a picture needs of a run directory, loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import RunDirectoryError
from ..record import FIT, Estimate
from ..report.reading import load_config_text, load_progress, load_run


@dataclass(frozen=True)
class Run:
    """A run directory. ``fit`` is None where the run is not finished: then it has a progress and no estimates."""

    path: Path
    label: str
    fit: dict[str, Any] | None
    rows: Sequence[Estimate]
    progress: dict[str, list[float]]
    config: str | None = field(repr=False)

    @property
    def tolerance(self) -> float | None:
        """``stop.gradient`` of the config, where it can be told."""
        try:
            found = yaml.safe_load(self.config or "")["stop"]["gradient"]
        except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
            return None
        return float(found) if type(found) in (int, float) and found > 0 else None

    @property
    def function(self) -> object:
        """What says whether two losses are those of one function: objective, model and data; None where unknown."""
        if self.fit is None or not self.fit.get("model_sha256") or not self.fit.get("data_sha256"):
            return None
        digests = [sorted(map(str, dict(self.fit[key]).values())) for key in ("model_sha256", "data_sha256")]
        return [self.fit["objective"], *digests]


def open_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs, each under a label of its own: the directory's name, with a number where two have the same.

    Raises: RunDirectoryError when a directory holds no run, or a damaged one.
    """
    runs: list[Run] = []
    for path in paths:
        name, taken = path.resolve().name, {run.label for run in runs}
        candidates = (name if number == 1 else f"{name}-{number}" for number in range(1, len(paths) + 1))
        runs.append(_open(path, next(label for label in candidates if label not in taken)))
    return runs


def _open(path: Path, label: str) -> Run:
    progress = load_progress(path) if path.is_dir() else {}
    unfinished = bool(progress and progress["iteration"]) and not (path / FIT).is_file()
    fit, rows = (None, []) if unfinished else load_run(path)
    run = Run(path, label, fit, rows, progress, load_config_text(path))
    try:
        _ = run.function
    except (KeyError, TypeError, ValueError) as error:
        raise RunDirectoryError(f"{path} holds a damaged fit.json: {error}") from error
    return run
