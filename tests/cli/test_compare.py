"""``hofit compare``: mixes of optimizers, starts, and models on one data, from the command line and from Python."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chi2

import hofit as package
from hofit.config.load import load_source
from hofit.fitting.interruption import Interruption
from hofit.run.mixes import Fitting, Standing, mixes_of
from tests.command_line import Hofit, Write
from tests.tolerances import CONDITIONED

ROOT = Path(__file__).parents[2]
MODEL, CONFIG = ROOT / "models" / "sleepstudy.py", ROOT / "configs" / "sleepstudy_marginal.yaml"
DATA = ROOT / "models" / "data" / "sleepstudy.csv"

# Rscript -e 'library(lme4); d <- read.csv("models/data/sleepstudy.csv"); options(digits = 12)
#   none <- lmer(Reaction ~ Days + (1 | Subject), d, REML = FALSE)
#   slope <- lmer(Reaction ~ Days + (Days | Subject), d, REML = FALSE)
#   alone <- lmer(Reaction ~ Days + (1 | Subject) + (0 + Days | Subject), d, REML = FALSE)
#   as.data.frame(anova(none, slope)); as.data.frame(anova(none, alone))'    (R 4.2.2, lme4 1.1-31)
LME4 = {
    "none": {"parameters": 4, "aic": 1802.07864301, "bic": 1814.85047041, "log_likelihood": -897.039321503},
    "alone": {"parameters": 5, "aic": 1762.00325514, "bic": 1777.96803940, "log_likelihood": -876.001627572},
    "slope": {"parameters": 6, "aic": 1763.93934449, "bic": 1783.09708559, "log_likelihood": -875.969672244},
}
STATISTIC, NAIVE_P = 42.1392985162, 7.0724126384e-10
BY_OPTIMIZER = 1e-8
"""lme4's optimizer stops where its last steps change the deviance by that, relative."""

INTERCEPTS = """
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(reaction, days, subject, n_subjects):
    beta = pyro.param("beta", torch.tensor([300.0, 0.0]))
    sd_intercept = pyro.param("sd_intercept", torch.tensor(25.0), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(30.0), constraint=constraints.positive)
    with pyro.plate("subjects", n_subjects):
        b = pyro.sample("b", dist.Normal(0.0, sd_intercept))
    with pyro.plate("observations", len(reaction)):
        pyro.sample("reaction", dist.Normal(beta[0] + b[subject] + beta[1] * days, sigma), obs=reaction)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs none, slope, alone (no correlation) and reml."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "intercepts.py").write_text(INTERCEPTS)
    package.fit(folder / "intercepts.py", CONFIG, run_dir=folder / "none")
    package.fit(MODEL, CONFIG, run_dir=folder / "slope")
    settings = {
        "data": {
            "path": str(DATA),
            "columns": {
                "reaction": "Reaction",
                "days": "Days",
                "subject": {"column": "Subject", "codes": True, "levels": "n_subjects"},
            },
        },
        "objective": {"type": "marginal", "integrate": {"b": "laplace"}},
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
    }
    package.fit(MODEL, {**settings, "fixed": {"correlation": 0.0}}, run_dir=folder / "alone")
    restricted = {**settings, "objective": {"type": "marginal", "integrate": {"b": "laplace", "beta": "laplace"}}}
    package.fit(f"{MODEL}:restricted", restricted, run_dir=folder / "reml")
    return folder


def test_models_have_the_numbers_of_lme4_and_the_boundary_s_p(
    models: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    done = hofit("compare", "slope", "none", "alone", "--json")
    found = json.loads(done.out)
    rows = {row["run"]: row for row in found["rows"]}
    for name, expected in LME4.items():
        assert {key: rows[name][key] for key in expected} == pytest.approx(expected, rel=BY_OPTIMIZER)
        k, n = expected["parameters"], rows[name]["observations"]
        assert n == 180 and rows[name]["aicc"] == pytest.approx(rows[name]["aic"] + 2 * k * (k + 1) / (n - k - 1))
    assert found["best"] == "alone" and rows["none"]["function"] != rows["slope"]["function"]
    assert [(t["larger"], t["smaller"], t["df"]) for t in found["tests"]] == [
        ("alone", "none", 1),
        ("slope", "alone", 1),
    ]
    assert found["tests"][1]["p_value"] == pytest.approx(chi2.sf(found["tests"][1]["statistic"], 1), rel=CONDITIONED)
    with (models / "compare.csv").open(newline="") as file:
        written = {row["run"]: row for row in csv.DictReader(file)}
    assert float(written["slope"]["aic"]) == rows["slope"]["aic"] and written["slope"]["tested_against"] == "alone"


def test_a_correlated_slope_is_tested_as_stram_and_lee_say(models: Path) -> None:
    (test,) = package.compare(models / "none", models / "slope").tests
    assert test.statistic == pytest.approx(STATISTIC, rel=1e-7) and test.df == 2
    assert chi2.sf(test.statistic, 2) == pytest.approx(NAIVE_P, rel=1e-6)
    expected = 0.5 * chi2.sf(test.statistic, 1) + 0.5 * chi2.sf(test.statistic, 2)
    assert test.p_value == pytest.approx(expected, rel=CONDITIONED) and test.reference == "½χ²(1) + ½χ²(2)"


def test_a_restricted_likelihood_is_not_compared_with_another(
    models: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    before = sorted(models.iterdir())
    done = hofit("compare", "slope", "reml", "--out", "new")
    assert done.code == 2 and "restricted (REML: beta (2)" in done.err and sorted(models.iterdir()) == before


def test_mixes_of_optimizers_share_the_mode_and_have_run_directories(
    tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [ROOT / "configs" / f"sleepstudy_{name}.yaml" for name in ("newton", "trust_region")]
    done = hofit("compare", MODEL, *configs, "--json")
    found = json.loads(done.out)
    assert done.code == 0 and found["csv"] == "runs/compare/compare.csv"
    assert [(row["mode"], row["function"], row["converged"]) for row in found["rows"]] == [(1, 1, True)] * 2
    assert all(row["largest_difference"] < 1e-6 and row["seconds_to_best"] <= row["seconds"] for row in found["rows"])
    assert hofit("report", found["rows"][0]["run_dir"]).code == 0
    taken = hofit("compare", MODEL, *configs, "--out", "runs/compare")
    assert taken.code == 2 and "choose another --out, or --overwrite" in taken.err


LINE = """
model: toy.py:other_model
data: {path: data.csv, columns: {y: COLUMN}}
optimizers: [{params: "*", optimizer: OPTIMIZER}]
stop: {max_iterations: 3}
"""


def lines(write: Write, **mixes: str) -> None:
    for name, mix in mixes.items():
        optimizer, _, column = mix.partition(" ")
        write(f"{name}.yaml", LINE.replace("OPTIMIZER", optimizer).replace("COLUMN", column or "y"))


def test_a_process_fits_what_it_is_sent_as_the_command_does_and_what_has_not_converged_is_listed(
    folder: Path, hofit: Hofit, write: Write
) -> None:
    lines(write, one="trust_region", two="adam")
    done = hofit("compare", "one.yaml", "two.yaml", "--out", "alone")
    assert done.code == 0, done.text
    assert "one: converged" in done.out and "two: max_iterations" in done.out and "Best: one" in done.out
    mixes = mixes_of([Path("one.yaml"), Path("two.yaml")], load_source, Path("sent"))
    tasks = pickle.loads(pickle.dumps([(mix, None, False) for mix in mixes]))
    sent: list[Any] = []
    Fitting()(tasks, lambda message: sent.append(pickle.loads(pickle.dumps(message))), Interruption())
    assert [message for message in sent if isinstance(message, tuple)] == [("one", None), ("two", None)]
    statuses = [message.status for message in sent if isinstance(message, Standing)]
    assert statuses[0] == "running" and {"converged", "max_iterations"} <= set(statuses)
    for name in ("one", "two"):
        estimates = [(folder / place / name / "estimates.csv").read_text() for place in ("alone", "sent")]
        assert estimates[0] == estimates[1]


def test_starts_are_listed_by_mode_and_the_best_is_a_run(folder: Path, hofit: Hofit, write: Write) -> None:
    lines(write, one="trust_region")
    done = hofit("compare", "-c", "one.yaml", "--starts", 3)
    assert done.code == 0
    assert "start 2 of 3 (jitter): converged" in done.out and "3 of 3 starts reached the best mode" in done.out
    with (folder / "runs" / "compare" / "compare.csv").open(newline="") as file:
        assert [row["mode"] for row in csv.DictReader(file)] == ["1", "1", "1"]
    fit = json.loads((folder / "runs" / "compare" / "one" / "fit.json").read_text())
    assert fit["converged"] and len(fit["starts"]) == 3
    assert "starts: 3, the own one, then in turn: jitter" in hofit("check", "-c", "one.yaml", "-s", "starts=3").out
    again = json.loads(hofit("compare", "-c", "one.yaml", "--starts", 2, "--json").out)
    assert again["run_dir"] == "runs/compare-2/one" and len(again["rows"]) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to compare"),
        (["one.yaml"], "one config is nothing to compare: give another"),
        (["toy.py"], "no run directory, and no config (.yaml): toy.py"),
        (["runs"], "one run directory is nothing to compare"),
        (["runs", "gone"], "gone"),
        (["runs", "nothing"], "holds no finished run"),
        (["one.yaml", "gone.yaml"], "no config file gone.yaml"),
        (["one.yaml", "wrong.yaml"], "unknown key"),
        (["one.yaml", "holes.yaml"], "data.path differs"),
        (["-c", "one.yaml"], "--config and --starts go together"),
        (["--starts", "3"], "--config and --starts go together"),
        (["-c", "one.yaml", "--starts", "1"], "two at least"),
        (["-c", "one.yaml", "--starts", "5000"], "starts"),
        (["one.yaml", "two.yaml", "--out", "data.csv"], "is a file"),
        (["runs", "nothing", "-s", "seed=1"], "run directories are only read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    folder: Path, hofit: Hofit, write: Write, arguments: list[Any], said: str
) -> None:
    lines(write, one="trust_region", two="adam", holes="adam holes")
    write("wrong.yaml", "sead: 1\n" + LINE.replace("OPTIMIZER", "adam").replace("COLUMN", "y"))
    write("holes.csv", "y,holes\n1.0,2.0\n")
    write("holes.yaml", (folder / "holes.yaml").read_text().replace("data.csv", "holes.csv"))
    (folder / "runs").mkdir()
    (folder / "nothing").mkdir()
    before = sorted(folder.rglob("*"))
    done = hofit("compare", *arguments)
    assert done.code == 2 and said in done.err and "Traceback" not in done.text
    assert [path for path in sorted(folder.rglob("*")) if "__pycache__" not in str(path)] == before


def test_runs_of_other_data_are_refused_and_what_differs_is_named(folder: Path, hofit: Hofit, write: Write) -> None:
    lines(write, one="trust_region")
    hofit("fit", "-c", "one.yaml", "--run-dir", "a", "-q")
    write("data.csv", "y\n1.0\n2.0\n")
    hofit("fit", "-c", "one.yaml", "--run-dir", "b", "-q")
    done = hofit("compare", "a", "b")
    assert done.code == 2 and "a and b cannot be compared: their data differ" in done.err
