"""``hofit schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .answer import answer
from .options import Json


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="A model whose module adds optimizers: theirs are in the schema, too.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write it to a file: hofit.schema.json is what hofit init looks for."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    json: Json = False,
) -> None:
    """Print the JSON Schema of configs, for editors that complete and check YAML."""
    from json import dumps

    from ..errors import ConfigError
    from ..run.files import write_whole
    from ..run.schema import whole_schema

    if out is not None and out.exists() and not overwrite:
        raise ConfigError(f"--out {out}: this file is there already: --overwrite replaces it")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no directory {out.parent}")
    text = dumps(whole_schema(model), indent=1, ensure_ascii=False)
    if out is None:
        answer(text + "\n")
        return
    write_whole(out, (text + "\n").encode())
    if json:
        answer(dumps({"wrote": str(out)}) + "\n")
        return
    typer.echo(f"wrote {out}; in a config: # yaml-language-server: $schema={out.name}")
