"""Quantile residuals are uniform where the model holds, for counts too, and show where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import kstest, nbinom, norm, poisson
from torch import Tensor
from torch.distributions import constraints

import hofit as library
from hofit.plotting.page import page_of
from hofit.plotting.pictures import pictures_of
from hofit.plotting.run import open_runs
from hofit.prediction.residuals import DRAWS, run_residuals
from hofit.record import Residual, read_table
from hofit.run.resume import ResumeRequest
from tests.command_line import Hofit

MAP: dict[str, Any] = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}


def counts(y: Tensor, z: Tensor) -> None:
    rate = pyro.param("rate", torch.tensor(1.0), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson(rate), obs=y)
        pyro.sample("z", dist.Normal(rate, sigma), obs=z)


def residuals(folder: Path, y: Any, z: Any) -> dict[str, list[Residual]]:
    data = {"y": torch.tensor(y, dtype=torch.float64), "z": torch.tensor(z, dtype=torch.float64)}
    library.fit(counts, MAP, run_dir=folder / "run", data=data)
    rows = run_residuals(ResumeRequest(folder / "run", model=counts, arguments=data))
    assert read_table(Residual, folder / "run" / "residuals.csv") == rows
    return {name: [row for row in rows if row.name == name] for name in ("y", "z")}


def test_residuals_are_uniform_where_the_model_holds_and_place_each_observation(tmp_path: Path) -> None:
    y, z = poisson.rvs(2.0, size=300, random_state=1), norm.rvs(2.0, 0.5, size=300, random_state=2)
    found = residuals(tmp_path, y, z)
    for name in ("y", "z"):
        assert kstest([row.residual for row in found[name]], "uniform").pvalue > 0.05
        assert [row.index for row in found[name]] == [str(i) for i in range(300)]
    # Of a continuous one it is the distribution's own place: to four errors of the draws, and of the estimate.
    expected = norm.cdf(z, 2.0, 0.5)
    off = [abs(row.residual - place) for row, place in zip(found["z"], expected, strict=True)]
    assert max(off) < 4 * 0.5 / DRAWS**0.5 + 0.05
    assert [row.observed for row in found["z"]] == pytest.approx(z.tolist())


def test_counts_that_vary_more_than_the_model_says_show_at_both_ends(tmp_path: Path) -> None:
    y, z = nbinom.rvs(1, 1 / 3, size=300, random_state=1), norm.rvs(2.0, 0.5, size=300, random_state=2)
    found = [row.residual for row in residuals(tmp_path, y, z)["y"]]
    assert kstest(found, "uniform").pvalue < 1e-6
    assert sum(one < 0.1 for one in found) > 60 and sum(one > 0.9 for one in found) > 45  # 30 are due


def test_plot_makes_them_once_where_the_model_may_be_run_and_the_page_shows_them(tmp_path: Path, hofit: Hofit) -> None:
    (tmp_path / "model.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "def model(y):\n"
        "    mu = pyro.param('mu', torch.tensor(0.0))\n"
        "    with pyro.plate('rows', len(y)):\n"
        "        pyro.sample('y', dist.Normal(mu, 1.0), obs=y)\n"
        "def load_data():\n"
        "    return {'y': [0.1 * i for i in range(-30, 31)]}\n"
    )
    run = tmp_path / "run"
    library.fit(str(tmp_path / "model.py"), MAP, run_dir=run)
    assert "residuals" not in hofit("plot", run, "--no-residuals").out
    assert not (run / "residuals.csv").exists()
    made = hofit("plot", run)
    assert "residuals.png" in made.out and "the model is" in made.err
    (tmp_path / "model.py").write_text("raise RuntimeError\n")
    again = hofit("plot", run)
    assert "residuals.png" in again.out and again.err == ""  # from residuals.csv: the model is not run
    assert "quantile residuals" in page_of(run)
    (run / "residuals.csv").unlink()
    changed = hofit("plot", run)
    assert changed.code == 0 and "no picture of residuals" in changed.err and "has changed" in changed.err
    assert "residuals.png" not in changed.out


def test_damaged_files_are_told_and_strange_names_drawn(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "progress.csv").write_text(
        "iteration,loss,gradient_norm,seconds\n0,1.0,1.0,0.1\n1,0.5,0.1,0.2\n"
    )
    (tmp_path / "run" / "residuals.csv").write_text("name,index,observed,fitted,residual\n$x^2$<b>,0,1,1,nan\n")
    for name, text in (
        ("profile.csv", "name,index,level,estimate,lower,upper,remark\n$y$,,0.95,1,,inf,odd $x\n"),
        ("profile_points.csv", "name,index,value,zeta,loss\n$y$,,1,0,2\n$y$,,2,1,3\n$y$,,1e300,inf,3\n"),
    ):
        (tmp_path / "run" / name).write_text(text)
    found = {one.name for one in pictures_of(open_runs([tmp_path / "run"]))}
    assert found == {"progress", "profile", "residuals"}
    from hofit.plotting.canvas import render

    for one in pictures_of(open_runs([tmp_path / "run"])):
        assert render(one, "svg")
    (tmp_path / "run" / "residuals.csv").write_text("name,index,observed,fitted,residual\nx,0,1,1\n")
    with pytest.raises(library.errors.RunDirectoryError, match=r"damaged residuals\.csv"):
        pictures_of(open_runs([tmp_path / "run"]))
