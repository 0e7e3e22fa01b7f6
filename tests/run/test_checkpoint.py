"""Checkpoints: the file, and what happens to a damaged one."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from hofit.errors import CheckpointError
from hofit.fitting.state import LoopState, Snapshot
from hofit.model.randomness import capture_random_state
from hofit.record import CHECKPOINT
from hofit.run.checkpoint import find_checkpoint, read_checkpoint, write_checkpoint
from hofit.run.provenance import Provenance
from tests.states import same

PROVENANCE = Provenance({"seed": 0}, "model.py:model", {}, {}, "0", [], False, 1, {})


def snapshot(iteration: int) -> Snapshot:
    params = {"z": torch.tensor([1.0, float(iteration)]), "a": torch.tensor(math.pi)}
    return Snapshot(params, {"state": {0: {"step": torch.tensor(3.0)}}}, LoopState(iteration), capture_random_state())


def test_a_checkpoint_comes_back_whole_and_in_order(tmp_path: Path) -> None:
    before = snapshot(4)
    write_checkpoint(tmp_path, before, PROVENANCE)
    found = read_checkpoint(tmp_path / CHECKPOINT)
    assert list(found.snapshot.params) == ["z", "a"] and same(found.snapshot.params, before.params)
    assert same(found.snapshot.optimizer, before.optimizer) and found.snapshot.loop == before.loop
    assert same(found.snapshot.random_now, before.random_now) and found.provenance == PROVENANCE


def test_the_one_before_is_kept_and_no_temporary_stays(tmp_path: Path) -> None:
    for iteration in range(5):
        write_checkpoint(tmp_path, snapshot(iteration), PROVENANCE, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-1.safetensors",
        "checkpoint-2.safetensors",
        "checkpoint.safetensors",
    ]
    assert find_checkpoint(tmp_path).snapshot.loop.iteration == 4
    assert read_checkpoint(tmp_path / "checkpoint-2.safetensors").snapshot.loop.iteration == 2


def test_any_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, snapshot(1), PROVENANCE)
    good = path.read_bytes()
    chooser = random.Random(0)
    for position in [0, 5, 9, 200, len(good) - 1, *(chooser.randrange(len(good)) for _ in range(60))]:
        bad = bytearray(good)
        bad[position] ^= 0x10
        path.write_bytes(bad)
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_truncated_file_is_noticed(tmp_path: Path, length: int) -> None:
    path = write_checkpoint(tmp_path, snapshot(1), PROVENANCE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_a_foreign_file_is_no_checkpoint(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointError, match="not a checkpoint of hofit"):
        read_checkpoint(tmp_path / CHECKPOINT)


def test_the_previous_one_serves_when_the_newest_is_damaged(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, snapshot(1), PROVENANCE)
    path = write_checkpoint(tmp_path, snapshot(2), PROVENANCE)
    path.write_bytes(b"torn")
    assert find_checkpoint(tmp_path).snapshot.loop.iteration == 1


def test_a_crash_while_writing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, snapshot(1), PROVENANCE)

    def crash(*args: Any) -> None:
        raise OSError("disk full")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, crash)
            with pytest.raises(OSError, match="disk full"):
                write_checkpoint(tmp_path, snapshot(2), PROVENANCE)
        assert find_checkpoint(tmp_path).snapshot.loop.iteration == 1
