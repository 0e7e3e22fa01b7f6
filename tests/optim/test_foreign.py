"""A model module's own optimizer that does wrong is named, and nothing of the fit is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hofit

MODEL = """
import pyro, pyro.distributions as dist, torch
from pyro.optim.multi import MultiOptimizer
class Raises(MultiOptimizer):
    def get_step(self, loss, params):
        raise KeyError("boom")
class Forgets(MultiOptimizer):
    def get_step(self, loss, params):
        return {"a": params["a"] * 0.5}
class Reshapes(MultiOptimizer):
    def get_step(self, loss, params):
        return {name: value.expand(3) for name, value in params.items()}
class Late(MultiOptimizer):
    def get_step(self, loss, params):
        self.seen = {1, 2}
        return {name: value * 0.5 for name, value in params.items()}
optimizers = {"raises": Raises, "forgets": Forgets, "reshapes": Reshapes, "late": Late}
def model():
    pyro.sample("a", dist.Normal(0., 1.))
    pyro.sample("b", dist.Normal(0., 1.))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "the optimizer 'raises' raised: KeyError: 'boom'"),
        ("forgets", "returned no new value for 'b'"),
        ("reshapes", "returned 'a' with shape (3,) instead of ()"),
    ],
)
def test_what_it_did_wrong_is_told(name: str, told: str, model: Path, tmp_path: Path) -> None:
    config = {"optimizers": [{"params": "*", "optimizer": name}]}
    result = hofit.fit(model, config, run_dir=tmp_path / "run")
    assert result.status == "model_error" and told in result.remarks[0]
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file() and (tmp_path / "run" / "fit.json").is_file()


def test_state_that_turns_up_late_and_cannot_be_kept_is_named(model: Path, tmp_path: Path) -> None:
    config: dict[str, Any] = {"optimizers": [{"params": "*", "optimizer": "late"}], "checkpoint": {"every": 2}}
    with pytest.raises(hofit.errors.HofitError, match=r"seen is a set.*state_dict"):
        hofit.fit(model, config, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ({"name": "one_cycle", "max_lr": 0.1, "total_steps": 10}, "one_cycle ends after 10 steps"),
        ({"name": "exponential", "gamma": -3.0}, "gamma: must be positive"),
        ({"name": "reduce_on_plateau", "factor": 0.0}, "factor: must be positive"),
    ],
)
def test_a_schedule_that_runs_out_or_turns_the_rate_round_is_refused(schedule: Any, told: str, model: Path) -> None:
    entry = {"params": "*", "optimizer": "sgd", "momentum": 0.5, "schedule": schedule}
    with pytest.raises(hofit.errors.ConfigError, match=told):
        hofit.fit(model, {"optimizers": [entry]})
