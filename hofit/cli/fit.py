"""``hofit fit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigPath, DataPath, Device, Dtype, Model, Quiet, Seed, Sets, all_overrides

if TYPE_CHECKING:
    from ..fitting.result import FitResult
    from ..report.progress import ProgressTable
    from ..run.session import Session


def command(
    config: ConfigPath,
    model: Model = None,
    data: DataPath = None,
    set: Sets = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Default: runs/<config>.")] = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that --run-dir holds.")] = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model."""
    began = time.perf_counter()
    from ..api import FitOptions, Request, run_fit
    from ..config.load import load_source

    source = load_source(config, all_overrides(set, data, seed, device, dtype))
    screen = Screen(quiet)
    options = FitOptions(run_dir, overwrite, config.stem, began, screen.watch)
    screen.close(run_fit(Request(source, model), options))


class Screen:
    """What a fit shows: the table as it grows, then the summary; nothing when quiet."""

    def __init__(self, quiet: bool) -> None:
        from ..report.console import FitConsole

        self.quiet = quiet
        self.console = FitConsole()
        self._table: ProgressTable | None = None

    def watch(self, session: Session) -> list[ProgressTable]:
        from ..report.progress import ProgressTable

        if self.quiet:
            return []
        self._table = ProgressTable(self.console, session.config.progress.every)
        return [self._table]

    def close(self, result: FitResult) -> None:
        """Print the end and leave with its exit code."""
        from ..report.summary import as_derived, print_summary

        if self._table is not None:
            self._table.finish()
        if not self.quiet:
            rows = result.estimates() + as_derived(result.derived_rows())
            print_summary(self.console, result.fit_json(), rows, result.run_dir)
        raise typer.Exit(result.exit_code)
