"""``hofit predict``."""

from __future__ import annotations

from typing import Annotated

import typer

from .answer import answer
from .options import AllowChanged, Json, NewData, RunDir, TableOut
from .screen import Screen, print_columns


def command(
    run_dir: RunDir,
    data: NewData = None,
    out: TableOut = None,
    site: Annotated[str | None, typer.Option("--site", help="The observed site, where there are several.")] = None,
    population: Annotated[
        bool,
        typer.Option("--population", help="Take every effect for a new one, known by its population alone."),
    ] = False,
    draws: Annotated[int, typer.Option("--draws", help="Draws for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    allow_changed: AllowChanged = False,
    json: Json = False,
) -> None:
    """Fitted values, their standard errors and 95 % intervals for observations, at other rows or the fit's own."""
    from ..prediction.output import check_output, csv_of, write_table
    from ..prediction.predict import PredictRequest, run_predict
    from ..run.resume import ResumeRequest

    check_output(out)
    run = ResumeRequest(run_dir, allow_changed=allow_changed, announce=Screen(False).announce)
    found = run_predict(PredictRequest(run, data, site, population, draws, seed))
    columns = found.columns()
    if out is not None:
        write_table(out, columns)
    if json:
        print_columns(columns, out, remarks=list(found.remarks))
        return
    for remark in found.remarks:
        typer.echo(remark, err=True)
    if out is None:
        answer(csv_of(columns))
