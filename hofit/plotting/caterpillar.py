"""Effects sorted by size with 95 % intervals: a panel a site, or a coefficient of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..record import Estimate, by_site
from .canvas import Picture, Theme, figure_of, name_rows
from .forest import is_effect
from .intervals import draw_intervals, drawable, legend_of
from .names import shortened
from .run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 50
"""Of a panel; of more, as many of the lowest and of the highest are shown."""

MOST_PANELS = 6


@dataclass(frozen=True)
class Effects:
    """A panel: rows from the lowest to the highest, and how many between them are left out."""

    title: str
    rows: Sequence[Estimate]
    left_out: int
    label: Callable[[Estimate], str]

    @property
    def slots(self) -> int:
        return len(self.rows) + bool(self.left_out)


def caterpillar_picture(run: Run) -> Picture | None:
    """The picture of what was integrated out, and of long latents; None where a run has neither."""
    pooling = (run.fit or {}).get("shrinkage")
    panels = [
        _effects(name, title, rows)
        for name, members in by_site(filter(drawable, run.rows)).items()
        if is_effect(members)
        for title, rows in _coefficients(name, members, pooling.get(name) if isinstance(pooling, dict) else None)
    ]
    if not panels:
        return None
    shown = panels[:MOST_PANELS]
    notes = legend_of([row for panel in shown for row in panel.rows])
    if len(panels) > len(shown):
        notes.append(f"Left out: {len(panels) - len(shown)} of {len(panels)} panels. All are in estimates.csv.")
    title = "Effects, sorted, with 95 % intervals"
    return Picture(
        "effects",
        title,
        f"Effects from the lowest to the highest with 95 % intervals, in {len(shown)} panels.",
        lambda theme: _draw(shown, f"{title}: {shortened(run.label, 60)}", notes, theme),
        [*notes, *(f"{panel.title}: {panel.left_out} between left out" for panel in shown if panel.left_out)],
    )


def _coefficients(name: str, rows: Sequence[Estimate], pooling: Any) -> list[tuple[str, list[Estimate]]]:
    """A site's rows by coefficient, where the run tells that it has several: it has a pooling factor for each."""
    count = len(pooling) if isinstance(pooling, list) else 0
    by_place: dict[str, list[Estimate]] = {}
    for row in rows:
        by_place.setdefault(row.index.rpartition(",")[2], []).append(row)
    if count < 2 or len(by_place) != count or any("," not in row.index for row in rows):
        return [(name, list(rows))]
    return [(f"{name}[·,{place}]", members) for place, members in by_place.items()]


def _effects(name: str, title: str, rows: Sequence[Estimate]) -> Effects:
    def label(row: Estimate) -> str:
        """The row's own place: of one coefficient the last number is in the title."""
        return row.index if title == name else row.index.rpartition(",")[0]

    ordered = sorted(rows, key=lambda row: row.estimate or 0.0)
    if len(ordered) <= MOST_ROWS:
        return Effects(title, ordered, 0, label)
    half = MOST_ROWS // 2
    return Effects(title, ordered[:half] + ordered[-half:], len(ordered) - 2 * half, label)


def _draw(panels: Sequence[Effects], title: str, notes: Sequence[str], theme: Theme) -> Figure:
    columns = min(2, len(panels))
    lines = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    heights = [0.145 * max(panel.slots for panel in line) + 0.75 for line in lines]
    figure = figure_of(sum(heights), title, notes, theme)
    grid = figure.subplots(len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        labels = [shortened(panel.label(row), 16) for row in panel.rows]
        places: list[int] = list(range(len(labels)))
        if panel.left_out:
            half = len(labels) // 2
            places = [place + (place >= half) for place in places]
            labels.insert(half, "…")
        # The highest is on top.
        places = [panel.slots - 1 - place for place in places]
        draw_intervals(axes, panel.rows, places, theme.series[0], theme)
        name_rows(axes, labels[::-1], theme)
        axes.tick_params(axis="y", labelsize=6.5)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(shortened(panel.title), loc="left", parse_math=False)
        if panel.left_out:
            axes.text(
                0.5,
                len(panel.rows) / 2,
                f"{panel.left_out} between left out",
                transform=axes.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=7,
                color=theme.muted,
                backgroundcolor=theme.ground,
            )
    return figure
