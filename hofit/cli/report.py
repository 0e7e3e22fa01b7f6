"""``hofit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(run_dir: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Show the result of a run again: verdict, remarks, estimates, what to do next."""
    from ..errors import RunDirectoryError
    from ..report.console import FitConsole
    from ..report.reading import load_diagnosis, load_run
    from ..report.summary import print_diagnosis, print_summary

    fit, rows = load_run(run_dir)
    diagnosis = load_diagnosis(run_dir)
    try:
        print_summary(FitConsole(), fit, rows, run_dir)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunDirectoryError(f"{run_dir} holds a damaged fit.json: {error}") from error
    if diagnosis is not None:
        print_diagnosis(FitConsole(), diagnosis)
