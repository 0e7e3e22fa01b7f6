"""The README is true: its commands run, its config is valid, its Python works."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from hofit.cli.app import main

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    commands
    for language, text in BLOCKS
    if not language
    and (
        commands := [
            line.partition("#")[0].strip()
            for line in text.splitlines()
            if line.startswith("hofit ") and "model.py --config cfg.yaml" not in line and "runs/cfg" not in line
        ]
    )
]
"""Those of a block, which are run one after the other."""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place that looks like a checkout, where runs may be written."""
    for folder in ("models", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    named = re.compile(r"# (\S+\.(?:py|yaml))\n")
    for _, text in BLOCKS:
        if found := named.match(text):
            (tmp_path / found[1]).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("commands", COMMANDS, ids=" ; ".join)
def test_the_commands_run_and_end_well(commands: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), command


def test_there_are_commands_to_test() -> None:
    assert sum(map(len, COMMANDS)) >= 5


def test_the_config_is_valid(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = [text for language, text in BLOCKS if language == "yaml" and "missing: error" in text]
    config = whole.replace("../models", str(ROOT / "models"))
    (checkout / "whole.yaml").write_text(config)
    monkeypatch.setattr(sys, "argv", ["hofit", "check", "--config", "whole.yaml"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)


def test_the_python_works(checkout: Path) -> None:
    (example,) = [text for language, text in BLOCKS if language == "python" and "import hofit" in text]
    scope: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), scope)
    assert scope["result"].converged  # type: ignore[attr-defined]
