"""``hofit check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .answer import answer
from .options import ConfigPath, DataPath, Device, Dtype, Json, Model, Seed, Sets, all_overrides

if TYPE_CHECKING:
    from ..run.check import Overview


def command(
    config: ConfigPath,
    model: Model = None,
    data: DataPath = None,
    set: Sets = None,
    seed: Seed = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Do everything up to the first step: which parameter has which optimizer, and every mistake in the config."""
    from ..config.load import load_source
    from ..record import json_text
    from ..run.check import overview
    from ..run.prepare import prepared
    from ..run.session import Request, parse

    request = Request(load_source(config, all_overrides(set, data, seed, device, dtype)), model)
    parsed, mistakes = parse(request)
    with prepared(request, parsed, mistakes) as session:
        found = overview(session)
    if json:
        answer(json_text(found.to_plain()))
    else:
        _show(found)


def _show(found: Overview) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..report.console import FitConsole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("parameter", "role", "shape", "constraint", "plates", "rows", "optimizer"):
        table.add_column(column)
    for row in found.rows:
        plates = ", ".join(f"{plate['name']} ({plate['size']})" for plate in row["plates"]) or "–"
        rows, owner = f"{row['rows']} × {row['row_length']}", row["optimizer"] or "–"
        shape = str(tuple(row["shape"]))
        table.add_row(Text(row["name"]), row["role"], shape, row["constraint"], Text(plates), rows, owner)
    lines = []
    if found.summed_out:
        more = f", … ({len(found.summed_out)} sites)" if len(found.summed_out) > 6 else ""
        lines.append(f"summed out: {', '.join(found.summed_out[:6])}{more}")
    lines += found.warnings
    if found.starts:
        kinds = ", ".join(dict.fromkeys(found.starts[1:]))
        lines.append(f"starts: {len(found.starts)}, the own one, then in turn: {kinds}")
    lines += [] if found.integrated is None else [f"integrated: {found.integrated}"]
    lines += [] if found.cost is None else [f"evidence: {found.cost.describe()}"]
    lines += [f"{name}: {structure}" for name, structure in found.structures]
    lines.append(f"{found.unknowns} unknowns; loss {found.loss:.10g} ({found.objective}) at the start")
    console = FitConsole()
    console.print(table)
    for line in lines:
        console.print(Text(line))
