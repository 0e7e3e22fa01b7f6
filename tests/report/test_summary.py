"""The end of a fit in words: verdict, remarks, failed checks, estimates, what to try."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hofit.record import Derived, Estimate
from hofit.report.summary import print_summary, verdict_line
from hofit.status import COMPLETE_AS_TOLD, Status

FIT: dict[str, Any] = {
    "status": "converged",
    "converged": True,
    "exit_code": 0,
    "objective": "map",
    "loss": 123.456789012345,
    "gradient_norm": 1.25e-9,
    "iterations": 17,
    "seconds": 0.5,
    "checks": [
        {"name": "gradient", "ok": True, "value": 1e-9, "message": "max-norm 1e-09"},
        {"name": "curvature", "ok": None, "value": None, "message": "not checked: too many"},
    ],
    "remarks": [],
    "remedy": "",
}


def row(name: str, index: str = "", role: str = "parameter", **changes: Any) -> Estimate:
    plain = {"estimate": 1.5, "std_error": None, "unconstrained": 1.5, "optimizer": "adam"}
    return Estimate(name, index, role, **{**plain, **changes})


def summary(fit: dict[str, Any], rows: list[Estimate], run_dir: Path | None = None, width: int = 120) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None, highlight=False)
    print_summary(console, {**FIT, **fit}, rows, run_dir)
    return file.getvalue()


def of_status(status: Status) -> dict[str, Any]:
    return {
        "status": status.word,
        "converged": status.converged,
        "exit_code": status.exit_code,
        "remedy": status.remedy,
    }


def test_the_verdict_is_one_line_with_status_loss_objective_and_gradient() -> None:
    line = verdict_line(FIT)
    for part in ("converged", "123.456789", "map", "1.25e-09", "17 iterations", "0.50 s"):
        assert part in line
    assert len(line.splitlines()) == 1
    assert summary({}, []).startswith(line)


@pytest.mark.parametrize("key", ["loss", "gradient_norm"])
def test_what_is_not_finite_is_said_in_words(key: str) -> None:
    assert "not finite" in verdict_line({**FIT, key: None})


@pytest.mark.parametrize("status", Status)
def test_every_status_but_converged_has_a_line_of_remedy(status: Status) -> None:
    text = summary(of_status(status), [], Path("runs/mine"))
    assert text.startswith(status.word)
    assert ("What to try: " in text) == (status is not Status.CONVERGED)
    if status is not Status.CONVERGED:
        assert status.remedy.replace("RUN_DIR", "runs/mine") in text
    assert "RUN_DIR" not in text
    if status.exit_code in (3, 130) and status is not Status.NO_PROGRESS:
        assert "hofit resume runs/mine" in text


def test_every_remark_is_printed_whole_whatever_it_holds() -> None:
    remarks = ["boundary: tau[0,1] runs to the edge [of] the support", "unused: the loss does not depend on 'x'" * 9]
    text = summary({"remarks": remarks}, [], width=60)
    for remark in remarks:
        assert remark in text


@pytest.mark.parametrize("status", [Status.MAX_ITERATIONS, Status.CONVERGED_ON_BOUNDARY])
def test_every_failed_check_is_printed(status: Status) -> None:
    check = {"name": "curvature", "ok": False, "value": -1.0, "message": "lowest eigenvalue -1 [scaled]"}
    text = summary({**of_status(status), "checks": [*FIT["checks"], check]}, [])
    assert "curvature: lowest eigenvalue -1 [scaled]" in text
    assert "max-norm" not in text


def test_the_run_directory_is_named() -> None:
    assert "runs/mine" in summary({}, [], Path("runs/mine"))


def test_estimates_are_a_table_with_index_role_and_optimizer() -> None:
    rows = [row("mean", estimate=-1234567.8), row("b", "3,0", role="latent", optimizer=None), row("x[odd]")]
    text = summary({}, rows)
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:] if line.strip()}
    assert lines["mean"] == ["parameter", "-1234567.8", "adam"]
    assert lines["b[3,0]"] == ["latent", "1.5", "–"]
    assert "x[odd]" in lines
    assert "std. error" not in text


def test_standard_errors_are_shown_where_there_are_any() -> None:
    text = summary({}, [row("a", std_error=0.25), row("b")])
    assert "std. error" in text
    assert "0.25" in text


def test_an_interval_stands_beside_its_error() -> None:
    text = summary(
        {}, [row("a", std_error=0.25, lower=1.01, upper=1.99), row("p", std_error=0.5, lower=None, upper=None)]
    )
    assert "95 % interval" in text
    lines = {line.split()[0]: line for line in text.splitlines()[1:] if line.strip()}
    assert "1.010 … 1.990" in lines["a"] and "…" not in lines["p"]


def test_a_long_vector_is_summarised() -> None:
    rows = [row("b", str(i), estimate=float(i)) for i in range(100)]
    text = summary({}, rows)
    assert "100 numbers" in text
    for part in ("min 0", "mean 49.5", "max 99"):
        assert part in text
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize("rows", [[row("a", estimate=None)], [row("b", str(i), estimate=None) for i in range(20)]])
def test_an_estimate_that_is_not_there_is_no_obstacle(rows: list[Estimate]) -> None:
    assert rows[0].name in summary({}, rows)


def test_no_number_is_cut_on_a_screen_of_eighty_columns() -> None:
    name = "encoder.layers.0.attention.output.weight"
    text = summary({}, [row(name, "12,345", estimate=-0.12345678, std_error=0.0012345)], width=80)
    assert "-0.12346" in text
    assert "0.00123" in text


@pytest.mark.parametrize(("width", "columns"), [(120, 6), (60, 5), (50, 4)])
def test_a_narrow_screen_does_without_optimizers_then_roles(width: int, columns: int) -> None:
    rows = [row("mu", std_error=0.25, lower=1.01, upper=1.99)]
    heads = summary({}, rows, width=width).splitlines()[1]
    titles = ("name", "role", "estimate", "std. error", "95 % interval", "optimizer")
    assert sum(title in heads for title in titles) == columns


def test_the_weights_of_a_module_are_a_line_each() -> None:
    text = summary({}, [row("net.weight", str(k), estimate=float(k)) for k in range(20)])
    assert "net.weight: 20 numbers; min 0, mean 9.5, max 19" in text and "net.weight[0]" not in text


def test_derived_quantities_are_rows_of_the_table() -> None:
    text = summary({}, [row("mu"), Estimate.of(Derived("ratio", "", 2.5, 0.75))])
    assert "ratio" in text and "derived" in text and "0.75" in text


def test_a_matrix_is_told_by_its_deviations_and_correlations_before_the_effects_and_not_by_its_entries() -> None:
    told = {"name": "L: corr[0,1]", "estimate": 0.25, "std_error": 0.1, "lower": 0.05, "upper": 0.43}
    rows = [row("L", "0,0"), row("L", "1,0"), row("mu"), row("b", "0", "integrated")]
    text = summary({"quantities": [told], "restated": ["L"]}, rows)
    names = [line.split("  ")[0] for line in text.splitlines()[2:5]]
    assert names == ["mu", "L: corr[0,1]", "b[0]"] and "L[0,0]" not in text and "0.050 … 0.430" in text
    assert "L: a matrix, told by its standard deviations and correlations" in text


def test_a_run_on_minibatches_that_did_all_it_was_told_to_says_so() -> None:
    fit = {**of_status(Status.MAX_ITERATIONS), "complete_as_told": True, "remedy": COMPLETE_AS_TOLD}
    text = summary(fit, [], Path("runs/x"))
    assert text.startswith("max_iterations (complete as told): loss")
    assert "What to try: nothing, if" in text and "hofit resume runs/x -s stop.max_iterations=N" in text


def test_evaluations_are_told_where_they_are_asked_for() -> None:
    fit = {**FIT, "evaluations": {"loss": 12, "gradient": 9, "hvp": 0, "inner": 40}}
    file = io.StringIO()
    print_summary(Console(file=file, width=120, color_system=None), fit, [], None, verbose=True)
    assert "Evaluations: loss 12, gradient 9, inner 40" in file.getvalue()
    assert "Evaluations" not in summary(fit, [])
