"""How far integrated effects are pooled: the factors that a run directory holds.

The usual picture, from the estimate without pooling to that with it, needs the model and its data: a run directory
holds no estimates without pooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .canvas import Picture, Theme, figure_of, name_rows
from .names import shortened
from .run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 30


def shrinkage_picture(run: Run) -> Picture | None:
    """The picture; None where a run has no pooling factor."""
    found = (run.fit or {}).get("shrinkage")
    factors = [one for name, value in found.items() for one in _numbers(str(name), value)] if found else []
    if not factors:
        return None
    notes = [
        "Mean conditional variance, over itself plus the variance of the modes (Gelman & Pardoe 2006, eq. 3). "
        "A run directory holds no estimates without pooling to set these against."
    ]
    if len(factors) > MOST_ROWS:
        notes.append(f"Left out: {len(factors) - MOST_ROWS} of {len(factors)} factors. All are in fit.json.")
    title = "Pooling of effects, from 0 (none) to 1 (complete)"
    return Picture(
        "shrinkage",
        title,
        "The pooling factor of each integrated coefficient, between 0 (no pooling) and 1 (complete pooling).",
        lambda theme: _draw(factors[:MOST_ROWS], f"{title}: {shortened(run.label, 50)}", notes, theme),
        notes,
    )


def _numbers(name: str, value: Any, index: str = "") -> Iterator[tuple[str, float]]:
    """The factors of a site under their labels, whatever its shape."""
    if isinstance(value, list):
        for place, part in enumerate(value):
            yield from _numbers(name, part, f"{index},{place}" if index else str(place))
    elif isinstance(value, (int, float)) and 0 <= value <= 1:
        yield (f"{name}[·,{index}]" if index else name), float(value)


def _draw(factors: Sequence[tuple[str, float]], title: str, notes: Sequence[str], theme: Theme) -> Figure:
    figure = figure_of(0.22 * len(factors) + 0.45, title, notes, theme)
    axes = figure.subplots()
    places = list(range(len(factors)))
    numbers = [number for _, number in factors]
    axes.hlines(places, 0, numbers, color=theme.series[0], linewidth=1.3)
    axes.plot(numbers, places, "o", color=theme.series[0], markersize=5, clip_on=False)
    name_rows(axes, [shortened(name) for name, _ in factors], theme)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="x", labelsize=7)
    return figure
