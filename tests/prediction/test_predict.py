"""Predictions are lme4's, their errors what theory has, and what cannot be predicted says why.

References: lme4 1.1.31, `m <- lmer(Reaction ~ Days + (Days | Subject), s, REML = FALSE)`, refitted from its own optimum
with tolerances of 1e-16, `predict(m, new, allow.new.levels = TRUE)` and `predict(m, new, re.form = NA)`;
`g <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), c, binomial)` likewise,
`predict(g, type = "response")` and the same with `re.form = NA`.
"""

from __future__ import annotations

import csv
import inspect
import math
import textwrap
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import hofit as library
from hofit.errors import HofitError
from hofit.prediction.predict import Prediction, PredictRequest, run_predict
from hofit.prediction.simulate import run_simulate
from hofit.run.resume import ResumeRequest
from tests.command_line import Hofit, Write

ROOT = Path(__file__).parents[2]
RELATIVE = 1e-6
"""What is asked of predictions against lme4's."""

NEW = "Days,Subject\n0,308\n3.5,372\n9,335\n2,999\n"
CONDITIONAL = [254.22078778044468, 304.74696687121087, 249.17826609587365, 272.33967676767486]
POPULATION = [251.40510484848321, 288.04060570706855, 345.61067848484549, 272.33967676767486]
PROBABILITIES = {0: 0.308207645296576516, 1: 0.141748253580683992, 19: 0.141997117976085219, 55: 0.029048141919930312}
OF_PERIODS = [0.198049142665375710, 0.083871953996038986, 0.073972931733297068, 0.048390739583804930]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fits of examples, by name."""
    folder = tmp_path_factory.mktemp("runs")
    for name, config in (("sleepstudy", "sleepstudy_marginal"), ("cbpp", "cbpp_laplace")):
        library.fit(str(ROOT / "models" / f"{name}.py"), ROOT / "configs" / f"{config}.yaml", run_dir=folder / name)
    return folder


def predicted(run: Path, data: Path | None = None, draws: int = 50, population: bool = False) -> Prediction:
    return run_predict(PredictRequest(ResumeRequest(run), data, population=population, draws=draws))


def test_known_and_new_subjects_are_predicted_as_by_lme4(runs: Path, write: Write) -> None:
    new = write("new.csv", NEW)
    assert predicted(runs / "sleepstudy", new).estimate.tolist() == pytest.approx(CONDITIONAL, rel=RELATIVE)
    by_population = predicted(runs / "sleepstudy", new, population=True)
    assert by_population.estimate.tolist() == pytest.approx(POPULATION, rel=RELATIVE)


def test_incidence_is_predicted_as_by_lme4(runs: Path, write: Write) -> None:
    with (ROOT / "models/data/cbpp.csv").open() as file:
        sizes = [float(row["size"]) for row in csv.DictReader(file)]
    found = predicted(runs / "cbpp").estimate.tolist()
    assert {k: found[k] / sizes[k] for k in PROBABILITIES} == pytest.approx(PROBABILITIES, rel=RELATIVE)
    new = write("new.csv", "size,period,herd\n1,1,1\n1,2,1\n1,3,2\n1,4,99\n")
    found = predicted(runs / "cbpp", new, population=True).estimate.tolist()
    assert found == pytest.approx(OF_PERIODS, rel=RELATIVE)


def test_the_error_of_a_new_level_holds_the_spread_of_its_population(runs: Path, write: Write) -> None:
    result = library.fit(str(ROOT / "models/sleepstudy.py"), ROOT / "configs/sleepstudy_marginal.yaml")
    sd = [float(result.values[name]) for name in ("sd_intercept", "sd_days", "correlation")]
    spread = torch.tensor([[sd[0] ** 2, sd[0] * sd[1] * sd[2]], [sd[0] * sd[1] * sd[2], sd[1] ** 2]])
    days = torch.tensor([[1.0, 0.0], [1.0, 4.0]])
    total = torch.einsum("ki,ij,kj->k", days, result.covariance("beta") + spread, days)
    found = predicted(runs / "sleepstudy", write("new.csv", "Days,Subject\n0,1\n4,2\n"), draws=4000)
    assert found.std_error.tolist() == pytest.approx(total.sqrt().tolist(), rel=1e-9)
    half = 1.959964 * (total + float(result.values["sigma"]) ** 2).sqrt()
    width = (found.upper - found.lower) / 2
    assert width.tolist() == pytest.approx(half.tolist(), rel=0.06)  # a quantile of 4000 draws: 2 % a standard error


def test_the_delta_method_is_what_draws_show(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = predicted(runs / "cbpp", draws=3000).std_error
    monkeypatch.setattr("hofit.prediction.predict.SLOPES_LIMIT", 0)
    drawn = predicted(runs / "cbpp", draws=3000).std_error
    assert drawn.tolist() == pytest.approx(exact.tolist(), rel=0.25)  # the inverse logit is curved


MODELS = """
import pyro, torch, pyro.distributions as dist
from torch.distributions import constraints
def two(a, b):
    m = pyro.param("m", torch.tensor(0.0))
    with pyro.plate("rows", len(a)):
        pyro.sample("a", dist.Normal(m, 1.0), obs=a)
        pyro.sample("b", dist.Normal(m, 2.0), obs=b)
def factor(a):
    m = pyro.param("m", torch.tensor(0.0))
    pyro.factor("f", -((a - m) ** 2).sum())
def kinds(a):
    p = pyro.param("p", torch.ones(3) / 3, constraint=constraints.simplex)
    with pyro.plate("rows", len(a)):
        pyro.sample("a", dist.Categorical(p), obs=a)
def walk(a):
    level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), (len(a),)))
    pyro.factor("steps", dist.Normal(0.0, 1.0).log_prob(level.diff()).sum())
    with pyro.plate("rows", len(a)):
        pyro.sample("a", dist.Normal(level, 1.0), obs=a)
def each(a, g):
    m = pyro.param("m", torch.zeros(2))
    with pyro.plate("rows", len(a)):
        e = pyro.sample("e", dist.Normal(0.0, 1.0))
        pyro.sample("a", dist.Normal(m[g] + e, 1.0), obs=a)
"""
TABLE = "a,b,g\n0,1,x\n1,2,y\n2,0,x\n"


def fitted(write: Write, name: str, tmp_path: Path, **columns: object) -> Path:
    model, data = write("m.py", MODELS), write("d.csv", TABLE)
    config = {
        "data": {"path": str(data), "columns": columns},
        "optimizers": [{"params": "*", "optimizer": "newton_cg"}],
    }
    library.fit(f"{model}:{name}", config, run_dir=tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "columns", "message"),
    [
        ("two", {"a": "a", "b": "b"}, "several sites are observed: choose one of 'a', 'b' with --site"),
        ("factor", {"a": "a"}, "observes no site"),
        ("kinds", {"a": {"column": "a", "dtype": "long"}}, "its values are categories"),
    ],
)
def test_what_has_no_prediction_says_why(
    name: str, columns: dict[str, object], message: str, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(HofitError, match=message):
        predicted(fitted(write, name, tmp_path, **columns))


def test_what_is_not_known_of_new_rows_says_why(write: Write, tmp_path: Path) -> None:
    run = fitted(write, "walk", tmp_path, a="a")
    assert len(predicted(run).estimate) == 3
    with pytest.raises(HofitError, match="own rows only"):
        predicted(run, write("new.csv", "a\n1\n2\n"))
    run = fitted(write, "each", tmp_path, a="a", g={"column": "g", "codes": True})
    known = predicted(run, write("new.csv", "g\nx\ny\ny\n"))
    assert known.std_error.isfinite().all() and known.estimate[1] == known.estimate[2]  # rows are new: e is 0
    with pytest.raises(HofitError, match="index"):
        predicted(run, write("new.csv", "g\nx\nw\n"))


def test_a_mean_that_is_given_has_no_error_and_pairs_are_drawn_as_pairs(tmp_path: Path) -> None:
    def process(y: torch.Tensor) -> None:
        length = pyro.param("length", torch.tensor(1.0), constraint=constraints.positive)
        where = torch.arange(6.0)
        kernel = (-((where[:, None] - where) ** 2) / length**2).exp() + 0.1 * torch.eye(6)
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(6), kernel), obs=y)

    model = tmp_path / "m.py"
    model.write_text(
        "import pyro, torch, pyro.distributions as dist\nfrom torch.distributions import constraints\n"
        + textwrap.dedent(inspect.getsource(process)).replace("process", "model")
        + "def pairs(a, b):\n    m = pyro.param('m', torch.zeros(2))\n    with pyro.plate('rows', len(a)):\n"
        "        pyro.sample('p', dist.Normal(m, 1.0).to_event(1), obs=torch.stack([a, b], 1))\n"
    )
    entry = [{"params": "*", "optimizer": "newton_cg"}]
    data = {"arguments": {"y": [0.5, 1.0, 0.7, -0.2, -0.9, -0.1]}}
    library.fit(str(model), {"data": data, "optimizers": entry}, run_dir=tmp_path / "process")
    found = predicted(tmp_path / "process")
    assert found.estimate.tolist() == found.std_error.tolist() == [0.0] * 6 and bool((found.upper > 0).all())
    (tmp_path / "d.csv").write_text(TABLE)
    columns = {"path": str(tmp_path / "d.csv"), "columns": {"a": "a", "b": "b"}}
    library.fit(f"{model}:pairs", {"data": columns, "optimizers": entry}, run_dir=tmp_path / "pairs")
    drawn = run_simulate(ResumeRequest(tmp_path / "pairs")).columns()
    assert list(drawn) == ["p[0]", "p[1]"] and len(drawn["p[0]"]) == 3


def test_the_fit_s_own_rows_are_those_that_it_has_had(tmp_path: Path, write: Write) -> None:
    model, data = write("m.py", MODELS), write("d.csv", "a,b,g\n0,1,x\n,2,y\n2,0,x\n")
    columns = {"path": str(data), "columns": {"a": "a", "b": "b"}, "missing": "drop"}
    entry = [{"params": "*", "optimizer": "newton_cg"}]
    library.fit(f"{model}:two", {"data": columns, "optimizers": entry}, run_dir=tmp_path / "run")
    found = run_predict(PredictRequest(ResumeRequest(tmp_path / "run"), site="a", draws=5)).columns()
    assert found["b"].tolist() == [1, 0] and len(found["estimate"]) == 2  # type: ignore[union-attr]


def test_the_interval_of_a_count_ends_at_counts(runs: Path) -> None:
    found = predicted(runs / "cbpp", draws=41)
    assert torch.equal(found.lower, found.lower.round()) and torch.equal(found.upper, found.upper.round())


def test_a_simulation_is_like_the_fit(runs: Path) -> None:
    run = ResumeRequest(runs / "sleepstudy")
    fit = predicted(runs / "sleepstudy", draws=2).estimate
    near, anew = (run_simulate(run, seed=1, conditional=c).drawn["reaction"] for c in (True, False))
    sigma = 25.591816
    deviations = math.sqrt(2 / len(fit))  # of a variance of so many, relative
    assert float(((near - fit) / sigma).var()) == pytest.approx(1.0, abs=4 * deviations)
    assert float((anew - fit).var()) > 2 * sigma**2
    assert torch.equal(anew, run_simulate(run, seed=1).drawn["reaction"])
    assert not torch.equal(anew, run_simulate(run, seed=2).drawn["reaction"])


def test_a_walk_is_simulated_given_its_levels_only(write: Write, tmp_path: Path) -> None:
    model, data = (
        write(
            "m.py",
            MODELS.replace("dist.Normal(0.0, 1.0).log_prob(level", "dist.Normal(0.0, sd).log_prob(level").replace(
                "    level = pyro",
                "    sd = pyro.param('sd', torch.tensor(1.0), constraint=constraints.positive)\n    level = pyro",
            ),
        ),
        write("d.csv", TABLE),
    )
    config = {
        "data": {"path": str(data), "columns": {"a": "a"}},
        "objective": {"type": "marginal", "integrate": {"level": "laplace"}},
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
    }
    library.fit(f"{model}:walk", config, run_dir=tmp_path / "run")
    with pytest.raises(HofitError, match="--conditional"):
        run_simulate(ResumeRequest(tmp_path / "run"))
    assert len(run_simulate(ResumeRequest(tmp_path / "run"), conditional=True).drawn["a"]) == 3


def test_the_commands_write_the_columns_of_the_table_and_their_own(
    runs: Path, write: Write, hofit: Hofit, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    outcome = hofit("predict", runs / "sleepstudy", "--data", write("new.csv", NEW), "--out", out, "--draws", 20)
    assert outcome.code == 0 and "the model is" in outcome.err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["Days", "Subject", "estimate", "std_error", "lower", "upper"]
    assert [float(row["estimate"]) for row in rows] == pytest.approx(CONDITIONAL, rel=RELATIVE)
    simulated = hofit("simulate", runs / "cbpp", "--seed", 3)
    lines = simulated.out.splitlines()
    assert (
        simulated.code == 0
        and "the model is" in simulated.err
        and lines[0] == "herd,incidence,size,period"
        and len(lines) == 57
    )
    assert all(int(line.split(",")[1]) <= int(line.split(",")[2]) for line in lines[1:])
    parquet = hofit("simulate", runs / "cbpp", "--out", tmp_path / "s.parquet")
    assert parquet.code == 0 and (tmp_path / "s.parquet").stat().st_size > 0
    for arguments, message in (
        (("predict", runs / "cbpp", "--out", "p.txt"), "ends in .csv or .parquet"),
        (("predict", runs / "cbpp", "--out", tmp_path / "no" / "p.csv"), "there is no directory"),
        (("predict", runs / "nothing"), "nothing"),
        (("predict", runs / "cbpp", "--draws", 1), "at least 2"),
        (("predict", runs / "cbpp", "--site", "x"), "the observed sites are 'incidence'"),
        (("predict", runs / "cbpp", "--data", write("e.csv", "size,period,herd,lower\n1,1,1,2\n")), "column 'lower'"),
    ):
        outcome = hofit(*arguments)
        assert outcome.code in (2, 5) and message in outcome.err, arguments
