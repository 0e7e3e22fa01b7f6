"""Pieces in processes that torchrun starts: the same answer and the same bits, and a clean end whatever fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
objective: {{type: marginal, integrate: {{b: laplace}}}}
optimizers: [{{params: "*", optimizer: trust_region}}]
shard: {{plate: groups, timeout: {timeout}}}
checkpoint: {{every: 1}}
capture: "off"
"""


def torchrun(processes: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """hofit in so many processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [*command, "-m", "hofit", *arguments, "--quiet"],
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fit(folder: Path, processes: int, *more: str, timeout: float = 60.0, **environment: str) -> Any:
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(timeout=timeout))
    model = "tests/sharding/faulty.py" if environment else "tests/sharding/models.py:intercepts"
    return torchrun(
        processes, "fit", model, "--config", str(config), "--run-dir", str(folder / "run"), *more, **environment
    )


def told(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "fit.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit by two processes."""
    folder = tmp_path_factory.mktemp("whole")
    ended = fit(folder, 2)
    assert ended.returncode == 0, ended.stderr
    return folder / "run"


def test_two_processes_and_three_have_the_answer_of_one(whole: Path, tmp_path: Path) -> None:
    assert fit(tmp_path, 3).returncode == 0
    two, three = told(whole), told(tmp_path / "run")
    assert two["status"] == three["status"] == "converged" and two["iterations"] == three["iterations"]
    assert two["loss"] == pytest.approx(three["loss"], rel=1e-10)
    assert (two["pieces"], three["pieces"]) == (2, 3)
    assert two["bytes_per_evaluation"] < 10_000


def test_a_fit_whose_process_was_killed_goes_on_to_the_same_bits_by_as_many_and_by_more(
    whole: Path, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    ended = fit(tmp_path, 2, FAULT="kill", RUN=str(run))
    assert ended.returncode != 0 and "process 1 of 2 does not answer any more" in ended.stderr + ended.stdout
    subprocess.run(["cp", "-r", str(run), str(other)], check=True)
    resumed = torchrun(2, "resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "estimates.csv").read_bytes() == (whole / "estimates.csv").read_bytes()
    assert torchrun(3, "resume", str(other)).returncode == 0
    assert told(other)["loss"] == pytest.approx(told(whole)["loss"], rel=1e-10)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("raise", ""),
        ("hang", "process 1 of 2 does not answer any more"),
        ("term", ""),
    ],
)
def test_a_process_that_fails_ends_all(whole: Path, tmp_path: Path, fault: str, said: str, full: bool) -> None:
    if fault in ("raise", "hang") and not full:
        pytest.skip("half a minute each: --trust-full")
    ended = fit(tmp_path, 2, timeout=20.0 if fault == "hang" else 60.0, FAULT=fault, RUN=str(tmp_path / "run"))
    run = tmp_path / "run"
    assert ended.returncode != 0 and said in ended.stderr + ended.stdout
    assert f"{ROOT}/hofit" not in ended.stderr  # torchrun's own traceback says that a process has failed
    if fault == "term":
        assert told(run)["exit_code"] == 143
    if not full:  # resumed as after a kill
        return
    if fault == "raise":
        assert any("process 1 of 2: the model raised" in remark for remark in told(run)["remarks"])
    resumed = torchrun(2, "resume", str(run))
    assert resumed.returncode == 0, resumed.stderr
    assert told(run)["loss"] == told(whole)["loss"]


def test_processes_need_to_be_told_how_they_share_the_data(tmp_path: Path) -> None:
    ended = torchrun(2, "fit", "models/eight_schools.py", "-c", "configs/eight_schools_newton.yaml", "--run-dir", "r")
    assert "nothing says how they share the data" in ended.stderr
