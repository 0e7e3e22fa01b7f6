"""hofit resume: bit for bit, whatever stopped the run; checkpoints that are refused."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from hofit.errors import CheckpointError
from hofit.run.checkpoint import read_checkpoint
from tests.command_line import Hofit, Write
from tests.written import contents, fit_json, progress_but_time

CLOCK = ("seconds", "total_seconds", "repeated_iterations")


def outcome_of(run: Path) -> dict[str, Any]:
    """All that two equal runs share: fit.json without the clock, the estimates, progress without the clock."""
    return {
        "fit": {key: value for key, value in fit_json(run).items() if key not in CLOCK},
        "estimates": (run / "estimates.csv").read_text(),
        "progress": progress_but_time(run),
    }


# bit for bit ------------------------------------------------------------------------------------------------------

SCHEDULED = """
    - {params: mean, optimizer: adam, lr: 0.05, schedule: {name: multi_step, milestones: [3, 12], gamma: 0.5}}
    - {params: "*", optimizer: sgd, lr: 0.01, momentum: 0.9, schedule: {name: one_cycle, max_lr: 0.02, total_steps: 50}}
"""
PLATEAU = "[{params: '*', optimizer: rmsprop, lr: 0.3, schedule: {name: reduce_on_plateau, patience: 0}}]"
MIXES = {
    "adam": "[{params: '*', optimizer: adam, lr: 0.05, amsgrad: true}]",
    "schedules": SCHEDULED,
    "plateau": PLATEAU,
    "newton and adam": "[{params: effect, optimizer: newton, trust_radius: 0.02}, {params: '*', optimizer: adam}]",
}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(
    "extra", ["", "order: alternating\n", "dtype: float32\n"], ids=["together", "in turn", "float32"]
)
def test_a_resumed_fit_equals_the_uninterrupted_one_bit_for_bit(
    folder: Path, hofit: Hofit, write: Write, mix: str, extra: str
) -> None:
    data = (folder / "a.yaml").read_text().partition("optimizers:")[0]
    rest = "init: {strategy: sample, jitter: 0.1}\nstop: {max_iterations: 17}\n"
    (folder / "a.yaml").write_text(f"{data}{extra}optimizers: {MIXES[mix]}\n{rest}")
    assert hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "whole").code in (0, 3)
    hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "parts", "-s", "stop.max_iterations=6")
    for iterations in (11, 17):
        assert hofit("resume", "parts", "-s", f"stop.max_iterations={iterations}").code in (0, 3)
    assert outcome_of(folder / "parts") == outcome_of(folder / "whole")


def test_a_resumed_minibatch_fit_draws_the_same_rows(folder: Path, hofit: Hofit, write: Write) -> None:
    write(
        "batches.py",
        """
        import random
        import numpy as np
        import pyro, pyro.distributions as dist, torch
        def model():
            x = pyro.param("x", torch.zeros(3))
            with pyro.plate("rows", 100, subsample_size=10) as chosen:
                b = pyro.sample("b", dist.Normal(x.sum(), 1.0))
                pyro.sample("y", dist.Normal(b, 1.0), obs=chosen * 0.01)
        """,
    )
    write("b.yaml", "optimizers: [{params: '*', optimizer: adam, lr: 0.1}]\nstop: {max_iterations: 15}\n")
    hofit("fit", "batches.py", "-c", "b.yaml", "--run-dir", "whole")
    hofit("fit", "batches.py", "-c", "b.yaml", "--run-dir", "parts", "-s", "stop.max_iterations=4")
    assert hofit("resume", "parts", "-s", "stop.max_iterations=15").code == 3
    assert outcome_of(folder / "parts") == outcome_of(folder / "whole")


def test_a_resumed_fit_goes_on_from_any_checkpoint_file(folder: Path, hofit: Hofit) -> None:
    sets = ("-s", "checkpoint={every: 4, keep: 4}")
    hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "run", *sets)
    whole = outcome_of(folder / "run")
    older = [path for path in (folder / "run").glob("checkpoint*") if path.name != "checkpoint.safetensors"]
    assert len(older) == 3
    for path in sorted(older):
        copy = folder / f"copy-{path.stem}"
        shutil.copytree(folder / "run", copy)
        assert hofit("resume", copy / path.name).code == 3
        assert outcome_of(copy) == whole


def test_resuming_a_converged_fit_says_so_again(folder: Path, hofit: Hofit) -> None:
    sets = (
        "-s",
        "optimizers=[{params: '*', optimizer: newton}]",
        "-s",
        "fixed.sigma=1",
        "-s",
        "stop.max_iterations=200",
    )
    assert hofit("fit", "toy.py", "-c", "a.yaml", *sets).code == 0
    before = outcome_of(folder / "runs" / "a")
    assert hofit("resume", "runs/a").code == 0
    after = outcome_of(folder / "runs" / "a")
    assert after["estimates"] == before["estimates"]
    assert after["progress"] == before["progress"]
    assert after["fit"]["status"] == "converged"


def test_a_setting_of_a_resume_is_kept_in_the_run_s_config(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml")
    hofit("resume", "runs/a", "-s", "stop.max_iterations=23", "-s", "progress.every=2")
    assert "max_iterations: 23" in (folder / "runs" / "a" / "config.yaml").read_text()
    assert len(outcome_of(folder / "runs" / "a")["progress"]) == 24


def test_a_run_can_be_resumed_from_another_working_directory_and_place(
    folder: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml")
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "runs" / "a", folder / "elsewhere" / "moved")
    monkeypatch.chdir(folder / "elsewhere")
    assert hofit("resume", "moved", "-s", "stop.max_iterations=25").code == 3


# what stops a run from outside ------------------------------------------------------------------------------------


def slow_fit(folder: Path, pause: float, *options: str) -> subprocess.Popen[str]:
    """In a process of its own; so many seconds an evaluation."""
    command = [sys.executable, "-m", "hofit", "fit", "toy.py", "-c", "a.yaml", *options]
    here = {"TOY_PAUSE": str(pause), "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env={**os.environ, **here}, stdout=pipe, stderr=pipe, text=True)


def started(folder: Path, name: str, rows: int) -> subprocess.Popen[str]:
    """A slow fit, when it has written so many rows of progress."""
    process = slow_fit(folder, 0.05, "--run-dir", name, "-s", "checkpoint.every=3", "-s", "stop.max_iterations=40")
    progress = folder / name / "progress.csv"
    deadline = time.monotonic() + 60
    while not (progress.exists() and len(progress.read_text().splitlines()) > rows):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["INT", "TERM", "KILL"]
)
def test_a_run_that_is_stopped_from_outside_goes_on_to_the_same_end(
    folder: Path, hofit: Hofit, number: int, code: int
) -> None:
    with started(folder, "parts", 8) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in out + err
    run = folder / "parts"
    if number != signal.SIGKILL:
        fit = fit_json(run)
        assert (fit["status"], fit["exit_code"], fit["converged"]) == ("interrupted", code, False)
        assert read_checkpoint(run / "checkpoint.safetensors").snapshot.loop.iteration == fit["iterations"]
        assert "interrupted" in out and "hofit resume parts" in out
    else:
        assert not (run / "fit.json").exists()
        unfinished = hofit("report", run)
        assert unfinished.code == 2 and "hofit resume" in unfinished.err
        with (run / "progress.csv").open("a") as file:
            file.write("31,1.5")  # as if killed in the middle of a row
    assert hofit("resume", "parts").code == 3
    hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "whole", "-s", "stop.max_iterations=40")
    assert outcome_of(run) == outcome_of(folder / "whole")


def test_a_screen_that_goes_away_ends_no_fit(folder: Path) -> None:
    """As in `hofit fit … | head -1`: the result must not be lost with the pipe."""
    with slow_fit(folder, 0.02, "-s", "progress.every=1") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        code = process.wait(timeout=60)
    assert "Traceback" not in err
    fit = fit_json(folder / "runs" / "a")
    assert (code, fit["exit_code"], fit["iterations"]) == (3, 3, 20)


def test_a_full_disk_is_one_message_and_the_last_good_checkpoint_stays(
    folder: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", "-s", "checkpoint.every=2")
    assert outcome.code not in (0, 1)
    assert "runs/a" in outcome.err and "No space left" in outcome.err
    assert "Traceback" not in outcome.text
    monkeypatch.setattr(os, "fsync", sync)
    assert hofit("resume", "runs/a").code == 3


def test_a_run_killed_before_its_first_checkpoint_says_that_there_is_none(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml")
    for path in (*(folder / "runs" / "a").glob("checkpoint*"), folder / "runs" / "a" / "fit.json"):
        path.unlink()
    outcome = hofit("resume", "runs/a")
    assert (outcome.code, outcome.out) == (5, "")
    assert "no checkpoint" in outcome.err


def test_what_a_kill_in_the_middle_of_writing_leaves_behind_is_no_hindrance(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "checkpoint.every=5")
    run = folder / "runs" / "a"
    whole = outcome_of(run)
    (run / "checkpoint.safetensors.tmp").write_bytes(b"half")
    (run / "config.yaml.tmp").write_bytes(b"half")
    os.replace(run / "checkpoint.safetensors", run / "gone")  # between the two renames
    assert hofit("resume", run).code == 3
    assert outcome_of(run) == whole


# checkpoints that are refused -------------------------------------------------------------------------------------


@pytest.fixture
def run(folder: Path, hofit: Hofit) -> Path:
    """A finished run of 20 iterations, with one checkpoint before the newest."""
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "checkpoint.every=10", "-s", "stop.max_iterations=15")
    return folder / "runs" / "a"


def refused(hofit: Hofit, run: Path, *command: Any) -> str:
    """The message of a resume that leaves with 5 and changes nothing."""
    before = contents(run)
    outcome = hofit("resume", *command)
    assert outcome.code == 5, outcome.text
    assert outcome.out == ""
    assert outcome.err.startswith("hofit: ")
    assert "Traceback" not in outcome.err
    assert contents(run) == before
    return str(outcome.err)


def test_every_flipped_byte_is_noticed_or_harmless(run: Path, tmp_path: Path) -> None:
    good = (run / "checkpoint.safetensors").read_bytes()
    body = vars(read_checkpoint(run / "checkpoint.safetensors").snapshot.loop)
    path = tmp_path / "flipped.safetensors"
    places = [*range(12), *range(12, len(good), max(1, len(good) // 80)), *range(len(good) - 4, len(good))]
    noticed = 0
    for mask in (0x01, 0x20, 0xFF):
        for place in places:
            damaged = bytearray(good)
            damaged[place] ^= mask
            path.write_bytes(damaged)
            try:
                assert vars(read_checkpoint(path).snapshot.loop) == body
            except CheckpointError as error:
                noticed += 1
                assert str(path) in str(error)
    assert noticed > 2.5 * len(places)


@pytest.mark.parametrize("where", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_damaged_checkpoint_file_is_refused_with_5(hofit: Hofit, run: Path, where: float) -> None:
    path = run / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 0xFF
    path.write_bytes(data)
    assert str(path) in refused(hofit, run, path)


@pytest.mark.parametrize("size", [0, 5, 100, 10_000, -1])
def test_a_truncated_checkpoint_file_is_refused_with_5(hofit: Hofit, run: Path, size: int) -> None:
    path = run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert str(path) in refused(hofit, run, path)


def test_a_lengthened_checkpoint_file_is_refused_with_5(hofit: Hofit, run: Path) -> None:
    path = run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes() + b"more")
    assert str(path) in refused(hofit, run, path)


@pytest.mark.parametrize(
    "content",
    [
        safetensors.torch.save({"x": torch.zeros(2)}),
        safetensors.torch.save({"x": torch.zeros(2)}, {"hofit": "{}"}),
        safetensors.torch.save({"x": torch.zeros(2)}, {"format": "pt"}),
        b"y,group\n1,a\n",
        b"\x80\x04\x95pickle",
    ],
    ids=["no metadata", "no digest", "another's metadata", "text", "pickle"],
)
def test_a_foreign_file_is_refused_with_5(hofit: Hofit, run: Path, content: bytes) -> None:
    path = run / "foreign.safetensors"
    path.write_bytes(content)
    assert str(path) in refused(hofit, run, path)


def test_a_checkpoint_of_a_newer_format_is_refused_with_5(
    hofit: Hofit, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hofit.run.checkpoint.FORMAT", -1)
    assert "format" in refused(hofit, run, run / "checkpoint.safetensors")


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "gone"])
def test_the_checkpoint_before_is_used_when_the_newest_is_damaged(hofit: Hofit, run: Path, damage: str) -> None:
    whole = outcome_of(run)
    path = run / "checkpoint.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"flip": bytes(data), "truncate": bytes(data[:200]), "empty": b""}[damage])
    assert hofit("resume", run).code == 3
    found = outcome_of(run)
    said = [remark for remark in found["fit"]["remarks"] if remark.startswith("checkpoint: ")]
    assert len(said) == (damage != "gone") and all("went on from checkpoint-1.safetensors" in one for one in said)
    found["fit"]["remarks"] = [remark for remark in found["fit"]["remarks"] if remark not in said]
    assert found == whole


def test_when_every_checkpoint_is_damaged_each_is_named(hofit: Hofit, run: Path) -> None:
    paths = sorted(run.glob("checkpoint*"))
    assert len(paths) == 2
    for path in paths:
        path.write_bytes(b"x" * 100)
    message = refused(hofit, run, run)
    for path in paths:
        assert str(path) in message


def test_a_path_that_is_nothing_is_refused(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("resume", "nowhere")
    assert outcome.code in (2, 5)
    assert "nowhere" in outcome.err and "Traceback" not in outcome.err
    (folder / "empty").mkdir()
    assert "empty" in refused(hofit, folder / "empty", "empty")


# another model, another data --------------------------------------------------------------------------------------


def test_a_changed_model_is_refused_by_name_and_allowed_when_asked(folder: Path, hofit: Hofit, run: Path) -> None:
    path = folder / "toy.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    message = refused(hofit, run, run)
    assert str(path) in message and "--allow-changed" in message
    assert hofit("resume", run, "--allow-changed", "-s", "stop.max_iterations=18").code == 3
    assert hofit("resume", run, "-s", "stop.max_iterations=19").code == 3


@pytest.mark.parametrize("change", ["3.5,a", "1.5,c"], ids=["a number", "a level"])
def test_a_changed_data_file_is_refused_by_name_and_allowed_when_asked(
    folder: Path, hofit: Hofit, run: Path, change: str
) -> None:
    path = folder / "data.csv"
    path.write_text(path.read_text().replace("1.5,a", change))
    message = refused(hofit, run, run)
    assert str(path) in message and "--allow-changed" in message
    assert hofit("resume", run, "--allow-changed", "-s", "stop.max_iterations=18").code == 3


@pytest.mark.parametrize("name", ["toy.py", "data.csv"])
def test_a_file_that_is_gone_is_refused_by_name(folder: Path, hofit: Hofit, run: Path, name: str) -> None:
    (folder / name).unlink()
    assert str(folder / name) in refused(hofit, run, run)
    outcome = hofit("resume", run, "--allow-changed")
    assert outcome.code == 2
    assert name in outcome.err and "Traceback" not in outcome.err


def test_other_parameters_are_refused_by_name_even_when_changes_are_allowed(
    folder: Path, hofit: Hofit, run: Path
) -> None:
    path = folder / "data.csv"
    path.write_text(path.read_text() + "1.0,d,six,6\n")
    assert "effect" in refused(hofit, run, run, "--allow-changed")
    path = folder / "toy.py"
    path.write_text(path.read_text().replace('"mean"', '"average"'))
    message = refused(hofit, run, run, "--allow-changed")
    assert "average" in message and "mean" in message


def test_data_that_load_data_reads_by_itself_is_noticed_when_it_changes(
    folder: Path, hofit: Hofit, write: Write
) -> None:
    write("numbers.txt", "1\n2\n")
    write(
        "own.py",
        """
        from pathlib import Path
        import pyro, pyro.distributions as dist, torch
        def load_data():
            return {"y": [float(word) for word in Path("numbers.txt").read_text().split()]}
        def model(y):
            pyro.sample("y", dist.Normal(pyro.param("x", torch.tensor(0.0)), 1.0).expand([len(y)]).to_event(1), obs=y)
        """,
    )
    write("b.yaml", "optimizers: [{params: x, optimizer: adam}]\nstop: {max_iterations: 3}\n")
    hofit("fit", "own.py", "-c", "b.yaml")
    write("numbers.txt", "1\n3\n")
    assert "data" in refused(hofit, folder / "runs" / "b", "runs/b")


def test_a_helper_of_the_model_that_changes_is_refused_by_name(folder: Path, hofit: Hofit, write: Write) -> None:
    helper = write("toy_helper.py", "def centre(y):\n    return y.mean()\n")
    write(
        "own.py",
        """
        import pyro, pyro.distributions as dist, torch
        from toy_helper import centre
        def model(y):
            x = pyro.param("x", torch.tensor(0.0))
            pyro.sample("y", dist.Normal(x, 1.0), obs=centre(y))
        """,
    )
    sets = ("-s", "data.columns={y: y}", "-s", "stop.max_iterations=3")
    hofit("fit", "own.py", "-c", "a.yaml", *sets)
    helper.write_text("def centre(y):\n    return y.median()\n")
    assert str(helper) in refused(hofit, folder / "runs" / "a", "runs/a")


@pytest.mark.parametrize(
    "assignment",
    [
        "optimizers.0.lr=1",
        "seed=3",
        "dtype=float32",
        "fixed.sigma=1",
        "init.jitter=1",
        "data.missing=drop",
        "model=x.py",
    ],
)
def test_what_would_change_the_fit_is_refused_with_the_reason(hofit: Hofit, run: Path, assignment: str) -> None:
    before = contents(run)
    outcome = hofit("resume", run, "-s", assignment)
    assert (outcome.code, outcome.out) == (2, "")
    assert assignment in outcome.err
    assert "exactly where it stopped" in outcome.err
    assert contents(run) == before


@pytest.mark.parametrize("assignment", ["stop.gradient=small", "stop.gradeint=1", "stop", "checkpoint.keep=1"])
def test_a_wrong_setting_of_a_resume_is_refused_and_nothing_is_lost(hofit: Hofit, run: Path, assignment: str) -> None:
    before = contents(run)
    outcome = hofit("resume", run, "-s", assignment)
    assert (outcome.code, outcome.out) == (2, "")
    assert assignment in outcome.err and "Traceback" not in outcome.err
    assert contents(run) == before


def test_a_fit_from_python_is_resumed_from_python(folder: Path, hofit: Hofit) -> None:
    import pyro
    import pyro.distributions as dist

    import hofit as library

    def model(y: torch.Tensor) -> None:
        pyro.sample("y", dist.Normal(pyro.param("x", torch.tensor(0.0)), 1.0), obs=y)

    config = {"optimizers": [{"params": "*", "optimizer": "adam"}], "stop": {"max_iterations": 5}}
    library.fit(model, config, run_dir="python", y=torch.tensor(1.0))
    assert "hofit.resume" in refused(hofit, folder / "python", "python")
    with pytest.raises(CheckpointError, match="y"):
        library.resume("python", model=model)
    with pytest.raises(CheckpointError, match="data"):
        library.resume("python", model=model, y=torch.tensor(2.0))
    result = library.resume("python", model=model, y=torch.tensor(1.0), set=["stop.max_iterations=9"])
    assert result.iterations == 9
