"""``hofit plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json


def command(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Run directories.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the pictures go; default: RUN_DIR/pictures, of several runs pictures."),
    ] = None,
    residuals: Annotated[
        bool,
        typer.Option(
            help="Draw data from each fit for its residuals, which runs its model, once: they stay in residuals.csv."
        ),
    ] = True,
    allow_changed: AllowChanged = False,
    json: Json = False,
) -> None:
    """Draw runs: progress (several overlaid), estimates, effects, pooling, profiles, residuals; as PNG and SVG."""
    from ..errors import HofitError
    from ..plotting.canvas import HINT, is_available
    from ..plotting.pictures import pictures_of, write_pictures
    from ..plotting.run import open_runs
    from ..record import json_text

    if not is_available():
        raise HofitError(HINT)
    runs = open_runs(run_dirs)
    if residuals:
        for run in runs:
            _make_residuals(run.path, allow_changed, json)
    out = out or (run_dirs[0] / "pictures" if len(runs) == 1 else Path("pictures"))
    written = write_pictures(pictures_of(runs), out)
    unfinished = [str(run.path) for run in runs if run.fit is None]
    if json:
        rows = [{"name": w.name, "png": str(w.png), "svg": str(w.svg), "notes": list(w.notes)} for w in written]
        answer(json_text({"pictures": rows, "unfinished": unfinished}))
        return
    for path in unfinished:
        typer.echo(f"{path}: the run is going on or was killed, so only its progress is drawn", err=True)
    for one in written:
        typer.echo(f"{one.png}  {one.svg}")
    if not written:
        typer.echo("nothing to draw: no step was taken, and there are no estimates", err=True)


def _make_residuals(run: Path, allow_changed: bool, quiet: bool) -> None:
    """residuals.csv, where it is not there and the run can be opened again as `hofit predict` does; else it is said."""
    from ..record import CHECKPOINT, FIT, RESIDUALS

    if (run / RESIDUALS).is_file() or not (run / CHECKPOINT).is_file() or not (run / FIT).is_file():
        return
    from ..errors import HofitError, printable
    from ..prediction.residuals import run_residuals
    from ..run.resume import ResumeRequest
    from .screen import Screen

    try:
        run_residuals(ResumeRequest(run, allow_changed=allow_changed, announce=Screen(quiet).announce))
    except HofitError as error:
        typer.echo(printable(f"{run}: no picture of residuals: {error}"), err=True)
