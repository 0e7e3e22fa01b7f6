"""``hofit diagnose``."""

from __future__ import annotations

from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json, Quiet, RunDir
from .screen import Screen


def command(
    run_dir: RunDir,
    draws: Annotated[int, typer.Option("--draws", help="Draws from the Gaussian at the mode.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    allow_changed: AllowChanged = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say whether Laplace's approximation is good enough, by importance ratios of draws from it."""
    from ..record import json_text
    from ..report.summary import print_diagnosis
    from ..run.diagnose import run_diagnose
    from ..run.resume import ResumeRequest

    screen = Screen(quiet, json)
    request = ResumeRequest(run_dir, allow_changed=allow_changed, announce=screen.announce)
    found = run_diagnose(request, draws, seed)
    if json:
        answer(json_text(found.to_plain()))
    elif not quiet:
        print_diagnosis(screen.console, found.to_plain())
