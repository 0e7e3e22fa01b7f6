"""``hofit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .answer import answer
from .options import Json, RunDir, Verbose
from .screen import whole_json


def command(
    run_dir: RunDir,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page with pictures, without network.")
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the result of a run again: verdict, remarks, estimates, what to do next."""
    if html is not None:
        _write_page(run_dir, html, json)
        return
    from ..errors import RunDirectoryError
    from ..report.console import FitConsole
    from ..report.reading import load_diagnosis, load_run
    from ..report.summary import print_diagnosis, print_summary

    fit, rows = load_run(run_dir)
    diagnosis = load_diagnosis(run_dir)
    if json:
        answer(whole_json(fit, rows, run_dir, diagnosis=diagnosis))
        return
    try:
        print_summary(FitConsole(), fit, rows, run_dir, verbose)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunDirectoryError(f"{run_dir} holds a damaged fit.json: {error}") from error
    if diagnosis is not None:
        print_diagnosis(FitConsole(), diagnosis)


def _write_page(run_dir: Path, html: Path, json: bool) -> None:
    from ..errors import refusals_told
    from ..plotting.canvas import HINT, is_available
    from ..plotting.page import page_of
    from ..record import json_text

    page = page_of(run_dir)
    with refusals_told(f"--html {html}"):
        html.write_text(page, encoding="utf-8")
    if not is_available():
        typer.echo(f"hofit: {html} has no pictures: {HINT}", err=True)
    answer(json_text({"wrote": str(html)}) if json else f"wrote {html}\n")
