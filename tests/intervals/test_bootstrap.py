"""A bootstrap has the errors of theory, is the same however often it is interrupted, and hides no failure."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import t as student

import hofit as library
from hofit.errors import HofitError
from hofit.intervals.bootstrap import BootstrapRequest, BootstrapResult, run_bootstrap
from hofit.prediction.fitted import fitted as opened
from hofit.prediction.simulate import Simulator
from hofit.record import Bootstrapped, read_table
from hofit.run.resume import ResumeRequest
from tests.intervals import models

Y = torch.tensor([0.3, -0.8, 1.9, 0.4, -1.1, 0.7, 2.2, 0.1, -0.4, 1.3, 0.9, -0.2], dtype=torch.float64)
N = len(Y)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run_of(folder: Path, name: str, model: Callable[..., None] = models.normal, **data: Any) -> ResumeRequest:
    given = data or {"y": Y}
    if not (folder / name).exists():
        library.fit(model, models.MAP, run_dir=folder / name, data=given)
    return ResumeRequest(folder / name, model=model, arguments=given)


def rows_of(run: ResumeRequest) -> list[list[str]]:
    with (run.path / "bootstrap.csv").open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[ResumeRequest, BootstrapResult]:
    run = run_of(folder, "whole")
    return run, run_bootstrap(BootstrapRequest(run, draws=75, seed=3))


def test_errors_and_bias_are_those_of_theory(whole: tuple[ResumeRequest, BootstrapResult]) -> None:
    run, found = whole
    mu, sigma = found.rows
    sd = float(Y.std(correction=0))
    assert (mu.estimate, sigma.estimate) == pytest.approx((float(Y.mean()), sd), rel=1e-9)
    # The mean's error is σ/√n; the mean of σ̂ is σ √(2/n) Γ(n/2)/Γ((n−1)/2) (Helmert). Tolerances: 3 errors.
    assert mu.std_error == pytest.approx(sd / sqrt(N), rel=3 / sqrt(150))
    expected = (
        sd * sqrt(2 / N) * float((torch.lgamma(torch.tensor(N / 2)) - torch.lgamma(torch.tensor((N - 1) / 2))).exp())
    )
    assert sigma.bias == pytest.approx(expected - sd, abs=3 * float(sigma.std_error or 0) / sqrt(75))
    assert sigma.bias is not None and sigma.bias < 0
    draws = torch.tensor([[float(cell) for cell in row[5:]] for row in rows_of(run)[2:]], dtype=torch.float64)
    ends = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), 0)
    assert (sigma.lower, sigma.upper) == pytest.approx(ends[:, 1].tolist(), rel=1e-12)
    basic = [2 * sd - float(end) for end in ends[:, 1].flip(0)]
    assert (sigma.basic_lower, sigma.basic_upper) == pytest.approx(basic, rel=1e-9)
    assert read_table(Bootstrapped, run.path / "bootstrap_intervals.csv") == found.rows
    assert found.statuses == {"converged": 75} and found.failed == {}


def test_refits_cover_what_their_data_were_drawn_from(folder: Path) -> None:
    """The 95 % intervals of μ by 80 refits: with σ by maximum likelihood, Student's t tells what Wald's cover."""
    run = run_of(folder, "whole")
    with opened(run) as fit:
        simulator = Simulator(fit)
        data = [simulator.arguments(simulator.draw(seed)) for seed in range(80)]
    due = 1 - 2 * float(student.sf(1.959964 * sqrt((N - 1) / N), N - 1))
    refits = library.fit_many(models.normal, models.MAP, data)
    covered = sum(bool(one.lower["mu"] <= Y.mean() <= one.upper["mu"]) for one in refits)
    assert all(one.converged for one in refits) and abs(covered / 80 - due) < 3 * sqrt(due * (1 - due) / 80)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_interrupted_and_gone_on_with_it_is_the_same(
    folder: Path, whole: tuple[ResumeRequest, BootstrapResult], number: signal.Signals
) -> None:
    run = run_of(folder, f"interrupted-{number}")

    def interrupt(done: int, count: int, label: str) -> None:
        if done == 7:
            os.kill(os.getpid(), number)

    first = run_bootstrap(BootstrapRequest(run, draws=50, seed=3, watch=interrupt))
    assert (first.signal, first.exit_code, first.done) == (number, 128 + number, 7)
    assert not (run.path / "bootstrap_intervals.csv").exists()
    with (run.path / "bootstrap.csv").open("a") as file:
        file.write("8,3,conver")  # as a kill in the middle of a row leaves it
    second = run_bootstrap(BootstrapRequest(run, draws=50, seed=3))
    assert second.done == 50
    before = {row[0]: row for row in rows_of(whole[0])}
    assert {row[0]: row for row in rows_of(run)} == {key: before[key] for key in ["draw", *map(str, range(51))]}


def test_draws_of_another_seed_or_fit_are_not_mixed(folder: Path) -> None:
    run = run_of(folder, "mixed")
    run_bootstrap(BootstrapRequest(run, draws=10, seed=1))
    before = (run.path / "bootstrap.csv").read_bytes()
    with pytest.raises(HofitError, match="seed 1: --seed 1 goes on"):
        run_bootstrap(BootstrapRequest(run, draws=10, seed=2))
    text = before.decode().replace("fit,1,", "fit,1,9")
    (run.path / "bootstrap.csv").write_text(text)
    with pytest.raises(HofitError, match="of another fit"):
        run_bootstrap(BootstrapRequest(run, draws=10, seed=1))
    (run.path / "bootstrap.csv").write_text("draw,loss\nx,y\n")
    with pytest.raises(HofitError, match="--overwrite begins anew"):
        run_bootstrap(BootstrapRequest(run, draws=10, seed=1))
    run_bootstrap(BootstrapRequest(run, draws=10, seed=1, overwrite=True))
    assert (run.path / "bootstrap.csv").read_bytes() == before


def test_refits_that_fail_are_counted_listed_and_left_out(folder: Path) -> None:
    run = run_of(folder, "refusing", models.refusing)
    found = run_bootstrap(BootstrapRequest(run, draws=12, seed=0))
    failed = found.failed["error"]
    assert 0 < len(failed) < 12 and found.statuses == {"converged": 12 - len(failed), "error": len(failed)}
    assert "have no part in the intervals" in found.remarks[0] and str(failed[0]) in found.remarks[0]
    assert {row[0] for row in rows_of(run) if row[2] == "error"} == set(map(str, failed))
    used = 12 - len(failed)
    assert all(row.draws == used for row in found.rows)
    assert (found.rows[0].lower is None) == (used < 10)


def test_refits_begin_where_the_model_does_in_what_stands_at_an_edge(folder: Path) -> None:
    """One begun at the fit's own τ, which is as good as zero, would leave it there to the last bit."""
    run = run_of(folder, "edge", models.excess, y=0.8 * Y)
    found = run_bootstrap(BootstrapRequest(run, draws=10, seed=0))
    assert found.statuses.keys() == {"converged", "converged_on_boundary"}
    (fit,), refits = [float(row[5]) for row in rows_of(run)[1:2]], [float(row[5]) for row in rows_of(run)[2:]]
    assert fit < 1e-3 and len(refits) == 10 and fit not in refits


def test_what_cannot_be_refitted_says_why(folder: Path) -> None:
    def doubled(y: torch.Tensor) -> None:
        models.normal(2 * y)

    with pytest.raises(HofitError, match="hand the model what it observes, ready-made"):
        run_bootstrap(BootstrapRequest(run_of(folder, "doubled", doubled), draws=10))
    run = run_of(folder, "mixed")
    for options, words in (({"draws": 3}, "at least 10"), ({"seed": -1}, "--seed -1"), ({"level": 2.0}, "--level 2")):
        with pytest.raises(HofitError, match=words):
            run_bootstrap(BootstrapRequest(run, **options))
