"""Fits whose model is replayed: the same bits as where it is traced, and never another function than the model's."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import yaml
from torch import Tensor

import hofit
from hofit.fitting.burst import Burst
from hofit.objective.captured import AFTER, PROOFS, Function

Y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
SIGMA = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)
ADAM = [{"params": "*", "optimizer": "adam", "lr": 0.05}]


def schools() -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(Y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, SIGMA), obs=Y)


class Counted:
    """A model that counts its traces; ``changes_at`` is the trace from which on it is another one."""

    def __init__(self, changes_at: int | None = None) -> None:
        self.traces, self.changes_at = 0, changes_at

    def __call__(self) -> None:
        self.traces += 1
        shift = 0.0 if self.changes_at is None or self.traces < self.changes_at else 1.0
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        with pyro.plate("schools", len(Y)):
            pyro.sample("first", dist.Normal(mu, SIGMA), obs=Y)
            pyro.sample("y", dist.Normal(mu + shift, SIGMA), obs=Y)


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "progress.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "entry",
    [
        {"optimizer": "adam", "lr": 0.05},
        {"optimizer": "sgd", "lr": 0.01, "schedule": {"name": "reduce_on_plateau", "patience": 20}},
        {"optimizer": "rmsprop", "lr": 0.01, "schedule": {"name": "step", "step_size": 30}},
        {"optimizer": "lbfgs"},
        {"optimizer": "newton_cg"},
        {"optimizer": "newton", "trust_radius": 0.05},
    ],
    ids=lambda entry: entry["optimizer"],
)
@pytest.mark.parametrize("stop", [{"max_iterations": 157}, {"max_iterations": 600}])
def test_every_row_and_the_end_are_the_same_bits_traced_or_replayed(
    entry: dict[str, Any], stop: dict[str, Any], tmp_path: Path
) -> None:
    found = []
    for capture in ("auto", "off"):
        config = {"optimizers": [{"params": "*", **entry}], "stop": stop, "capture": capture}
        result = hofit.fit(schools, config, run_dir=tmp_path / capture)
        found.append((rows(tmp_path / capture), result.status, result.loss, result.iterations, result.remarks))
    assert found[0] == found[1]


def test_a_model_is_traced_a_few_times_only() -> None:
    counts = []
    for capture in ("auto", "off"):
        model = Counted()
        result = hofit.fit(model, {"optimizers": ADAM, "capture": capture, "stop": {"max_iterations": 300}})
        counts.append((model.traces, result.iterations))
    (replayed, iterations), (traced, _) = counts
    assert traced > iterations > 200 and replayed < traced - iterations + AFTER + PROOFS + 20


def test_the_inner_problem_of_an_integral_is_replayed() -> None:
    def model() -> None:
        tau = pyro.param("tau", torch.tensor(3.0, dtype=torch.float64), constraint=dist.constraints.positive)
        with pyro.plate("schools", len(Y)):
            eta = pyro.sample("eta", dist.StudentT(5.0, 0.0, 1.0))
            pyro.sample("y", dist.Poisson((0.3 * tau * eta).exp()), obs=Y.clamp(min=0))

    found = []
    for capture in ("auto", "off"):
        config = {
            "optimizers": [{"params": "*", "optimizer": "trust_region"}],
            "objective": {"type": "marginal", "integrate": {"eta": "laplace"}},
            "capture": capture,
        }
        found.append(hofit.fit(model, config))
    assert found[0].status == found[1].status == "converged" and found[0].loss == found[1].loss
    assert torch.equal(found[0].values["tau"], found[1].values["tau"])


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_model_that_becomes_another_function_ends_as_model_error_and_its_site_is_named(
    checkpoints: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Counted()

    def after_the_first(*args: Any) -> Burst:
        burst = Burst(*args)
        model.changes_at = 0
        return burst

    monkeypatch.setattr("hofit.fitting.loop.Burst", after_the_first)
    # Found at the first checkpoint or, where there is none, at the verdict.
    run = {"run_dir": tmp_path / "run"} if checkpoints else {}
    result = hofit.fit(model, {"optimizers": ADAM, "checkpoint": {"every": 40}}, **run)  # type: ignore[arg-type]
    assert result.status == "model_error" and (result.iterations == 40) is checkpoints
    assert "another function" in result.remarks[0] and "first at site 'y'" in result.remarks[0]
    assert "capture: off" in result.remarks[0]


def test_a_model_that_branches_on_its_parameters_stays_traced_and_says_so() -> None:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        scale = 10.0 if mu > 1.0 else 12.0
        with pyro.plate("schools", len(Y)):
            pyro.sample("y", dist.Normal(mu, scale), obs=Y)

    auto, off = (hofit.fit(model, {"optimizers": ADAM, "capture": capture}) for capture in ("auto", "off"))
    assert auto.loss == off.loss and auto.status == off.status
    (remark,) = [one for one in auto.remarks if one.startswith("capture: ")]
    assert "traced at every point" in remark and "depends on the values of the parameters" in remark
    assert not [one for one in off.remarks if one.startswith("capture: ")]


def test_a_model_with_numbers_taken_out_by_numpy_is_not_replayed() -> None:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        mean = mu + float(mu.detach().numpy() > 0.0)
        pyro.sample("y", dist.Normal(mean, SIGMA).to_event(1), obs=Y)

    auto, off = (
        hofit.fit(model, {"optimizers": ADAM, "capture": capture, "stop": {"max_iterations": 60}})
        for capture in ("auto", "off")
    )
    assert auto.loss == off.loss and any("values of the parameters (numpy)" in one for one in auto.remarks)


def test_a_replayed_fit_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = {"optimizers": ADAM, "stop": {"max_iterations": 150, "gradient": 0.0}, "checkpoint": {"every": 40}}
    whole = hofit.fit(schools, config, run_dir=tmp_path / "whole")
    part = {**config, "stop": {"max_iterations": 90, "gradient": 0.0}}
    hofit.fit(schools, part, run_dir=tmp_path / "part")
    resumed = hofit.resume(tmp_path / "part", model=schools, set=["stop.max_iterations=150"])
    assert resumed.loss == whole.loss and rows(tmp_path / "part") == rows(tmp_path / "whole")
    assert all(torch.equal(resumed.values[name], value) for name, value in whole.values.items())


def test_where_a_replay_is_not_finite_the_model_says_why() -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor(3.0, dtype=torch.float64))
        pyro.factor("f", -(x.log() + 0.02 * x))

    auto, off = (
        hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 0.05}], "capture": capture})
        for capture in ("auto", "off")
    )
    assert auto.status == off.status and auto.remarks == off.remarks and auto.iterations == off.iterations


@pytest.mark.parametrize("word", ["off", "'off'", "auto"])
def test_yaml_reads_off_as_false_and_it_is_taken_for_off(word: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"optimizers: [{{params: '*', optimizer: newton_cg}}]\ncapture: {word}\n")
    hofit.fit(schools, tmp_path / "c.yaml", run_dir=tmp_path / "run")
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert kept["capture"] in (word.strip("'"), False)


def test_custom_functions_of_autograd_are_replayed_by_what_they_compute() -> None:
    class Squared(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Any:
            (x,) = ctx.saved_tensors
            return 2 * x * grad

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(1.0, 5.0))
        squared = Squared.apply(mu)  # type: ignore[no-untyped-call]
        pyro.sample("y", dist.Normal(squared, SIGMA).to_event(1), obs=Y)

    auto, off = (hofit.fit(model, {"optimizers": ADAM, "capture": capture}) for capture in ("auto", "off"))
    assert auto.loss == off.loss and auto.iterations == off.iterations and auto.remarks == off.remarks


def test_another_function_is_found_where_the_gradient_of_a_replay_is_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slope = [0.05]

    def model() -> None:
        x = pyro.param("x", torch.tensor(3.0, dtype=torch.float64))
        pyro.factor("f", -(slope[0] * x + torch.where(x > 1.0, (x - 1.0).sqrt(), 0.0)))

    def after_the_first(*args: Any) -> Burst:
        burst = Burst(*args)
        slope[0] = 0.5
        return burst

    monkeypatch.setattr("hofit.fitting.loop.Burst", after_the_first)
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 0.05}]})
    assert result.status == "model_error" and "another function" in result.remarks[0]


def test_what_torch_computes_otherwise_while_it_is_recorded_is_replayed_as_it_is_unwatched() -> None:
    x = torch.linspace(0.1, 2.0, 7, dtype=torch.float64).requires_grad_()

    def evaluated(x: Tensor) -> tuple[Tensor, ...]:
        value = (x.log() + math.log(3) if torch._C._len_torch_dispatch_stack() else (3 * x).log()).sum()
        (gradient,) = torch.autograd.grad(value, x)
        return value.detach(), gradient

    def of_inputs(values: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            return evaluated(values.detach().requires_grad_())

    function = Function(after=0)
    for place in (0.3, 0.7, 1.1):
        with torch.no_grad():
            x.fill_(place)
        function.take([x.detach().clone()], [x], lambda: evaluated(x), of_inputs)
    elsewhere = torch.linspace(1.0, 3.0, 7, dtype=torch.float64)
    replayed = function.replayed([elsewhere])
    assert replayed is not None and all(map(torch.equal, replayed, of_inputs(elsewhere)))
