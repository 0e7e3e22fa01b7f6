"""Several starts in one fit: the best mode is kept, the others are counted, and a resume goes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import hofit
from hofit.config.load import load_source
from hofit.errors import ConfigError
from hofit.fitting.interruption import Interruption
from hofit.fitting.result import FitResult
from hofit.record import STARTS
from hofit.run.fit import FitOptions, run_fit
from hofit.run.multistart import Trial, Trying
from hofit.run.session import Request
from tests.tolerances import CONDITIONED

NEWTON = [{"params": "*", "optimizer": "trust_region"}]


def bimodal() -> None:
    """Two peaks in x: a high one near −2, and at 3, where x starts, a low one."""
    x = pyro.param("x", torch.tensor(3.0))
    high, low = dist.Normal(-2.0, 0.5).log_prob(x), dist.Normal(3.0, 0.5).log_prob(x)
    pyro.factor("density", torch.logaddexp(high + torch.tensor(0.7).log(), low + torch.tensor(0.3).log()))


def modes_by_scipy() -> list[float]:
    """Both minima of −log density, the lower one first."""

    def loss(x: Any) -> float:
        at = torch.tensor(float(x[0]))
        high, low = dist.Normal(-2.0, 0.5).log_prob(at), dist.Normal(3.0, 0.5).log_prob(at)
        return -float(torch.logaddexp(high + torch.tensor(0.7).log(), low + torch.tensor(0.3).log()))

    return [float(minimize(loss, [x]).fun) for x in (-2.0, 3.0)]


CONFIG: dict[str, Any] = {"optimizers": NEWTON, "starts": 12, "seed": 3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return hofit.fit(bimodal, CONFIG, run_dir=tmp_path_factory.mktemp("starts") / "whole")


def test_the_best_of_two_modes_is_kept_and_the_other_is_counted(whole: FitResult) -> None:
    best, other = modes_by_scipy()
    assert whole.status == "converged" and whole.loss == pytest.approx(best, rel=CONDITIONED)
    by_mode = [row["mode"] for row in whole.starts]
    assert set(by_mode) == {1, 2} and by_mode[0] == 2  # the own start is at the other one
    assert all(row["loss"] == pytest.approx({1: best, 2: other}[row["mode"]], rel=CONDITIONED) for row in whole.starts)
    counted = f"{by_mode.count(1)} of 12 starts reached the best mode (loss {best:.10g})"
    assert any(counted in remark for remark in whole.remarks)


def test_a_run_keeps_its_starts_and_is_read_as_every_other(whole: FitResult) -> None:
    assert whole.run_dir is not None
    fit = json.loads((whole.run_dir / "fit.json").read_text())
    assert [row["kind"] for row in fit["starts"]][:3] == ["own", "jitter", "jitter"]
    assert len(json.loads((whole.run_dir / STARTS).read_text())["starts"]) == 12
    again = hofit.resume(whole.run_dir, model=bimodal)
    assert again.loss == whole.loss and [r for r in again.remarks if r in whole.remarks] == again.remarks
    assert again.starts == whole.starts


def test_more_starts_begin_with_those_of_fewer(whole: FitResult) -> None:
    fewer = hofit.fit(bimodal, {**CONFIG, "starts": 3})
    assert [row["loss"] for row in fewer.starts] == [row["loss"] for row in whole.starts[:3]]


def untimed(starts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in starts]


def test_an_interrupted_search_goes_on_with_the_starts_not_tried(whole: FitResult, tmp_path: Path) -> None:
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(line)
        if len(lines) == 4:
            signal.raise_signal(signal.SIGINT)

    options = FitOptions(tmp_path / "run", tell=tell)
    cut = run_fit(Request(load_source(CONFIG), bimodal), options)
    assert (cut.status, cut.exit_code, len(lines)) == ("interrupted", 130, 4)
    assert "starts: 4 of 12 were tried; hofit resume goes on with the others" in cut.remarks
    resumed = hofit.resume(tmp_path / "run", model=bimodal)
    assert resumed.loss == whole.loss and untimed(resumed.starts) == untimed(whole.starts)
    first = json.loads((tmp_path / "run" / STARTS).read_text())["starts"][0]["fit"]["seconds"]
    assert resumed.starts[0]["seconds"] == first  # it was not tried again


def test_damaged_starts_are_tried_again(tmp_path: Path) -> None:
    run_fit(Request(load_source({**CONFIG, "starts": 2}), bimodal), FitOptions(tmp_path / "run", tell=_interrupt))
    (tmp_path / "run" / STARTS).write_text('{"starts": [{"number": "x", "kind": []}]}')
    assert len(hofit.resume(tmp_path / "run", model=bimodal).starts) == 2


def _interrupt(line: str) -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_chosen_start_that_is_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    config = {**CONFIG, "starts": 3, "stop": {"max_iterations": 0}, "init": {"values": {"x": 2.0}}}
    cut = hofit.fit(bimodal, config, run_dir=tmp_path / "run")
    assert cut.status == "max_iterations"
    assert any(remark.startswith("starts: none of 3 starts converged") for remark in cut.remarks)
    gone_on = hofit.resume(tmp_path / "run", model=bimodal, set=["stop.max_iterations=50"])
    assert gone_on.converged and len(gone_on.starts) == 3


def test_a_start_that_fails_is_listed_and_hides_no_other() -> None:
    def fragile() -> None:
        x = pyro.param("x", torch.tensor(0.5))
        if x > 1.5:
            raise ValueError("x has gone too far")
        pyro.factor("density", dist.Normal(0.0, 1.0).log_prob(x))

    found = hofit.fit(fragile, {**CONFIG, "starts": 6})
    failed = [row for row in found.starts if row["problem"] is not None]
    assert found.converged and failed and "x has gone too far" in failed[0]["problem"]
    assert any(f"{6 - len(failed)} of 6 starts reached" in remark for remark in found.remarks)


MEANS = torch.tensor([-6.0, 0.0, 5.0])
ROWS = (MEANS[:, None] + 0.8 * torch.linspace(-1.5, 1.5, 12)).reshape(-1)


def three(y: Tensor) -> None:
    """Three normals of one width and weight; all their means start in one place, nearly."""
    mean = pyro.param("mean", torch.tensor([4.0, 4.1, 4.2]))
    with pyro.plate("rows", len(y)):
        kind = pyro.sample("kind", dist.Categorical(torch.ones(3) / 3))
        pyro.sample("y", dist.Normal(mean[kind], 1.0), obs=y)


def test_a_mixture_of_three_is_found_whatever_its_labels(tmp_path: Path) -> None:
    """Held against scipy from the means that the data were made with."""

    def loss(mean: Any) -> float:
        parts = dist.Normal(torch.as_tensor(mean), 1.0).log_prob(ROWS[:, None]) - torch.tensor(3.0).log()
        return -float(parts.logsumexp(1).sum())

    config = {"optimizers": NEWTON, "starts": 5, "objective": {"type": "map", "integrate": {"kind": "enumerate"}}}
    found = hofit.fit(three, config, y=ROWS, run_dir=tmp_path / "run")
    assert found.loss == pytest.approx(float(minimize(loss, MEANS.tolist(), tol=1e-12).fun), rel=CONDITIONED)
    assert [row["kind"] for row in found.starts] == ["own", "spread", "jitter", "spread", "jitter"]
    spread = [row for row in found.starts if row["kind"] == "spread"]
    assert all(row["mode"] == 1 for row in spread)
    order = found.values["mean"].argsort().tolist()
    trials = json.loads((tmp_path / "run" / STARTS).read_text())["starts"]
    for row, trial in zip(found.starts, trials, strict=True):
        own = torch.tensor([number[3] for number in trial["rows"]]).argsort().tolist()
        assert row["mode"] != 1 or (row["relation"] == "") == (own == order)
    assert any(row["relation"].startswith("labels") for row in found.starts)


def test_latents_are_drawn_from_their_priors_and_fixed_ones_stay() -> None:
    def model(y: Tensor) -> None:
        level = pyro.sample("level", dist.Normal(100.0, 1.0))
        spread = pyro.sample("spread", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level, spread), obs=y)

    config = {"optimizers": NEWTON, "starts": 3, "fixed": {"spread": 2.0}}
    found = hofit.fit(model, config, y=torch.tensor([99.0, 101.0, 103.0]))
    assert [row["kind"] for row in found.starts] == ["own", "prior", "jitter"]
    assert {row["mode"] for row in found.starts} == {1} and float(found.values["spread"]) == 2.0


def test_a_process_tries_starts_as_the_fit_itself_does(whole: FitResult) -> None:
    sent: list[Trial] = []
    Trying(Request(load_source(CONFIG), bimodal))([2, 5], sent.append, Interruption())
    assert [trial.fit["loss"] for trial in sent] == [whole.starts[2]["loss"], whole.starts[5]["loss"]]


def test_each_of_many_data_sets_has_a_best_start_of_its_own() -> None:
    def model(y: Tensor) -> None:
        x = pyro.param("x", torch.tensor(3.0))
        high, low = dist.Normal(-2.0 + y, 0.5).log_prob(x), dist.Normal(3.0 + y, 0.5).log_prob(x)
        pyro.factor("density", torch.logaddexp(high + torch.tensor(0.7).log(), low + torch.tensor(0.3).log()))

    config, data = {**CONFIG, "starts": 2}, [{"y": torch.tensor(0.1 * number)} for number in range(3)]
    for found, given in zip(hofit.fit_many(model, config, data), data, strict=True):
        alone = hofit.fit(model, config, data=given)
        assert len(found.starts) == 2 and untimed(found.starts) == untimed(alone.starts)
        assert found.loss == alone.loss


@pytest.mark.parametrize("starts", [0, 1001, 2.5, "many"])
def test_a_number_of_starts_has_bounds(starts: object) -> None:
    with pytest.raises(ConfigError, match="starts"):
        hofit.fit(bimodal, {**CONFIG, "starts": starts})
