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

    from ..report.console import FitConsole
    from ..run.check import inner, measured, structures, traced_start

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "role", "shape", "constraint", "plates", "rows", "optimizer"):
        table.add_column(column)
    for name, site in session.objective.sites.items():
        plates = ", ".join(f"{plate.name} ({plate.size})" for plate in site.plates) or "–"
        rows, owner = f"{site.rows} × {site.row_length}", session.owners.get(name, "–")
        table.add_row(Text(name), site.role, str(tuple(site.shape)), site.constraint, Text(plates), rows, owner)
    console = FitConsole()
    console.print(table)
    summed = list(session.program.discrete)
    if summed:
        listed = ", ".join(summed[:6]) + (f", … ({len(summed)} sites)" if len(summed) > 6 else "")
        console.print(Text(f"summed out: {listed}"))
    for warning in session.warnings:
        console.print(Text(warning))
    start = traced_start(session)
    integrated = inner(session, start)
    if integrated is not None:
        console.print(Text(f"integrated: {integrated}"))
    cost = measured(session, start)
    if cost is not None:
        console.print(Text(f"evidence: {cost.describe()}"))
        too_long = cost.warning()
        if too_long is not None:
            console.print(Text(f"warning: {too_long}"))
    for name, found in structures(session, start):
        console.print(Text(f"{name}: {found}"))
    unread = session.program.unread
    unknowns = sum(v.numel() - int(unread[n].sum() if n in unread else 0) for n, v in session.start.items())
    console.print(f"{unknowns} unknowns; loss {start.value:.10g} ({session.objective.type}) at the start")
