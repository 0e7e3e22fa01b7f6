"""Estimates with 95 % intervals: a panel a site, because sites have units of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..record import Estimate, by_site, labelled
from .canvas import Picture, Theme, figure_of, name_rows
from .intervals import draw_intervals, drawable, is_hollow, legend_of
from .names import shortened
from .run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_OF_A_SITE = 12
MOST_SITES = 16
MOST_ROWS = 48


def forest_picture(run: Run) -> Picture | None:
    """The picture of parameters, derived quantities and short latents; None where a run has none of them.

    Long latents and integrated sites are effects, and in a picture of their own (``caterpillar.py``).
    """
    drawn = by_site(row for row in run.rows if row.role != "integrated" and drawable(row))
    by_name = {name: rows for name, rows in drawn.items() if not is_effect(rows)}
    if not by_name:
        return None
    sites: dict[str, Sequence[Estimate]] = {}
    room = MOST_ROWS
    for name, rows in by_name.items():
        shown = rows[: min(MOST_OF_A_SITE, room)]
        if shown and len(sites) < MOST_SITES:
            sites[name] = shown
            room -= len(shown)
    notes = legend_of([row for rows in sites.values() for row in rows])
    parts = [
        f"{len(by_name[name]) - len(rows)} of {len(by_name[name])} numbers of {shortened(name)}"
        for name, rows in sites.items()
        if len(by_name[name]) > len(rows)
    ]
    if len(by_name) > len(sites):
        numbers = sum(len(rows) for name, rows in by_name.items() if name not in sites)
        parts.append(f"{len(by_name) - len(sites)} of {len(by_name)} sites with {numbers} numbers")
    if parts:
        notes.append(f"Left out: {'; '.join(parts)}. All are in estimates.csv.")
    title = "Estimates with 95 % intervals"
    return Picture(
        "estimates",
        title,
        f"Estimates with 95 % intervals of {len(sites)} sites, each on an axis of its own.",
        lambda theme: _draw(sites, f"{title}: {shortened(run.label, 60)}", notes, theme),
        notes,
    )


def is_effect(rows: Sequence[Estimate]) -> bool:
    """Whether a site's numbers are so many, and of such a kind, that their order says more than their names."""
    return rows[0].role == "integrated" or (rows[0].role == "latent" and len(rows) > MOST_OF_A_SITE)


def _draw(sites: Mapping[str, Sequence[Estimate]], title: str, notes: Sequence[str], theme: Theme) -> Figure:
    heights = [0.2 * len(rows) + 0.34 for rows in sites.values()]
    figure = figure_of(sum(heights) + 0.1, title, notes, theme)
    panels = figure.subplots(len(sites), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, rows in zip(panels, sites.values(), strict=True):
        draw_intervals(axes, rows, range(len(rows)), theme.series[0], theme)
        name_rows(axes, [shortened(labelled(row.name, row.index)) for row in rows], theme)
        axes.tick_params(axis="x", labelsize=7)
        if len(rows) == 1 and is_hollow(rows[0]):  # an axis for one dot would show a range that nothing says
            axes.set_xticks([])
            axes.annotate(
                f"{rows[0].estimate:.5g}",
                (rows[0].estimate or 0.0, 0),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=theme.muted,
            )
    return figure
