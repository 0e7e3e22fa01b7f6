"""The command line as a whole: help and version."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.command_line import Hofit

HEAVY = {"torch", "pydantic", "yaml", "numpy", "pandas", "pyro", "matplotlib", "jinja2"}
LIGHT = f"""
import sys
sys.argv = ["hofit", *sys.argv[1:]]
import hofit
from hofit.cli.app import main
try:
    main()
except SystemExit as leaving:
    assert not leaving.code
loaded = {HEAVY!r} & set(sys.modules)
if len(sys.argv) > 2:
    loaded -= {{"pydantic"}}  # typer's own, for the options of a command
assert not loaded, loaded
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fit", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hofit" in done.stdout


def test_version_is_the_package_s(hofit: Hofit) -> None:
    import hofit as package

    outcome = hofit("--version")
    assert (outcome.code, outcome.out.strip()) == (0, f"hofit {package.__version__}")


@pytest.mark.parametrize(
    "command",
    [
        "fit",
        "resume",
        "check",
        "optimizers",
        "report",
        "plot",
        "compare",
        "diagnose",
        "profile",
        "bootstrap",
        "export",
        "schema",
    ],
)
def test_help_names_every_command(hofit: Hofit, command: str) -> None:
    assert command in hofit("--help").out
    assert hofit(command, "--help").code == 0


@pytest.mark.parametrize(
    "option",
    [
        "--config",
        "-c",
        "--data",
        "--set",
        "-s",
        "--run-dir",
        "--seed",
        "--device",
        "--dtype",
        "--overwrite",
        "--quiet",
        "-q",
    ],
)
def test_fit_has_every_option_of_the_contract(hofit: Hofit, option: str) -> None:
    assert option in hofit("fit", "--help").out


def test_an_unknown_command_leaves_with_2(hofit: Hofit) -> None:
    outcome = hofit("fti")
    assert outcome.code == 2
    assert "Traceback" not in outcome.text
