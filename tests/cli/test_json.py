"""--json: one object on standard output, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command_line import Hofit


def test_commands_print_one_json_object_alone(folder: Path, hofit: Hofit) -> None:
    fitted = hofit("fit", "toy.py", "-c", "a.yaml", "--run-dir", "runs/j", "--json")
    result = json.loads(fitted.out)
    assert fitted.code == result["exit_code"] and result["run_dir"] == "runs/j"
    assert {row["name"] for row in result["estimates"]} >= {"mean", "sigma"}
    reported = json.loads(hofit("report", "runs/j", "--json").out)
    assert reported["loss"] == result["loss"] and reported["estimates"] == result["estimates"]
    resumed = hofit("resume", "runs/j", "--json")
    assert json.loads(resumed.out)["status"] == result["status"]
    diagnosed = hofit("diagnose", "runs/j", "--draws", 200, "--json")
    assert diagnosed.code == 2 or "reading" in json.loads(diagnosed.out)
