"""``hofit check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import ConfigPath, DataPath, Device, Dtype, Model, Seed, Sets, all_overrides

if TYPE_CHECKING:
    from ..run.session import Session


def command(
    config: ConfigPath,
    model: Model = None,
    data: DataPath = None,
    set: Sets = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Do everything up to the first step: which parameter has which optimizer, and every mistake in the config."""
    from ..config.load import load_source
    from ..run.session import Request, parse, prepared

    request = Request(load_source(config, all_overrides(set, data, seed, device, dtype)), model)
    parsed, mistakes = parse(request)
    with prepared(request, parsed, mistakes) as session:
        _show(session)


def _show(session: Session) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..curvature.structure import Curvature, StructureRefuted
    from ..errors import ModelError, StartError
    from ..fitting.loop import Clock, Loop
    from ..fitting.state import LoopState
    from ..report.console import FitConsole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "role", "shape", "constraint", "plates", "rows", "optimizer"):
        table.add_column(column)
    for name, site in session.objective.sites.items():
        table.add_row(
            Text(name),
            site.role,
            str(tuple(site.shape)),
            site.constraint,
            Text(", ".join(f"{plate.name} ({plate.size})" for plate in site.plates) or "–"),
            f"{site.rows} × {site.row_length}",
            session.owners.get(name, "–"),
        )
    console = FitConsole()
    console.print(table)
    summed = list(session.program.discrete)
    if summed:
        listed = ", ".join(summed[:6]) + (f", … ({len(summed)} sites)" if len(summed) > 6 else "")
        console.print(Text(f"summed out: {listed}"))
    loop = Loop(session.objective, session.optimizer, session.config.stop, [], lambda: False, Clock(0.0), LoopState())
    end = loop.begin(session.start, fresh=True)
    if end is not None:
        raise StartError("; ".join(end.remarks))
    point = session.objective.at(session.start)
    for _, part in session.optimizer.parts:
        try:
            found = part.found(point)
        except StructureRefuted as refused:
            raise ModelError(str(refused)) from refused
        if found is not None:
            console.print(Text(f"{part.name}: {found}"))
    curvature = Curvature()
    operator = curvature.at(session.objective.at_full(session.start), list(session.start))
    console.print(Text(f"verdict: {curvature.describe(operator)}"))
    unknowns = sum(value.numel() for value in session.start.values())
    console.print(f"{unknowns} unknowns; loss {point.value:.10g} ({session.objective.type}) at the start")
