"""One run, one process: of many starts on one directory one wins, the others leave at once and say who has it."""

from __future__ import annotations

import os
import platform
import random
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.trust import mutants, toy
from tests.trust.server import Server, Setup, Started
from tests.trust.survivors import shown, trouble

TAKEN = 2
LIMIT = 2.0
"""Seconds in which a loser leaves."""


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = toy.lay_out(tmp_path_factory.mktemp("whole"))
    assert server.run(folder, *toy.FIT).code == 3
    return toy.outcome(folder / "run")


def race(
    server: Server, folder: Path, starts: int, resumed: bool, setups: Sequence[Setup] = (), patience: float = 20.0
) -> str | None:
    """What is wrong with a race; who has the directory waits for all but one to have left, or so many seconds."""
    toy.lay_out(folder)
    if resumed:
        assert server.run(folder, *toy.FIT, "-s", "stop.max_iterations=5").code == 3
    argv = (*toy.RESUME, "-s", "stop.max_iterations=12") if resumed else toy.FIT
    go = folder / "go"
    begun = [server.start(folder, *argv, setups=[["tests.trust.slow:until", str(go)], *setups]) for _ in range(starts)]
    deadline = time.monotonic() + patience
    while sum(map(runs, begun)) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    won = [one.pid for one in begun if runs(one)]
    go.touch()
    ends = {one.pid: one.wait() for one in begun}
    if len(won) != 1:
        return f"{len(won)} have it at one time"
    for ended in (one for pid, one in ends.items() if pid not in won):
        if ended.code != TAKEN or not ended.text.startswith("hofit: run "):
            return f"a loser left with {ended}"
        holders = re.findall(r"in use by another run, process (\d+) on (\S+)", ended.text)
        if any(int(pid) not in won or host != platform.node() for pid, host in holders):
            return f"another holder is named: {ended}"
    return None


def runs(begun: Started) -> bool:
    return Path(f"/proc/{begun.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_one_of_many_wins(server: Server, whole: object, tmp_path: Path, full: bool) -> None:
    chooser = random.Random(4)
    for number in range(50 if full else 2):
        folder = tmp_path / str(number)
        assert race(server, folder, chooser.randint(2, 8), bool(number % 2)) is None
        assert toy.outcome(folder / "run") == whole


def test_a_mutant_is_found(server: Server, tmp_path: Path) -> None:
    assert race(server, tmp_path, 3, True, [mutants.setup("no lock")], patience=2.0) is not None


def test_a_loser_leaves_at_once_and_says_who_has_it_and_a_killed_holder_leaves_no_lock(
    server: Server, whole: object, tmp_path: Path
) -> None:
    folder = toy.lay_out(tmp_path)
    holder = server.start(folder, *toy.FIT, setups=[["tests.trust.slow:iterations", 0.2]])
    while shown(folder / "run") < toy.EVERY + 1:
        time.sleep(0.01)
    for argv in (toy.RESUME, (*toy.FIT, "--overwrite")):
        began = time.monotonic()
        loser = server.run(folder, *argv)
        assert time.monotonic() - began < LIMIT
        assert loser.code == TAKEN
        assert f"run is in use by another run, process {holder.pid} on {platform.node()}" in loser.text
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert trouble(server, folder, whole) is None


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe" * 300, b"999999999 " + platform.node().encode()])
def test_a_holder_that_cannot_be_read_is_another_run(server: Server, tmp_path: Path, content: bytes) -> None:
    folder = toy.lay_out(tmp_path)
    holder = server.start(folder, *toy.FIT, setups=[["tests.trust.slow:iterations", 0.1]])
    while shown(folder / "run") < 1:
        time.sleep(0.01)
    (folder / "run" / ".lock").write_bytes(content)
    loser = server.run(folder, *toy.RESUME)
    assert loser.code in (TAKEN, 5) and "Traceback" not in loser.text
    assert "in use by another run\n" in loser.text or "no checkpoint" in loser.text
    holder.wait()
