"""The end of a fit in words: verdict, remarks, estimates, where the run lies, what to do next.

It reads what the run directory holds (fit.json, estimates.csv, derived.csv, diagnose.json), never the model.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import RunDirectoryError

FIRST_ROWS = 8
"""Rows of a vector that are shown; the rest is summarised."""

NEEDED = ("status", "converged", "objective", "loss", "gradient_norm", "iterations", "seconds", "checks", "remarks")
"""Keys of fit.json without which there is nothing to report."""

Row = Mapping[str, Any]


def load_run(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """fit.json and the rows of estimates.csv, then those of derived.csv.

    Raises: RunDirectoryError when the directory holds no finished run.
    """
    if not path.is_dir():
        raise RunDirectoryError(f"no run directory {path}")
    fit, estimates = path / "fit.json", path / "estimates.csv"
    if not fit.is_file() or not estimates.is_file():
        unfinished = any(path.glob("checkpoint*.safetensors"))
        hint = f": the run is going on or was killed; `hofit resume {path}` goes on with it" if unfinished else ""
        raise RunDirectoryError(f"{path} holds no finished run{hint}")
    try:
        loaded = json.loads(fit.read_text(encoding="utf-8"))
        missing = [key for key in NEEDED if key not in loaded]
        if not isinstance(loaded, dict) or missing:
            raise ValueError(f"fit.json lacks {', '.join(missing)}")
        rows = _read(estimates)
        if (path / "derived.csv").is_file():
            rows += as_derived(_read(path / "derived.csv"))
        return loaded, rows
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{path} holds a damaged fit.json or estimates.csv: {error}") from error


def load_diagnosis(path: Path) -> dict[str, Any] | None:
    """diagnose.json, where there is one. Raises: RunDirectoryError when it is damaged."""
    file = path / "diagnose.json"
    if not file.is_file():
        return None
    try:
        loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"reading": str(loaded["reading"]), "remarks": [str(remark) for remark in loaded["remarks"]]}
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(f"{path} holds a damaged diagnose.json: {error}") from error


def print_diagnosis(console: Console, diagnosis: Mapping[str, Any]) -> None:
    console.print(f"Diagnosis: {diagnosis['reading']}", markup=False, highlight=False, soft_wrap=True)
    for remark in diagnosis["remarks"]:
        console.print(f"  {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def as_derived(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of derived.csv as rows of the table of estimates."""
    nothing = {"unconstrained": None, "optimizer": None, "lower": None, "upper": None}
    return [{**nothing, **row, "role": "derived"} for row in rows]


def print_summary(console: Console, fit: Mapping[str, Any], rows: Sequence[Row], run_dir: Path | None) -> None:
    console.print(verdict_line(fit), style="bold green" if fit["converged"] else "bold red", soft_wrap=True)
    failed = [check for check in fit["checks"] if check["ok"] is False]
    for check in failed:
        console.print(f"  {check['name']}: {check['message']}", markup=False, highlight=False, soft_wrap=True)
    for remark in fit["remarks"]:
        console.print(f"  {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if rows:
        _print_estimates(console, rows)
    if run_dir is not None:
        console.print(f"Run: {run_dir}", markup=False, highlight=False, soft_wrap=True)
    if fit["status"] != "converged" and fit.get("remedy"):
        remedy = str(fit["remedy"]).replace("RUN_DIR", str(run_dir) if run_dir is not None else "RUN_DIR")
        console.print(f"What to try: {remedy}", markup=False, highlight=False, soft_wrap=True)


def verdict_line(fit: Mapping[str, Any]) -> str:
    """The verdict in one line."""
    loss = "not finite" if fit["loss"] is None else f"{fit['loss']:.10g}"
    gradient = "not finite" if fit["gradient_norm"] is None else f"{fit['gradient_norm']:.2e}"
    return (
        f"{fit['status']}: loss {loss} ({fit['objective']}), gradient {gradient}, "
        f"{fit['iterations']} iterations, {fit['seconds']:.2f} s"
    )


def _print_estimates(console: Console, rows: Sequence[Row]) -> None:
    with_errors = any(row["std_error"] is not None for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("role", no_wrap=True)
    table.add_column("estimate", justify="right", no_wrap=True)
    if with_errors:
        table.add_column("std. error", justify="right", no_wrap=True)
        table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("optimizer", no_wrap=True)
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(str(row["name"]), []).append(row)
    summaries = []
    for name, members in by_name.items():
        for row in members[:FIRST_ROWS]:
            label = f"{name}[{row['index']}]" if row["index"] not in ("", None) else name
            error = [_short(row["std_error"]), _interval(row)] if with_errors else []
            table.add_row(Text(label), str(row["role"]), _number(row["estimate"]), *error, str(row["optimizer"] or "–"))
        if len(members) > FIRST_ROWS:
            numbers = [row["estimate"] for row in members if row["estimate"] is not None] or [float("nan")]
            errors = [row["std_error"] for row in members if row["std_error"] is not None]
            summaries.append(
                f"{name}: {len(members)} numbers, the first {FIRST_ROWS} shown; "
                f"min {min(numbers):.5g}, mean {sum(numbers) / len(numbers):.5g}, max {max(numbers):.5g}"
                + (f"; std. error {min(errors):.5g} to {max(errors):.5g}" if errors else "")
            )
    console.print(table)
    for summary in summaries:
        console.print(summary, style="dim", markup=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.8g}"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _interval(row: Row) -> str:
    if row.get("lower") is None or row.get("upper") is None:
        return ""
    return f"{_short(row['lower'])} … {_short(row['upper'])}"


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    if None in row.values() or None in row:
        raise ValueError("a row is torn")
    required = ("estimate", "std_error")
    optional = (key for key in ("unconstrained", "lower", "upper") if key in row)
    return {**row, **{key: float(row[key]) if row[key] else None for key in (*required, *optional)}}
