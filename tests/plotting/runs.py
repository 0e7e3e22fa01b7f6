"""Run directories that tests write themselves: what a fit would leave, with any name in it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hofit.record import Estimate, PartReport, Progress, as_csv, table

FIT: dict[str, Any] = {
    "status": "converged",
    "converged": True,
    "objective": "marginal",
    "loss": 12.5,
    "gradient_norm": 1e-9,
    "iterations": 9,
    "seconds": 0.5,
    "checks": [{"name": "gradient", "ok": True, "value": 1e-9, "message": "max-norm 1e-09, tolerance 1e-06"}],
    "remarks": [],
    "versions": {"hofit": "0.1.0", "torch": "2.13.0+cpu", "pyro-ppl": "1.9.2"},
    "model_sha256": {"model.py": "5f3a"},
    "data_sha256": {"arguments": "bb"},
}

CONFIG = "model: model.py:model\nstop:\n  gradient: 1.0e-06\n"


def progress_rows(count: int = 10, radius: bool = True) -> list[Progress]:
    """A fit whose loss falls by ten an iteration, with one step refused."""
    return [
        Progress(
            i,
            12.5 + 10.0**-i,
            None,
            10.0 ** (-i / 2),
            None,
            0.01 * (i + 1),
            [PartReport("trust_region", 2.0**i if radius else None, None if i == 0 else i != 2)],
        )
        for i in range(count)
    ]


def effects(name: str, count: int, role: str = "integrated") -> list[Estimate]:
    """``count`` rows in no order, with intervals."""
    values = [math.sin(7.0 * i) for i in range(count)]
    return [Estimate(name, str(i), role, v, 0.5, v, None, v - 1.0, v + 1.0) for i, v in enumerate(values)]


def write_run(
    path: Path,
    rows: Sequence[Estimate] = (),
    progress: Sequence[Progress] | None = None,
    config: str = CONFIG,
    **keys: Any,
) -> Path:
    """A finished run; ``keys`` are of fit.json."""
    path.mkdir(parents=True)
    given = rows or [Estimate("mu", "", "parameter", 1.0, 0.25, 1.0, "adam", 0.5, 1.5)]
    (path / "estimates.csv").write_text(table(Estimate, given), encoding="utf-8")
    (path / "fit.json").write_text(json.dumps({**FIT, **keys}), encoding="utf-8")
    (path / "config.yaml").write_text(config, encoding="utf-8")
    write_progress(path, progress_rows() if progress is None else progress)
    return path


def write_progress(path: Path, rows: Sequence[Progress]) -> None:
    lines: list[Sequence[object]] = [rows[0].columns(), *(row.cells() for row in rows)] if rows else []
    (path / "progress.csv").write_text(as_csv(lines), encoding="utf-8")
