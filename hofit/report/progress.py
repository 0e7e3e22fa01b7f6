"""The progress of a fit: a table that grows on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text

from ..record import PartReport, Progress

HEADERS = (("iteration", 9), ("loss", 18), ("change", 10), ("gradient", 10), ("step", 10), ("seconds", 8))
PART_WIDTH = 20


class ProgressTable:
    """Prints a row every ``every`` iterations, and the last one.

    A row goes out once and scrolls, so that a long fit leaves its whole history in the terminal.
    """

    keeps_every = None

    def __init__(self, console: Console, every: int) -> None:
        self.console, self.every = console, every
        self._headed = False
        self._shown = False
        self._pending: Progress | None = None

    def on_iteration(self, record: Progress, snapshot: Callable[[], object] | None) -> None:
        if record.iteration % self.every == 0 or not self._shown:
            self._shown = True
            self._print(record)
            self._pending = None
        else:
            self._pending = record

    def on_pause(self, snapshot: Callable[[], object]) -> None:
        return None

    def finish(self) -> None:
        """Show the last iteration, where it was not due."""
        if self._pending is not None:
            self._print(self._pending)
            self._pending = None

    def _print(self, record: Progress) -> None:
        if self.console.is_terminal:
            self._print_row(record)
        else:
            self.console.print(plain_line(record), markup=False, highlight=False, soft_wrap=True)

    def _print_row(self, record: Progress) -> None:
        widths = [width for _, width in HEADERS] + [_part_width(part) for part in record.parts]
        if not self._headed:
            titles = [title for title, _ in HEADERS] + [part.name for part in record.parts]
            cells = [title.rjust(w) for title, w in zip(titles, widths, strict=True)]
            self.console.print(Text("  ".join(cells), style="bold"), soft_wrap=True)
            self.console.print(Text("─" * (sum(widths) + 2 * (len(widths) - 1)), style="dim"), soft_wrap=True)
            self._headed = True
        cells = [
            str(record.iteration),
            f"{record.loss:.10g}",
            _short(record.change),
            _short(record.gradient_norm),
            _short(record.step_norm),
            f"{record.seconds:.2f}",
            *(part_text(part) for part in record.parts),
        ]
        text = Text("  ".join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True)))
        if any(part.accepted is False for part in record.parts):
            text.stylize("yellow")
        self.console.print(text, soft_wrap=True)


def _part_width(part: PartReport) -> int:
    bare = part.trust_radius is None and part.accepted is None
    return max(len(part.name), 0 if bare else PART_WIDTH)


def plain_line(record: Progress) -> str:
    """One iteration as a line of ``key value`` pairs, for logs."""
    pairs = [
        f"iteration {record.iteration}",
        f"loss {record.loss:.10g}",
        f"change {_short(record.change)}",
        f"gradient {_short(record.gradient_norm)}",
        f"step {_short(record.step_norm)}",
        f"seconds {record.seconds:.2f}",
    ]
    pairs += [f"{part.name} {text}" for part in record.parts if (text := part_text(part)) != "–"]
    return "  ".join(pairs)


def part_text(part: PartReport) -> str:
    """The part's trust radius and whether its step was accepted; a dash for a part that has neither."""
    words = []
    if part.trust_radius is not None:
        words.append(f"radius {part.trust_radius:.3g}")
    if part.accepted is not None:
        words.append("accepted" if part.accepted else "refused")
    return " ".join(words) or "–"


def _short(number: float | None) -> str:
    return "–" if number is None else f"{number:.2e}"
