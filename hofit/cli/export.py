"""``hofit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json, Quiet, RunDir
from .screen import Screen


def command(
    run_dir: RunDir,
    to: Annotated[
        Path,
        typer.Option(
            "--to",
            help="The file: .nc (ArviZ), .parquet or .csv (draws), .pt (Pyro's parameter store), .json (starts for "
            "Stan and NumPyro).",
        ),
    ],
    draws: Annotated[int | None, typer.Option("--draws", help="From the Gaussian at the mode; 1000.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of the draws; 0.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    allow_changed: AllowChanged = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a fit for other programs: draws and what the model says of the data, or the mode to start from."""
    from ..errors import printable
    from ..record import json_text
    from ..run.export import ExportRequest, run_export
    from ..run.resume import ResumeRequest

    run = ResumeRequest(run_dir, allow_changed=allow_changed, announce=Screen(quiet).announce)
    found = run_export(ExportRequest(run, to, draws, seed, overwrite))
    if json:
        answer(json_text(found.to_plain()))
    elif not quiet:
        drawn = "" if found.draws is None else f" ({found.draws} draws)"
        typer.echo(printable(f"wrote {found.path}: {found.holds}{drawn}"))
        for remark in found.remarks:
            typer.echo(printable(f"  {remark}"))
