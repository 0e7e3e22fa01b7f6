"""The house rules that no linter knows: one idea a file, doors between rooms, packages that say what they are for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "hofit").rglob("*.py"))
ROOMS = sorted({path.parent for path in FILES} - {ROOT / "hofit"})

LONGEST = 500
"""Lines of a file; one that has more says in its docstring why, in a sentence that begins with «One file, because»."""

REASON = "One file, because"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_long_file_says_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    head = ast.get_docstring(ast.parse(text)) or ""
    assert len(text.splitlines()) <= LONGEST or REASON in head


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_room_says_what_it_is_for_and_what_may_enter(room: Path) -> None:
    head = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert "May import" in head, "an __init__.py opens with the room's purpose, what may enter, and what it May import"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_private_name_of_another_file_is_used(path: Path) -> None:
    assert list(foreign_private_names(ast.parse(path.read_text(encoding="utf-8")))) == []


def foreign_private_names(tree: ast.Module) -> Iterator[str]:
    """Private names that are imported from hofit, and private attributes of anything but the file's own classes.

    What a file defines itself, a method, an attribute it sets or declares, is its own, whatever object it is asked of.
    """
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        own.add(part.id)
                    elif (
                        isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self"
                    ):
                        own.add(part.attr)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield from (alias.name for alias in node.names if private(alias.name))
        elif isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            yield f"{node.attr} (line {node.lineno})"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")
