"""A fit on minibatches that ran as it was told: its status, its words, its evaluations."""

from __future__ import annotations

from pathlib import Path

from tests.command_line import Hofit, Write
from tests.written import fit_json


def test_a_minibatch_fit_is_complete_as_told_and_says_so(tmp_path: Path, hofit: Hofit, write: Write) -> None:
    write(
        "batches.py",
        """
        import pyro, pyro.distributions as dist, torch
        def model():
            mean = pyro.param("mean", torch.tensor(0.0))
            with pyro.plate("rows", 100, subsample_size=10) as chosen:
                pyro.sample("y", dist.Normal(mean, 1.0), obs=chosen * 0.01)
        """,
    )
    config = write("b.yaml", "optimizers: [{params: '*', optimizer: adam, lr: 0.1}]\nstop: {max_iterations: 12}\n")
    run = tmp_path / "run"
    outcome = hofit("fit", tmp_path / "batches.py", "-c", config, "--run-dir", run, "-v")
    written = fit_json(run)
    assert (outcome.code, written["status"], written["complete_as_told"]) == (3, "max_iterations", True)
    assert "max_iterations (complete as told): loss" in outcome.out
    assert "What to try: nothing, if these iterations are what was meant" in outcome.out
    counts = written["evaluations"]
    assert f"Evaluations: loss {counts['loss']}, gradient {counts['gradient']}" in outcome.out
    assert "iteration 10  loss" in outcome.out and "gradient 11" in outcome.out
    assert "Evaluations" in hofit("report", run, "-v").out and "Evaluations" not in hofit("report", run).out
