"""docs/compare.md is true: its commands run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.command_line import Hofit

ROOT = Path(__file__).parents[2]


def test_its_commands_run(tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        # Fewer starts, and no processes of their own, each of which takes seconds to begin.
        words = shlex.split(re.sub(r"(starts[= ])4|--jobs 2", lambda found: f"{found[1]}2" if found[1] else "", line))
        done = hofit(*words[1:])
        assert done.code == 0, f"{line}\n{done.text}"
    assert "2ΔlogL 0.0639107, df 1, p = 0.8004 (χ²(1))" in done.out
