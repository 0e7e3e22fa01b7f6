"""Event files, read back by TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hofit.record import EVENTS, PartReport, Progress
from hofit.run.directory import RunDirectory
from hofit.run.tensorboard import EventRecorder
from tests.command_line import Hofit, Write

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def write(path: Path, rows: list[tuple[int, float]]) -> None:
    with RunDirectory.open(path) as directory:
        recorder = EventRecorder(directory)
        for iteration, loss in rows:
            part = PartReport("newton", 0.5, True)
            recorder.on_iteration(Progress(iteration, loss, None, 0.25, None, 0.0, [part]), None)
        recorder.close()


def scalars(path: Path, tag: str) -> list[tuple[int, float]]:
    reader: Any = accumulator.EventAccumulator(str(path))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_rows_are_read_back_and_a_resume_takes_the_place_of_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, [(0, 4.0), (1, 3.0), (2, 2.5), (3, 2.0)])
    write(tmp_path, [(2, 2.25), (3, 1.5)])
    assert scalars(tmp_path, "loss") == [(0, 4.0), (1, 3.0), (2, 2.25), (3, 1.5)]
    assert scalars(tmp_path, "0.newton.trust_radius")[-1] == (3, 0.5)


def test_a_torn_record_hides_none_of_a_later_session(tmp_path: Path) -> None:
    write(tmp_path, [(0, 4.0), (1, 3.0)])
    (file,) = tmp_path.glob(f"{EVENTS}*")
    file.write_bytes(file.read_bytes()[:-5])
    write(tmp_path, [(1, 3.5), (2, 2.0)])
    assert scalars(tmp_path, "loss") == [(0, 4.0), (1, 3.5), (2, 2.0)]


def test_another_run_in_its_place_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, [(0, 4.0)])
    (tmp_path / "config.yaml").write_text("")
    RunDirectory.create(tmp_path, overwrite=True).close()
    assert list(tmp_path.glob(f"{EVENTS}*")) == []


def test_without_the_library_a_hint_stands_at_the_key_before_anything_is_written(
    tmp_path: Path, hofit: Hofit, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hofit.run.tensorboard.is_available", lambda: False)
    write("m.py", "import pyro, torch\ndef model(): pyro.factor('f', -pyro.param('x', torch.tensor(1.0)) ** 2)\n")
    config = write("m.yaml", "metrics: [tensorboard]\noptimizers: [{params: x, optimizer: newton}]\n")
    outcome = hofit("fit", tmp_path / "m.py", "-c", config, "--run-dir", tmp_path / "run")
    assert outcome.code == 2 and not (tmp_path / "run").exists()
    assert "m.yaml:1: metrics: tensorboard is not installed: pip install 'hofit[tensorboard]'" in outcome.err
