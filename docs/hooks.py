"""What MkDocs asks for while it builds: the pages that are made of something else, so that there is one of each.

The front page is README.md; CONTRIBUTING.md and CHANGELOG.md are pages; the reference of configs is the JSON Schema
that ``hofit schema`` prints, and that of optimizers what ``hofit optimizers`` lists. A block in ``file`` shows the file
that it names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]

SHOWN = re.compile(r"^```file\n(\S+)\n```$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "reference/config.md": config_page(),
        "reference/optimizers.md": optimizers_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Show the files that a page names."""
    return SHOWN.sub(lambda found: f"```python\n{(ROOT / found[1]).read_text(encoding='utf-8')}```", markdown)


def config_page() -> str:
    """Every key of a config: what it takes, its default, what it is."""
    from hofit.config.json_schema import config_schema

    whole = config_schema()
    lines = [
        "# Every key of a config",
        "",
        "Made from the JSON Schema that `hofit schema` prints. What an optimizer takes is [elsewhere](optimizers.md); "
        "an example with all of it is [here](../config.md).",
        "",
        "## The config",
        "",
        *_keys(whole, whole),
    ]
    for name, definition in whole["$defs"].items():
        lines += ["", f"## {name}", "", definition.get("description", ""), "", *_keys(definition, whole)]
    return "\n".join(lines) + "\n"


def _keys(definition: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[str]:
    """A table, a row a key."""
    yield "| key | takes | default | what it is |"
    yield "|---|---|---|---|"
    required = definition.get("required", ())
    for key, value in definition["properties"].items():
        default = "required" if key in required else f"`{json.dumps(value['default'])}`" if "default" in value else ""
        yield f"| `{key}` | {_takes(value)} | {default} | {_cell(value['description'])} |"


def _takes(value: Mapping[str, Any]) -> str:
    """The values of a key in words."""
    for several in ("anyOf", "allOf"):
        if several in value:
            return " or ".join(dict.fromkeys(_takes(one) for one in value[several]))
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(one).strip(chr(34))}`" for one in value["enum"])
    kind = value.get("type", "anything")
    if kind == "array":
        return f"list of {_takes(value['items'])}" if value.get("items") else "list"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"mapping to {_takes(inner)}" if isinstance(inner, dict) else "mapping"
    words = {"integer": "whole number", "boolean": "true, false", "string": "text"}
    bounds = [f"{sign} {value[key]}" for key, sign in _BOUNDS.items() if key in value]
    return " ".join([words.get(kind, kind), *bounds])


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def optimizers_page() -> str:
    """Every optimizer with its options and defaults."""
    from hofit.optim.registry import registry
    from hofit.optim.schedules import SCHEDULES

    lines = [
        "# Every optimizer",
        "",
        "What `hofit optimizers` lists. Those of torch and Pyro have options and defaults of the version installed.",
        "",
        f"Schedules, for those with an `lr`: {', '.join(f'`{name}`' for name in SCHEDULES)}.",
    ]
    for spec in registry().values():
        lines += ["", f"## {spec.name}", "", f"{spec.summary[:1].upper()}{spec.summary[1:]}.", ""]
        if spec.options:
            lines += ["| option | default | |", "|---|---|---|"]
            lines += [f"| `{one.name}` | `{one.default!r}` | {_cell(one.help)} |" for one in spec.options]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
