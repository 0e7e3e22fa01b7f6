"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import complete_run

Model = Annotated[
    str | None,
    typer.Argument(
        help="path/to/model.py, path/to/model.py:name or package.module:name; the config's `model` when left out.",
        show_default=False,
    ),
]
ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The YAML config.")]
OptionalConfig = Annotated[
    Path | None, typer.Option("--config", "-c", help="The YAML config; without it one is chosen, and said why.")
]
DataPath = Annotated[Path | None, typer.Option("--data", help="The data file; overrides data.path.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any config key, dotted; repeatable."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Overrides seed.")]
Device = Annotated[str | None, typer.Option("--device", help="Overrides device.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="Overrides dtype.")]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", autocompletion=complete_run)]
AllowChanged = Annotated[bool, typer.Option("--allow-changed", help="Go on although the model or data file changed.")]
NewData = Annotated[
    Path | None,
    typer.Option("--data", help="Rows to be predicted, the response may be absent; default: the fit's."),
]
TableOut = Annotated[
    Path | None, typer.Option("--out", "-o", help="A file that ends in .csv or .parquet; default: .csv to the screen.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say how often the loss and its derivatives were computed.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]


def all_overrides(
    sets: list[str] | None, data: Path | None, seed: int | None, device: str | None, dtype: str | None
) -> list[str]:
    """The options that stand for config keys, as ``KEY=VALUE`` after the user's own."""
    named = {"data.path": data, "seed": seed, "device": device, "dtype": dtype}
    return [*(sets or []), *(f"{key}={_quoted(value)}" for key, value in named.items() if value is not None)]


def _quoted(value: object) -> str:
    import json

    return json.dumps(str(value)) if isinstance(value, (str, Path)) else str(value)
