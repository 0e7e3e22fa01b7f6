"""A suggestion as the text of a config: the reasons as comments, the model's sites, and the commands that come next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ..model.module import split_reference
from ..point import Site
from .suggest import Suggestion

WIDTH = 110

SCHEMA = "hofit.schema.json"
"""Where `hofit schema --out` puts the JSON Schema of configs, beside them or above."""

STOP = """\
# Ends where the gradient is below stop.gradient (1e-6) and the curvature proves a minimum, or by these:
stop: {max_iterations: 1000, max_seconds: null}"""


def text_of(suggestion: Suggestion, path: Path) -> str:
    """The content of a config at this path, with paths relative to where it will stand."""
    config = dict(suggestion.config)
    folder = path.resolve().parent
    lines = _for_editors(folder)
    config["model"] = _model_from(config["model"], folder)
    lines += [f"# A config for {config['model']}, by hofit init: a first one, to be edited."]
    lines += ["#", "# What the model has to fit:", *_table(suggestion.sites), ""]
    if "data" in config:
        config["data"] = {**config["data"], "path": _relative(config["data"]["path"], folder)}
    for section, value in config.items():
        lines += [f"# {sentence}" for sentence in suggestion.reasons.get(section, [])]
        lines += [_yaml(section, value), ""]
    lines += [STOP, "", "# Next:", f"#   hofit check -c {path}", f"#   hofit fit -c {path}"]
    return "\n".join(lines) + "\n"


def summary_of(suggestion: Suggestion) -> list[str]:
    """What was chosen, and why, a line each: for those who run it at once."""
    config, reasons = suggestion.config, suggestion.reasons
    columns = config.get("data", {}).get("columns", {})
    lines = [f"  data: {sentence}" for sentence in reasons.get("data", [])] if columns else []
    objective = config.get("objective", {"type": "map"})
    methods = [f"{name} by {method}" for name, method in objective.get("integrate", {}).items()]
    lines.append(f"  objective: {', '.join([objective['type'], *methods])}")
    lines += [f"    {sentence}" for sentence in reasons.get("objective", [])]
    (entry,) = config["optimizers"]
    lines.append(f"  optimizer: {entry['optimizer']}")
    return lines + [f"    {sentence}" for sentence in reasons.get("optimizers", [])]


def _for_editors(folder: Path) -> list[str]:
    """The line that tells an editor of the schema, where there is one: a place on one machine is none for a config."""
    for place in (folder, *folder.parents):
        if (place / SCHEMA).is_file():
            return [f"# yaml-language-server: $schema={Path(os.path.relpath(place / SCHEMA, folder)).as_posix()}"]
    return []


def _table(sites: list[Site]) -> list[str]:
    rows = [
        (
            site.name,
            site.role,
            "×".join(map(str, site.value_shape)) or "a number",
            site.constraint,
            ", ".join(f"{plate.name} ({plate.size})" for plate in site.plates),
        )
        for site in sites
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    cells = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [f"#   {line}".rstrip() for line in cells]


def _yaml(section: str, value: Any) -> str:
    style = None if isinstance(value, (dict, list)) else False
    text = yaml.safe_dump({section: value}, sort_keys=False, default_flow_style=style, width=WIDTH, allow_unicode=True)
    return text.rstrip("\n")


def _relative(path: str, folder: Path) -> str:
    """A path, given from the working directory, from a folder."""
    return os.path.relpath(Path(path).expanduser(), folder)


def _model_from(reference: str, folder: Path) -> str:
    """A model's reference from a folder: its file's, be it with a name in it; a module's name as it is."""
    location, _ = split_reference(reference)
    is_file = location.endswith(".py") or "/" in location
    return _relative(location, folder) + reference.removeprefix(location) if is_file else reference
