"""A fit that is killed at any point where it changes its files goes on to the end it would have had, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.trust import mutants, toy
from tests.trust.points import about_checkpoints, read_log
from tests.trust.server import Server, Setup
from tests.trust.survivors import trouble

LINKS = 10
"""Kills of one run, one after the other."""


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run, and how often it changed its files."""

    outcome: Any
    points: int


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = toy.lay_out(tmp_path_factory.mktemp("whole"))
    ended = server.run(folder, *toy.FIT, setups=[["tests.trust.points:log", str(folder / "run"), str(folder / "log")]])
    assert ended.code == 3, ended
    return Whole(toy.outcome(folder / "run"), len(read_log(folder / "log")))


def after_a_kill(
    server: Server, folder: Path, when: int, whole: Whole, fit: Sequence[Setup] = (), resume: Sequence[Setup] = ()
) -> str | None:
    """What is wrong after a kill before that point."""
    toy.lay_out(folder)
    ended = server.run(folder, *toy.FIT, setups=[*fit, ["tests.trust.points:kill", str(folder / "run"), when]])
    assert ended.code in (-signal.SIGKILL, 3), ended
    return trouble(server, folder, whole.outcome, setups=resume) if (folder / "run").exists() else None


def test_killed_before_any_change_of_its_files(server: Server, whole: Whole, tmp_path: Path, full: bool) -> None:
    every = range(whole.points) if full else random.Random(0).sample(range(whole.points), 6)
    found = {when: after_a_kill(server, tmp_path / str(when), when, whole) for when in every}
    assert {when: wrong for when, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("mutant", "resumed"),
    [
        ("a naive writer", False),
        ("rows are kept that will come again", True),
        ("counts begin anew", True),
        ("the optimizer begins anew", True),
    ],
)
def test_a_mutant_is_found(server: Server, whole: Whole, tmp_path: Path, mutant: str, resumed: bool) -> None:
    setups = [mutants.setup(mutant)]
    fit, resume = ([], setups) if resumed else (setups, [])
    folder = toy.lay_out(tmp_path / "logged")
    server.run(folder, *toy.FIT, setups=[*fit, ["tests.trust.points:log", str(folder / "run"), str(folder / "log")]])
    places = about_checkpoints(folder / "log")
    assert any(after_a_kill(server, tmp_path / str(when), when, whole, fit, resume) for when in places)


def test_killed_at_random_times_in_chains(server: Server, whole: Whole, tmp_path: Path, full: bool) -> None:
    """Each run is killed again and again while it goes on; what it holds is read after every kill."""
    chooser, kills, chains = random.Random(1), 0, 31 if full else 1
    wanted = 300 if full else 6
    for chain in range(chains):
        folder = toy.lay_out(tmp_path / str(chain))
        for link in range(LINKS if full else wanted):
            argv = toy.RESUME if link and (folder / "run").exists() else (*toy.FIT, "--overwrite")
            begun = server.start(folder, *argv)
            time.sleep(chooser.uniform(0.01, 0.13))
            os.kill(begun.pid, signal.SIGKILL)
            kills += begun.wait().code == -signal.SIGKILL
            if (folder / "run").exists() and not any((folder / "run").glob("checkpoint*")):
                for entry in (folder / "run").iterdir():  # it was too early: the next begins anew
                    entry.unlink()
                (folder / "run").rmdir()
        if (folder / "run").exists():
            assert trouble(server, folder, whole.outcome) is None
    assert kills >= wanted / 2
