"""hofit init --formula: two files that run as they are, and what a mistake teaches."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import Hofit, Write

DATA = Path(__file__).parents[2] / "models" / "data"
SLEEP, CBPP, EPILEPSY = DATA / "sleepstudy.csv", DATA / "cbpp.csv", DATA / "epilepsy.csv"
FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_commands_lead_to_lme4s_numbers(hofit: Hofit, tmp_path: Path) -> None:
    """lme4 1.1.31: logLik(lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE)) is -875.96967."""
    assert hofit("init", "--formula", FORMULA, "--data", SLEEP, "--out", "a").code == 0
    assert hofit("fit", "a.py", "--config", "a.yaml", "--run-dir", "run").code == 0
    fit = json.loads((tmp_path / "run" / "fit.json").read_text(encoding="utf-8"))
    assert fit["status"] == "converged"
    assert fit["log_likelihood"] == pytest.approx(-875.9696722316, rel=1e-10)
    names = (tmp_path / "run" / "estimates.csv").read_text(encoding="utf-8").split()
    parameters = [line.partition(",")[0] for line in names[1:] if ",parameter," in line]
    assert parameters == ["intercept", "Days", "sd_Subject", "sd_Subject_Days", "correlation_Subject", "sigma"]


@pytest.mark.parametrize("file", ["a.py", "a.yaml"])
def test_neither_file_is_replaced(hofit: Hofit, write: Write, file: str, tmp_path: Path) -> None:
    write(file, "mine\n")
    found = hofit("init", "--formula", FORMULA, "--data", SLEEP, "--out", "a")
    assert found.code == 2 and f"{file} is there already" in found.err
    assert [path.name for path in tmp_path.iterdir()] == [file]


LONG = "seizures ~ treatment * log(base/4) + visit + offset(log(age)) + (1 | patient)"
WRITTEN: dict[str, list[object]] = {
    FORMULA: ["--data", SLEEP, "--reml"],
    LONG: [
        *("--data", EPILEPSY, "--family", "negative_binomial"),
        *("--zero-inflated", "~ treatment + age", "--dispersion", "~ treatment"),
    ],
    "p(incidence, size) ~ C(period) + (1 | herd)": ["--data", CBPP, "--family", "binomial"],
    "Reaction ~ cr(Days, df=4) + (Days + I(Days^2) | Subject)": ["--data", SLEEP, "--family", "student_t"],
}


@pytest.mark.parametrize("formula", WRITTEN)
def test_what_is_written_is_as_ruff_would_have_it(hofit: Hofit, formula: str, tmp_path: Path) -> None:
    assert hofit("init", "--formula", formula, *WRITTEN[formula], "--out", "a").code == 0
    options = ["--line-length", "120", "--isolated", "--no-cache", str(tmp_path / "a.py")]
    rules = ["--select", "E,F,W,I,B,UP", *options]
    for command in (["check", *rules], ["format", "--diff", *options]):
        found = subprocess.run([sys.executable, "-m", "ruff", *command], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


MISTAKES = {
    "a column in other letters": (["reaction ~ Days"], "no column 'reaction'; did you mean 'Reaction'?"),
    "a column with letters changed": (["Reaction ~ Dyas"], "did you mean 'Days'?"),
    "a group that is not there": (["Reaction ~ (1 | Patient)"], "its columns are Reaction, Days, Subject"),
    "a function of R's": (["Reaction ~ ns(Days, 3)"], "write cr(x, df=4)"),
    "a function misspelt": (["Reaction ~ lgo(Days)"], "did you mean log?"),
    "no counts": ([FORMULA, "--family", "poisson"], "must be a count: 0, 1, 2, …, and is 249.56 in row 1"),
    "no counts of trials": (["Days ~ 1", "--family", "binomial"], "p(successes, trials) ~ x"),
    "no shares": (["Reaction ~ 1", "--family", "beta"], "between 0 and 1"),
    "trials without a family": (["p(Days, 9) ~ 1"], "add --family binomial"),
    "more successes than trials": (["p(Days, 5) ~ 1", "--family", "binomial"], "is 6 of 5 5 in row 7"),
    "levels of a number": (["Reaction ~ 1", "--family", "ordinal"], "has 180 levels"),
    "zeros of no count": (["Reaction ~ 1", "--zero-inflated", "~ 1"], "families of counts"),
    "a dispersion of none": (["Days ~ 1", "--family", "poisson", "--dispersion", "~ 1"], "no dispersion of its own"),
    "one column twice": (["Reaction ~ Days + I(2*Days)"], "is a combination of the columns before"),
    "a spline too small": (["Reaction ~ bs(Days, df=2)"], "cannot be computed from the data: df=2 is too small"),
    "not closed": (["Reaction ~ (1 | Subject"], "a parenthesis is not closed"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_says_what_to_write(hofit: Hofit, name: str, tmp_path: Path) -> None:
    arguments, said = MISTAKES[name]
    found = hofit("init", "--data", SLEEP, "--out", "a", "--formula", *arguments)
    assert (found.code, found.out) == (2, "")
    assert said in found.err and "Traceback" not in found.err
    assert not list(tmp_path.iterdir())


def test_a_row_outside_the_support_is_named_by_its_line(hofit: Hofit, write: Write) -> None:
    path = write("d.csv", "y,x\n1.5,1\n,2\n-2,3\n4,4\n")
    found = hofit("init", "--formula", "y ~ x", "--data", path, "--family", "gamma", "--out", "a")
    assert found.code == 2 and f"y must be above zero, and is -2 in row 3 ({path}:4); --family gaussian" in found.err


def test_text_is_no_number(hofit: Hofit) -> None:
    found = hofit("init", "--formula", "treatment ~ age", "--data", EPILEPSY, "--out", "a")
    assert found.code == 2 and "'treatment' holds text, as 'placebo' in row 1" in found.err
    assert "--family bernoulli takes two levels of text" in found.err


def test_rows_with_empty_cells_are_left_out_and_counted(hofit: Hofit, write: Write) -> None:
    path = write("d.csv", "y,x,other\n1.5,1,\n,2,\n2,3,\n4,4,\n3,,\n2.5,1,\n")
    found = hofit("init", "--formula", "y ~ x", "--data", path, "--out", "a")
    assert found.code == 0 and "2 of 6 rows have an empty cell, and are left out" in found.err
    assert hofit("fit", "a.py", "--config", "a.yaml").code == 0


def test_a_model_or_a_formula_and_its_data(hofit: Hofit) -> None:
    assert "neither is given" in hofit("init").err
    assert "both are given" in hofit("init", "m.py", "--formula", "y ~ x").err
    assert "add --data" in hofit("init", "--formula", "y ~ x").err
    assert "--reml: goes with --formula" in hofit("init", "m.py", "--reml").err
    assert "no data file" in hofit("init", "--formula", "y ~ x", "--data", "no.csv").err
    assert "ends in .csv" in hofit("init", "--formula", "y ~ x", "--data", "no.npz").err


def test_without_the_library_it_is_said_how_to_get_it(hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "formulae", None)
    found = hofit("init", "--formula", FORMULA, "--data", SLEEP, "--out", "a")
    assert (found.code, found.err) == (2, "hofit: a formula needs the library formulae: pip install 'hofit[formula]'\n")


def test_names_that_are_no_words_become_some(hofit: Hofit, write: Write) -> None:
    """Columns with blanks, dots, Python's own words, and the names that the module itself uses."""
    effects = [2.0 * (i % 6) + 3.0 * (i % 4) + i * i % 11 for i in range(36)]  # both there: no scale goes to zero
    rows = [f"{y},{i % 5},g {i % 6},{i % 4},{i % 3 == 0}" for i, y in enumerate(effects)]
    path = write("d.csv", "\n".join(["my y,Petal.Length,the group,table,lambda", *rows]) + "\n")
    formula = "`my y` ~ Petal.Length + `lambda` + (1 | `the group`) + (1 | table)"
    assert hofit("init", "--formula", formula, "--data", path, "--out", "a").code == 0
    found = hofit("fit", "a.py", "--config", "a.yaml")
    assert found.code == 0
    for name in ("Petal_Length", "lambda_", "sd_the_group", "sd_table"):
        assert name in found.out
