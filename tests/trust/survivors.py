"""What is left of a run that was ended from outside, and whether it goes on to the end it would have had."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hofit.errors import CheckpointError
from hofit.record import CHECKPOINTS
from hofit.run.checkpoint import read_checkpoint
from tests.trust import toy
from tests.trust.server import Server, Setup


def saved(run: Path) -> tuple[int | None, list[str]]:
    """The iteration of the newest good checkpoint, and what is wrong with those that are not."""
    newest, wrong = None, []
    for path in run.glob(CHECKPOINTS):
        try:
            iteration = read_checkpoint(path).snapshot.loop.iteration
            newest = iteration if newest is None else max(newest, iteration)
        except CheckpointError as error:
            wrong.append(str(error))
    return newest, wrong


def trouble(
    server: Server, folder: Path, whole: Any, every: int = toy.EVERY, setups: Sequence[Setup] = ()
) -> str | None:
    """What is wrong with the run in a folder, and with what a resume makes of it; None if nothing."""
    run = folder / "run"
    newest, wrong = saved(run)
    if wrong:
        return "unreadable: " + "; ".join(wrong)
    lost = shown(run) - (newest or 0)
    if lost > every:
        return f"{lost} iterations are lost"
    ended = server.run(folder, *toy.RESUME, setups=setups)
    if "Traceback" in ended.text:
        return f"a traceback: {ended}"
    if newest is None:
        return None if ended.code == 5 and "no checkpoint" in ended.text else f"began from nothing: {ended}"
    if ended.code != whole["fit"]["exit_code"]:
        return f"ended otherwise: {ended}"
    found = toy.outcome(run)
    other = [key for key in whole if found[key] != whole[key]]
    return f"another end: {json.dumps([(found[key], whole[key]) for key in other])}" if other else None


def shown(run: Path) -> int:
    """The last iteration that progress.csv has a whole row of."""
    path = run / "progress.csv"
    lines = path.read_text().split("\n")[1:-1] if path.exists() else []
    return max((int(line.partition(",")[0]) for line in lines), default=0)
