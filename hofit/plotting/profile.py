"""Profiles of a run: the signed root ζ against each quantity, with the ends of its interval.

A straight line is a Gaussian likelihood; what bends is what a standard error does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunDirectoryError
from ..record import PROFILE, PROFILE_POINTS, Profiled, ProfilePoint, labelled
from ..report.reading import load_rows
from .canvas import Picture, Theme, figure_of
from .intervals import DRAWABLE
from .names import shortened
from .run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
MOST = 24
"""Quantities in a picture."""

Key = tuple[str, str]


def profile_picture(run: Run) -> Picture | None:
    """The picture; None where no profile was made. Raises: RunDirectoryError where its files are damaged."""
    rows, points = load_rows(run.path, PROFILE, Profiled), load_rows(run.path, PROFILE_POINTS, ProfilePoint)
    places: dict[Key, list[ProfilePoint]] = {}
    for point in points:
        if abs(point.value) < DRAWABLE and isfinite(point.zeta):
            places.setdefault((point.name, point.index), []).append(point)
    drawn = [row for row in rows if len(places.get((row.name, row.index), ())) > 1]
    if not drawn:
        return None
    if any(not (0.0 < row.level < 1.0 and isfinite(row.estimate)) for row in drawn):
        raise RunDirectoryError(f"{run.path} holds a damaged {PROFILE}: `hofit profile {run.path}` makes it anew")
    level = drawn[0].level
    notes = [
        f"Dots: where the other numbers were fitted anew. Vertical: the estimate, and the ends of the {100 * level:g} "
        "% interval, at the dotted lines; dashed: what the curvature at the estimate says. A straight profile is "
        "a Gaussian likelihood."
    ]
    if len(drawn) > MOST:
        notes.append(f"Left out: {len(drawn) - MOST} of {len(drawn)} quantities. All are in {PROFILE_POINTS}.")
    said = [f"{_label(row, 60)}: {row.remark}." for row in drawn[:MOST] if row.remark]
    errors = {(row.name, row.index): row.std_error for row in run.rows if row.std_error}
    title = "Profiles: signed root of twice the rise of the loss"
    return Picture(
        "profile",
        title,
        f"The signed root of the profile likelihood of {len(drawn[:MOST])} quantities, each on an axis of its own.",
        lambda theme: _draw(drawn[:MOST], places, errors, f"{title}: {shortened(run.label, 40)}", notes + said, theme),
        notes + said,
    )


def _label(row: Profiled, longest: int = 26) -> str:
    return shortened(labelled(row.name, row.index), longest)


def _draw(
    rows: Sequence[Profiled],
    places: Mapping[Key, Sequence[ProfilePoint]],
    errors: Mapping[Key, float],
    title: str,
    notes: Sequence[str],
    theme: Theme,
) -> Figure:
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = figure_of(2.3 * lines, title, notes, theme)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, row in zip(panels.flat, rows, strict=False):
        _panel(axes, row, places[row.name, row.index], errors.get((row.name, row.index)), theme)
    for axes in panels.flat[len(rows) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("ζ")
    return figure


def _panel(axes: Axes, row: Profiled, points: Sequence[ProfilePoint], error: float | None, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    value, zeta = (np.array([getattr(point, name) for point in points]) for name in ("value", "zeta"))
    order = np.argsort(value, kind="stable")
    value, zeta = value[order], zeta[order]
    slope = _slope(value - row.estimate, zeta) if error is None else 1.0 / error
    if slope is not None:
        axes.plot(value, slope * (value - row.estimate), color=theme.muted, linewidth=0.9, linestyle="--", zorder=1)
    axes.plot(value, zeta, "-", color=theme.series[0], linewidth=1.4)
    axes.plot(value, zeta, "o", color=theme.series[0], markersize=2.6)
    axes.axvline(row.estimate, color=theme.muted, linewidth=0.9)
    for end in (row.lower, row.upper):
        if end is not None and abs(end) < DRAWABLE:
            axes.axvline(end, color=theme.series[1], linewidth=1.1)
    cutoff = _cutoff(row.level)
    for height in (-cutoff, cutoff):
        axes.axhline(height, color=theme.muted, linestyle=":", linewidth=0.9)
    axes.axhline(0, color=theme.muted, linewidth=0.6)
    axes.set_ylim(-1.35 * cutoff, 1.35 * cutoff)
    axes.set_title(_label(row), parse_math=False)
    axes.tick_params(labelsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.ticklabel_format(axis="x", useOffset=False)


def _slope(apart: np.ndarray[Any, Any], zeta: np.ndarray[Any, Any]) -> float | None:
    """Of ζ at the estimate, by a cubic through the places about it: for what has no standard error in the tables."""
    inner = np.abs(zeta) < 0.75 * np.abs(zeta).max()
    if inner.sum() <= 2:
        return None
    return float(np.polyfit(apart[inner], zeta[inner], min(3, int(inner.sum()) - 1))[-2])


def _cutoff(level: float) -> float:
    """The normal quantile of a two-sided level."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + 0.5 * level)
