"""A damaged checkpoint is never believed: flips, truncations, blocks, splices, and whatever hypothesis makes up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hofit.errors import CheckpointError
from hofit.fitting.state import LoopState, Snapshot
from hofit.model.randomness import capture_random_state
from hofit.record import CHECKPOINT
from hofit.run.checkpoint import read_checkpoint, write_checkpoint
from hofit.run.provenance import Provenance
from tests.states import same
from tests.trust import mutants

PROVENANCE = Provenance({"seed": 0}, "model.py:model", {}, {}, "0", [], False, 1, {})
BLOCK = 64


def written(folder: Path, iteration: int) -> bytes:
    params = {"z": torch.tensor([1.0, float(iteration)]), "a": torch.tensor(2.5)}
    state = Snapshot(params, {"state": {0: {"step": torch.tensor(3.0)}}}, LoopState(iteration), capture_random_state())
    return write_checkpoint(folder, state, PROVENANCE).read_bytes()


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    return written(tmp_path, 1)


def flips(good: bytes, other: bytes, count: int) -> Iterator[bytes]:
    chooser = random.Random(5)
    for _ in range(count):
        place = chooser.randrange(8 * len(good))
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        yield bytes(bad)


def truncations(good: bytes, other: bytes, count: int) -> Iterator[bytes]:
    for length in range(0, len(good), max(1, len(good) // count)):
        yield good[:length]


def blocks(good: bytes, other: bytes, count: int) -> Iterator[bytes]:
    """Of zeros, as a file system leaves them, and of garbage."""
    chooser = random.Random(6)
    for number in range(count):
        place = chooser.randrange(len(good))
        size = min(chooser.choice([1, 16, BLOCK, 512, 4096]), len(good) - place)
        block = bytes(size) if number % 2 else chooser.randbytes(size)
        yield good[:place] + block + good[place + size :]


def splices(good: bytes, other: bytes, count: int) -> Iterator[bytes]:
    """The beginning of one checkpoint and the end of another."""
    chooser = random.Random(7)
    for _ in range(count):
        place = chooser.randrange(1, len(good))
        if good[place:] != other[place:] and good[:place] != other[:place]:
            yield good[:place] + other[place:]


KINDS = {"flips": (flips, 3000, 150), "truncations": (truncations, 10**9, 100), "blocks": (blocks, 500, 60)}
KINDS["splices"] = (splices, 200, 30)


def believed(path: Path, bad: bytes, good: bytes) -> bool:
    """Whether a damaged file is taken, and is not the good one."""
    path.write_bytes(bad)
    try:
        found = read_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        return False
    path.write_bytes(good)
    whole = read_checkpoint(path)
    return not (
        same(vars(found.snapshot), vars(whole.snapshot) | {"loop": found.snapshot.loop})
        and found.snapshot.loop == whole.snapshot.loop
        and found.provenance == whole.provenance
    )


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused(kind: str, tmp_path: Path, full: bool) -> None:
    damage, count, few = KINDS[kind]
    good, other = written(tmp_path, 1), written(tmp_path, 2)
    path = tmp_path / "damaged.safetensors"
    for bad in damage(good, other, count if full else few):
        assert not believed(path, bad, good)


@pytest.mark.parametrize("kind", ["flips", "blocks"])
def test_a_reader_without_a_digest_is_found(kind: str, tmp_path: Path) -> None:
    good, other = written(tmp_path, 1), written(tmp_path, 2)
    path = tmp_path / "damaged.safetensors"
    with mutants.applied("no digest"):
        good, other = written(tmp_path, 1), written(tmp_path, 2)
        assert any(believed(path, bad, good) for bad in KINDS[kind][0](good, other, 300))


def test_whatever_a_file_holds_is_refused_in_words(tmp_path: Path, full: bool) -> None:
    """A fuzz target: edits of a good file, and files from nothing."""
    good = written(tmp_path, 1)
    path = tmp_path / CHECKPOINT
    edit = st.tuples(st.integers(0, len(good)), st.integers(0, 40), st.binary(max_size=40))
    files = st.one_of(
        st.binary(max_size=300), st.lists(edit, min_size=1, max_size=4).map(lambda edits: edited(good, edits))
    )

    @settings(
        max_examples=20_000 if full else 100,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(files)
    def holds(bad: bytes) -> None:
        assert not believed(path, bad, good)

    holds()


def edited(good: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, cut, put in edits:
        good = good[:place] + put + good[place + cut :]
    return good
