"""``hofit init``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .answer import answer
from .options import DataPath, Json, Sets


class Family(str, Enum):
    """The names of the families; what they are is in suggestion/formula/families.py, which is heavy to import."""

    gaussian = "gaussian"
    bernoulli = "bernoulli"
    binomial = "binomial"
    poisson = "poisson"
    negative_binomial = "negative_binomial"
    gamma = "gamma"
    beta = "beta"
    ordinal = "ordinal"
    student_t = "student_t"


def command(
    model: Annotated[
        str | None, typer.Argument(help="path/to/model.py, path/to/model.py:name or package.module:name.")
    ] = None,
    formula: Annotated[
        str | None,
        typer.Option("--formula", "-f", help="Write the model, too: lme4's 'y ~ x + (x | group)'; needs --data."),
    ] = None,
    data: DataPath = None,
    family: Annotated[Family | None, typer.Option("--family", help="Of the response; default: gaussian.")] = None,
    zero_inflated: Annotated[
        str | None,
        typer.Option("--zero-inflated", metavar="'~ X'", help="Logit of the share of zeros beyond a count's."),
    ] = None,
    dispersion: Annotated[
        str | None,
        typer.Option("--dispersion", metavar="'~ X'", help="Logarithm of the dispersion (sigma, phi, shape)."),
    ] = None,
    reml: Annotated[
        bool, typer.Option("--reml", help="Restricted maximum likelihood, not maximum likelihood.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="STEM", help="Writes STEM.yaml, with a formula STEM.py; default: by name."),
    ] = None,
    set: Sets = None,
    json: Json = False,
) -> None:
    """Write a commented config for a model: columns by their names, the mix by the structure that it shows.

    With --formula, write the model as well: a Pyro module to be read and edited, by maximum likelihood.
    """
    from ..errors import ConfigError
    from ..run.files import write_whole
    from ..suggestion.suggest import stem_of, suggest
    from ..suggestion.text import text_of

    if (model is None) == (formula is None):
        given = "both are given" if model is not None else "neither is given"
        raise ConfigError(f"hofit init takes a MODEL, or --formula 'y ~ x + (1 | group)' with --data FILE: {given}")
    path = Path(f"{out or (stem_of(model) if model is not None else _stem_of_data(data))}.yaml")
    module = path.with_name(path.name.removesuffix(".yaml") + ".py")
    for file in (path,) if formula is None else (module, path):
        if file.exists():
            raise ConfigError(f"{file} is there already, and is not replaced: give --out another STEM")
    if not path.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no directory {path.parent}")
    if model is not None:
        only = {"--family": family, "--zero-inflated": zero_inflated, "--dispersion": dispersion, "--reml": reml}
        stray = [name for name, value in only.items() if value]
        if stray:
            raise ConfigError(f"{', '.join(stray)}: goes with --formula; a MODEL says so itself")
        write_whole(path, text_of(suggest(model, data, set or []), path).encode())
        _tell([path], f"hofit check -c {path}, or hofit fit -c {path}", [], json)
        return

    from ..suggestion.formula.write import Asked, write_formula

    assert formula is not None
    if data is None:
        raise ConfigError("--formula needs its data: add --data FILE.csv")
    name = "gaussian" if family is None else family.value
    written = write_formula(Asked(formula, data, name, zero_inflated, dispersion, reml), module, set or [])
    write_whole(module, written.module.encode())
    write_whole(path, text_of(written.suggestion, path).encode())
    _tell([module, path], f"hofit fit {module} --config {path}", written.notes, json)


def _tell(files: list[Path], following: str, notes: Sequence[str], json: bool) -> None:
    """What was written, and the command that comes next."""
    from ..record import json_text

    if json:
        content = {"wrote": [str(file) for file in files], "next": following, "notes": list(notes)}
        answer(json_text(content))
        return
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(f"wrote {' and '.join(map(str, files))}; next: {following}")


def _stem_of_data(data: Path | None) -> str:
    """The name of the table, in the directory of the command."""
    return "model" if data is None else data.name.partition(".")[0]
