"""The rows of a run directory's tables: what is written is read back, to the byte that users have scripts for."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from hofit.record import Derived, Estimate, PartReport, Progress, as_csv, indices, labelled, read_table, table

ESTIMATES = [
    Estimate("mu", "", "parameter", 0.1, None, -2.0, "adam", 1e-300, 5.0),
    Estimate('odd,"name"', "3,0", "latent", 1 / 3, 2.5, None, None),
]


def test_a_table_is_written_to_seventeen_digits_with_holes_and_quotes() -> None:
    assert table(Estimate, ESTIMATES) == (
        "name,index,role,estimate,std_error,unconstrained,optimizer,lower,upper\n"
        "mu,,parameter,0.10000000000000001,,-2,adam,1e-300,5\n"
        '"odd,""name""","3,0",latent,0.33333333333333331,2.5,,,,\n'
    )
    assert table(Derived, [Derived("r", "0", float("nan"), None)]) == (
        "name,index,estimate,std_error,lower,upper\nr,0,nan,,,\n"
    )


def test_a_table_is_of_any_dataclass_and_has_booleans_in_lower_case() -> None:
    @dataclass
    class Fit:
        converged: bool
        count: int

    assert table(Fit, [Fit(True, 1), Fit(False, 0)]) == "converged,count\ntrue,1\nfalse,0\n"


def test_numbers_of_a_shape_are_labelled_row_by_row() -> None:
    assert [labelled("b", index) for index in indices((2, 2))] == ["b[0,0]", "b[0,1]", "b[1,0]", "b[1,1]"]
    assert [labelled("tau", index) for index in indices(())] == ["tau"] and indices((2, 0)) == []


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "estimates.csv").write_text(table(Estimate, ESTIMATES))
    assert read_table(Estimate, tmp_path / "estimates.csv") == ESTIMATES


def test_columns_of_later_versions_may_be_missing_and_others_not(tmp_path: Path) -> None:
    path = tmp_path / "estimates.csv"
    path.write_text("name,index,role,estimate,std_error\nmu,,parameter,1.5,\n")
    assert read_table(Estimate, path) == [Estimate("mu", "", "parameter", 1.5, None)]
    path.write_text("name,index,estimate,std_error\nr,0,1.5,0.25\n")
    assert read_table(Derived, path) == [Derived("r", "0", 1.5, 0.25)]
    path.write_text("name,index,role,estimate\nmu,,parameter,1.5\n")
    with pytest.raises(KeyError, match="std_error"):
        read_table(Estimate, path)


@pytest.mark.parametrize("row", ["mu,,1.5", "mu,,1.5,,9"])
def test_a_torn_row_is_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "derived.csv").write_text(f"name,index,estimate,std_error\n{row}\n")
    with pytest.raises(ValueError, match="torn"):
        read_table(Derived, tmp_path / "derived.csv")


def test_a_row_of_progress_has_two_columns_for_each_part() -> None:
    parts = [PartReport("newton", 0.5), PartReport("a,b", None, False)]
    progress = Progress(7, 0.1, None, 1e-9, 2.0, 0.12345678, parts)
    text = as_csv([progress.columns(), progress.cells()])
    assert text == (
        "iteration,loss,change,gradient_norm,step_norm,seconds,"
        '0.newton.trust_radius,0.newton.accepted,"1.a,b.trust_radius","1.a,b.accepted"\n'
        "7,0.1,,1e-09,2.0,0.123457,0.5,,,0\n"
    )
    assert [len(row) for row in csv.reader(text.splitlines())] == [10, 10]


def test_reading_a_run_needs_neither_torch_nor_the_model() -> None:
    heavy = "{'torch', 'pyro', 'pydantic', 'numpy', 'hofit.point', 'hofit.model'}"
    code = f"import sys, hofit.report.reading, hofit.report.summary; assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_name_with_a_carriage_return_reads_back(tmp_path: Path) -> None:
    rows = [Estimate("a\rb", "", "latent", 1.5, None), Estimate('c"\r\n,d', "0", "latent", 2.5, 0.5)]
    path = tmp_path / "estimates.csv"
    path.write_text(table(Estimate, rows), newline="")
    assert read_table(Estimate, path) == rows
