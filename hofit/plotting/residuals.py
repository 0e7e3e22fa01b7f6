"""Observed against fitted, and quantile residuals by simulation: against the uniform, and against the fitted values.

The numbers are those of residuals.csv, which `hofit plot` makes where the model can be run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..record import RESIDUALS, Residual
from ..report.reading import load_rows
from .canvas import Picture, Theme, figure_of
from .names import shortened
from .run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SITES = 4
MOST_POINTS = 4000
Column: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

QUARTILES = (0.25, 0.5, 0.75)
BINS = 12
"""Of the fitted values, in each of which the quartiles of the residuals are shown; each holds FEWEST at least."""
FEWEST = 30


def residuals_picture(run: Run) -> Picture | None:
    """The picture; None where no residuals were made. Raises: RunDirectoryError where the file is damaged."""
    sites: dict[str, list[Residual]] = {}
    for row in load_rows(run.path, RESIDUALS, Residual):
        sites.setdefault(row.name, []).append(row)
    shown = dict(list(sites.items())[:MOST_SITES])
    if not shown:
        return None
    notes = [
        "A residual is the place of an observation among 250 drawn for it, effects drawn anew: uniform where the model "
        "holds. Left: the line is equality; middle: the line is the uniform, D the largest distance from it; right: "
        "the quartiles of residuals should lie on the dotted lines."
    ]
    most = max(map(len, shown.values()))
    if most > MOST_POINTS:
        notes.append(f"Shown: {MOST_POINTS} of {most} observations, evenly taken. All are in {RESIDUALS}.")
    if len(sites) > MOST_SITES:
        notes.append(f"Left out: {len(sites) - MOST_SITES} of {len(sites)} observed sites.")
    title = "Observed against fitted, and quantile residuals"
    return Picture(
        "residuals",
        title,
        f"Observed against fitted values and simulated quantile residuals of {', '.join(shown)}.",
        lambda theme: _draw(shown, f"{title}: {shortened(run.label, 40)}", notes, theme),
        notes,
    )


def _draw(sites: Mapping[str, Sequence[Residual]], title: str, notes: Sequence[str], theme: Theme) -> Figure:
    figure = figure_of(2.7 * len(sites), title, notes, theme)
    panels = figure.subplots(len(sites), 3, squeeze=False)
    for row, (name, residuals) in zip(panels, sites.items(), strict=True):
        numbers = np.array([(one.observed, one.fitted, one.residual) for one in residuals])
        finite = np.isfinite(numbers).all(1)
        observed, fitted, residual = numbers[finite].T
        if len(observed):
            _site(row, shortened(name, 22), observed, fitted, residual, theme)
    return figure


def _site(row: Sequence[Axes], name: str, observed: Column, fitted: Column, residual: Column, theme: Theme) -> None:
    some = np.unique(np.linspace(0, len(observed) - 1, MOST_POINTS).astype(int))
    style: dict[str, Any] = {"color": theme.series[0], "markersize": 2.6, "alpha": 0.55 if len(some) > 300 else 0.85}
    left, middle, right = row
    left.plot(fitted[some], observed[some], "o", **style)
    left.axline((fitted.mean(), fitted.mean()), slope=1, color=theme.muted, linewidth=0.9)
    left.set_title(f"{name}: observed", parse_math=False)
    left.set_xlabel("fitted")
    ordered = np.sort(residual)
    expected = (np.arange(len(ordered)) + 0.5) / len(ordered)
    distance = float(np.abs(ordered - expected).max() + 0.5 / len(ordered))
    middle.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.9)
    middle.plot(expected[some], ordered[some], "o", **style)
    middle.set_title(f"residuals in order, D = {distance:.2g}")
    middle.set_xlabel("uniform")
    right.plot(fitted[some], residual[some], "o", **style)
    for quartile in QUARTILES:
        right.axhline(quartile, color=theme.muted, linestyle=":", linewidth=0.9)
    _quartiles(right, fitted, residual, theme)
    right.set_title("residuals")
    right.set_xlabel("fitted")
    for axes in (middle, right):
        axes.set_ylim(-0.03, 1.03)
    for axes in row:
        axes.tick_params(labelsize=7)


def _quartiles(axes: Axes, fitted: Column, residual: Column, theme: Theme) -> None:
    """Lines through the quartiles of the residuals in bins of the fitted values, each of as many."""
    bins = min(BINS, len(fitted) // FEWEST)
    if bins < 2 or len(np.unique(fitted)) < bins:
        return
    parts = np.array_split(np.argsort(fitted, kind="stable"), bins)
    middles = [fitted[part].mean() for part in parts]
    for quartile in QUARTILES:
        found = [np.quantile(residual[part], quartile) for part in parts]
        axes.plot(middles, found, color=theme.series[1], linewidth=1.3)
