"""Where several fits stand, as a table that is drawn anew in its place; where nobody looks, a line as each ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text


class Standings:
    """A row a fit, in the order given."""

    def __init__(self, console: Console, labels: Sequence[str], quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._rows: dict[str, tuple[str, str, str, str]] = dict.fromkeys(labels, ("waiting", "", "", ""))
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the table is on the screen; it is gone afterwards."""
        if self._quiet or not self._console.is_terminal:
            yield
            return
        with Live(self._table(), console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield

    def put(self, label: str, status: str, iteration: int, loss: float | None, seconds: float) -> None:
        """Hear where a fit stands."""
        shown = "" if loss is None else f"{loss:.10g}"
        begun = loss is not None
        self._rows[label] = (status, shown, str(iteration) if begun else "", f"{seconds:.2f}" if begun else "")
        if self._live is not None:
            self._live.update(self._table())
        elif status != "running" and not self._quiet:
            numbers = f", loss {shown}, {iteration} iterations, {seconds:.2f} s" if begun else ""
            self._console.print(Text(f"{label}: {status}{numbers}"), soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("run", "status", "loss", "iterations", "seconds"):
            table.add_column(title, justify="left" if title in ("run", "status") else "right")
        for label, cells in self._rows.items():
            style = "dim" if cells[0] == "waiting" else ""
            table.add_row(*map(Text, (label, *cells)), style=style)
        return table
