"""A formula and a file of data → the module's text and the config that fits it, both tried before they are given."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config.load import load_source
from ...errors import ConfigError
from ...run.check import traced_start
from ...run.prepare import prepared
from ...run.session import Request, parse
from ..suggest import TRUST_REGION, Mapped, Suggestion
from .design import Design, Designing, Parts
from .families import FAMILIES, check_options
from .module import text_of_module
from .parsing import parse as parse_formula
from .parsing import parse_fixed
from .scanning import need_library, scan
from .table import columns_of, functions_of, read, read_method


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. ``zero_inflated`` and ``dispersion`` are formulas of fixed effects."""

    formula: str
    data: Path
    family: str = "gaussian"
    zero_inflated: str | None = None
    dispersion: str | None = None
    reml: bool = False


@dataclass(frozen=True)
class Written:
    """``notes`` are sentences for the user."""

    module: str
    suggestion: Suggestion
    notes: list[str]


def write_formula(asked: Asked, path: Path, overrides: Sequence[str] = ()) -> Written:
    """The module that will stand at ``path``, and a config whose paths are absolute.

    Raises: HofitError.
    """
    need_library()
    design, notes = _design(asked)
    text = text_of_module(design)
    config: Mapped = {"data": {"path": str(asked.data.resolve())}, **_objective(design), "optimizers": [TRUST_REGION]}
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_text(text, encoding="utf-8")
        request = Request(load_source({"model": str(trial), **config}, list(overrides)))
        with prepared(request, *parse(request)) as session:
            traced_start(session)
            sites = list(session.program.sites.values())
    return Written(text, Suggestion({"model": str(path.resolve()), **config}, _reasons(design), sites), notes)


def _design(asked: Asked) -> tuple[Design, list[str]]:
    family = FAMILIES[asked.family]
    formula = parse_formula(asked.formula)
    check_options(family, formula.response.trials, asked.zero_inflated is not None, asked.dispersion is not None)
    table = read(asked.data)
    texts = {"--formula": formula.text}
    for option, given in (("--zero-inflated", asked.zero_inflated), ("--dispersion", asked.dispersion)):
        if given is not None:
            texts[option] = parse_fixed(given, option)
    columns: dict[str, None] = {}
    functions: set[str] = set()
    for option, text in texts.items():
        tokens = scan(text, option)
        columns.update(dict.fromkeys(columns_of(text, tokens, table, asked.data, option)))
        functions.update(functions_of(tokens))
    complete = table[list(columns)].dropna()
    missing = len(table) - len(complete)
    if missing == len(table):
        raise ConfigError(f"{asked.data}: every row has an empty cell in one of {', '.join(columns)}")
    notes = [f"{missing} of {len(table)} rows have an empty cell, and are left out"] if missing else []
    parts = Parts(texts.get("--zero-inflated"), texts.get("--dispersion"))
    design = Designing(formula, family, complete, asked.data).design(parts, sorted(functions), asked.reml)
    design.reader = read_method(asked.data)
    return design, notes


def _objective(design: Design) -> Mapped:
    integrate = dict.fromkeys(_integrated(design), "laplace")
    return {"objective": {"type": "marginal", "integrate": integrate}} if integrate else {}


def _integrated(design: Design) -> list[str]:
    parts = [part[1] for part in (design.zero, design.dispersion) if part]
    fixed = [one.name for some in (design.fixed, *parts) for one in some] if design.reml else []
    return fixed + [one.latent for one in design.effects]


def _reasons(design: Design) -> dict[str, list[str]]:
    exact = "exact, as everything is Gaussian" if design.family.name == "gaussian" else "as glmer and glmmTMB do it"
    said = [f"the effects of groups are integrated out by Laplace's approximation: {exact}"] if design.effects else []
    said += ["the fixed effects, too: the restricted likelihood (REML)"] if design.reml else []
    return {"objective": said, "optimizers": ["second-order: some iterations, and nothing to tune"]}
