"""The end of a fit in words: verdict, remarks, estimates, where the run lies, what to do next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..record import Estimate

FIRST_ROWS = 8
"""Rows of a vector that are shown; the rest is summarised."""


def print_diagnosis(console: Console, diagnosis: Mapping[str, Any]) -> None:
    console.print(f"Diagnosis: {diagnosis['reading']}", markup=False, highlight=False, soft_wrap=True)
    for remark in diagnosis["remarks"]:
        console.print(f"  {remark}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_summary(console: Console, fit: Mapping[str, Any], rows: Sequence[Estimate], run_dir: Path | None) -> None:
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
    twice = f" ({fit['repeated_iterations']} of them twice)" if fit.get("repeated_iterations") else ""
    return (
        f"{fit['status']}: loss {loss} ({fit['objective']}), gradient {gradient}, "
        f"{fit['iterations']} iterations{twice}, {fit['seconds']:.2f} s"
    )


def _print_estimates(console: Console, rows: Sequence[Estimate]) -> None:
    with_errors = any(row.std_error is not None for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("role", no_wrap=True)
    table.add_column("estimate", justify="right", no_wrap=True)
    if with_errors:
        table.add_column("std. error", justify="right", no_wrap=True)
        table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("optimizer", no_wrap=True)
    by_name: dict[str, list[Estimate]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    summaries = []
    for name, members in by_name.items():
        for row in members[:FIRST_ROWS]:
            label = f"{name}[{row.index}]" if row.index else name
            error = [_short(row.std_error), _interval(row)] if with_errors else []
            table.add_row(Text(label), row.role, _number(row.estimate), *error, row.optimizer or "–")
        if len(members) > FIRST_ROWS:
            numbers = [row.estimate for row in members if row.estimate is not None] or [float("nan")]
            errors = [row.std_error for row in members if row.std_error is not None]
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


def _interval(row: Estimate) -> str:
    if row.lower is None or row.upper is None:
        return ""
    return f"{_short(row.lower)} … {_short(row.upper)}"
