"""``hofit simulate``."""

from __future__ import annotations

from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json, RunDir, TableOut
from .screen import Screen, print_columns


def command(
    run_dir: RunDir,
    out: TableOut = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Keep the effects that were integrated out at their modes.")
    ] = False,
    allow_changed: AllowChanged = False,
    json: Json = False,
) -> None:
    """Draw a data set like the fit's own from the fit: its table, with the responses drawn anew."""
    from ..prediction.output import check_output, csv_of, write_table
    from ..prediction.simulate import run_simulate
    from ..run.resume import ResumeRequest

    check_output(out)
    columns = run_simulate(
        ResumeRequest(run_dir, allow_changed=allow_changed, announce=Screen(False).announce), seed, conditional
    ).columns()
    if out is not None:
        write_table(out, columns)
    if json:
        print_columns(columns, out)
    elif out is None:
        answer(csv_of(columns))
