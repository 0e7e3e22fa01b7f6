"""YAML with line numbers, safely: no duplicate keys, no bombs, and 1e-3 is a number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError

Key = str | int
KeyPath = tuple[Key, ...]

MAX_BYTES = 1_000_000
MAX_NODES = 10_000
"""A config has hundreds of nodes, read in a third of a second are these; aliases that expand to more are a bomb."""
MAX_DEPTH = 40
MAX_KEYS = 1000
"""Of one mapping, and entries of ``optimizers``: each is held against every parameter, and has its line of mistakes."""
MAX_DIGITS = 400
"""Of a number: float64 ends at 309."""


UNREASONABLE = (
    "aliases or nesting expand without reason, or there are too many values: this is no config (data go to files)"
)


class _Loader(yaml.SafeLoader):
    """The YAML 1.2 core schema: `yes` and `on` are strings, `1e-3` and `0o17` are numbers, there are no dates.

    What is no config is refused while it is read, for reading a megabyte takes ten seconds.
    """

    nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, UNREASONABLE, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
for _tag, _expression, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"^(?:<<)$", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_expression), _first)


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader above would read as something else."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump_yaml(data: Any) -> str:
    """YAML text that ``parse_source`` reads back the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass
class Source:
    """A config as plain data, and where each of its keys stands."""

    data: dict[str, Any]
    label: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """``file:line: dotted.key`` of the key, or of the nearest one above it."""
        dotted = ".".join(str(part) for part in path)
        for length in range(len(path), -1, -1):
            if path[:length] in self.overrides:
                return f"--set {self.overrides[path[:length]]}: {dotted}"
            if path[:length] in self.lines:
                return f"{self.label}:{self.lines[path[:length]]}" + (f": {dotted}" if dotted else "")
        return f"{self.label}: {dotted}" if dotted else self.label

    def mistake(self, path: KeyPath, text: str) -> str:
        return f"{self.where(path)}: {text}"


def read_source(path: Path) -> Source:
    """Read a YAML file.

    Raises: ConfigError, with file and line.
    """
    if path.suffix == ".py":
        raise ConfigError(
            f"--config {path} is a Python file: the model is the argument, and a config in YAML follows -c "
            f"(hofit fit {path} -c CONFIG.yaml)"
        )
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise ConfigError(f"no config file {path}" + (f"; there are: {', '.join(near[:12])}" if near else ""))
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes; a config has at most {MAX_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error
    return parse_source(text, str(path))


def parse_source(text: str, label: str) -> Source:
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{label}{line}: {error.problem or error.context}{_yaml_hint(error, text)}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{label}: no readable YAML: {str(error) or 'nested too deep'}") from error
    if node is None:
        raise ConfigError(f"{label} is empty: a config needs at least `optimizers`")
    builder = _Builder(label)
    data = builder.build(node, (), 0)
    if builder.mistakes:
        raise ConfigError(builder.mistakes)
    if not isinstance(data, dict):
        raise ConfigError(f"{label}:1: a config is a mapping of keys, not a {type(data).__name__}")
    return Source(data, label, builder.lines)


def _yaml_hint(error: yaml.MarkedYAMLError, text: str) -> str:
    """The edit that mends what people write of YAML, where it is known."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line:
        return ": YAML takes no tabs; indent with spaces"
    if re.search(r"[:\[,-]\s*\*", line):
        return ': a star begins an alias in YAML; put the pattern into quotes: "*"'
    return ""


def from_mapping(data: dict[str, Any], label: str = "config") -> Source:
    """A config that was given as a Python mapping."""
    return Source(_plain(data), label)


def set_override(source: Source, assignment: str) -> None:
    """Apply one ``KEY=VALUE`` of the command line; the key is dotted, the value is YAML.

    Raises: ConfigError when it is no assignment, or the key leads through something that has no keys.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {assignment}: write KEY=VALUE, for instance -s stop.max_iterations=50")
    try:
        node = yaml.compose(text, _Loader)
        builder = _Builder("--set")
        value = None if node is None else builder.build(node, (), 0)
        if builder.mistakes:
            raise ConfigError(f"--set {assignment}: {builder.mistakes[0]}")
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--set {assignment}: the value is no YAML") from error
    except ConfigError as error:
        raise ConfigError(f"--set {assignment}: {str(error).partition(': ')[2]}") from error
    path = _override_path(key.strip())
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"--set {assignment:.60}: no key of a config lies so deep")
    _assign(source.data, path, value, assignment)
    source.overrides[path] = assignment


FREE_MAPS: tuple[KeyPath, ...] = (("fixed",), ("init", "values"), ("data", "arguments"), ("objective", "integrate"))
"""Mappings whose keys are the user's own names, which may hold dots: what follows them is one key."""


def _override_path(key: str) -> KeyPath:
    parts = key.split(".")
    for free in FREE_MAPS:
        if tuple(parts[: len(free)]) == free and len(parts) > len(free):
            return (*free, ".".join(parts[len(free) :]))
    if parts[0] == "optimizers" and len(parts) > 3 and parts[1].isdecimal() and parts[2] == "trust_radius":
        return ("optimizers", int(parts[1]), "trust_radius", ".".join(parts[3:]))
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def _shorthand(path: KeyPath) -> str | None:
    """The key that a bare word stands for at this place."""
    if path == ("objective",):
        return "type"
    return "column" if path[:2] == ("data", "columns") and len(path) == 3 else None


def _assign(data: Any, path: KeyPath, value: Any, assignment: str) -> None:
    target = data
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        here = ".".join(str(p) for p in path[: depth + 1])
        if isinstance(target, list):
            if not isinstance(part, int) or part >= len(target):
                raise ConfigError(f"--set {assignment}: {here} is not there ({len(target)} entries, from 0)")
        elif not isinstance(target, dict):
            raise ConfigError(f"--set {assignment}: {here} lies inside a {type(target).__name__}, which has no keys")
        else:
            part = str(part)
        if last:
            target[part] = value
        elif isinstance(target, dict):
            if target.get(str(part)) is None:
                target[str(part)] = {}
            elif isinstance(target[str(part)], str) and (shorthand := _shorthand(path[: depth + 1])):
                target[str(part)] = {shorthand: target[str(part)]}
            target = target[str(part)]
        else:
            target = target[part]


class _Builder:
    """Nodes → plain data, noting lines, and refusing what no config needs."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.lines: dict[KeyPath, int] = {}
        self.mistakes: list[str] = []
        self._constructor = yaml.constructor.SafeConstructor()
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > MAX_NODES or depth > MAX_DEPTH or id(node) in self._open:
            raise ConfigError(f"{self.label}:{line}: {UNREASONABLE}")
        self.lines.setdefault(path, line)
        if not isinstance(node, yaml.CollectionNode):
            return self._scalar(node, line)
        if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            raise ConfigError(f"{self.label}:{line}: the tag {node.tag} is not supported in a config")
        keyed = isinstance(node, yaml.MappingNode) or path == ("optimizers",)
        if keyed and len(node.value) > MAX_KEYS:
            raise ConfigError(
                f"{self.label}:{line}: {len(node.value)} entries in one place: a config has at most {MAX_KEYS}; "
                "a pattern speaks for many names"
            )
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
            return self._mapping(node, path, depth)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                self.mistakes.append(f"{self.label}:{line}: merge keys (<<) are not supported; write the keys out")
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistakes.append(f"{self.label}:{line}: a key must be a word")
                continue
            key = str(key_node.value)
            here: KeyPath = (*path, key)
            if key in result:
                dotted = ".".join(str(part) for part in here)
                first = self.lines[here]
                self.mistakes.append(
                    f"{self.label}:{line}: {dotted}: the key stands here twice (first on line {first}): put "
                    "both into one"
                )
                continue
            self.lines[here] = line
            result[key] = self.build(value_node, here, depth + 1)
        return result

    def _scalar(self, node: yaml.Node, line: int) -> Any:
        kind = node.tag.rpartition(":")[2]
        text = node.value
        try:
            if node.tag.startswith("tag:yaml.org,2002:"):
                if kind in ("int", "float") and len(text) > MAX_DIGITS:
                    raise ValueError
                if kind == "int":
                    return int(text.replace("_", ""), 0) if text[:2] in ("0o", "0x") else int(text.replace("_", ""))
                if kind == "float":
                    return _float(text)
                if kind in ("null", "bool", "str"):
                    return self._constructor.construct_object(node)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{self.label}:{line}: {text[:MAX_DIGITS]!r} is no {kind}") from error
        raise ConfigError(f"{self.label}:{line}: the tag {node.tag} is not supported in a config")


def _float(text: str) -> float:
    plain = text.replace("_", "").lower()
    if plain.endswith(".inf"):
        return -math.inf if plain.startswith("-") else math.inf
    return math.nan if plain == ".nan" else float(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value  # numbers of numpy and torch
