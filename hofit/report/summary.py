"""The end of a fit in words: verdict, remarks, estimates, where the run lies, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..record import Estimate, by_site, labelled
from .progress import counted
from .rounding import rounded, rounded_interval

FIRST_ROWS = 8
"""Rows of a vector that are shown; the rest is summarised."""

RESTATED = "a matrix, told by its standard deviations and correlations; its entries are in estimates.csv"

LEFT_OUT = ("optimizer", "role")
"""Columns that a narrow screen does without, in this order."""


def print_diagnosis(console: Console, diagnosis: Mapping[str, Any]) -> None:
    console.print(f"Diagnosis: {diagnosis['reading']}", markup=False, highlight=False, soft_wrap=True)
    for remark in diagnosis["remarks"]:
        console.print(f"  {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_summary(
    console: Console, fit: Mapping[str, Any], rows: Sequence[Estimate], run_dir: Path | None, verbose: bool = False
) -> None:
    """``verbose`` adds how often the loss and its derivatives were computed."""
    colour = "green" if fit["converged"] else "yellow" if fit.get("complete_as_told") else "red"
    console.print(verdict_line(fit), style=f"bold {colour}", soft_wrap=True)
    counts = {str(kind): int(count) for kind, count in dict(fit.get("evaluations") or {}).items()}
    if verbose and any(counts.values()):
        console.print(f"Evaluations: {counted(counts)}", markup=False, highlight=False, soft_wrap=True)
    failed = [check for check in fit["checks"] if check["ok"] is False]
    for check in failed:
        console.print(f"  {check['name']}: {check['message']}", markup=False, highlight=False, soft_wrap=True)
    for remark in fit["remarks"]:
        console.print(f"  {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    # What is told of the parameters stands with them, and what is integrated, which may be long, after both.
    effects = [row for row in rows if row.role == "integrated"]
    rows = [*(row for row in rows if row.role != "integrated"), *Estimate.told_of(fit), *effects]
    if rows:
        _print_estimates(console, rows, fit.get("restated") or ())
    if run_dir is not None:
        console.print(f"Run: {run_dir}", markup=False, highlight=False, soft_wrap=True)
    if fit["status"] != "converged" and fit.get("remedy"):
        remedy = str(fit["remedy"]).replace("RUN_DIR", str(run_dir) if run_dir is not None else "RUN_DIR")
        console.print(f"What to try: {remedy}", markup=False, highlight=False, soft_wrap=True)


def verdict_line(fit: Mapping[str, Any]) -> str:
    """The verdict in one line."""
    loss = "not finite" if fit["loss"] is None else f"{fit['loss']:.10g}"
    gradient = "not finite" if fit["gradient_norm"] is None else f"{fit['gradient_norm']:.2e}"
    twice = f" ({fit['repeated_iterations']} of them twice)" if fit.get("repeated_iterations") else ""
    told = " (complete as told)" if fit.get("complete_as_told") else ""
    return (
        f"{fit['status']}{told}: loss {loss} ({fit['objective']}), gradient {gradient}, "
        f"{fit['iterations']} iterations{twice}, {fit['seconds']:.2f} s"
    )


def _print_estimates(console: Console, rows: Sequence[Estimate], restated: Sequence[str]) -> None:
    """The table; of matrices in ``restated`` a line, for their standard deviations and correlations stand in it."""
    by_name = by_site(row for row in rows if row.name not in restated)
    shown = [row for name, members in by_name.items() for row in members[: _rows_shown(name, len(members))]]
    numbers = [_row(row) for row in shown]
    columns = {
        "name": [labelled(row.name, row.index) for row in shown],
        "role": [str(row.role) for row in shown],
        "estimate": [estimate for estimate, _, _ in numbers],
        "std. error": [error for _, error, _ in numbers],
        "95 % interval": [interval for _, _, interval in numbers],
        "optimizer": [row.optimizer or "–" for row in shown],
    }
    if not any(columns["std. error"]):
        del columns["std. error"], columns["95 % interval"]
    widths = {title: max(len(cell) for cell in (title, *cells)) for title, cells in columns.items()}
    for title in LEFT_OUT:
        if sum(widths[one] + 2 for one in columns) - 2 > console.width:
            del columns[title]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        right = title in ("estimate", "std. error", "95 % interval")
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "name", overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, cells))
    if shown:
        console.print(table)
    for name, members in by_name.items():
        if len(members) > _rows_shown(name, len(members)):
            console.print(_in_short(name, members), style="dim", markup=False, soft_wrap=True)
    for name in restated:
        console.print(f"{name}: {RESTATED}", style="dim", markup=False, soft_wrap=True)


def _rows_shown(name: str, count: int) -> int:
    """How many numbers of a site stand in the table: of a module's weights none, where there are many."""
    return 0 if "." in name and count > FIRST_ROWS else min(count, FIRST_ROWS)


def _in_short(name: str, members: Sequence[Estimate]) -> str:
    numbers = [row.estimate for row in members if row.estimate is not None] or [float("nan")]
    errors = [row.std_error for row in members if row.std_error is not None]
    shown = _rows_shown(name, len(members))
    return (
        f"{name}: {len(members)} numbers{f', the first {shown} shown' if shown else ''}; "
        f"min {min(numbers):.5g}, mean {sum(numbers) / len(numbers):.5g}, max {max(numbers):.5g}"
        + (f"; std. error {min(errors):.5g} to {max(errors):.5g}" if errors else "")
    )


def _row(row: Estimate) -> tuple[str, str, str]:
    """Estimate, standard error and interval, rounded alike."""
    largest = max(abs(one) for one in (row.estimate or 0.0, row.lower or 0.0, row.upper or 0.0))
    interval = ""
    if row.lower is not None and row.upper is not None:
        interval = rounded_interval(row.lower, row.upper, row.std_error, largest)
    error = rounded(row.std_error, row.std_error, largest)
    return rounded(row.estimate, row.std_error, largest) or "–", error, interval
