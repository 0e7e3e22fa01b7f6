"""A source → a validated config; every mistake at once, with file, line, key and the near misses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..patterns import near_miss, near_misses
from .schema import Column, Config, OptimizerEntry
from .source import KeyPath, Source, from_mapping, read_source, set_override

SHOWN = 60
"""Characters of what the user wrote that a message repeats."""


def load_source(config: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Source:
    """A config from a path or a mapping, with ``--set`` applied and paths made absolute.

    Paths in a file are relative to the file; in a mapping, to the working directory.
    """
    if isinstance(config, Mapping):
        source, folder = from_mapping(dict(config)), Path.cwd()
    else:
        source, folder = read_source(Path(config)), Path(config).resolve().parent
    mistakes = _absolute_paths(source, folder)
    for assignment in overrides:
        try:
            set_override(source, assignment)
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    mistakes = _absolute_paths(source, Path.cwd())
    if mistakes:
        raise ConfigError(mistakes)
    return source


def validate(source: Source) -> tuple[Config | None, list[str]]:
    """The config and its mistakes. With mistakes, the config is what can be saved of it, so that checking can go on:
    sections that are wrong fall back to their defaults, entries that are wrong are left out; None if nothing can."""
    try:
        return _placed(Config.model_validate(source.data), set()), []
    except ValidationError as error:
        problems = error.errors()
    mistakes: dict[str, None] = {}
    wrong: set[KeyPath] = set()
    for problem in problems:
        path = _path_in_source(problem["loc"], source.data)
        wrong.add(path[:2] if path[:1] == ("optimizers",) else path[:1])
        mistakes[source.mistake(path, _sentence(problem, path))] = None
    return _salvage(source.data, wrong), list(mistakes)


def _absolute_paths(source: Source, folder: Path) -> list[str]:
    """Make the paths of the config absolute, in place; what is no path is a mistake."""
    mistakes = []
    data = source.data
    model, table = data.get("model"), data.get("data")
    try:
        if isinstance(model, str):
            location, colon, name = model.rpartition(":")
            if not (colon and location and "/" not in name):
                location, colon, name = model, "", ""
            if location.endswith(".py") or "/" in location:
                data["model"] = _absolute(location, folder) + colon + name
    except (RuntimeError, ValueError, OSError) as error:
        mistakes.append(source.mistake(("model",), f"{model!r:.{SHOWN}} is no path: {_reason(error)}"))
    try:
        if isinstance(table, dict) and isinstance(table.get("path"), str):
            table["path"] = _absolute(table["path"], folder)
    except (RuntimeError, ValueError, OSError) as error:
        mistakes.append(source.mistake(("data", "path"), f"no path: {_reason(error)}"))
    return mistakes


def _absolute(path: str, folder: Path) -> str:
    found = (folder / Path(path).expanduser()).resolve()
    found.exists()  # raises where the system cannot take such a name, whatever it is for
    return str(found)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _salvage(data: dict[str, Any], wrong: set[KeyPath]) -> Config | None:
    kept = {key: copy.deepcopy(value) for key, value in data.items() if (key,) not in wrong and key != "optimizers"}
    entries = data.get("optimizers")
    if isinstance(entries, list):
        kept["optimizers"] = [e for i, e in enumerate(entries) if ("optimizers", i) not in wrong]
    try:
        return _placed(
            Config.model_validate(kept), {path[1] for path in wrong if path[:1] == ("optimizers",) and path[1:]}
        )
    except ValidationError:
        return None


def _placed(config: Config, left_out: set[Any]) -> Config:
    """Tell every entry where it stands in the user's own list."""
    positions = (i for i in range(len(config.optimizers) + len(left_out)) if i not in left_out)
    for entry, position in zip(config.optimizers, positions, strict=False):
        entry.stands_at(position)
    return config


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
        elsewhere = [] if near_miss(key, _keys_at(path[:-1])) else _sections_with(key)
        if elsewhere:
            return f"unknown key here: it belongs under {elsewhere[0]} ({elsewhere[0]}: {{{key}: …}})"
        return f"unknown key{near_misses(key, _keys_at(path[:-1]))}"
    if kind == "missing":
        if path == ("optimizers",):
            return 'is missing: name at least one optimizer, for instance `- {params: "*", optimizer: newton}`'
        return "is missing"
    if kind == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        return f"must be one of {problem['ctx']['expected']}, not {problem['input']!r:.{SHOWN}}"
    if kind == "list_type" and path == ("optimizers",):
        return 'must be a list: begin every entry with a dash, as in `- {params: "*", optimizer: newton}`'
    if kind == "list_type" and path == ("metrics",):
        return f"must be a list: write metrics: [{problem['input']!s:.{SHOWN}}]"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        keys = ", ".join(_keys_at(path)[:4]) if len(path) == 1 else ""
        example = 'integrate: {"pattern": laplace}' if path == ("objective", "integrate") else ""
        edit = f": write {example}" if example else f" of keys ({keys}, …)" if keys else " of keys"
        return f"must be a mapping{edit}, not {problem['input']!r:.{SHOWN}}"
    message = str(problem["msg"])
    message = message[0].lower() + message[1:]
    return f"{message}, not {problem['input']!r:.{SHOWN}}"


def _sections_with(key: str) -> list[str]:
    """The sections of the config that take a key."""
    return [name for name in Config.model_fields if key in _keys_at((name,))]


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that a section of the config takes."""
    if path[:2] == ("data", "columns"):
        return list(Column.model_fields)
    given = Config.model_fields[str(path[0])].annotation if path else Config
    sections = [one for one in (given, *get_args(given)) if isinstance(one, type) and issubclass(one, BaseModel)]
    return list(sections[0].model_fields) if sections else []


def dump(config: Config) -> dict[str, Any]:
    """The whole config as plain data, defaults filled in."""
    data = config.model_dump()
    data["optimizers"] = [_entry(entry) for entry in config.optimizers]
    if config.shard is None:
        del data["shard"]
    return data


def _entry(entry: OptimizerEntry) -> dict[str, Any]:
    plain: dict[str, Any] = {"params": entry.params, "optimizer": entry.optimizer, **entry.options}
    if entry.schedule is not None:
        plain["schedule"] = entry.schedule
    return plain
