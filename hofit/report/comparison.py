"""Fits beside each other on the screen: rows of compare.csv, tests and remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

LEFT_OUT = ("at", "seconds", "above best", "relation", "iterations", "to 1e-6", "largest Δ/se")
"""Columns of the fits that a narrow screen does without, in this order."""

MODELS_LEFT_OUT = ("reference", "AICc", "log L")
"""As LEFT_OUT, of the models."""

RIGHT = ("loss", "above best", "iterations", "seconds", "to 1e-6", "mode", "largest Δ/se", "log L", "k", "n")
RIGHT_TOO = ("AIC", "AICc", "BIC", "2ΔlogL", "df", "p")


def print_comparison(console: Console, found: Mapping[str, Any]) -> None:
    """``found`` is what ``--json`` prints: rows, tests, remarks, best."""
    rows: Sequence[Mapping[str, Any]] = found["rows"]
    for number in sorted({row["function"] for row in rows}):
        group = [row for row in rows if row["function"] == number]
        several = len({row["function"] for row in rows}) > 1
        if several and len(group) > 1 and number:
            console.print(Text(f"Fits of function {number}:"), soft_wrap=True)
        if len(group) > 1 or not several or not number:
            _print(console, _fits(group), LEFT_OUT, [row["run"] == found["best"] for row in group])
    models = [row for row in rows if row["log_likelihood"] is not None]
    if models and (len({row["function"] for row in models}) > 1 or len(rows) == 1):
        console.print(Text("Models, on the same data:"), soft_wrap=True)
        models.sort(key=lambda row: (row["parameters"] or 0, row["run"]))
        _print(console, _models(models), MODELS_LEFT_OUT, [row["run"] == found["best"] for row in models])
    for test in found["tests"]:
        p = "no p" if test["p_value"] is None else f"p = {test['p_value']:.4g}"
        text = f"{test['larger']} against {test['smaller']}: 2ΔlogL {test['statistic']:.6g}, df {test['df']}, {p}"
        text += f" ({test['reference']})" if test["p_value"] is not None else ""
        if test["assumed"]:
            text += f"; assumed: {test['assumed']}" if test["p_value"] is not None else f"; {test['assumed']}"
        console.print(Text(text), soft_wrap=True)
    for remark in found["remarks"]:
        console.print(Text(f"  {remark}", style="yellow"), soft_wrap=True)
    if found["best"] is not None:
        console.print(Text(f"Best: {found['best']}"), soft_wrap=True)


def _fits(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {
        "run": [row["run"] for row in rows],
        "status": [row["status"] for row in rows],
        "loss": [_number(row["loss"], ".10g") for row in rows],
        "above best": [_number(row["above_best"], ".3g") for row in rows],
        "iterations": [_number(row["iterations"], "d") for row in rows],
        "seconds": [_number(row["seconds"], ".2f") for row in rows],
        "to 1e-6": [_number(row["seconds_to_best"], ".2f") for row in rows],
        "mode": [_number(row["mode"], "d") for row in rows],
        "relation": [row["relation"] for row in rows],
        "largest Δ/se": [_number(row["largest_difference"], ".2g") for row in rows],
        "at": [row["differs_at"] for row in rows],
    }


def _models(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    return {
        "run": [row["run"] for row in rows],
        "log L": [_number(row["log_likelihood"], ".8g") for row in rows],
        "k": [_number(row["parameters"], "d") for row in rows],
        "n": [_number(row["observations"], "d") for row in rows],
        "AIC": [_number(row["aic"], ".2f") for row in rows],
        "AICc": [_number(row["aicc"], ".2f") for row in rows],
        "BIC": [_number(row["bic"], ".2f") for row in rows],
        "2ΔlogL": [_number(row["statistic"], ".6g") for row in rows],
        "df": [_number(row["df"], "d") for row in rows],
        "p": [_number(row["p_value"], ".4g") for row in rows],
        "reference": [row["reference"] for row in rows],
    }


def _print(console: Console, columns: dict[str, list[str]], left_out: Sequence[str], bold: Sequence[bool]) -> None:
    """A table of the columns that hold anything and have room."""
    columns = {title: cells for title, cells in columns.items() if title == "run" or any(cells)}
    widths = {title: max(map(len, (title, *cells))) for title, cells in columns.items()}
    for title in left_out:
        if sum(widths[one] + 2 for one in columns) - 2 > console.width:
            columns.pop(title, None)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        right = title in (*RIGHT, *RIGHT_TOO)
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "run", overflow="fold")
    for cells, best in zip(zip(*columns.values(), strict=True), bold, strict=True):
        table.add_row(*map(Text, cells), style="bold" if best else "")
    console.print(table)


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)
