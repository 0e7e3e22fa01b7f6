"""hofit check, optimizers, report; help and version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import Hofit, Write
from tests.written import fit_json

# check ------------------------------------------------------------------------------------------------------------


def row_of(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(name + " "))
    return [cell for cell in line.replace("×", " ").split() if cell]


def test_check_shows_shape_constraint_plates_rows_and_optimizer_of_every_parameter(folder: Path, hofit: Hofit) -> None:
    parts = "optimizers=[{params: effect, optimizer: newton}, {params: '*', optimizer: adam}]"
    outcome = hofit("check", "toy.py", "-c", "a.yaml", "-s", parts, "-s", "fixed.mean=1")
    assert outcome.code == 0
    header = outcome.out.splitlines()[0]
    for column in ("parameter", "shape", "constraint", "plates", "rows", "optimizer"):
        assert column in header
    effect = row_of(outcome.out, "effect")
    assert {"(3,)", "groups", "(3)", "3", "newton"} <= set(effect)
    assert {"()", "positive", "adam"} <= set(row_of(outcome.out, "sigma"))
    assert "fixed" in row_of(outcome.out, "mean") and "adam" not in row_of(outcome.out, "mean")


def test_check_takes_no_step_and_writes_nothing(folder: Path, hofit: Hofit) -> None:
    before = sorted(path.name for path in folder.iterdir())
    hofit("check", "toy.py", "-c", "a.yaml")
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_check_shows_the_loss_that_fit_starts_from(folder: Path, hofit: Hofit) -> None:
    checked = hofit("check", "toy.py", "-c", "a.yaml", "-s", "init.strategy=sample").out
    hofit("fit", "toy.py", "-c", "a.yaml", "-s", "init.strategy=sample", "-s", "stop.max_iterations=0")
    loss = fit_json(folder / "runs" / "a")["loss"]
    assert f"{loss:.10g}" in checked


def test_check_shows_a_plate_with_brackets_in_its_name(folder: Path, hofit: Hofit, write: Write) -> None:
    write(
        "odd.py",
        """
        import pyro, pyro.distributions as dist, torch
        def model():
            with pyro.plate("rows[a]", 3):
                pyro.sample("x[b]", dist.Normal(0.0, 1.0))
        """,
    )
    write("b.yaml", "optimizers: [{params: '*', optimizer: newton}]\n")
    out = hofit("check", "odd.py", "-c", "b.yaml").out
    assert "rows[a]" in out and "x[b]" in out


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("pyro.factor('f', -(pyro.param('x', torch.tensor(1.)) - torch.rand(())) ** 2)", "random"),
        ("n = pyro.module('n', torch.nn.Linear(1, 1)); pyro.factor('f', -n(torch.ones(1)).sum() ** 2)", "n.weight"),
    ],
    ids=["random", "built anew"],
)
def test_check_finds_what_would_stop_fit_before_its_first_step(
    folder: Path, hofit: Hofit, body: str, says: str
) -> None:
    (folder / "bad.py").write_text(f"import pyro, torch\ndef model():\n    {body}\n")
    (folder / "b.yaml").write_text("optimizers: [{params: '*', optimizer: newton}]\n")
    for command in ("fit", "check"):
        outcome = hofit(command, "bad.py", "-c", "b.yaml")
        assert (command, outcome.code) == (command, 2), outcome.text
        assert says in outcome.err


# optimizers -------------------------------------------------------------------------------------------------------


def test_optimizers_lists_every_optimizer_and_schedule(hofit: Hofit) -> None:
    outcome = hofit("optimizers")
    assert outcome.code == 0
    for name in ("adam", "adamw", "rmsprop", "clipped_adam", "sgd", "newton", "exponential", "reduce_on_plateau"):
        assert name in outcome.out


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"lr": "0.001", "betas": "(0.9, 0.999)", "weight_decay": "0"}),
        ("newton", {"trust_radius": ""}),
        ("exponential", {"gamma": "required"}),
    ],
)
def test_optimizers_name_shows_options_and_defaults(hofit: Hofit, name: str, options: dict[str, str]) -> None:
    outcome = hofit("optimizers", name)
    assert outcome.code == 0
    for option, default in options.items():
        assert default in next(line for line in outcome.out.splitlines() if line.startswith(option))


def test_an_unknown_optimizer_is_refused_with_near_misses(hofit: Hofit) -> None:
    outcome = hofit("optimizers", "newtn")
    assert (outcome.code, outcome.out) == (2, "")
    assert '"newton"' in outcome.err


# report -----------------------------------------------------------------------------------------------------------


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


# help and version -------------------------------------------------------------------------------------------------

HEAVY = {"torch", "pydantic", "yaml", "numpy", "pandas", "pyro"}
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


@pytest.mark.parametrize("command", ["fit", "resume", "check", "optimizers", "report", "diagnose"])
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
