"""Intervals by a profile or by refitted data in words: a table, and below it what is to be said of each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..record import Bootstrapped, Profiled, labelled
from .rounding import rounded

QUANTILES = 3.92
"""Normal standard errors that a 95 % interval is wide: digits are shown by a width."""


def print_profile(console: Console, rows: Sequence[Profiled], level: float, remarks: Sequence[str]) -> None:
    """The intervals, then remarks by name."""
    columns = ["name", "estimate", "lower", "upper"]
    cells = []
    for row in rows:
        error = _error(row.lower, row.upper)
        cells.append(
            [labelled(row.name, row.index), *(_number(one, error) for one in (row.estimate, row.lower, row.upper))]
        )
    console.print(f"Profile intervals, {100 * level:g} %", style="bold", highlight=False)
    _print_table(console, columns, cells)
    for row in rows:
        if row.remark:
            _say(console, f"{labelled(row.name, row.index)}: {row.remark}")
    for remark in remarks:
        _say(console, remark)


def print_bootstrap(
    console: Console, rows: Sequence[Bootstrapped], level: float, counts: Mapping[str, int], remarks: Sequence[str]
) -> None:
    """The intervals, how the refits ended, then remarks."""
    columns = ["name", "estimate", "bias", "std. error", "lower", "upper", "basic lower", "basic upper"]
    cells = []
    for row in rows:
        numbers = (row.estimate, row.bias, row.std_error, row.lower, row.upper, row.basic_lower, row.basic_upper)
        cells.append([labelled(row.name, row.index), *(_number(one, row.std_error) for one in numbers)])
    console.print(f"Bootstrap intervals, {100 * level:g} %, percentile and basic", style="bold", highlight=False)
    _print_table(console, columns, cells)
    ends = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.print(f"Refits: {ends}", markup=False, highlight=False, soft_wrap=True)
    for remark in remarks:
        _say(console, remark)


def _print_table(console: Console, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(
            title, justify="left" if title == "name" else "right", no_wrap=title != "name", overflow="fold"
        )
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def _say(console: Console, text: str) -> None:
    console.print(f"  {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _error(lower: float | None, upper: float | None) -> float | None:
    return None if lower is None or upper is None else abs(upper - lower) / QUANTILES


def _number(number: float | None, error: float | None) -> str:
    return "–" if number is None else rounded(number, error)
