"""``hofit optimizers``."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import complete_optimizer


def command(
    name: Annotated[
        str | None,
        typer.Argument(help="One optimizer, or a schedule; all when left out.", autocompletion=complete_optimizer),
    ] = None,
) -> None:
    """List the optimizers there are; with a name, its options and defaults."""
    from rich.table import Table

    from ..errors import ConfigError
    from ..optim.registry import registry
    from ..optim.schedules import SCHEDULES, schedule_options
    from ..patterns import near_misses
    from ..report.console import FitConsole

    console = FitConsole()
    known = registry()
    table = Table(box=None, pad_edge=False, header_style="bold")
    if name is None:
        table.add_column("optimizer")
        table.add_column("what it is")
        table.add_column("options")
        for spec in known.values():
            table.add_row(spec.name, spec.summary, ", ".join(option.name for option in spec.options))
        console.print(table)
        console.print(f"Schedules, for those with an lr: {', '.join(SCHEDULES)}")
        return
    if name in known:
        console.print(f"{name}: {known[name].summary}", markup=False)
        options = known[name].options
    elif name in SCHEDULES:
        console.print(f"schedule {name}: torch.optim.lr_scheduler.{SCHEDULES[name].__name__}", markup=False)
        options = schedule_options(name)
    else:
        raise ConfigError(f"no optimizer {name!r}{near_misses(name, [*known, *SCHEDULES])}")
    table.add_column("option")
    table.add_column("default")
    table.add_column("")
    for option in options:
        table.add_row(option.name, repr(option.default), option.help)
    console.print(table)
