"""As `test_kills.py` and `test_durable.py`, seen from outside by strace: the system calls themselves, not Python's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trust import toy
from tests.trust.server import ROOT, Server
from tests.trust.survivors import trouble
from tests.trust.test_durable import not_durable

CALLS = ("write", "fsync", "rename", "unlink", "openat")
TOLD = ("ENOSPC", "EIO", "EROFS")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture
def traced(full: bool) -> Any:
    """Run a fit under strace: options of strace, folder → how it ended."""
    if not full:
        pytest.skip("a process a case: with --trust-full")

    def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
        toy.lay_out(folder)
        here = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["strace", "-f", "-qq", "-y", *options, sys.executable, "-m", "hofit", *toy.FIT]
        return subprocess.run(command, cwd=folder, env={**os.environ, **here}, capture_output=True, text=True)

    return run


@pytest.fixture
def calls(traced: Any, tmp_path: Path) -> list[tuple[str, str]]:
    """The calls of an uninterrupted fit that are about its run directory, in order."""
    folder, log = tmp_path / "logged", tmp_path / "log"
    ended = traced(folder, "-e", "trace=mkdir,openat,write,fsync,rename,unlink", "-o", str(log))
    assert ended.returncode == 3, ended.stderr
    return [found for line in log.read_text().splitlines() if (found := about(line, folder)) is not None]


def about(line: str, folder: Path) -> tuple[str, str] | None:
    """Call and path of a line of strace's, where it changes the folder; None for any other."""
    call = re.match(r"\d*\s*(\w+)\((.*)", line)
    if call is None or " = -1 " in line:
        return None
    name, rest = call.groups()
    found = re.search(r"^\d+<([^>]*)>", rest) if name in ("write", "fsync") else re.search(r'"([^"]*)"', rest)
    if found is None or (name == "openat" and "O_CREAT" not in rest):
        return None
    path = os.path.join(folder, found.group(1))
    if path != str(folder) and not path.startswith(f"{folder}{os.sep}run"):
        return None
    return ("open" if name == "openat" else name), path


def test_the_order_of_system_calls_survives_a_loss_of_power(calls: list[tuple[str, str]]) -> None:
    assert len(calls) > 40
    assert not_durable([one for one in calls if not one[1].endswith(".lock")]) == []


def test_killed_at_system_calls(server: Server, traced: Any, calls: list[tuple[str, str]], tmp_path: Path) -> None:
    whole = toy.outcome(tmp_path / "logged" / "run")
    found = {}
    for call in ("fsync", "rename", "write"):
        number = sum(name == call for name, _ in calls)
        for when in range(1, number + 1):
            folder = tmp_path / f"{call}-{when}"
            toy.lay_out(folder)
            paths = [option for path in run_paths(folder) for option in ("-P", path)]
            ended = traced(folder, "-o", "/dev/null", *paths, "-e", f"inject={call}:signal=KILL:when={when}")
            assert ended.returncode in (-9, 137, 3), ended.stderr
            wrong = trouble(server, folder, whole) if (folder / "run").exists() else None
            if wrong:
                found[call, when] = wrong
    assert found == {}


def run_paths(folder: Path) -> list[str]:
    """What strace is to look at: all that a run writes."""
    names = ("config.yaml", "progress.csv", "checkpoint.safetensors", "estimates.csv", "fit.json")
    files = [f"run/{name}{end}" for name in names for end in ("", ".tmp")]
    return [str(folder / "run"), *(str(folder / file) for file in files), *files, "run"]


@pytest.mark.parametrize("fault", TOLD)
def test_a_fault_of_a_system_call_is_told(server: Server, traced: Any, fault: str, tmp_path: Path) -> None:
    whole = toy.lay_out(tmp_path / "whole")
    assert server.run(whole, *toy.FIT).code == 3
    for call, when in [("fsync", 2), ("fsync", 4), ("fsync", 6), ("rename", 3), ("write", 5), ("write", 9)]:
        for once in (f"when={when}", f"when={when}+"):
            folder = toy.lay_out(tmp_path / f"{call}-{once}")
            paths = [option for path in run_paths(folder) for option in ("-P", path)]
            ended = traced(folder, "-o", "/dev/null", *paths, "-e", f"inject={call}:error={fault}:{once}")
            assert "Traceback" not in ended.stderr and ended.returncode in (2, 3), ended.stderr
            assert "cannot be written" in ended.stderr, (call, once, ended.stderr, ended.stdout)
            assert trouble(server, folder, toy.outcome(whole / "run")) is None
