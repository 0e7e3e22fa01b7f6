"""What a resume needs is on the disk before its name is, and its name before anything that rests on it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from hofit.record import CHECKPOINT, CONFIG, ESTIMATES, FIT
from tests.trust import mutants, toy
from tests.trust.points import read_log
from tests.trust.server import Server, Setup

NEEDED = (CONFIG, CHECKPOINT, ESTIMATES, FIT)


def not_durable(events: Sequence[tuple[str, str]], needed: Sequence[str] = NEEDED) -> list[str]:
    """What a loss of power could take after all; ``events`` are calls and the paths that they are about, in order.

    A rename is of a file that was synced since it was last written; before the run does anything else than to rename,
    its directory is synced. A new directory's name is synced in the one above before anything is in it.
    """
    wrong: list[str] = []
    synced: set[str] = set()
    loose: dict[str, str] = {}
    written: set[str] = set()
    for call, path in events:
        folder, name = os.path.split(path)
        if call not in ("rename", "fsync", "mkdir"):
            wrong += [f"the name of {what} may be lost" for what in loose.values()]
            loose = {}
        if call in ("open", "write"):
            synced.discard(path)
            if name in needed:
                wrong.append(f"{name} is written in place")
        elif call == "fsync":
            synced.add(path)
            loose.pop(path, None)
        elif call == "rename":
            target = name.removesuffix(".tmp")
            if name.endswith(".tmp") and path not in synced:
                wrong.append(f"the content of {target} may be lost")
            loose[folder] = target
            written.add(target)
        elif call == "mkdir":
            loose[folder] = name
    wrong += [f"the name of {what} may be lost" for what in loose.values()]
    return wrong + [f"{name} was not written" for name in needed if name not in written]


def events_of(server: Server, folder: Path, setups: Sequence[Setup] = ()) -> list[tuple[str, str]]:
    toy.lay_out(folder)
    log = folder / "log"
    watched = ["tests.trust.points:log", str(folder), str(log)]
    ended = server.run(folder, "fit", "toy.py", "-c", "toy.yaml", setups=[*setups, watched])
    assert ended.code == 3, ended
    return read_log(log)


def test_every_file_that_a_resume_needs_survives_a_loss_of_power(server: Server, tmp_path: Path) -> None:
    events = [(call, path) for call, path in events_of(server, tmp_path) if not path.endswith(".lock")]
    assert not_durable(events) == []


@pytest.mark.parametrize(
    ("mutant", "complaint"),
    [
        ("no content is synced", "the content of checkpoint.safetensors"),
        ("no name is synced", "the name of checkpoint.safetensors"),
        ("no directory's name is synced", "the name of toy"),
        ("files are written in place", "in place"),
        ("a naive writer", "in place"),
    ],
)
def test_a_mutant_is_found(server: Server, tmp_path: Path, mutant: str, complaint: str) -> None:
    events = events_of(server, tmp_path, [mutants.setup(mutant)])
    assert any(re.search(complaint, wrong) for wrong in not_durable(events))
