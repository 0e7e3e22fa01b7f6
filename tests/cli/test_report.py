"""hofit report: the end of a fit again, from its run directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Hofit


def test_report_shows_what_fit_showed_at_its_end(folder: Path, hofit: Hofit) -> None:
    fitted = hofit("fit", "toy.py", "-c", "a.yaml")
    reported = hofit("report", "runs/a")
    assert reported.code == 0
    assert reported.err == ""
    assert reported.out.startswith("max_iterations")
    assert fitted.out.endswith(reported.out)


def test_report_does_not_need_the_model(folder: Path, hofit: Hofit) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml")
    shown = hofit("report", "runs/a").out
    for name in ("toy.py", "data.csv", "a.yaml"):
        (folder / name).unlink()
    assert hofit("report", "runs/a").out == shown


@pytest.mark.parametrize("what", ["nowhere", "empty", "data.csv"])
def test_report_of_what_is_no_run_is_refused(folder: Path, hofit: Hofit, what: str) -> None:
    (folder / "empty").mkdir()
    outcome = hofit("report", what)
    assert (outcome.code, outcome.out) == (2, "")
    assert what in outcome.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fit.json", "{"),
        ("fit.json", "{}"),
        ("fit.json", "[]"),
        ("fit.json", '"x"'),
        ("fit.json", "\x00"),
        ("estimates.csv", "name,index\nx,0\n"),
        ("estimates.csv", "name,index,role,estimate,std_error,unconstrained,optimizer\nmean,,param"),
        ("estimates.csv", "name,index,role,estimate,std_error,unconstrained,optimizer\nmean,,p,abc,,1,adam\n"),
    ],
)
def test_report_of_a_damaged_run_is_refused_without_a_traceback(
    folder: Path, hofit: Hofit, name: str, content: str
) -> None:
    hofit("fit", "toy.py", "-c", "a.yaml")
    (folder / "runs" / "a" / name).write_text(content)
    outcome = hofit("report", "runs/a")
    assert outcome.code == 2
    assert "runs/a" in outcome.err
    assert "Traceback" not in outcome.text
