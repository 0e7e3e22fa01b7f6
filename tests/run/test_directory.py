"""A run directory: one run at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest

import hofit
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


def test_what_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as directory:
        directory.write_json("fit.json", {"loss": float("nan"), "rest": [1.5, {"b": float("-inf")}], "ok": None})
    text = (tmp_path / "run" / "fit.json").read_text()
    assert json.loads(text) == {"loss": None, "rest": [1.5, {"b": None}], "ok": None} and text.endswith("}\n")


def test_a_new_run_takes_the_first_free_name(tmp_path: Path) -> None:
    for name in ("a", "a-2", "a-3"):
        with RunDirectory.next_free(tmp_path, "a") as directory:
            assert directory.path == tmp_path / name
            directory.write("fit.json", "{}\n")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EPERM, errno.EIO])
def test_a_file_system_that_locks_nothing_is_refused_and_no_second_directory_tried(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(RunDirectoryError, match=r"cannot be locked.*local disk|cannot be written"):
        RunDirectory.next_free(tmp_path, "run")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_full_disk_at_the_first_write_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    config = {"optimizers": [{"params": "*", "optimizer": "newton"}]}
    with pytest.raises(RunDirectoryError, match=r"run cannot be written: .*space"):
        hofit.fit(lambda: pyro.sample("x", dist.Normal(0.0, 1.0)), config, run_dir=tmp_path / "run")
