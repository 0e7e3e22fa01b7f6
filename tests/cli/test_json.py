"""--json: one object on standard output, and nothing else; on every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hofit.cli.app import app
from tests.cli.conftest import MODEL
from tests.command_line import Hofit, Write


def printed(hofit: Hofit, *arguments: object) -> dict[str, Any]:
    outcome = hofit(*arguments)
    assert outcome.code in (0, 3), outcome.text
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_commands_print_one_json_object_alone(folder: Path, hofit: Hofit) -> None:
    sets = ("-s", "metrics=[tensorboard]") if _has_tensorboard() else ()
    fitted = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "runs/j", "--json", *sets)
    result = json.loads(fitted.out)
    assert fitted.code == result["exit_code"] and result["run_dir"] == "runs/j"
    assert {row["name"] for row in result["estimates"]} >= {"mean", "sigma"}
    reported = json.loads(hofit("report", "runs/j", "--json").out)
    assert reported["loss"] == result["loss"] and reported["estimates"] == result["estimates"]
    resumed = hofit("resume", "runs/j", "--json", "-s", "stop.max_iterations=25")
    assert json.loads(resumed.out)["iterations"] == 25
    assert len(list(Path("runs/j").glob("events*"))) == 2 * bool(sets)
    diagnosed = hofit("diagnose", "runs/j", "--draws", 200, "--json")
    assert diagnosed.code == 2 or "reading" in json.loads(diagnosed.out)
    drawn = printed(hofit, "simulate", "runs/j", "--json")
    assert drawn["rows"] == 5 and len(drawn["columns"]["y"]) == 5
    assert printed(hofit, "simulate", "runs/j", "--out", "y.csv", "--json") == {"rows": 5, "wrote": "y.csv"}


def _has_tensorboard() -> bool:
    from hofit.run.tensorboard import is_available

    return is_available()


def test_check_prints_what_it_shows(folder: Path, hofit: Hofit) -> None:
    found, shown = printed(hofit, "check", "toy.py", "-c", "a.yaml", "--json"), hofit("check", "toy.py", "-c", "a.yaml")
    effect = next(row for row in found["parameters"] if row["name"] == "effect")
    assert effect["plates"] == [{"name": "groups", "size": 3}] and effect["optimizer"] == "adam"
    assert f"{found['unknowns']} unknowns; loss {found['loss']:.10g}" in shown.out
    assert found["structures"][-1]["by"] == "verdict" and found["warnings"] == []


def test_optimizers_and_schedules_have_their_options(hofit: Hofit) -> None:
    listed = printed(hofit, "optimizers", "--json")
    adam = next(one for one in listed["optimizers"] if one["name"] == "adam")
    assert {k: adam["options"][1][k] for k in ("name", "default")} == {"name": "betas", "default": [0.9, 0.999]}
    assert "exponential" in listed["schedules"]
    assert printed(hofit, "optimizers", "exponential", "--json")["options"][0]["default"] == "required"


def test_init_and_schema_say_what_they_wrote(folder: Path, hofit: Hofit) -> None:
    written = printed(hofit, "init", "toy.py", "--data", "data.csv", "--out", "b", "--json")
    assert written["wrote"] == ["b.yaml"] and "hofit fit" in written["next"]
    assert printed(hofit, "schema", "--json")["title"] == printed(hofit, "schema")["title"]
    assert printed(hofit, "schema", "--out", "s.json", "--json") == {"wrote": "s.json"}


@pytest.mark.parametrize("command", [one.name for one in app.registered_commands])
def test_every_command_takes_json(hofit: Hofit, command: str) -> None:
    assert "--json" in hofit(command, "--help").out


def test_what_a_model_prints_stands_beside_no_answer(folder: Path, hofit: Hofit, write: Write) -> None:
    write("toy.py", "print('loaded')\n" + MODEL.replace("):\n", "):\n    print('traced')\n", 1))
    fit = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "r", "--json")
    assert json.loads(fit.out)["run_dir"] == "r" and "loaded" in fit.err and "traced" in fit.err
    assert printed(hofit, "check", "toy.py", "-c", "a.yaml", "--json")
    table = hofit("predict", "r")
    assert "traced" in table.err and "traced" not in table.out and len(table.out.splitlines()) == 6
