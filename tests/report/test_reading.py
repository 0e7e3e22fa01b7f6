"""A run directory read back."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from hofit.errors import RunDirectoryError
from hofit.record import Estimate
from hofit.report.reading import NEEDED, load_config_text, load_diagnosis, load_progress, load_run

FIT = dict.fromkeys(NEEDED)


def test_a_run_is_loaded_with_numbers_and_holes(tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text(json.dumps(FIT))
    head = "name,index,role,estimate,std_error,unconstrained,optimizer\n"
    (tmp_path / "estimates.csv").write_text(head + '"a,b","1,0",latent,0.1,,-2.5,\n')
    fit, rows = load_run(tmp_path)
    assert fit == FIT
    assert rows == [Estimate("a,b", "1,0", "latent", 0.1, None, -2.5)]


def test_derived_quantities_are_rows_of_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text(json.dumps(FIT))
    head = "name,index,role,estimate,std_error,unconstrained,optimizer,lower,upper\n"
    (tmp_path / "estimates.csv").write_text(head + "mu,,parameter,1.5,0.25,1.5,adam,1.01,1.99\n")
    (tmp_path / "derived.csv").write_text("name,index,estimate,std_error\nratio,,2.5,0.75\nhole,0,1,\n")
    _, rows = load_run(tmp_path)
    assert [(one.name, one.role, one.estimate, one.std_error) for one in rows] == [
        ("mu", "parameter", 1.5, 0.25),
        ("ratio", "derived", 2.5, 0.75),
        ("hole", "derived", 1.0, None),
    ]


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="no finished run"):
        load_run(tmp_path)
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(RunDirectoryError, match=f"hofit resume {tmp_path}"):
        load_run(tmp_path)


def test_a_fit_json_without_what_a_report_needs_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text(json.dumps({"status": "converged"}))
    (tmp_path / "estimates.csv").write_text("name,index,role,estimate,std_error,unconstrained,optimizer,lower,upper\n")
    with pytest.raises(RunDirectoryError, match=r"damaged .*: fit.json lacks converged, objective"):
        load_run(tmp_path)


def test_a_diagnosis_is_there_damaged_or_not(tmp_path: Path) -> None:
    assert load_diagnosis(tmp_path) is None
    (tmp_path / "diagnose.json").write_text(json.dumps({"reading": "good", "remarks": ["b"], "more": 1}))
    assert load_diagnosis(tmp_path) == {"reading": "good", "remarks": ["b"]}
    (tmp_path / "diagnose.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="a damaged diagnose"):
        load_diagnosis(tmp_path)


HEAD = "iteration,loss,gradient_norm,seconds,0.adam.trust_radius\n"


def test_a_progress_is_columns_and_a_row_that_a_killed_run_tore_is_left_out(tmp_path: Path) -> None:
    assert load_progress(tmp_path) == {}
    file = tmp_path / "progress.csv"
    file.write_text("")
    assert load_progress(tmp_path) == {}
    file.write_text(HEAD)
    assert load_progress(tmp_path)["loss"] == []
    file.write_text(HEAD + "0,2.5,1e-3,0.5,4\n1,inf,nan,0.75,8\n2,1.25,1e-")
    columns = load_progress(tmp_path)
    assert {head: columns[head] for head in ("iteration", "loss", "seconds", "0.adam.trust_radius")} == {
        "iteration": [0.0, 1.0],
        "loss": [2.5, math.inf],
        "seconds": [0.5, 0.75],
        "0.adam.trust_radius": [4.0, 8.0],
    }
    assert columns["gradient_norm"][0] == 1e-3 and math.isnan(columns["gradient_norm"][1])


def test_an_empty_cell_is_no_number_and_a_torn_row_between_is_damage(tmp_path: Path) -> None:
    (tmp_path / "progress.csv").write_text(HEAD + "0,2.5,1e-3,0.5,\n")
    assert math.isnan(load_progress(tmp_path)["0.adam.trust_radius"][0])
    (tmp_path / "progress.csv").write_text(HEAD + "0,2.5\n1,2.5,1e-3,0.5,\n")
    with pytest.raises(RunDirectoryError, match=r"damaged progress\.csv"):
        load_progress(tmp_path)


def test_the_config_is_text_as_it_stands(tmp_path: Path) -> None:
    assert load_config_text(tmp_path) is None
    (tmp_path / "config.yaml").write_text("a: 1  # no comment\n")
    assert load_config_text(tmp_path) == "a: 1  # no comment\n"
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RunDirectoryError, match="cannot be read"):
        load_config_text(tmp_path)
