"""newton with a radius a row: each row is judged by its own part of the loss."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import hofit
from hofit.model.program import Program
from hofit.objective.density import DensityObjective

ADAPTIVE = {"optimizers": [{"params": "*", "optimizer": "newton", "adaptive": True}], "init": {"strategy": "zero"}}
ROWS = 40


def data() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return 3 * torch.randn(ROWS, 5, generator=generator, dtype=torch.float64)


def curved(y: Tensor) -> None:
    """Row by row not convex: a mean a + exp(c), and heavy tails."""
    with pyro.plate("groups", ROWS, dim=-2):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        with pyro.plate("rows", 5, dim=-1):
            pyro.sample("y", dist.StudentT(3.0, b[..., 0] + b[..., 1].exp(), 1.0), obs=y)


def indexed(y: Tensor) -> None:
    """The same written with an index: the rows' plate does not hold the observations."""
    group = torch.arange(ROWS).repeat_interleave(5)
    with pyro.plate("groups", ROWS):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("rows", ROWS * 5):
        pyro.sample("y", dist.StudentT(3.0, b[group, 0] + b[group, 1].exp(), 1.0), obs=y.reshape(-1))


@pytest.mark.parametrize("model", [curved, indexed], ids=["nested", "indexed"])
def test_every_row_ends_in_a_minimum_of_its_own_that_scipy_stays_in(
    model: Callable[[Tensor], None], tmp_path: Path
) -> None:
    y = data()
    result = hofit.fit(model, ADAPTIVE, y=y, run_dir=tmp_path / "run")
    assert result.converged
    with (tmp_path / "run" / "progress.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert all(after <= before + 1e-13 * abs(before) for before, after in pairwise(losses))

    def row_loss(b: np.ndarray, values: np.ndarray) -> float:
        r = values - b[0] - np.exp(b[1])
        return float((2.0 * np.log1p(r**2 / 3.0)).sum() + 0.125 * (b**2).sum())

    rows = result.values["b"].reshape(ROWS, 2).numpy()
    for b, values in zip(rows, y.numpy(), strict=True):
        again = minimize(row_loss, b, args=(values,), method="BFGS", options={"gtol": 1e-9})
        assert np.allclose(again.x, b, atol=1e-5)


def test_the_parts_of_the_rows_add_up_to_the_loss() -> None:
    """Both with and without the Jacobian of a positive latent, which belongs to its row."""

    def model(y: Tensor) -> None:
        with pyro.plate("groups", ROWS, dim=-2):
            scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
            with pyro.plate("rows", 5, dim=-1):
                pyro.sample("y", dist.Normal(0.0, scale), obs=y)

    for kind in ("map", "map_unconstrained"):
        program = Program(model, {"y": data()})
        with program.scope():
            program.discover("zero")
            objective = DensityObjective(program, kind)
            start = objective.start()
            parts = objective.losses_by_row(start, ["groups"])
            assert parts is not None and parts.shape == (ROWS,)
            assert float(parts.sum()) == pytest.approx(objective.at(start).value, rel=1e-12)
            assert objective.losses_by_row(start, ["groups", "elsewhere"]) is None


def test_the_radii_are_kept_in_a_checkpoint(tmp_path: Path) -> None:
    y = data()
    whole = hofit.fit(curved, ADAPTIVE, y=y)
    short = {**ADAPTIVE, "stop": {"max_iterations": 4}}
    hofit.fit(curved, short, y=y, run_dir=tmp_path / "run")
    resumed = hofit.resume(tmp_path / "run", model=curved, y=y, set=["stop.max_iterations=1000"])
    assert torch.equal(resumed.params["b"], whole.params["b"])
