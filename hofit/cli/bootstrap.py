"""``hofit bootstrap``."""

from __future__ import annotations

from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json, Quiet, RunDir
from .screen import Screen


def command(
    run_dir: RunDir,
    draws: Annotated[int, typer.Option("--draws", help="Data sets drawn from the fit, and refitted.")] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Draw k is seeded by this and k.")] = 0,
    level: Annotated[float, typer.Option("--level", help="Of the intervals.")] = 0.95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where there are draws already.")] = False,
    allow_changed: AllowChanged = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Intervals by refitting data drawn from the fit; interrupted, the same command goes on."""
    from ..intervals.bootstrap import BootstrapRequest, run_bootstrap
    from ..record import json_text
    from ..report.intervals import print_bootstrap
    from ..run.resume import ResumeRequest
    from .waiting import waiting

    screen = Screen(quiet, json)
    run = ResumeRequest(run_dir, allow_changed=allow_changed, announce=screen.announce)
    with waiting("refits", screen.quiet) as bar:
        found = run_bootstrap(BootstrapRequest(run, draws, seed, level, overwrite, bar))
    if json:
        answer(json_text({"run_dir": str(run_dir), **found.to_plain()}))
    elif found.signal is not None:
        typer.echo(f"hofit: interrupted after {found.done} of {draws} draws: the same command goes on", err=True)
    elif not quiet:
        print_bootstrap(screen.console, found.rows, level, found.statuses, found.remarks)
    raise typer.Exit(found.exit_code)
