"""hofit diagnose: what it prints and writes, what report shows of it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hofit.run.directory import RunDirectory
from tests.command_line import Hofit, Write
from tests.written import contents

MARGINAL = (
    "-s",
    "objective={type: marginal, integrate: {effect: laplace}}",
    "-s",
    "optimizers=[{params: '*', optimizer: trust_region}]",
    "-s",
    "fixed.sigma=1",
)


@pytest.fixture
def run(folder: Path, hofit: Hofit) -> Path:
    """A run directory of a fit that has converged."""
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", *MARGINAL, "--run-dir", "run")
    assert outcome.code == 0, outcome.text
    return folder / "run"


def test_diagnose_prints_one_line_writes_it_and_report_shows_it(run: Path, hofit: Hofit) -> None:
    before = hofit("report", "run").out
    outcome = hofit("diagnose", "run", "--draws", "400", "--seed", "3")
    assert outcome.code == 0, outcome.text
    (line,) = outcome.out.splitlines()
    assert "good for all 3 rows of effect" in line
    written = json.loads((run / "diagnose.json").read_text())
    assert written["reading"] in line
    assert (written["draws"], written["seed"], written["by_row"]) == (400, 3, True)
    (group,) = written["groups"]
    assert (group["names"], group["rows"], group["share_above"]) == (["effect"], 3, 0.0)
    assert {"model_sha256", "data_sha256", "versions", "corrected", "laplace", "error"} <= set(written)
    (run.parent / "toy.py").unlink()
    assert hofit("report", "run").out == before + outcome.out


def test_quiet_prints_nothing(run: Path, hofit: Hofit) -> None:
    assert hofit("diagnose", "run", "-q").text == ""
    assert (run / "diagnose.json").exists()


def test_diagnose_leaves_the_rest_of_the_run_as_it_is(run: Path, hofit: Hofit) -> None:
    before = contents(run)
    hofit("diagnose", "run")
    after = contents(run)
    assert after.pop("diagnose.json") and after == before


@pytest.mark.parametrize("again", ["resume", "overwrite"])
def test_a_fit_that_goes_on_takes_its_diagnosis_away(run: Path, hofit: Hofit, again: str) -> None:
    hofit("diagnose", "run")
    if again == "resume":
        assert hofit("resume", "run").code == 0
    else:
        assert hofit("fit", "toy.py", "-c", "a.yaml", *MARGINAL, "--run-dir", "run", "--overwrite").code == 0
    assert not (run / "diagnose.json").exists()
    assert "Diagnosis" not in hofit("report", "run").out


def test_a_changed_model_or_data_file_is_refused_as_by_resume(run: Path, hofit: Hofit) -> None:
    for name in ("toy.py", "data.csv"):
        path = run.parent / name
        original = path.read_text()
        path.write_text(original + ("\n# more\n" if name == "toy.py" else "9.0,a,six,6\n"))
        refused, resumed = hofit("diagnose", "run"), hofit("resume", "run")
        assert refused.code == resumed.code == 5
        assert refused.err == resumed.err and name in refused.err
        assert not (run / "diagnose.json").exists()
        path.write_text(original)
    (run.parent / "toy.py").write_text((run.parent / "toy.py").read_text() + "\n# more\n")
    assert hofit("diagnose", "run", "--allow-changed").code == 0


def test_a_run_in_use_is_refused(run: Path, hofit: Hofit) -> None:
    with RunDirectory.open(run):
        outcome = hofit("diagnose", "run")
    assert outcome.code == 2 and "in use" in outcome.err


@pytest.mark.parametrize(
    ("break_it", "code", "says"),
    [
        (lambda run: [path.unlink() for path in run.glob("checkpoint*")], 5, "holds no checkpoint"),
        (lambda run: (run / "checkpoint.safetensors").write_bytes(b"torn"), 5, "damaged"),
        (lambda run: run.rename(run.parent / "elsewhere"), 2, "no run directory"),
    ],
    ids=["no checkpoint", "damaged", "nowhere"],
)
def test_a_run_without_a_checkpoint_is_refused(run: Path, hofit: Hofit, break_it: Any, code: int, says: str) -> None:
    if says == "damaged":
        for path in run.glob("checkpoint-*"):
            path.unlink()
    break_it(run)
    outcome = hofit("diagnose", "run")
    assert (outcome.code, says in outcome.err) == (code, True), outcome.text


def test_a_fit_that_has_not_converged_is_refused(folder: Path, hofit: Hofit) -> None:
    assert hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "run").code == 3
    outcome = hofit("diagnose", "run")
    assert outcome.code == 2
    assert "has not converged" in outcome.err and "hofit resume" in outcome.err


def test_a_flat_direction_is_named(folder: Path, hofit: Hofit, write: Write) -> None:
    write(
        "flat.py",
        """
        import pyro, pyro.distributions as dist, torch
        def model():
            a, b = (pyro.param(name, torch.tensor(0.3)) for name in ("a", "b"))
            pyro.sample("y", dist.Normal(a + b, 1.0), obs=torch.tensor(1.0))
        """,
    )
    write("b.yaml", "optimizers: [{params: '*', optimizer: trust_region}]\n")
    assert hofit("fit", "flat.py", "-c", "b.yaml", "--run-dir", "run").code == 0
    outcome = hofit("diagnose", "run")
    assert outcome.code == 2 and "no curvature along a, b" in outcome.err


@pytest.mark.parametrize("text", ["{", "[]", '{"reading": "x"}'])
def test_report_of_a_damaged_diagnosis_is_refused_without_a_traceback(run: Path, hofit: Hofit, text: str) -> None:
    (run / "diagnose.json").write_text(text)
    outcome = hofit("report", "run")
    assert outcome.code == 2 and "damaged diagnose.json" in outcome.err
