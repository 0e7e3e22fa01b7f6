"""The end of a fit as a notebook shows it: verdict, remarks and estimates in HTML, every word of the user's escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ..record import Estimate, by_site, labelled
from .summary import FIRST_ROWS, verdict_line

GOOD, BAD = "#1a7f37", "#b42318"
"""Colours that are read on white and on black."""


def html_of(fit: Mapping[str, Any], rows: Sequence[Estimate]) -> str:
    """One element: what fit.json holds in words, and the rows of estimates.csv, the first of each site."""
    colour = GOOD if fit["converged"] else BAD
    said = [f"{check['name']}: {check['message']}" for check in fit["checks"] if check["ok"] is False]
    if fit["status"] != "converged" and fit["remedy"]:
        said.append(f"What to try: {fit['remedy']}")
    lines = [f'<p style="color:{colour}"><b>{escape(verdict_line(fit))}</b></p>']
    lines += [f"<p>{escape(sentence)}</p>" for sentence in (*fit["remarks"], *said)]
    restated = fit.get("restated") or ()
    shown = [*(row for row in rows if row.name not in restated), *Estimate.told_of(fit)]
    return "<div>" + "".join(lines) + (_table(shown) if shown else "") + "</div>"


def _table(rows: Sequence[Estimate]) -> str:
    lines = []
    for name, members in by_site(rows).items():
        lines += [_row(row) for row in members[:FIRST_ROWS]]
        if len(members) > FIRST_ROWS:
            lines.append(f'<tr><td colspan="5">{escape(name)}: {len(members) - FIRST_ROWS} more numbers</td></tr>')
    head = _cells("th", ("name", "role", "estimate", "std. error", "95 % interval"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _row(row: Estimate) -> str:
    label = labelled(row.name, row.index)
    known = row.lower is not None and row.upper is not None
    interval = f"{row.lower:.5g} … {row.upper:.5g}" if known else ""
    return f"<tr>{_cells('td', (label, row.role, _number(row.estimate, 8), _number(row.std_error, 5), interval))}</tr>"


def _cells(kind: str, texts: Iterable[str]) -> str:
    return "".join(f"<{kind}>{escape(text)}</{kind}>" for text in texts)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}g}"
