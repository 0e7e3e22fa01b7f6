"""The progress of a fit: a table that grows on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from ..record import PartReport, Progress
from .remaining import Remaining, in_words

HEADERS = (("iteration", 9), ("loss", 18), ("change", 10), ("gradient", 10), ("step", 10), ("seconds", 8))
PART_WIDTH, SHORT_PART = 24, 16
"""Of ``radius 1.09e+03 accepted``, the longest that there is, and of ``1.09e+03 refused``."""

LEFT_OUT = ("change", "step", "seconds")
"""Columns that a narrow screen does without, in this order."""


class ProgressTable:
    """Prints a row every ``every`` iterations, and the last one.

    A row goes out once and scrolls, so that a long fit leaves its whole history in the terminal. ``remaining`` says how
    long it will still take, ``evaluations`` how often the loss and its derivatives were computed by now, by kind.
    """

    keeps_every = None

    def __init__(
        self,
        console: Console,
        every: int,
        remaining: Remaining | None = None,
        evaluations: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        self.console, self.every = console, every
        self._remaining, self._evaluations = remaining, evaluations
        self._layout: _Layout | None = None
        self._shown = False
        self._pending: Progress | None = None

    def on_iteration(self, record: Progress, snapshot: Callable[[], object] | None) -> None:
        if self._remaining is not None:
            self._remaining.hear(record)
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
            line = "  ".join([plain_line(record), *self._more()])
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _more(self) -> list[str]:
        """What stands behind a row, under no head."""
        left = None if self._remaining is None else self._remaining.seconds()
        counts = {} if self._evaluations is None else self._evaluations()
        said = [counted(counts)] if any(counts.values()) else []
        return [*said, *([] if left is None else [f"about {in_words(left)} left"])]

    def _print_row(self, record: Progress) -> None:
        cells = {
            "iteration": str(record.iteration),
            "loss": f"{record.loss:.10g}",
            "change": _short(record.change),
            "gradient": _short(record.gradient_norm),
            "step": _short(record.step_norm),
            "seconds": f"{record.seconds:.2f}",
        }
        layout = self._layout
        if layout is None or not layout.suits(record, self.console.width):
            layout = self._layout = _Layout(record, self.console.width)
            line = layout.line(dict(zip(cells, cells, strict=True)), [part.name for part in record.parts])
            self.console.print(Text(line, style="bold"), soft_wrap=True)
            self.console.print(Text("─" * len(line), style="dim"), soft_wrap=True)
        text = Text(layout.line(cells, [part_text(part, layout.short) for part in record.parts]))
        for more in self._more():
            if len(text) + 2 + len(more) <= self.console.width:
                text.append(f"  {more}", style="dim")
        if any(part.accepted is False for part in record.parts):
            text.stylize("yellow")
        self.console.print(text, soft_wrap=True)


class _Layout:
    """The columns of the table, chosen with its head: rows stand under it whatever they hold."""

    def __init__(self, record: Progress, screen: int) -> None:
        self.screen, self.names = screen, [part.name for part in record.parts]
        for self.short in (False, True):
            self.widths = dict(HEADERS)
            self.parts = [_part_width(part, SHORT_PART if self.short else PART_WIDTH) for part in record.parts]
            for title in LEFT_OUT:
                if self._width() > screen:
                    del self.widths[title]
            if self._width() <= screen:
                break

    def suits(self, record: Progress, screen: int) -> bool:
        """Whether neither the screen nor the parts have changed since."""
        return screen == self.screen and [part.name for part in record.parts] == self.names

    def line(self, cells: Mapping[str, str], parts: Sequence[str]) -> str:
        own = [cells[title].rjust(width) for title, width in self.widths.items()]
        return "  ".join([*own, *(cell.rjust(width) for cell, width in zip(parts, self.parts, strict=True))])

    def _width(self) -> int:
        widths = [*self.widths.values(), *self.parts]
        return sum(widths) + 2 * (len(widths) - 1)


def _part_width(part: PartReport, needed: int) -> int:
    bare = part.trust_radius is None and not part.judges
    return max(len(part.name), 0 if bare else needed)


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


def counted(evaluations: Mapping[str, int]) -> str:
    """How often each kind of evaluation was made: ``loss 12, gradient 12, hvp 30``."""
    return ", ".join(f"{kind} {count}" for kind, count in evaluations.items() if count)


def part_text(part: PartReport, short: bool = False) -> str:
    """The part's trust radius and whether its step was accepted; a dash for a part that has neither.

    In ``short``, the radius alone, and a word where a step was refused.
    """
    words = []
    if part.trust_radius is not None:
        words.append(f"{part.trust_radius:.3g}" if short else f"radius {part.trust_radius:.3g}")
    if part.accepted is not None and not (short and part.accepted and words):
        words.append("accepted" if part.accepted else "refused")
    return " ".join(words) or "–"


def _short(number: float | None) -> str:
    return "–" if number is None else f"{number:.2e}"
