"""``hofit optimizers``."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .answer import answer
from .completion import complete_optimizer
from .options import Json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..optim.options import OptionSpec


def command(
    name: Annotated[
        str | None,
        typer.Argument(help="One optimizer, or a schedule; all when left out.", autocompletion=complete_optimizer),
    ] = None,
    json: Json = False,
) -> None:
    """List the optimizers there are; with a name, its options and defaults."""
    from ..errors import ConfigError
    from ..optim.registry import registry
    from ..optim.schedules import SCHEDULES, schedule_options
    from ..patterns import near_misses

    known = registry()
    if name is None:
        listed = [(spec.name, spec.summary, spec.options) for spec in known.values()]
        if json:
            _print_json({"optimizers": [_plain(*one) for one in listed], "schedules": list(SCHEDULES)})
        else:
            _print_all(listed, list(SCHEDULES))
        return
    if name in known:
        head, summary, options = name, known[name].summary, known[name].options
    elif name in SCHEDULES:
        head, summary = f"schedule {name}", f"torch.optim.lr_scheduler.{SCHEDULES[name].__name__}"
        options = schedule_options(name)
    else:
        raise ConfigError(f"no optimizer {name!r}{near_misses(name, [*known, *SCHEDULES])}")
    if json:
        _print_json(_plain(name, summary, options))
    else:
        _print_one(f"{head}: {summary}", options)


def _plain(name: str, summary: str, options: Sequence[OptionSpec]) -> dict[str, Any]:
    rows = [{"name": one.name, "default": _default(one.default), "help": one.help} for one in options]
    return {"name": name, "summary": summary, "options": rows}


def _default(value: object) -> object:
    """For JSON; what it has no type for, as an infinite radius or the word of a required option, stands as text."""
    if isinstance(value, (tuple, list)):
        return [_default(one) for one in value]
    plain = value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value))
    return value if plain else repr(value)


def _print_json(content: dict[str, Any]) -> None:
    from ..record import json_text

    answer(json_text(content))


def _print_all(listed: Sequence[tuple[str, str, Sequence[OptionSpec]]], schedules: Sequence[str]) -> None:
    console, table = _console_and_table("optimizer", "what it is", "options")
    for name, summary, options in listed:
        table.add_row(name, summary, ", ".join(option.name for option in options))
    console.print(table)
    console.print(f"Schedules, for those with an lr: {', '.join(schedules)}")


def _print_one(head: str, options: Sequence[OptionSpec]) -> None:
    console, table = _console_and_table("option", "default", "")
    console.print(head, markup=False)
    for option in options:
        table.add_row(option.name, repr(option.default), option.help)
    console.print(table)


def _console_and_table(*columns: str) -> tuple[Console, Table]:
    from rich.table import Table

    from ..report.console import FitConsole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return FitConsole(), table
