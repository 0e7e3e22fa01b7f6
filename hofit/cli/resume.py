"""``hofit resume``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_run
from .options import AllowChanged, Json, Quiet, Sets, Verbose
from .screen import Screen


def command(
    checkpoint: Annotated[
        Path, typer.Argument(help="A checkpoint file, or a run directory.", autocompletion=complete_run)
    ],
    set: Sets = None,
    allow_changed: AllowChanged = False,
    quiet: Quiet = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Go on from a checkpoint, exactly where it stopped."""
    began = time.perf_counter()
    from ..run.resume import ResumeRequest, run_resume

    screen = Screen(quiet, json, verbose)
    request = ResumeRequest(
        checkpoint,
        list(set or []),
        allow_changed,
        began=began,
        watch=screen.watch,
        tell=screen.tell_line,
        announce=screen.announce,
    )
    screen.close(run_resume(request))
