"""Iterations taken in one go leave a fit as it is where each is looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import hofit
from hofit.errors import ModelError
from hofit.objective.density import DensityObjective
from hofit.record import CHECKPOINT
from hofit.run.checkpoint import read_checkpoint
from tests.states import same

ADAM = [{"params": "*", "optimizer": "adam", "lr": 0.05}]
Y = torch.linspace(-1.0, 2.0, 8, dtype=torch.float64)


class Line:
    """A model that is another one once ``changed``."""

    changed = False

    def __call__(self) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(mu + float(self.changed), 1.0), obs=Y)


def ends(model: Any, config: dict[str, Any], directory: Path) -> list[Any]:
    """Status, iterations, evaluations and the optimizer's state at the end, replayed and traced."""
    found = []
    for capture in ("auto", "off"):
        run = directory / capture
        hofit.fit(model, {"optimizers": ADAM, **config, "capture": capture}, run_dir=run)
        fit = json.loads((run / "fit.json").read_text())
        snapshot = read_checkpoint(run / CHECKPOINT).snapshot
        found.append((fit["status"], fit["iterations"], fit["evaluations"], snapshot.params, snapshot.optimizer))
    return found


def test_the_end_amid_them_leaves_the_state_and_the_counts_of_that_iteration(tmp_path: Path) -> None:
    replayed, traced = ends(Line(), {}, tmp_path)
    assert replayed[0] in ("converged", "no_progress") and replayed[1] > 50 and same(replayed, traced)


def test_one_that_raises_leaves_the_state_and_the_counts_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DensityObjective.at

    def raising(self: Any, params: Any) -> Any:
        if params["mu"] > 0.4:
            raise ModelError("beyond 0.4")
        return original(self, params)

    monkeypatch.setattr(DensityObjective, "at", raising)
    replayed, traced = ends(Line(), {"optimizers": [{**ADAM[0], "lr": 0.005}]}, tmp_path)
    assert replayed[0] == "model_error" and replayed[1] > 50 and same(replayed, traced)
