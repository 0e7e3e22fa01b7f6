"""Any other file of a run, damaged: told in words or left out, never a traceback, and never what a resume rests on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hofit.run.recorder import drop_rows_after
from tests.command_line import Hofit
from tests.trust import toy
from tests.trust.server import Server
from tests.trust.test_damage import blocks, flips, truncations

FILES = ("fit.json", "estimates.csv", "progress.csv", "config.yaml", ".lock")


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy.lay_out(tmp_path_factory.mktemp("run"))
    assert server.run(folder, *toy.FIT).code == 3
    return folder


@pytest.mark.parametrize("kind", [flips, truncations, blocks])
@pytest.mark.parametrize("name", ["fit.json", "estimates.csv", "progress.csv"])
def test_a_report_of_a_damaged_file_is_in_words(
    run: Path, hofit: Hofit, tmp_path: Path, full: bool, name: str, kind: Callable[..., list[bytes]]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run / "run", copy)
    good = (copy / name).read_bytes()
    for bad in kind(good, b"", 300 if full else 4):
        (copy / name).write_bytes(bad)
        ended = hofit("report", copy)
        assert ended.code in (0, 2, 3) and "Traceback" not in ended.text, ended


@pytest.mark.parametrize("kind", [flips, truncations, blocks])
def test_rows_that_are_damaged_are_left_out(
    run: Path, tmp_path: Path, full: bool, kind: Callable[..., list[bytes]]
) -> None:
    good = (run / "run" / "progress.csv").read_bytes()
    path = tmp_path / "progress.csv"
    for bad in kind(good, b"", 3000 if full else 40):
        path.write_bytes(bad)
        drop_rows_after(path, 5)


@pytest.mark.parametrize("name", FILES)
def test_a_resume_rests_on_no_file_but_its_checkpoints(
    server: Server, run: Path, tmp_path: Path, full: bool, name: str
) -> None:
    whole = toy.outcome(run / "run")
    chooser = random.Random(8)
    for number in range(20 if full else 1):
        folder = tmp_path / str(number)
        shutil.copytree(run, folder)
        content = (folder / "run" / name).read_bytes()
        bad = [b"", b"\xff" * 300, content[: len(content) // 2], chooser.randbytes(200), b"9" * 140_000]
        (folder / "run" / name).write_bytes(bad[number % len(bad)])
        ended = server.run(folder, "resume", "run/checkpoint-1.safetensors")
        assert ended.code == 3 and "Traceback" not in ended.text, ended
        found = toy.outcome(folder / "run")
        assert found["fit"] == whole["fit"] and found["estimates"] == whole["estimates"]


def test_a_link_to_nowhere_gets_no_rows(server: Server, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "run" / "progress.csv").unlink()
    (folder / "run" / "progress.csv").symlink_to(tmp_path / "outside.csv")
    assert server.run(folder, "resume", "run/checkpoint-1.safetensors").code == 3
    assert not (tmp_path / "outside.csv").exists()
