"""The project's own tools: what is checked before a commit is what `make test` checks first."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HOOKS = ROOT / ".pre-commit-config.yaml"


def test_pre_commit_finds_its_config_valid() -> None:
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", str(HOOKS)], check=True)


def test_a_commit_is_checked_by_what_make_test_checks_first() -> None:
    (repository,) = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))["repos"]
    (hook,) = repository["hooks"]
    first = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if line.startswith("test:")]
    assert (hook["entry"], first) == ("make check", ["test: check"])


IMPORTED_AS = {"pyro-ppl": "pyro", "pyyaml": "yaml"}
"""Distribution → module, where they differ."""

EXTRAS = ("dependencies", "formula", "parquet", "plot", "arviz", "tensorboard")
"""The lists of what hofit imports."""


def listed(key: str) -> list[Requirement]:
    """The requirements of a list in pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^{key} = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    return [Requirement(line) for line in ast.literal_eval(found)]


def test_what_is_imported_is_declared() -> None:
    declared = {IMPORTED_AS.get(one.name, one.name) for key in EXTRAS for one in listed(key)}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "hofit").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    known = {*sys.stdlib_module_names, "_typeshed"}
    assert {name.partition(".")[0] for name in names} - known <= declared


@pytest.mark.parametrize("name", ["torch", "pyro-ppl"])
def test_where_private_names_are_used_there_is_an_upper_bound_and_the_readme_has_the_version_tested(name: str) -> None:
    (bounds,) = (one.specifier for one in listed("dependencies") if one.name == name)
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (tested,) = re.findall(rf"^{name}==(\S+)$", text, re.MULTILINE)
    major, minor, *_ = map(int, tested.split("."))
    assert tested in bounds and f"{major}.{minor + 1}" not in bounds
    assert f"{name.removesuffix('-ppl')} {tested}" in (ROOT / "README.md").read_text(encoding="utf-8").lower()
