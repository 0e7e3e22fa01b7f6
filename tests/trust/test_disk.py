"""A disk that is full, failing or read-only, at any point: told, and what was saved before goes on to the same end."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.trust import mutants, toy
from tests.trust.points import about_checkpoints, read_log
from tests.trust.server import Server, Setup
from tests.trust.survivors import saved, trouble

FAULTS = (errno.ENOSPC, errno.EIO, errno.EROFS)
NORMAL_END = "max_iterations: loss"


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an uninterrupted run, and in ``cut`` one that was stopped after its first checkpoint."""
    folder = toy.lay_out(tmp_path_factory.mktemp("whole"))
    assert server.run(folder, *toy.FIT, setups=[logged(folder)]).code == 3
    cut = toy.lay_out(folder / "cut")
    assert server.run(cut, *toy.FIT, "-s", "stop.max_iterations=5").code == 3
    copy = toy.lay_out(folder / "copy")
    shutil.copytree(cut / "run", copy / "run")
    assert server.run(copy, *GO_ON, setups=[logged(copy)]).code == 3
    return folder


GO_ON = (*toy.RESUME, "-s", "stop.max_iterations=12")


def logged(folder: Path) -> list[Any]:
    return ["tests.trust.points:log", str(folder / "run"), str(folder / "log")]


def after_a_fault(
    server: Server, folder: Path, whole: Path, resumed: bool, fault: Sequence[Any], setups: Sequence[Setup] = ()
) -> str | None:
    """What is wrong with how a fit, or a resume, took a fault: (point, errno, whether for good)."""
    toy.lay_out(folder)
    if resumed:
        shutil.copytree(whole / "cut" / "run", folder / "run")
    before = saved(folder / "run")[0]
    failing = ["tests.trust.points:fail", str(folder / "run"), *fault]
    ended = server.run(folder, *(GO_ON if resumed else toy.FIT), setups=[*setups, failing])
    if "Traceback" in ended.text or ended.code not in (2, 3):
        return f"badly told: {ended}"
    expected = toy.outcome(whole / "run")
    if NORMAL_END in ended.text:
        good = toy.outcome(folder / "run") == expected and not saved(folder / "run")[1]
        return None if good else "said to be saved, and is not"
    if os.strerror(fault[1]) not in ended.text or not ended.text.splitlines()[-1].startswith(("hofit: run", "`hofit")):
        return f"badly told: {ended}"
    if before is not None and (saved(folder / "run")[0] or 0) < before:
        return "an earlier checkpoint is lost"
    if resumed and not (saved(folder / "run")[0] or 0) > 5:
        assert server.run(folder, *GO_ON).code == 3  # the config of the checkpoint still ends at 5
    return trouble(server, folder, expected, every=5) if (folder / "run" / "config.yaml").exists() else None


def test_a_fault_at_any_point_is_told_and_costs_no_checkpoint(
    server: Server, whole: Path, tmp_path: Path, full: bool
) -> None:
    cases = [
        (resumed, (when, number, for_good))
        for resumed, folder in ((False, whole), (True, whole / "copy"))
        for when, number, for_good in product(range(len(read_log(folder / "log"))), FAULTS, (False, True))
    ]
    if not full:
        cases = random.Random(2).sample(cases, 6)
    found = {case: after_a_fault(server, tmp_path / str(n), whole, *case) for n, case in enumerate(cases)}
    assert {case: wrong for case, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    "mutant", ["a fault of the disk is let through", "a fault of the disk is swallowed", "a naive writer"]
)
def test_a_mutant_is_found(server: Server, whole: Path, tmp_path: Path, mutant: str) -> None:
    folder, setups = toy.lay_out(tmp_path / "logged"), [mutants.setup(mutant)]
    server.run(folder, *toy.FIT, setups=[*setups, logged(folder)])
    places = about_checkpoints(folder / "log")
    assert any(
        after_a_fault(server, tmp_path / str(when), whole, False, (when, errno.ENOSPC, False), setups)
        for when in places
    )
