"""A run directory: one run at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from hofit.errors import RunDirectoryError
from hofit.run.directory import RunDirectory


def test_a_directory_is_locked_while_it_is_open_and_not_after(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="in use"):
        RunDirectory.open(tmp_path / "run")
    directory.close()
    RunDirectory.open(tmp_path / "run").close()


def test_a_refused_directory_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirectoryError, match="not empty"):
        RunDirectory.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
