"""``hofit init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import DataPath, Sets


def command(
    model: Annotated[str, typer.Argument(help="path/to/model.py, path/to/model.py:name or package.module:name.")],
    data: DataPath = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="STEM", help="Writes STEM.yaml; default: the model's name.")
    ] = None,
    set: Sets = None,
) -> None:
    """Write a commented config for a model: columns by their names, the mix by the structure that it shows."""
    from ..errors import ConfigError
    from ..run.files import write_whole
    from ..suggestion.suggest import stem_of, suggest
    from ..suggestion.text import text_of

    path = Path(f"{out or stem_of(model)}.yaml")
    if path.exists():
        raise ConfigError(f"{path} is there already, and is not replaced: give --out another STEM")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no directory {path.parent}")
    write_whole(path, text_of(suggest(model, data, set or []), path).encode())
    typer.echo(f"wrote {path}; next: hofit check -c {path}, or hofit fit -c {path}")
