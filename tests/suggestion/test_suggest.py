"""A suggested config runs as it is: every example model here, and models as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import hofit as library
from hofit.config.load import load_source
from hofit.errors import DataError, ModelError
from hofit.suggestion.suggest import patterns_of, stem_of, suggest
from hofit.suggestion.text import text_of
from tests.command_line import Hofit, Write

ROOT = Path(__file__).parents[2]
TABLES = {
    **{"sleepstudy": "sleepstudy", "body_weight": "body_weight", "cbpp": "cbpp", "eight_schools": "eight_schools"},
    **{"gaussian_mixture": "faithful", "hidden_markov": "earthquakes", "neural_network": "radon", "nile": "nile"},
    **{"penicillin": "penicillin", "poisson_counts": "epilepsy", "radon": "radon", "smoother": "coal"},
    **{"theophylline": "theoph", "van_drivers": "van_drivers"},
}
SMALLER = {
    "item_response": "{persons: 60, items: 8}",
    "poisson_regression": "{rows: 500, covariates: 4}",
    "correlated_logistic": "{groups: 40}",
    "hierarchical_logistic": "{groups: 40}",
    "crossed_effects": "{rows: 300, students: 30, instructors: 12, departments: 4}",
    "gaussian_process": "{n: 40}",
}
MODELS = sorted(path.stem for path in (ROOT / "models").glob("*.py"))
ENDS = ("converged", "converged_on_boundary")

REFERENCES = {"sleepstudy": -875.9696722, "penicillin": -166.0941743}
"""The log-likelihood in lme4 (models/data/reference.json)."""


@pytest.mark.parametrize("name", MODELS)
def test_every_example_runs_by_its_suggestion(name: str, tmp_path: Path) -> None:
    file = "bank_calls.csv.gz" if name == "bank_calls" else f"{TABLES.get(name)}.csv"
    data = ROOT / "models" / "data" / file if name in TABLES or name == "bank_calls" else None
    overrides = [f"data.options={SMALLER[name]}"] if name in SMALLER else []
    path = tmp_path / "a.yaml"
    path.write_text(text_of(suggest(str(ROOT / "models" / f"{name}.py"), data, overrides), path), encoding="utf-8")
    result = library.fit(str(ROOT / "models" / f"{name}.py"), load_source(path, overrides).data)
    assert result.status in ENDS
    if name in REFERENCES:
        assert result.log_likelihood == pytest.approx(REFERENCES[name], rel=1e-9)


MODEL = """
import pyro, torch, pyro.distributions as dist
from torch.distributions import constraints
def model(y, group):
    sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("groups", 3):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(b[group], 1.0), obs=y)
def minibatches(y):
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(y), subsample_size=2) as rows:
        pyro.sample("y", dist.Normal(b, 1.0), obs=y[rows])
def wide(y):
    w = pyro.param("w", torch.zeros(2500))
    pyro.sample("y", dist.Normal(w.sum(), 1.0).expand([len(y)]).to_event(1), obs=y)
    pyro.factor("small", -(w ** 2).sum())
"""
TABLE = "y,group\n1,10\n2,20\n4,30\n5,30\n"


def test_an_index_without_a_count_is_found_by_what_the_model_says(write: Write) -> None:
    found = suggest(str(write("m.py", MODEL)), write("d.csv", TABLE))
    assert found.config["data"]["columns"] == {"y": "y", "group": {"column": "group", "codes": True}}
    assert found.config["objective"] == {"type": "marginal", "integrate": {"b": "laplace"}}
    assert "group is an index in the model: its levels are numbered" in found.reasons["data"]


@pytest.mark.parametrize(
    ("name", "optimizer", "why"), [("minibatches", "adam", "minibatches of rows"), ("wide", "lbfgs", "dense Hessian")]
)
def test_the_mix_fits_what_the_model_shows(name: str, optimizer: str, why: str, write: Write) -> None:
    found = suggest(f"{write('m.py', MODEL)}:{name}", write("d.csv", TABLE))
    assert found.config["optimizers"][0]["optimizer"] == optimizer and why in found.reasons["optimizers"][0]


def test_what_no_column_is_for_is_named_with_the_columns(write: Write) -> None:
    model, data = write("m.py", MODEL), write("d.csv", "height,weight,age\n1,2,3\n")
    with pytest.raises(DataError, match=r"no column for the arguments 'y', 'group' .* columns are height, weight, age"):
        suggest(str(model), data)
    with pytest.raises(ModelError, match="--data"):
        suggest(str(model))


def test_a_pattern_stands_for_many_names_where_it_matches_no_other() -> None:
    names = [f"state_{k}" for k in range(4)]
    assert patterns_of(names, [*names, "rate"]) == ["state_*"]
    assert patterns_of(names[:3], names) == names[:3]
    assert patterns_of(["b[0]"], ["b[0]"]) == [r"re:^b\[0\]$"]


@pytest.mark.parametrize("model", ["a/b.py", "b.py:other", "package.b:other", "b", "a/b.py:model"])
def test_a_run_is_named_by_its_model(model: str) -> None:
    assert stem_of(model) == "b"


def test_fit_without_a_config_says_what_it_chose_and_writes_it(
    write: Write, hofit: Hofit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = hofit("fit", write("m.py", MODEL), "--data", write("d.csv", TABLE), "--seed", 3)
    assert outcome.code == 0 and "objective: marginal, b by laplace" in outcome.out
    assert "b: its prior depends on sd, which is free" in outcome.out
    ran = yaml.safe_load((tmp_path / "runs" / "m" / "config.yaml").read_text())
    assert ran["objective"]["integrate"] == {"b": "laplace"} and ran["seed"] == 3
    assert "chosen" not in hofit("fit", tmp_path / "m.py", "--data", tmp_path / "d.csv", "-q").out
    assert "name a model" in hofit("fit").err


def test_init_writes_a_config_that_runs_and_replaces_none(
    write: Write, hofit: Hofit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    model, data = write("sub/m.py", MODEL), write("sub/d.csv", TABLE)
    assert hofit("init", model, "--data", data).code == 0
    text = (tmp_path / "m.yaml").read_text()
    assert "#   b   latent     3         real      groups (3)" in text and "path: sub/d.csv" in text
    again = hofit("init", model, "--data", data)
    assert again.code == 2 and "is not replaced" in again.err and (tmp_path / "m.yaml").read_text() == text
    assert hofit("check", "-c", "m.yaml").code == 0 and hofit("fit", "-c", "m.yaml").code == 0
    assert "no directory" in hofit("init", model, "--data", data, "-o", "nowhere/x").err
