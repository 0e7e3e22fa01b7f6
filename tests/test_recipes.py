"""The recipes of CONTRIBUTING.md, each followed to the letter in a copy of the package, and what it makes tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOUCHES = re.compile(r"^Touches: (.+)\.$", re.MULTILINE)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEW_FILE = re.compile(r"# (hofit/\S+)\n")
CHANGED_FILE = re.compile(r"--- (hofit/\S+)\n")


@dataclass
class Recipe:
    """A section of CONTRIBUTING.md: the files it names, makes and changes, and how it is tried."""

    title: str
    touches: set[str]
    new: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)
    trial: str = ""


def recipes() -> list[Recipe]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = []
    for section in text.split("\n### ")[1:]:
        named = TOUCHES.search(section)
        assert named is not None, f"{section[:40]!r} names no files"
        recipe = Recipe(section.partition("\n")[0], set(re.findall(r"`(hofit/\S+)`", named[1])))
        for language, body in FENCE.findall(section):
            if language == "diff":
                changed = CHANGED_FILE.match(body)
                assert changed is not None
                recipe.changes.append((changed[1], body[changed.end() :]))
            elif new := NEW_FILE.match(body):
                recipe.new[new[1]] = body[new.end() :].lstrip("\n")
            else:
                recipe.trial = body
        found.append(recipe)
    return found


RECIPES = recipes()


def changed(text: str, change: str) -> str:
    """``text`` after a change whose lines begin with a blank, - or +; the lines that stay must be there once."""
    lines = change.splitlines()
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines if not line.startswith("-"))
    assert text.count(before) == 1, f"stands {text.count(before)} times:\n{before}"
    return text.replace(before, after)


def test_there_is_a_recipe_for_each_kind_of_thing() -> None:
    kinds = ("optimizer", "structure", "objective", "command", "output")
    assert [kind for recipe, kind in zip(RECIPES, kinds, strict=True) if kind in recipe.title.lower()] == list(kinds)


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.title for recipe in RECIPES])
def test_a_recipe_makes_what_it_says_and_touches_no_other_file(recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "hofit", tmp_path / "hofit", ignore=shutil.ignore_patterns("__pycache__"))
    assert recipe.touches == {*recipe.new, *(path for path, _ in recipe.changes)}
    for path, text in recipe.new.items():
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(text, encoding="utf-8")
    for path, change in recipe.changes:
        file = tmp_path / path
        file.write_text(changed(file.read_text(encoding="utf-8"), change), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    tried = subprocess.run(
        [sys.executable, "-c", recipe.trial], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert tried.returncode == 0, tried.stderr + tried.stdout
