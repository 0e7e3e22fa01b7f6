"""What a fit shows on the screen: the table as it grows, then the summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .answer import answer

if TYPE_CHECKING:
    from ..fitting.result import FitResult
    from ..model.text import Column
    from ..record import Estimate
    from ..report.progress import ProgressTable
    from ..run.session import Session


class Screen:
    """Watches a fit and prints it; nothing when quiet, but for one JSON object at the end where that is asked for."""

    def __init__(self, quiet: bool, as_json: bool = False, verbose: bool = False) -> None:
        from ..report.console import FitConsole

        self.quiet, self.as_json, self.verbose = quiet or as_json, as_json, verbose
        self.console = FitConsole()
        self._table: ProgressTable | None = None

    def announce(self, text: str) -> None:
        """Say what is about to be done, where it is not taken for a result."""
        from ..errors import printable

        if not self.quiet:
            print(f"hofit: {printable(text)}", file=sys.stderr)

    def watch(self, session: Session) -> list[ProgressTable]:
        from dataclasses import asdict

        from ..report.progress import ProgressTable
        from ..report.remaining import Remaining

        if self.quiet:
            return []
        stop, objective = session.config.stop, session.objective
        target = None if objective.stochastic else stop.gradient
        remaining = Remaining(target, stop.max_iterations, stop.max_seconds)
        evaluations = (lambda: asdict(objective.evaluations)) if self.verbose else None
        self._table = ProgressTable(self.console, session.config.progress.every, remaining, evaluations)
        return [self._table]

    def tell_line(self, line: str) -> None:
        """Print one line."""
        self.tell([line])

    def tell(self, lines: Sequence[str]) -> None:
        """Print lines as they are."""
        from rich.text import Text

        if not self.quiet:
            self.console.print(Text("\n".join(lines)), soft_wrap=True)

    def close(self, result: FitResult) -> None:
        """Print the end and leave with its exit code."""
        from ..record import Estimate
        from ..report.summary import print_summary

        if self._table is not None:
            self._table.finish()
        rows = [*result.estimate_rows(), *map(Estimate.of, result.derived_rows())]
        if self.as_json:
            answer(whole_json(result.fit_json(), rows, result.run_dir))
        elif not self.quiet:
            print_summary(self.console, result.fit_json(), rows, result.run_dir, self.verbose)
        raise typer.Exit(result.exit_code)


def whole_json(fit: Mapping[str, Any], rows: Sequence[Estimate], run_dir: Path | None, **more: Any) -> str:
    """fit.json with the rows of estimates.csv, and where the run lies."""
    from ..record import json_text

    run = None if run_dir is None else str(run_dir)
    return json_text({**fit, "run_dir": run, "estimates": [vars(row) for row in rows], **more})


def print_columns(columns: Mapping[str, Column], out: Path | None, **more: Any) -> None:
    """A table as one JSON object: where it was written, or its cells by column."""
    from ..prediction.output import plain_of
    from ..record import json_text

    rows = max((len(cells) for cells in columns.values()), default=0)
    table = {"columns": plain_of(columns)} if out is None else {"wrote": str(out)}
    answer(json_text({"rows": rows, **table, **more}))
