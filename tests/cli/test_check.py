"""hofit check: everything up to the first step, and no step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Hofit, Write
from tests.written import fit_json


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


def test_check_counts_no_number_above_a_triangle(folder: Path, hofit: Hofit) -> None:
    (folder / "root.py").write_text(
        "import pyro, torch, pyro.distributions as dist\n"
        "from torch.distributions import constraints\n"
        "def model(y):\n"
        "    root = pyro.param('root', torch.eye(3), constraint=constraints.lower_cholesky)\n"
        "    pyro.sample('y', dist.MultivariateNormal(torch.zeros(3), scale_tril=root), obs=y)\n"
    )
    entry = "optimizers: [{params: '*', optimizer: trust_region}]\n"
    (folder / "root.yaml").write_text("data: {arguments: {y: [1.0, 0.5, -0.3]}}\n" + entry)
    assert "6 unknowns" in hofit("check", "root.py", "-c", "root.yaml").out


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


def test_many_patterns_that_match_nothing_are_all_told(folder: Path, hofit: Hofit) -> None:
    patterns = ", ".join(f"nothing{k}" for k in range(14))
    outcome = hofit(
        "check", "toy.py", "-c", "a.yaml", "-s", f"optimizers=[{{params: ['*', {patterns}], optimizer: adam}}]"
    )
    assert outcome.code == 2 and outcome.err.count("matches nothing") + outcome.err.count("no parameter matches") == 12
    assert "2 more of its patterns match nothing: nothing12, nothing13" in outcome.err
