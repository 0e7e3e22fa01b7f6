"""``hofit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(run_dir: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Show the result of a run again: verdict, remarks, estimates, what to do next."""
    from rich.console import Console

    from ..report.summary import load_run, print_summary

    fit, rows = load_run(run_dir)
    print_summary(Console(highlight=False), fit, rows, run_dir)
