"""The way of a fit: loss, gradient and trust radii by iteration and by time; of several fits, overlaid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .canvas import Picture, Theme, figure_of
from .names import shortened
from .run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Column: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

MOST_POINTS = 4000
"""Of a curve. A longer run is drawn with half of them evenly spaced and half by equal ratios, because a
logarithmic axis gives its first hundred iterations as much room as its last ten thousand."""

FEW_POINTS = 60
"""With no more than these each is marked."""

MANY_ITERATIONS = 100
"""From here on iterations are on a logarithmic axis."""

WIDE_TIME = 30.0
"""Largest over smallest time from which on times are on a logarithmic axis."""

MOST_LEGEND = 12
DASHES = ("-", "--", ":", "-.")
RADIUS, ACCEPTED = ".trust_radius", ".accepted"


def progress_picture(runs: Sequence[Run]) -> Picture | None:
    """The picture of one run or of several; None where none has made a step."""
    moved = [run for run in runs if len(run.progress.get("iteration", ())) > 1]
    if not moved:
        return None
    tracks = [{head: np.asarray(column) for head, column in run.progress.items()} for run in moved]
    notes, best = _best_losses(moved, tracks)
    thinned = [run.label for run, track in zip(moved, tracks, strict=True) if len(track["loss"]) > MOST_POINTS]
    tracks = [{head: _thinned(column) for head, column in track.items()} for track in tracks]
    if thinned:
        notes.append(f"At most {MOST_POINTS} rows are drawn of {', '.join(map(shortened, thinned))}.")
    still = [shortened(run.label) for run in runs if run not in moved]
    if still:
        notes.append(f"Without a step, and not drawn: {', '.join(still)}.")
    if len(moved) > MOST_LEGEND:
        notes.append(f"{len(moved) - MOST_LEGEND} of {len(moved)} runs have no line in the legend.")
    title = f"Progress of {shortened(moved[0].label, 60)}" if len(moved) == 1 else f"Progress of {len(moved)} runs"
    return Picture(
        "progress",
        title,
        "Distance of the loss above the best, gradient and trust radii, by iteration and by time, on logarithmic axes.",
        lambda theme: _draw(moved, tracks, best, title, notes, theme),
        notes,
    )


def _best_losses(runs: Sequence[Run], tracks: Sequence[Mapping[str, Column]]) -> tuple[list[str], list[float]]:
    """What to say of it, and the loss that each run's are measured from: one for all, if all have one function."""
    lowest = [float(np.min(t["loss"][np.isfinite(t["loss"])], initial=np.inf)) for t in tracks]
    if len(runs) > 1 and all(run.function == runs[0].function is not None for run in runs):
        lowest = [min(lowest)] * len(runs)
        return [f"The best loss of all runs is {lowest[0]:.10g}."], lowest
    if len(runs) > 1:
        return ["Each loss is measured from its own run's best: objective, model or data differ."], lowest
    return ([f"The best loss is {lowest[0]:.10g}."] if np.isfinite(lowest[0]) else []), lowest


def _thinned(column: Column) -> Column:
    if len(column) <= MOST_POINTS:
        return column
    last, half = len(column) - 1, MOST_POINTS // 2
    places = np.unique(np.concatenate([np.linspace(0, last, half), np.geomspace(1, last, half)]).astype(int))
    thinned: Column = column[places]
    return thinned


def _draw(
    runs: Sequence[Run],
    tracks: Sequence[Mapping[str, Column]],
    best: Sequence[float],
    title: str,
    notes: Sequence[str],
    theme: Theme,
) -> Figure:
    from matplotlib.font_manager import FontProperties

    with_radii = any(_radii(track) for track in tracks)
    panels = 3 if with_radii else 2
    several = len(runs) > 1
    figure = figure_of(2.05 * panels + (0.5 if several else 0), "" if several else title, notes, theme)
    grid = figure.subplots(panels, 2, sharex="col", sharey="row", squeeze=False)
    for number, (run, track, lowest) in enumerate(zip(runs, tracks, best, strict=True)):
        colour = theme.series[number % len(theme.series)]
        dash = DASHES[number // len(theme.series) % len(DASHES)]
        # The best row itself is at a distance of nothing: it stands where rounding of the loss begins.
        floor = np.finfo(float).eps * max(1.0, abs(lowest)) if np.isfinite(lowest) else 1.0
        above = np.where(np.isfinite(track["loss"]), np.maximum(track["loss"] - lowest, floor), np.nan)
        for column, head in enumerate(("iteration", "seconds")):
            _line(grid[0, column], track[head], above, colour, dash, run.label if column == 0 else None)
            _line(grid[1, column], track[head], track["gradient_norm"], colour, dash)
            if with_radii:
                _draw_radii(grid[2, column], track, head, number if several else None, theme)
    tolerances = {run.tolerance for run in runs}
    (tolerance,) = tolerances if len(tolerances) == 1 else (None,)
    if tolerance is not None:
        for axes in grid[1]:
            axes.axhline(tolerance, color=theme.muted, linestyle=":", linewidth=1)
        grid[1, 0].annotate(
            "stop.gradient",
            (0.01, tolerance),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="left",
            fontsize=7,
            color=theme.muted,
        )
    titles = ("loss above the best", "gradient (max-norm)", "trust radius (× a step refused)")
    for row, words in zip(grid, titles, strict=False):
        row[0].set_title(words)
        for axes in row:
            _log_axis(axes)
    if with_radii:
        _plain_numbers(grid[2, 0])
    _time_axes(grid[-1], tracks)
    if several:  # the legend has the title: it would else stand in its place
        handles, labels = grid[0, 0].get_legend_handles_labels()
        shown = [shortened(label) for label in labels[:MOST_LEGEND]]
        legend = figure.legend(
            handles[:MOST_LEGEND], shown, loc="outside upper left", ncols=min(3, len(shown)), alignment="left"
        )
        legend.set_title(title, prop=FontProperties(size=11, weight="bold"))
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def _line(axes: Axes, x: Column, y: Column, colour: str, dash: str, label: str | None = None) -> None:
    y = np.where(np.isfinite(y) & (y > 0), y, np.nan)
    marker = "o" if len(y) <= FEW_POINTS else None
    axes.plot(x, y, dash, color=colour, linewidth=1.2, marker=marker, markersize=3, label=label)


def _radii(track: Mapping[str, Column]) -> list[str]:
    """The heads of the parts whose radius is ever a number."""
    return [head for head, column in track.items() if head.endswith(RADIUS) and np.isfinite(column).any()]


def _draw_radii(axes: Axes, track: Mapping[str, Column], x: str, run: int | None, theme: Theme) -> None:
    """A line a part: of one run in colours, of run number ``run`` among several in that run's, by dashes."""
    parts = _radii(track)
    for number, head in enumerate(parts):
        colour = theme.series[(number if run is None else run) % len(theme.series)]
        dash = DASHES[0 if run is None else number % len(DASHES)]
        label = shortened(head.removesuffix(RADIUS).partition(".")[2]) if run is None else None
        _line(axes, track[x], track[head], colour, dash, label)
        refused = track.get(head.removesuffix(RADIUS) + ACCEPTED, np.empty(0)) == 0
        if refused.any():
            axes.plot(
                track[x][refused],
                track[head][refused],
                "x",
                color=theme.ink,
                markersize=5 if len(refused) <= FEW_POINTS else 2.5,
            )
    if run is None and len(parts) > 1 and x == "seconds":
        above = axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
        for text in above.get_texts():
            text.set_parse_math(False)


def _log_axis(axes: Axes) -> None:
    """Logarithmic, if anything is drawn."""
    drawn = [line for line in axes.get_lines() if np.isfinite(np.asarray(line.get_ydata(), float)).any()]
    if drawn:
        axes.set_yscale("log")
    else:
        axes.text(0.5, 0.5, "no finite number", ha="center", va="center", transform=axes.transAxes)


def _plain_numbers(axes: Axes) -> None:
    """Radii as 4 and 0.25: they seldom span a power of ten, and 4 × 10⁰ is hard to read."""
    from matplotlib.ticker import LogFormatter

    if axes.get_yscale() == "log":
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))


def _time_axes(row: Sequence[Axes], tracks: Sequence[Mapping[str, Column]]) -> None:
    from matplotlib.ticker import MaxNLocator

    by_iteration, by_time = row
    by_iteration.set_xlabel("iteration")
    by_time.set_xlabel("seconds")
    if max(float(np.nanmax(track["iteration"])) for track in tracks) > MANY_ITERATIONS:
        by_iteration.set_xscale("symlog", linthresh=1)
        by_iteration.set_xlim(left=-0.2)
    else:
        by_iteration.xaxis.set_major_locator(MaxNLocator(integer=True))
    times = np.concatenate([track["seconds"] for track in tracks])
    times = times[np.isfinite(times) & (times > 0)]
    if len(times) and times.max() > WIDE_TIME * times.min():
        by_time.set_xscale("log")
