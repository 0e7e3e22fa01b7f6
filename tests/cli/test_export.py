"""hofit export: each kind of file from a run directory, and what is refused, before or after the model is loaded."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from hofit.export.arviz import HINT
from hofit.record import Estimate, read_table
from tests.cli.test_diagnose import MARGINAL
from tests.command_line import Hofit, Write
from tests.written import contents


@pytest.fixture
def run(folder: Path, hofit: Hofit) -> Path:
    """A run directory of a fit that has converged."""
    outcome = hofit("fit", "toy.py", "-c", "a.yaml", *MARGINAL, "--run-dir", "run")
    assert outcome.code == 0, outcome.text
    return folder / "run"


def estimates(run: Path) -> dict[str, float | None]:
    rows = read_table(Estimate, run / "estimates.csv")
    return {f"{row.name}[{row.index}]" if row.index else row.name: row.estimate for row in rows}


def test_a_netcdf_file_holds_what_arviz_needs(run: Path, hofit: Hofit) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        az = pytest.importorskip("arviz")
    before = contents(run)
    outcome = hofit("export", "run", "--to", "run.nc", "--draws", "200", "--seed", "3", "--json")
    assert outcome.code == 0, outcome.text
    assert contents(run) == before
    said = json.loads(outcome.out)
    assert (said["path"], said["draws"]) == ("run.nc", 200)
    data: Any = az.from_netcdf("run.nc")
    assert set(said["groups"]) == {
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "constant_data",
    }
    assert dict(data.posterior["effect"].sizes) == {"chain": 1, "draw": 200, "groups": 3}
    assert dict(data.log_likelihood["y"].sizes) == {"chain": 1, "draw": 200, "rows": 5}
    assert data.observed_data["y"].values.tolist() == [1.5, 2.5, 0.5, 3.0, -0.7]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that five observations are few
        assert az.loo(data).n_data_points == 5
    assert az.summary(data, kind="stats").shape[0] == 4


@pytest.mark.parametrize("name", ["draws.csv", "draws.parquet"])
def test_a_table_holds_a_row_a_draw(run: Path, hofit: Hofit, name: str) -> None:
    outcome = hofit("export", "run", "--to", name, "--draws", "50")
    assert outcome.code == 0 and outcome.err.startswith("hofit: the model is") and "toy.py" in outcome.err
    assert outcome.out == f"wrote {name}: a row a draw, 5 numbers each (50 draws)\n"
    if name.endswith(".parquet"):
        pandas = pytest.importorskip("pandas")
        head, rows = list(pandas.read_parquet(name).columns), pandas.read_parquet(name).to_numpy().tolist()
    else:
        head, *rows = csv.reader(Path(name).read_text().splitlines())
    assert head == list(estimates(run)) and len(rows) == 50
    assert {float(row[head.index("sigma")]) for row in rows} == {1.0}
    assert len({float(row[head.index("mean")]) for row in rows}) == 50


def test_a_store_gives_back_the_estimates(run: Path, hofit: Hofit) -> None:
    assert hofit("export", "run", "--to", "params.pt", "-q").text == ""
    pyro.get_param_store().load("params.pt")
    stored = {name: pyro.param(name).detach().tolist() for name in ("mean", "sigma", "effect")}
    effects = {f"effect[{k}]": value for k, value in enumerate(stored.pop("effect"))}
    assert estimates(run) == pytest.approx(stored | effects, rel=1e-9)


def test_starts_are_the_estimates_of_a_fit_that_has_not_converged_too(folder: Path, hofit: Hofit) -> None:
    assert hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "run").code == 3
    assert hofit("export", "run", "--to", "inits.json").code == 0
    starts = json.loads(Path("inits.json").read_text())
    known = estimates(folder / "run")
    assert starts["mean"] == known["mean"] and starts["effect"] == [known[f"effect[{k}]"] for k in range(3)]
    refused = hofit("export", "run", "--to", "draws.csv")
    assert refused.code == 2 and "has not converged" in refused.err and not Path("draws.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "run.txt"], "a file's name ends with .nc, .parquet, .csv, .pt, .json"),
        (["--to", "data.csv"], "this file is there already: --overwrite replaces it"),
        (["--to", "no/run.nc"], "there is no directory no"),
        (["--to", "a.csv"], "this is a directory"),
        (["--to", "params.pt", "--draws", "5"], "--draws: .pt holds the mode, not draws"),
        (["--to", "i.json", "--draws", "5", "--seed", "1"], "--draws and --seed: .json holds the mode"),
        (["--to", "d.csv", "--draws", "0"], "--draws 0: at least one"),
        (["--to", "d.csv", "--seed", "-1"], "--seed -1: from 0 to"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_model_is_loaded(
    folder: Path, hofit: Hofit, arguments: list[str], says: str
) -> None:
    (folder / "a.csv").mkdir()
    before = contents(folder)
    outcome = hofit("export", "run", *arguments)
    assert outcome.code == 2 and says in outcome.err and outcome.out == ""
    assert contents(folder) == before


def test_a_run_that_is_not_there_is_refused(folder: Path, hofit: Hofit) -> None:
    outcome = hofit("export", "run", "--to", "params.pt")
    assert (outcome.code, outcome.err) == (2, "hofit: no run directory run\n")


def test_a_file_is_replaced_where_that_is_asked_for(run: Path, hofit: Hofit, folder: Path) -> None:
    for seed in (1, 2):
        assert hofit("export", "run", "--to", "d.csv", "--draws", "3", "--seed", seed, "--overwrite").code == 0
    first = (folder / "d.csv").read_text()
    assert hofit("export", "run", "--to", "e.csv", "--draws", "3", "--seed", 2).code == 0
    assert (folder / "e.csv").read_text() == first
    assert not list(folder.glob("*.tmp"))


def test_a_changed_model_is_refused_unless_that_is_allowed(run: Path, hofit: Hofit, folder: Path) -> None:
    (folder / "toy.py").write_text((folder / "toy.py").read_text() + "\n# more\n")
    refused = hofit("export", "run", "--to", "d.csv")
    assert refused.code == 5 and "toy.py has changed" in refused.err and not (folder / "d.csv").exists()
    assert hofit("export", "run", "--to", "d.csv", "--allow-changed").code == 0


def test_without_arviz_the_hint_comes_before_anything_is_loaded(
    folder: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = hofit("export", "run", "--to", "run.nc")
    assert (outcome.code, outcome.err) == (2, f"hofit: {HINT}\n")


def test_an_elbo_has_no_draws_and_no_starts_but_its_guide(folder: Path, hofit: Hofit, write: Write) -> None:
    write(
        "b.yaml",
        """
        objective: {type: elbo, autoguide: normal}
        data: {arguments: {y: [1.0, 2.0]}}
        optimizers: [{params: '*', optimizer: adam}]
        stop: {max_iterations: 2}
        """,
    )
    write(
        "latent.py",
        """
        import pyro, pyro.distributions as dist, torch
        def model(y):
            mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(y)):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=torch.as_tensor(y))
        """,
    )
    assert hofit("fit", "latent.py", "-c", "b.yaml", "--run-dir", "run").code == 3
    for name in ("d.csv", "run.nc", "inits.json"):
        outcome = hofit("export", "run", "--to", name)
        assert outcome.code == 2 and "guide" in outcome.err
    assert hofit("export", "run", "--to", "params.pt").code == 0
    assert set(torch.load("params.pt", weights_only=False)["params"]) == {
        "AutoNormal.locs.mean",
        "AutoNormal.scales.mean",
    }
