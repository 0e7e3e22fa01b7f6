"""Estimates with their intervals, a row each: what the pictures of estimates and of effects have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..record import Estimate
from .canvas import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWABLE = 1e100
"""Numbers beyond have no place on an axis that others share."""

NORMAL_975 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""

HOLLOW = "Hollow: held, on an edge, or without a standard error."
DASHED = "Dashed: the estimate ± 1.96 standard errors, where the run gives no interval."


def drawable(row: Estimate) -> bool:
    return row.estimate is not None and abs(row.estimate) < DRAWABLE


def is_dashed(row: Estimate) -> bool:
    """Whether the interval is made of the standard error alone."""
    return not _given(row) and _ends(row) is not None


def is_hollow(row: Estimate) -> bool:
    return _ends(row) is None


def legend_of(rows: Sequence[Estimate]) -> list[str]:
    """What the signs mean, of those that occur."""
    return [DASHED] * any(map(is_dashed, rows)) + [HOLLOW] * any(map(is_hollow, rows))


def draw_intervals(axes: Axes, rows: Sequence[Estimate], places: Sequence[float], colour: str, theme: Theme) -> None:
    """A dot and a line a row, and a line at zero where zero is in sight."""
    from matplotlib.ticker import MaxNLocator

    for dashed in (False, True):
        some = [
            (place, *ends)
            for row, place in zip(rows, places, strict=True)
            if (ends := _ends(row)) is not None and is_dashed(row) is dashed
        ]
        if some:
            at, lower, upper = zip(*some, strict=True)
            axes.hlines(at, lower, upper, color=colour, linewidth=1.3, linestyle="--" if dashed else "-")
    for hollow in (False, True):
        dots = [(row.estimate, place) for row, place in zip(rows, places, strict=True) if is_hollow(row) is hollow]
        if dots:
            face = theme.ground if hollow else colour
            axes.plot(*zip(*dots, strict=True), "o", color=colour, markerfacecolor=face, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.ticklabel_format(axis="x", useOffset=False)
    left, right = axes.get_xlim()
    if left < 0 < right:
        axes.axvline(0, color=theme.muted, linewidth=0.9, zorder=1)


def _given(row: Estimate) -> bool:
    return row.lower is not None and row.upper is not None and max(abs(row.lower), abs(row.upper)) < DRAWABLE


def _ends(row: Estimate) -> tuple[float, float] | None:
    if _given(row):
        assert row.lower is not None and row.upper is not None
        return row.lower, row.upper
    if row.std_error is None or row.estimate is None or not row.std_error < DRAWABLE:
        return None
    return row.estimate - NORMAL_975 * row.std_error, row.estimate + NORMAL_975 * row.std_error
