"""What a released version wrote, this one reads, and goes on to the end that the released one found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from hofit.errors import CheckpointError
from hofit.fitting.state import LoopState
from hofit.record import CHECKPOINT
from hofit.run import checkpoint
from hofit.version import __version__
from tests.trust.old import ENDS, FITS, KEPT, end_of_resume

VERSIONS = sorted(path.name for path in KEPT.iterdir())
WRITTEN = [
    (version, name) for version in VERSIONS for name in FITS if (KEPT / version / f"{name}.safetensors").exists()
]
EQUAL = 1e-6
"""Between the ends of one fit by two versions: of the estimate, and of the loss beside 1."""


def copied(version: str, name: str, folder: Path) -> Path:
    """A run directory that holds a kept checkpoint and nothing else."""
    (folder / "run").mkdir()
    return Path(shutil.copyfile(KEPT / version / f"{name}.safetensors", folder / "run" / CHECKPOINT)).parent


def test_this_version_has_left_its_checkpoints() -> None:
    left = {name for version, name in WRITTEN if version.split("+")[0] == __version__}
    assert left == set(FITS), "python -m tests.trust.old"


@pytest.mark.parametrize(("version", "name"), WRITTEN)
def test_a_kept_checkpoint_goes_on_to_the_end_that_its_version_found(tmp_path: Path, version: str, name: str) -> None:
    before = json.loads((KEPT / version / ENDS).read_text())[name]
    now = end_of_resume(copied(version, name, tmp_path), FITS[name])
    assert (now["status"], now["loss"]) == (before["status"], pytest.approx(before["loss"], rel=EQUAL, abs=EQUAL))
    assert now["values"].keys() == before["values"].keys()
    for site, value in before["values"].items():
        assert torch.allclose(torch.tensor(now["values"][site]), torch.tensor(value), rtol=EQUAL, atol=EQUAL), site


FORGETFUL = {
    "another format": (checkpoint, "FORMAT", checkpoint.FORMAT + 1),
    "a counter that no file holds": (LoopState, "from_plain", staticmethod(lambda plain: plain["a later counter"])),
}


@pytest.mark.parametrize("kind", FORGETFUL)
def test_a_reader_that_has_forgotten_what_was_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run = copied(VERSIONS[0], "adam", tmp_path)
    monkeypatch.setattr(*FORGETFUL[kind])
    with pytest.raises(CheckpointError):
        end_of_resume(run, FITS["adam"])
