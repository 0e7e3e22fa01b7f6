"""The project's own tools: what is checked before a commit is what `make test` checks first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
HOOKS = ROOT / ".pre-commit-config.yaml"


def test_pre_commit_finds_its_config_valid() -> None:
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config", str(HOOKS)], check=True)


def test_a_commit_is_checked_by_what_make_test_checks_first() -> None:
    (repository,) = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))["repos"]
    (hook,) = repository["hooks"]
    first = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if line.startswith("test:")]
    assert (hook["entry"], first) == ("make check", ["test: check"])
