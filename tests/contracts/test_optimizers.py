"""What every optimizer must do: go down, rest at a minimum, continue bit for bit, and say when a loss is not finite."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.optim.multi import MultiOptimizer

import hofit
from hofit.codec import encode
from hofit.optim.schedules import SCHEDULES
from hofit.optim.torch_part import GRADIENT_OPTIMIZERS
from hofit.record import CHECKPOINT
from hofit.run.checkpoint import previous_name, read_checkpoint
from tests.states import same
from tests.tolerances import FLAT_MODE, MINIMUM, ROUNDING, close
from tests.written import losses, progress_but_time

MODEL = '''
import pyro, pyro.distributions as dist, torch
from pyro.optim.multi import MultiOptimizer, PyroMultiOptimizer

class Descent(MultiOptimizer):
    """Gradient descent with momentum, written in place as a user of Pyro writes it; its state is its attributes."""
    def __init__(self, rate=0.1, momentum=0.5):
        self.rate, self.momentum, self.velocity = rate, momentum, {}
    def step(self, loss, params):
        gradients = torch.autograd.grad(loss, list(params.values()), retain_graph=True)
        with torch.no_grad():
            for (name, x), g in zip(params.items(), gradients):
                self.velocity[name] = self.momentum * self.velocity.get(name, torch.zeros_like(x)) - self.rate * g
                x.add_(self.velocity[name])

class Theirs(PyroMultiOptimizer):
    def __init__(self, lr=0.05):
        super().__init__(pyro.optim.Adam({"lr": lr}, {"clip_norm": 5.0}))

optimizers = {"mine": Descent, "theirs": Theirs}

def model(target):
    w = pyro.param("w", lambda: torch.tensor([[1.5, -1.0], [0.5, 2.0]]))
    with pyro.plate("rows", 3):
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0))
        pyro.sample("y", dist.Normal(b, 0.5), obs=target)
    pyro.factor("bowl", -(0.5 * (w - 1) ** 2).sum() - 0.1 * ((w - 1) ** 4).sum() - 0.05 * w.sum() * b.sum())
'''
TARGET = [0.5, -1.0, 2.0]

CALM = 1e-4
"""A learning rate: a method that normalises its gradient takes such steps even where the gradient is rounding."""
CALM_STEPS = 20
"""So many: the loss, a curvature of order one over a way of CALM_STEPS · CALM, is left within CALM."""
WAY = 5e-3
"""How far these may lead: CALM_STEPS · CALM, and what momentum adds."""
ROUNDING_RISE = 1e-13
"""Of the loss: what its own rounding may lift it by from one accepted point to the next."""

OPTIONS: dict[str, dict[str, Any]] = {
    "adadelta": {"lr": 1.0},
    "adafactor": {"lr": 0.1},
    "adagrad": {"lr": 0.3},
    "adagrad_rmsprop": {"eta": 0.3},
    "sgd": {"lr": 0.05, "momentum": 0.5},
    "muon": {"lr": 0.05},
    "rprop": {"lr": 0.05},
    "asgd": {"lr": 0.05, "t0": 3},
}
SCHEDULE_OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {"factor": 0.5},
    "cosine_annealing": {"T_max": 15},
    "cosine_annealing_warm_restarts": {"T_0": 7},
    "cyclic": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 6},
    "exponential": {"gamma": 0.95},
    "multi_step": {"milestones": [5, 20]},
    "one_cycle": {"max_lr": 0.1, "total_steps": 60},
    "reduce_on_plateau": {"patience": 1, "factor": 0.5},
    "step": {"step_size": 4},
}


def entry(name: str) -> dict[str, Any]:
    options = {"lr": 0.05} if name in GRADIENT_OPTIMIZERS else {}
    return {"optimizer": name, **OPTIONS.get(name, options)}


def alone(name: str) -> list[dict[str, Any]]:
    """The optimizer on all it can step; matrices only for muon."""
    if name == "muon":
        return [{"params": "w", **entry(name)}, {"params": "b", "optimizer": "sgd", "lr": 0.1}]
    return [{"params": "*", **entry(name)}]


JUDGING = ["gauss_newton", "lbfgs", "newton_cg", "trust_region"]
NAMES = [*GRADIENT_OPTIMIZERS, "newton", *JUDGING, "mine", "theirs"]
MIXES: dict[str, dict[str, Any]] = {
    **{name: {"optimizers": alone(name)} for name in NAMES},
    **{
        f"adam, {name}": {
            "optimizers": [
                {
                    "params": "*",
                    "optimizer": "sgd" if name in ("cyclic", "one_cycle") else "adam",
                    "lr": 0.05,
                    **({"momentum": 0.5} if name in ("cyclic", "one_cycle") else {}),
                    "schedule": {"name": name, **SCHEDULE_OPTIONS.get(name, {})},
                }
            ]
        }
        for name in SCHEDULES
    },
    "newton and adam": {"optimizers": [{"params": "b", **entry("newton")}, {"params": "w", **entry("adam")}]},
    "adam and newton": {
        "optimizers": [
            {"params": "w", **entry("adam")},
            {"params": "b", **entry("newton"), "trust_radius": {"b": 0.2}},
        ]
    },
    "newton and adam, alternating": {
        "optimizers": [{"params": "b", **entry("newton")}, {"params": "w", **entry("adam")}],
        "order": "alternating",
    },
    **{
        f"{name} beside adam, {order}": {
            "optimizers": [{"params": "b", **entry(name)}, {"params": "w", **entry("adam")}],
            "order": order,
        }
        for name in JUDGING
        for order in ("simultaneous", "alternating")
    },
    **{
        f"{one} and {other}, {order}": {
            "optimizers": [{"params": "w", **entry(one)}, {"params": "b", **entry(other)}],
            "order": order,
        }
        for one, other in (("lbfgs", "newton_cg"), ("trust_region", "lbfgs"))
        for order in ("simultaneous", "alternating")
    },
    "mine and newton": {"optimizers": [{"params": "w", **entry("mine")}, {"params": "b", **entry("newton")}]},
}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


def configured(mix: dict[str, Any], iterations: int, **more: Any) -> dict[str, Any]:
    stop = {"max_iterations": iterations, "gradient": 0.0, "relative_loss": 0.0, "patience": 10_000}
    return {**mix, "stop": stop, "init": {"strategy": "zero"}, **more}


def loss_at_start(model_file: Path, mix: dict[str, Any]) -> float:
    return hofit.fit(model_file, configured(mix, 0), target=TARGET).loss


@pytest.fixture(scope="module")
def minimum(tmp_path_factory: pytest.TempPathFactory) -> hofit.FitResult:
    """Where Newton's method ends, to the last bit."""
    path = tmp_path_factory.mktemp("minimum") / "model.py"
    path.write_text(MODEL)
    newton = {"optimizers": [{"params": "*", "optimizer": "newton"}], "order": "alternating"}
    stop = {"gradient": 1e-13, "relative_loss": 0.0, "patience": 100, "max_iterations": 60}
    found = hofit.fit(path, {**newton, "stop": stop}, target=TARGET)
    assert found.gradient_norm < ROUNDING
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_down_on_a_convex_loss(name: str, model_file: Path) -> None:
    mix = MIXES[name]
    result = hofit.fit(model_file, configured(mix, 40), target=TARGET)
    assert result.loss < loss_at_start(model_file, mix) - 0.5


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("adamw", "muon")])  # these two decay weights
def test_it_stays_at_a_minimum(name: str, model_file: Path, minimum: hofit.FitResult) -> None:
    start = {"values": {key: value.tolist() for key, value in minimum.values.items()}}
    calm = {"lr": CALM} if name == "theirs" or (name in GRADIENT_OPTIMIZERS and name != "adagrad_rmsprop") else {}
    calm = {"eta": CALM} if name == "adagrad_rmsprop" else calm
    mix = {"optimizers": [{"params": "*", **entry(name), **calm}]}
    result = hofit.fit(model_file, {**configured(mix, CALM_STEPS), "init": start}, target=TARGET)
    assert result.loss - minimum.loss < CALM
    for key, value in minimum.values.items():
        assert (result.values[key] - value).abs().max() <= WAY


STEPS = 24
"""What every schedule changes is changed by then, and a fit that goes on from the middle is replayed at its end."""


@pytest.mark.parametrize("name", MIXES)
def test_save_load_continue_equals_uninterrupted_bit_for_bit(name: str, model_file: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    every = {"every": 1, "keep": STEPS + 1}
    mix = MIXES[name]
    full = hofit.fit(model_file, configured(mix, STEPS, checkpoint=every), run_dir=whole, target=TARGET)
    end = read_checkpoint(whole / CHECKPOINT)
    rows = progress_but_time(whole)
    count = full.iterations
    judging = any(one["optimizer"] in JUDGING for one in mix["optimizers"])
    assert count == STEPS or judging  # a judging part knows when there is nothing left to gain
    for stopped in sorted({1, count // 2, count - 1}):
        part = tmp_path / f"stopped-{stopped}"
        part.mkdir()
        shutil.copy(whole / previous_name(count - stopped), part / CHECKPOINT)
        shutil.copy(whole / "progress.csv", part / "progress.csv")
        assert read_checkpoint(part / CHECKPOINT).snapshot.loop.iteration == stopped
        resumed = hofit.resume(part, target=TARGET)
        again = read_checkpoint(part / CHECKPOINT)
        assert resumed.iterations == full.iterations and resumed.loss == full.loss
        assert all(torch.equal(resumed.params[key], full.params[key]) for key in full.params)
        assert equal_state(again.snapshot.optimizer, end.snapshot.optimizer)
        assert progress_but_time(part) == rows
        # After a refused step the point's graph is gone; one that was just loaded still has its own.
        assert judging or resumed.evaluations == full.evaluations


def equal_state(one: Any, other: Any) -> bool:
    left: dict[str, torch.Tensor] = {}
    right: dict[str, torch.Tensor] = {}
    return bool(encode(one, left) == encode(other, right)) and same(left, right)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
@pytest.mark.parametrize("parts", [*((one, other) for one in JUDGING for other in JUDGING)])
def test_two_judging_parts_end_at_the_minimum_and_never_rise(
    parts: tuple[str, str], order: str, model_file: Path, tmp_path: Path, minimum: hofit.FitResult
) -> None:
    rows = [{"params": "w", **entry(parts[0])}, {"params": "b", **entry(parts[1])}]
    config = {"optimizers": rows, "order": order, "init": {"strategy": "zero"}}
    result = hofit.fit(model_file, config, run_dir=tmp_path / "run", target=TARGET)
    rises = pairwise(losses(tmp_path / "run"))
    assert all(after <= before + ROUNDING_RISE * abs(before) for before, after in rises)
    assert result.converged and result.loss == pytest.approx(minimum.loss, abs=MINIMUM)
    assert all(close(result.values[key], minimum.values[key], FLAT_MODE) for key in minimum.values)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
@pytest.mark.parametrize("name", JUDGING)
def test_a_judging_part_beside_adam_ends_at_the_minimum(
    name: str, order: str, model_file: Path, minimum: hofit.FitResult
) -> None:
    first = (JUDGING.index(name) + (order == "alternating")) % 2 == 0  # every two of name, order and first meet
    rows = [{"params": "b", **entry(name)}, {"params": "w", **entry("adam")}]
    config = {"optimizers": rows if first else rows[::-1], "order": order, "init": {"strategy": "zero"}}
    stop = {"max_iterations": 3000, "gradient": 1e-6, "relative_loss": 0.0, "patience": 10_000}  # adam takes its time
    result = hofit.fit(model_file, {**config, "stop": stop}, target=TARGET)
    assert result.converged and result.loss == pytest.approx(minimum.loss, abs=MINIMUM)


# The density is NaN as soon as any weight has moved by 0.03.
CLIFF = MODEL.replace(
    "pyro.factor(", "pyro.factor('cliff', torch.log(0.0009 - (w - W).square().max()) * 0.0)\n    pyro.factor("
).replace("optimizers =", "W = torch.tensor([[1.5, -1.0], [0.5, 2.0]])\noptimizers =")


@pytest.mark.parametrize("name", JUDGING)
def test_a_judging_part_takes_a_loss_that_turns_nan_for_a_wall(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(CLIFF)
    mix = {"optimizers": [{"params": "*", **entry(name)}]}
    result = hofit.fit(path, configured(mix, 60), target=TARGET)
    assert result.status in ("no_progress", "max_iterations") and not result.converged
    assert result.loss < loss_at_start(path, mix)
    assert 0.02 < (result.params["w"] - torch.tensor([[1.5, -1.0], [0.5, 2.0]])).abs().max() < 0.03


@pytest.mark.parametrize("name", [name for name in NAMES if name not in JUDGING])
def test_a_loss_that_turns_nan_ends_non_finite_at_the_last_good_point(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(CLIFF)
    rows = [{"params": "w", **entry(name)}, {"params": "b", "optimizer": "sgd", "lr": 0.01}]
    result = hofit.fit(path, configured({"optimizers": rows}, 200), run_dir=tmp_path / "run", target=TARGET)
    assert result.status == "non_finite" and result.exit_code == 4 and not result.converged
    assert result.loss == result.loss and abs(result.loss) != float("inf")
    assert any("cliff" in remark for remark in result.remarks)
    kept = read_checkpoint(tmp_path / "run" / CHECKPOINT).snapshot.params
    assert all(torch.isfinite(value).all() for value in kept.values())
    assert (kept["w"] - torch.tensor([[1.5, -1.0], [0.5, 2.0]])).abs().max() < 0.03


def test_a_random_trace_continues_bit_for_bit_too(tmp_path: Path) -> None:
    """Minibatches draw from the generators: the draws after a resume must be those that would have come."""
    path = tmp_path / "model.py"
    path.write_text(
        "import pyro, pyro.distributions as dist, torch\n"
        "def model(y):\n"
        "    mu = pyro.sample('mu', dist.Normal(0., 10.))\n"
        "    with pyro.plate('rows', len(y), subsample_size=4) as ind:\n"
        "        z = pyro.sample('z', dist.Normal(mu, 1.))\n"
        "        pyro.sample('y', dist.Normal(z, 1.), obs=y[ind])\n"
    )
    y = torch.linspace(-2, 5, 20)
    mix = {"optimizers": [{"params": "*", "optimizer": "adam", "lr": 0.05}]}
    full = hofit.fit(path, configured(mix, 30, checkpoint={"every": 1, "keep": 40}), run_dir=tmp_path / "a", y=y)
    assert full.status == "max_iterations" and any("stochastic" in remark for remark in full.remarks)
    part = tmp_path / "b"
    part.mkdir()
    shutil.copy(tmp_path / "a" / previous_name(30 - 11), part / CHECKPOINT)
    shutil.copy(tmp_path / "a" / "progress.csv", part / "progress.csv")
    resumed = hofit.resume(part, y=y)
    assert progress_but_time(part) == progress_but_time(tmp_path / "a")
    assert all(torch.equal(resumed.params[key], full.params[key]) for key in full.params)


class _Unsaved(MultiOptimizer):
    def __init__(self) -> None:
        self.helper = object()

    def get_step(self, loss: torch.Tensor, params: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.detach() * 0.9 for name, value in params.items()}


def test_an_optimizer_whose_state_cannot_be_kept_is_refused_before_the_first_step(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        "import pyro, pyro.distributions as dist\n"
        "from tests.contracts.test_optimizers import _Unsaved\n"
        "optimizers = {'unsaved': _Unsaved}\n"
        "def model():\n    pyro.sample('x', dist.Normal(0., 1.))\n"
    )
    with pytest.raises(hofit.errors.HofitError, match=r"helper.*state_dict"):
        hofit.fit(path, {"optimizers": [{"params": "*", "optimizer": "unsaved"}]}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_first_order_mix_never_builds_a_second_order_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def model(y: torch.Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    asked = []
    original = torch.autograd.grad

    def watched(*args: Any, **named: Any) -> Any:
        asked.append(bool(named.get("create_graph")))
        return original(*args, **named)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    config = {"optimizers": [{"params": "*", "optimizer": "adam", "lr": 0.01}], "stop": {"max_iterations": 5}}
    monkeypatch.setattr("hofit.verdict.signs.DENSE_LIMIT", 0)  # the verdict's own Hessian is not the loop's
    hofit.fit(model, config, y=torch.tensor(1.0))
    assert len(asked) >= 6 and not any(asked)
