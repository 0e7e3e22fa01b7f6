"""What a shell completes: names held to the registry, run directories found, and nothing heavy imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hofit.cli.completion import OPTIMIZERS, SCHEDULES, complete_optimizer, complete_run
from hofit.optim import schedules
from hofit.optim.registry import registry
from hofit.record import CHECKPOINT, CONFIG
from tests.cli.test_app import HEAVY

COMPLETE = f"""
import sys
sys.argv = ["hofit"]
from hofit.cli.app import main
try:
    main()
except SystemExit:
    pass
loaded = {HEAVY!r} & set(sys.modules) - {{"pydantic"}}  # typer's own, for the options of a command
assert not loaded, loaded
"""


def completed(*words: str, shell: str = "bash") -> list[str]:
    """What the shell's own function is told for the last of these words."""
    environment = {**os.environ, "_HOFIT_COMPLETE": f"complete_{shell}", "COMP_WORDS": " ".join(("hofit", *words))}
    environment["COMP_CWORD"] = str(len(words))
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three run directories, one of them with letters that a glob would take for its own, and what is none."""
    for name in ("runs/one", "runs/two", "r[1]"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / CONFIG).touch()
        (tmp_path / name / CHECKPOINT).touch()
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "readme.md").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_are_those_of_the_registry() -> None:
    assert list(OPTIMIZERS) == list(registry())
    assert list(SCHEDULES) == list(schedules.SCHEDULES)
    assert complete_optimizer("ad") == [
        "adadelta",
        "adafactor",
        "adagrad",
        "adagrad_rmsprop",
        "adam",
        "adamax",
        "adamw",
    ]
    assert complete_optimizer("on") == ["one_cycle"]


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("", ["r[1]", "runs/one", "runs/two"]),
        ("ru", ["runs/one", "runs/two"]),
        ("r[", ["r[1]"]),
        ("runs/", ["runs/one", "runs/two"]),
        ("runs/t", ["runs/two"]),
        ("./runs/t", ["./runs/two"]),
        ("elsewhere/", []),
        ("readme.md/", []),
    ],
)
def test_run_directories_are_found_by_what_was_typed(runs: Path, begun: str, found: list[str]) -> None:
    assert complete_run(begun) == found


def test_an_absolute_path_is_completed_too(runs: Path) -> None:
    assert complete_run(f"{runs}/runs/o") == [f"{runs}/runs/one"]


def test_a_shell_completes_commands_names_and_runs_without_anything_heavy(runs: Path) -> None:
    assert completed("op") == ["optimizers"]
    assert completed("optimizers", "tr") == ["trust_region"]
    for command in ("report", "resume", "compare", "diagnose", "export"):
        assert completed(command, "runs/t") == ["runs/two"]


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_bash_takes_the_script_that_the_command_shows(runs: Path) -> None:
    """The script as installed, run by bash with a ``hofit`` of this interpreter on its path."""
    (runs / "bin").mkdir()
    command = runs / "bin" / "hofit"
    command.write_text(f"#!{sys.executable}\nfrom hofit.cli.app import main\nmain()\n")
    command.chmod(0o755)
    script = (
        "source <(hofit --show-completion bash); COMP_WORDS=(hofit optimizers newt); COMP_CWORD=2; "
        '"$(complete -p hofit | sed "s/.*-F \\([^ ]*\\).*/\\1/")" hofit; echo "${COMPREPLY[@]}"'
    )
    environment = {
        **os.environ,
        "PATH": f"{runs / 'bin'}:{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(["/bin/bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("newton newton_cg\n", "")
