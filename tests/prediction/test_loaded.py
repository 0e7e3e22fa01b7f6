"""Rows that the fit has not seen, where the module reads its data itself: by load_data(path, like)."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Hofit, Write
from tests.tolerances import CONDITIONED

ROOT = Path(__file__).parents[2]
SLEEP = ROOT / "models" / "data" / "sleepstudy.csv"
EPILEPSY = ROOT / "models" / "data" / "epilepsy.csv"
NUMBERS = ("estimate", "std_error", "lower", "upper")

Predict = Callable[..., list[dict[str, str]]]


@pytest.fixture
def predict(hofit: Hofit) -> Predict:
    def run(run_dir: Path, *arguments: object) -> list[dict[str, str]]:
        found = hofit("predict", run_dir, "--draws", 20, *arguments)
        assert found.code == 0, found.text
        return list(csv.DictReader(io.StringIO(found.out)))

    return run


def fitted(hofit: Hofit, folder: Path, *arguments: object) -> Path:
    """The run of a formula."""
    assert hofit("init", "--formula", *arguments, "--out", folder / "a").code == 0
    assert hofit("fit", folder / "a.py", "-c", folder / "a.yaml", "--run-dir", folder / "run").code == 0
    return folder / "run"


@pytest.mark.parametrize("more", [(), ("--population",)])
def test_a_formula_predicts_as_a_config_with_columns_does(
    hofit: Hofit, predict: Predict, write: Write, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """tests/prediction/test_predict.py holds the model with columns against lme4; two subjects here are new."""
    run = fitted(hofit, tmp_path, "Reaction ~ Days + (Days | Subject)", "--data", SLEEP)
    model, config = ROOT / "models" / "sleepstudy.py", ROOT / "configs" / "sleepstudy_marginal.yaml"
    assert hofit("fit", model, "-c", config, "--run-dir", tmp_path / "columns").code == 0
    new = write("new.csv", "Days,Subject\n10,372\n0,308\n10,999\n3,1000\n3,372\n")
    found, expected = (predict(one, "--data", new, *more) for one in (run, tmp_path / "columns"))
    assert len(found) == 5
    for row, other in zip(found, expected, strict=True):
        assert [float(row[name]) for name in NUMBERS] == pytest.approx(
            [float(other[name]) for name in NUMBERS], rel=CONDITIONED
        )


def test_levels_and_knots_are_those_of_the_fit(hofit: Hofit, predict: Predict, write: Write, tmp_path: Path) -> None:
    """Some of the fit's own rows, alone in a table, are what they are among all."""
    formula = "seizures ~ treatment + cr(age, df=3) + scale(log(base)) + offset(log(visit)) + (1 | patient)"
    run = fitted(hofit, tmp_path, formula, "--data", EPILEPSY, "--family", "poisson")
    lines = EPILEPSY.read_text(encoding="utf-8").splitlines()
    rows = (7, 150, 201)
    new = write("new.csv", "\n".join([lines[0], *(lines[1 + row] for row in rows)]) + "\n")
    every, some = predict(run), predict(run, "--data", new)
    for row, found in zip(rows, some, strict=True):
        for name in ("estimate", "std_error"):
            assert float(found[name]) == pytest.approx(float(every[row][name]), rel=CONDITIONED)


def test_a_level_that_has_no_coefficient_is_an_error(hofit: Hofit, write: Write, tmp_path: Path) -> None:
    run = fitted(hofit, tmp_path, "seizures ~ treatment", "--data", EPILEPSY, "--family", "poisson")
    found = hofit("predict", run, "--data", write("new.csv", "treatment\nplacebo\nother\n"))
    assert found.code == 2 and "other" in found.err and "Traceback" not in found.err
    found = hofit("predict", run, "--data", write("new.csv", "drug\nplacebo\n"))
    assert found.code == 2 and "treatment" in found.err and "Traceback" not in found.err
    found = hofit("predict", run, "--data", write("new.csv", "treatment,x\n,2\n"))
    assert found.code == 2 and "no row" in found.err
