"""``hofit check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import ConfigPath, DataPath, Device, Dtype, Model, Seed, Sets, all_overrides

if TYPE_CHECKING:
    from ..run.check import Check


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
    from ..run.check import Check
    from ..run.session import Request, parse, prepared

    request = Request(load_source(config, all_overrides(set, data, seed, device, dtype)), model)
    parsed, mistakes = parse(request)
    with prepared(request, parsed, mistakes) as session:
        _show(Check(session))


def _show(check: Check) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..report.console import FitConsole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "role", "shape", "constraint", "plates", "rows", "optimizer"):
        table.add_column(column)
    for site in check.sites():
        plates = ", ".join(f"{name} ({size})" for name, size in site.plates)
        rows = f"{site.rows} × {site.row_length}"
        owner = site.optimizer or "–"
        table.add_row(Text(site.name), site.role, str(site.shape), site.constraint, Text(plates or "–"), rows, owner)
    console = FitConsole()
    console.print(table)
    summed = check.summed_out()
    if summed:
        listed = ", ".join(summed[:6]) + (f", … ({len(summed)} sites)" if len(summed) > 6 else "")
        console.print(Text(f"summed out: {listed}"))
    start = check.start()
    for name, found in check.structures():
        console.print(Text(f"{name}: {found}"))
    console.print(f"{start.unknowns} unknowns; loss {start.loss:.10g} ({start.objective}) at the start")
