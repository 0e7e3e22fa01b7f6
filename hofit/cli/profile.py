"""``hofit profile``."""

from __future__ import annotations

from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json, Quiet, RunDir
from .screen import Screen


def command(
    run_dir: RunDir,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--params", "-p", help="Names as a glob, or one number as beta[3]; repeatable. Default: all with an error."
        ),
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Of the intervals.")] = 0.95,
    allow_changed: AllowChanged = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Intervals by the likelihood's own shape: each number held elsewhere, all others fitted anew."""
    from ..intervals.run_profile import ProfileRequest, run_profile
    from ..record import json_text
    from ..report.intervals import print_profile
    from ..run.resume import ResumeRequest
    from .waiting import waiting

    screen = Screen(quiet, json)
    run = ResumeRequest(run_dir, allow_changed=allow_changed, announce=screen.announce)
    with waiting("profiles", screen.quiet) as bar:
        found = run_profile(ProfileRequest(run, params or (), level, bar))
    if json:
        answer(json_text({"run_dir": str(run_dir), **found.to_plain()}))
    elif not quiet:
        print_profile(screen.console, found.rows, found.level, found.remarks)
