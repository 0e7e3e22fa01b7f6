"""A model, and a file of data where there is one → a config that runs, with the reason of each choice."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..config.load import load_source
from ..curvature.choice import COLUMNS_LIMIT
from ..errors import DataError, HofitError, ModelError
from ..model.arguments import check_signature
from ..model.module import ModelSource, split_reference
from ..model.program import Program
from ..model.table import Table, read_table
from ..patterns import matches
from ..point import Site
from ..run.check import traced_start
from ..run.data import NOT_AN_INDEX, find_model, load_data
from ..run.environment import environment
from ..run.prepare import prepared
from ..run.session import Request, parse
from .columns import Request as ColumnRequest
from .columns import match, unmatched, whole_numbers
from .effects import Effect, effects

Mapped = dict[str, Any]

TRUST_REGION = {"params": "*", "optimizer": "trust_region"}
LBFGS = {"params": "*", "optimizer": "lbfgs"}
ADAM = {"params": "*", "optimizer": "adam", "lr": 0.01}

JOINT = "integrated out: with free scales a joint mode runs away, or lies far from where the data put them"

MANY_NAMES = 3
"""Sites from which on a pattern stands for them, where there is one."""


@dataclass
class Suggestion:
    """A config, and why. ``reasons``: section of the config → sentences; ``sites``: what the model has to fit."""

    config: Mapped
    reasons: dict[str, list[str]] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)


def stem_of(model: str) -> str:
    """The name that a model's files get: ``path/to/model.py:name`` and ``package.model:name`` are both ``model``."""
    location, _ = split_reference(model)
    return Path(location).stem if location.endswith(".py") else location.rpartition(".")[2]


def suggest(model: str, data: Path | None = None, overrides: Sequence[str] = ()) -> Suggestion:
    """The config of a fit of this model; paths in it are as they were given.

    Args: overrides: ``KEY=VALUE`` of the command line, which the suggestion is tried with, and does not hold.
    Raises: HofitError where the model cannot be traced, or an argument finds no column.
    """
    return _Suggesting(model, data, overrides).suggestion()


class _Suggesting:
    def __init__(self, model: str, data: Path | None, overrides: Sequence[str]) -> None:
        self.overrides = list(overrides)
        self.base: Mapped = {"model": model}
        if data is not None:
            self.base["data"] = {"path": str(data)}
        self.data = data
        self.reasons: dict[str, list[str]] = {}

    def suggestion(self) -> Suggestion:
        config, _ = parse(self._request({**self.base, "optimizers": [TRUST_REGION]}))
        with environment(config):
            self._find_columns(find_model(config.model))
            candidates = list(self._candidates())
        return self._first_that_runs(candidates)

    def _request(self, config: Mapped) -> Request:
        return Request(load_source(config, self.overrides))

    def _find_columns(self, model: ModelSource) -> None:
        """``data.columns``, by names, where nothing else gives the model its arguments."""
        reads_itself = model.load_data is not None
        if self.data is None or reads_itself:
            return
        needed, optional = _arguments(model)
        table = read_table(self.data)
        columns = match(needed, optional, table)
        left = unmatched(needed, columns)
        if left:
            names = ", ".join(map(repr, left))
            raise DataError(
                f"{self.data}: no column for the argument{'s' if len(left) > 1 else ''} {names} of {model.name}; the "
                f"columns are {', '.join(table.columns)}. Write a config with data.columns: {{{left[0]}: COLUMN}} (or "
                f"data.arguments, for what is no column; n_levels goes with codes: true), or rename the argument"
            )
        if not columns:
            del self.base["data"]
            return
        self.base["data"]["columns"] = columns
        self.reasons["data"] = [_of_column(argument, request) for argument, request in columns.items()]
        self.reasons["data"] = [sentence for sentence in self.reasons["data"] if sentence]
        self._number_indices(columns, table)

    def _number_indices(self, columns: dict[str, ColumnRequest], table: Table) -> None:
        """Number the levels of columns that the model takes for an index, as it says itself."""
        candidates = whole_numbers(columns, table)
        if not candidates or not self._is_index_missing():
            return
        coded = {argument: {"column": columns[argument], "codes": True} for argument in candidates}
        plain = {argument: columns[argument] for argument in candidates}
        columns.update(coded)
        for argument in candidates:
            columns[argument] = plain[argument]
            if self._is_index_missing():
                columns[argument] = coded[argument]
                self.reasons["data"].append(f"{argument} is an index in the model: its levels are numbered")

    def _is_index_missing(self) -> bool:
        try:
            with self._discovered():
                return False
        except ModelError as error:
            return re.search(NOT_AN_INDEX, str(error)) is not None
        except HofitError:
            return False

    @contextmanager
    def _discovered(self) -> Iterator[Program]:
        """The model with its data, its sites found; discrete latents are summed out, whatever becomes of them."""
        request = self._request({**self.base, "optimizers": [TRUST_REGION]})
        config, mistakes = parse(request)
        model = find_model(config.model)
        data = load_data(config, model, {}, mistakes)
        if mistakes:
            raise mistakes.error()
        wrong = check_signature(model.model, model.name, data.arguments)
        if wrong:
            if self.data is None and model.load_data is None:
                wrong.append("name the table with --data, or a config with --config")
            raise ModelError("; ".join(wrong))
        program = Program(model.model, data.arguments, ["*"])
        with program.scope():
            try:
                program.discover(config.init.strategy)
            except ModelError as error:
                raise data.hint(error) from error
            yield program

    def _candidates(self) -> Iterator[tuple[Mapped, list[str]]]:
        """Objectives with their reasons, the best first."""
        with self._discovered() as program:
            self.sites = list(program.sites.values())
            self.subsampled = list(program.subsampled)
            discrete, found = list(program.discrete), effects(program)
        every = [*(site.name for site in self.sites), *discrete]
        summed = dict.fromkeys(patterns_of(discrete, every), "enumerate")
        of_sum = [f"{', '.join(summed)}: discrete, summed out"] if summed else []
        inner = [effect.name for effect in found]
        if inner and len(inner) < len(self.sites) and not self.subsampled:
            integrate = {**dict.fromkeys(patterns_of(inner, every), "laplace"), **summed}
            yield {"type": "marginal", "integrate": integrate}, [*map(_of_effect, found), JOINT, *of_sum]
        yield {"type": "map", **({"integrate": summed} if summed else {})}, of_sum

    def _first_that_runs(self, candidates: Sequence[tuple[Mapped, list[str]]]) -> Suggestion:
        """Raises: HofitError where none does, that of the last."""
        failed: HofitError | None = None
        tried: list[str] = []
        for objective, reasons in candidates:
            integrated = [name for name, method in objective.get("integrate", {}).items() if method == "laplace"]
            entry, why = self._optimizer(integrated)
            config = {**self.base, "objective": objective, "optimizers": [entry]}
            if objective == {"type": "map"}:
                del config["objective"]
            try:
                request = self._request(config)
                with prepared(request, *parse(request)) as session:
                    if not self.subsampled:
                        traced_start(session)
            except HofitError as error:
                failed = error
                tried.append(f"{objective['type']} was tried, and refused: {str(error).splitlines()[0]}")
                continue
            self.reasons["objective"] = [*tried, *reasons]
            self.reasons["optimizers"] = [why]
            return Suggestion(config, self.reasons, self.sites)
        assert failed is not None
        raise failed

    def _optimizer(self, integrated: Sequence[str]) -> tuple[Mapped, str]:
        if self.subsampled:
            plates = ", ".join(self.subsampled)
            return ADAM, f"the model takes minibatches of {plates}, which only first-order methods can follow"
        alone = [site for site in self.sites if not site.plates and not any(matches(p, site.name) for p in integrated)]
        unknowns = sum(site.shape.numel() for site in alone)
        if unknowns > COLUMNS_LIMIT:
            return LBFGS, f"{unknowns} unknowns in no plate have a dense Hessian, too large to take"
        return TRUST_REGION, "second-order: some iterations, and nothing to tune"


def _arguments(model: ModelSource) -> tuple[list[str], list[str]]:
    """The names of a model's arguments without a default, and with one."""
    target = model.model.forward if isinstance(model.model, torch.nn.Module) else model.model
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own = [one for one in inspect.signature(target).parameters.values() if one.kind in named]
    needed = [one.name for one in own if one.default is one.empty]
    return needed, [one.name for one in own if one.default is not one.empty]


def _of_column(argument: str, request: ColumnRequest) -> str:
    """What is to be said of it: nothing where the names say it all."""
    column = request if isinstance(request, str) else request["column"]
    words = [] if column == argument else [f"{argument} is the column {column}"]
    if isinstance(request, dict):
        words.append(f"the levels of {column} are numbered")
        words += [f"{request['levels']} counts them"] if "levels" in request else []
    return "; ".join(words)


def _of_effect(effect: Effect) -> str:
    how = "its prior depends on" if effect.by_prior else "it is scaled by"
    return f"{effect.name}: {how} {effect.scale}, which is free"


def patterns_of(names: Sequence[str], every: Sequence[str]) -> list[str]:
    """Patterns that match these of all names: where they are many and begin alike, one for all."""
    prefix = names[0] if names else ""
    while prefix and not all(name.startswith(prefix) for name in names):
        prefix = prefix[:-1]
    if len(names) >= MANY_NAMES and prefix and all(name in names for name in every if name.startswith(prefix)):
        return [f"{prefix}*"]
    return [name if name.replace("_", "").isalnum() else f"re:^{re.escape(name)}$" for name in names]
