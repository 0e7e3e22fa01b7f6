"""Checkpoints: the file, and what happens to a damaged one."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import stat
from collections.abc import Callable
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
from hofit.run.files import write_whole
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
    found = find_checkpoint(tmp_path)
    assert found.snapshot.loop.iteration == 1
    assert len(found.passed_over) == 1 and "damaged" in found.passed_over[0] and CHECKPOINT in found.passed_over[0]
    with pytest.raises(CheckpointError, match=r"damaged(.|\n)*hofit resume .*checkpoint-1.safetensors"):
        find_checkpoint(path)  # named: the older one is offered, not taken


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


def forged(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> None:
    """Change what a checkpoint holds, and give it the digest of that."""
    with safetensors.safe_open(path, framework="pt") as file:
        text, tensors = file.metadata()["hofit"], {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    body = json.loads(text)
    changed = change(body, tensors)
    text = json.dumps(body if changed is None else changed[0])
    digest = digest_of(text, tensors)
    path.write_bytes(safetensors.torch.save(tensors, {"hofit": text, "sha256": digest}))


def digest_of(text: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        digest.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        digest.update(tensors[key].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def nan(body: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))


def whole_numbers(body: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    for key in list(tensors):
        tensors[key] = tensors[key].long()


FORGERIES: dict[str, Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]] = {
    "an empty body": lambda body, tensors: ({},),
    "a list": lambda body, tensors: ([],),
    "null": lambda body, tensors: (None,),
    "a number": lambda body, tensors: (7,),
    "no parameters": lambda body, tensors: body.pop("params") and None,
    "parameters of text": lambda body, tensors: body.update(params={"z": "z", "a": "a"}),
    "parameters that are a list": lambda body, tensors: body.update(params=[1, 2]),
    "a name too many": lambda body, tensors: body.update(order=["z", "a", "b"]),
    "a loop of text": lambda body, tensors: body.update(loop="loop"),
    "a loop with a key too many": lambda body, tensors: body["loop"].update(more=1),
    "no provenance": lambda body, tensors: body.update(provenance=None),
    "an inner mode of text": lambda body, tensors: body.update(inner={"b": "b"}),
    "numbers that are not finite": nan,
    "whole numbers": whole_numbers,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_body_with_a_good_digest_is_refused_and_the_older_one_taken(forgery: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, snapshot(1), PROVENANCE)
    path = write_checkpoint(tmp_path, snapshot(2), PROVENANCE)
    forged(path, lambda body, tensors: None)
    assert read_checkpoint(path).snapshot.loop.iteration == 2  # the forger's own hand is good
    forged(path, FORGERIES[forgery])
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert find_checkpoint(tmp_path).snapshot.loop.iteration == 1


def test_no_link_in_a_run_directory_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "mine.txt"
    outside.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in (CHECKPOINT, "fit.json"):
        (run / f"{name}.tmp").symlink_to(outside)
    write_checkpoint(run, snapshot(1), PROVENANCE)
    write_whole(run / "fit.json", b"{}")
    assert outside.read_text() == "mine"
    assert sorted(entry.name for entry in run.iterdir()) == [CHECKPOINT, "fit.json"]
    assert not any(entry.is_symlink() for entry in run.iterdir())


def test_what_is_no_regular_file_is_no_checkpoint(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, snapshot(1), PROVENANCE)
    os.mkfifo(tmp_path / "checkpoint-0.safetensors")  # to read it would hang
    assert find_checkpoint(tmp_path).snapshot.loop.iteration == 1


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        called.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def replaced(before: Any, after: Any) -> None:
        called.append("rename")
        replace(before, after)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_whole(tmp_path / "fit.json", b"{}")
    write_checkpoint(tmp_path, snapshot(1), PROVENANCE)
    assert called == ["file", "rename", "directory"] * 2
