"""A source → a validated config; every mistake at once, with file, line, key and the near misses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..patterns import near_misses
from .schema import (
    CheckpointPolicy,
    Column,
    Config,
    Data,
    Init,
    Objective,
    OptimizerEntry,
    Progress,
    Stop,
)
from .source import KeyPath, Source, from_mapping, read_source, set_override

_MODELS: dict[KeyPath, type[BaseModel]] = {
    (): Config,
    ("data",): Data,
    ("objective",): Objective,
    ("init",): Init,
    ("stop",): Stop,
    ("progress",): Progress,
    ("checkpoint",): CheckpointPolicy,
}


def load_source(config: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Source:
    """A config from a path or a mapping, with ``--set`` applied and paths made absolute.

    Paths in a file are relative to the file; in a mapping, to the working directory.
    """
    if isinstance(config, Mapping):
        source, folder = from_mapping(dict(config)), Path.cwd()
    else:
        source, folder = read_source(Path(config)), Path(config).resolve().parent
    _absolute_paths(source.data, folder)
    mistakes = []
    for assignment in overrides:
        try:
            set_override(source, assignment)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    _absolute_paths(source.data, Path.cwd())
    return source


def validate(source: Source) -> tuple[Config | None, list[str]]:
    """The config and its mistakes. With mistakes, the config is what can be saved of it, so that checking can go on:
    sections that are wrong fall back to their defaults, entries that are wrong are left out; None if nothing can."""
    try:
        return Config.model_validate(source.data), []
    except ValidationError as error:
        problems = error.errors()
    mistakes: list[str] = []
    wrong: set[KeyPath] = set()
    for problem in problems:
        path = _path_in_source(problem["loc"], source.data)
        wrong.add(path[:2] if path[:1] == ("optimizers",) else path[:1])
        text = source.mistake(path, _sentence(problem, path))
        if text not in mistakes:
            mistakes.append(text)
    return _salvage(source.data, wrong), mistakes


def _absolute_paths(data: dict[str, Any], folder: Path) -> None:
    model = data.get("model")
    if isinstance(model, str):
        location, colon, name = model.rpartition(":")
        if not (colon and location and "/" not in name):
            location, colon, name = model, "", ""
        if location.endswith(".py") or "/" in location:
            data["model"] = str((folder / Path(location).expanduser()).resolve()) + colon + name
    table = data.get("data")
    if isinstance(table, dict) and isinstance(table.get("path"), str):
        table["path"] = str((folder / Path(table["path"]).expanduser()).resolve())


def _salvage(data: dict[str, Any], wrong: set[KeyPath]) -> Config | None:
    kept = {key: copy.deepcopy(value) for key, value in data.items() if (key,) not in wrong and key != "optimizers"}
    entries = data.get("optimizers")
    if isinstance(entries, list):
        kept["optimizers"] = [e for i, e in enumerate(entries) if ("optimizers", i) not in wrong]
    try:
        return Config.model_validate(kept)
    except ValidationError:
        return None


def _path_in_source(loc: tuple[int | str, ...], data: Any) -> KeyPath:
    """pydantic's location without the names of union members, which are no keys of the user's."""
    path: list[str | int] = []
    here = data
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        if isinstance(here, Mapping):
            known = part in here
            if known or (last and not str(part).startswith(("function-", "list[", "constrained-")) and part != "str"):
                path.append(part)
                here = here[part] if known else None
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path.append(part)
            here = here[part]
    return tuple(path)


def _sentence(problem: Any, path: KeyPath) -> str:
    kind = problem["type"]
    key = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        parent = _MODELS.get(path[:-1]) or (Column if path[:2] == ("data", "columns") else None)
        return f"unknown key{near_misses(key, list(parent.model_fields) if parent else [])}"
    if kind == "missing":
        if path == ("optimizers",):
            return 'is missing: name at least one optimizer, for instance `- {params: "*", optimizer: newton}`'
        return "is missing"
    if kind == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        return f"must be one of {problem['ctx']['expected']}, not {problem['input']!r}"
    message = str(problem["msg"])
    message = message[0].lower() + message[1:]
    return f"{message}, not {problem['input']!r:.60}"


def dump(config: Config) -> dict[str, Any]:
    """The whole config as plain data, defaults filled in."""
    data = config.model_dump()
    data["optimizers"] = [_entry(entry) for entry in config.optimizers]
    return data


def _entry(entry: OptimizerEntry) -> dict[str, Any]:
    plain: dict[str, Any] = {"params": entry.params, "optimizer": entry.optimizer, **entry.options}
    if entry.schedule is not None:
        plain["schedule"] = entry.schedule
    return plain
