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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..errors import StartError

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "role", "shape", "constraint", "plates", "rows", "optimizer"):
        table.add_column(column)
    for name, site in session.objective.sites.items():
        table.add_row(
            Text(name),
            site.role,
            str(tuple(site.shape)),
            site.constraint,
            ", ".join(f"{plate.name} ({plate.size})" for plate in site.plates) or "–",
            f"{site.rows} × {site.row_length}",
            session.owners.get(name, "–"),
        )
    console = Console(highlight=False)
    console.print(table)
    point = session.objective.at_full(session.start)
    if point.failure is not None or point.value != point.value or abs(point.value) == float("inf"):
        why = point.failure or session.objective.explain_non_finite(session.start)
        raise StartError(f"the loss is not finite at the start: {why}")
    unknowns = sum(value.numel() for value in session.start.values())
    console.print(f"{unknowns} unknowns; loss {point.value:.10g} ({session.objective.type}) at the start")
