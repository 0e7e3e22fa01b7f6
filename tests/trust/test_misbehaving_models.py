"""Model code that misbehaves: the fit ends with a status that has a name, its state is kept, its files parse."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from hofit.record import Estimate, read_table
from hofit.run.checkpoint import find_checkpoint
from tests.command_line import Hofit
from tests.written import table

HEAD = """
import os, sys, warnings
import pyro, pyro.distributions as dist, torch
CALLS = [0]
def later(k=6):
    CALLS[0] += 1
    return CALLS[0] == k
def model():
    x = pyro.param("x", torch.ones(3))
"""
TAIL = "    pyro.factor('f', -((x - 2) ** 2).sum())\n"

BODIES = {
    "raises later": "    if later(): raise RuntimeError('no \\x1b[31mmore')\n",
    "leaves later": "    if later(): sys.exit(0)\n",
    "leaves for good later": "    if later(): raise SystemExit('gone')\n",
    "recurses later": "    if later(): model()\n    if CALLS[0] > 6: model()\n",
    "is out of memory later": "    if later(): raise MemoryError\n",
    "prints": "    print('\\x1b[31mhello', flush=True)\n",
    "warns": "    warnings.warn('careful')\n",
    "changes seeds": "    torch.manual_seed(7); pyro.set_rng_seed(7)\n",
    "changes threads": "    torch.set_num_threads(2)\n",
    "changes the dtype": "    torch.set_default_dtype(torch.float32)\n",
    "changes the working directory": "    os.chdir('/')\n",
    "changes the environment": "    os.environ['HOME'] = '/nowhere'\n",
    "clears the store later": "    if later(): pyro.clear_param_store()\n",
    "closes its output": "    sys.stdout = None\n",
    "has another parameter later": "    if later(): pyro.param('late', torch.ones(1))\n",
    "has another shape later": "    if later(): x = pyro.param('x')[:2]\n",
    "is random": "    x = x + torch.rand(3)\n",
    "writes to its parameters": "    x.data.add_(1.0)\n",
    "turns gradients off later": "    if later(): torch.set_grad_enabled(False)\n",
    "returns": "    return 'something'\n",
}
NAMES = (
    "a$$$b",
    "a.b",
    "a,b",
    "a\nb",
    "a\r\nb",
    'a"b',
    "a'b",
    "a;b",
    "é 日本",
    "../x",
    "a\tb",
    "[/b]",
    "\x1b[31m",
    "",
    " ",
    "0",
)
STATUSES = (0, 2, 3, 4)
ENDS = ("converged", "max_iterations", "model_error", "non_finite", "no_progress", "flat_direction")


@pytest.fixture(autouse=True)
def put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", os.environ.get("HOME", "/"))


@pytest.mark.filterwarnings("ignore:careful")
@pytest.mark.parametrize("optimizer", ["adam", "trust_region"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_model_that_misbehaves_ends_with_a_status_and_whole_files(
    tmp_path: Path, hofit: Hofit, kind: str, optimizer: str
) -> None:
    (tmp_path / "m.py").write_text(HEAD + BODIES[kind] + TAIL)
    (tmp_path / "a.yaml").write_text(
        f"optimizers: [{{params: x, optimizer: {optimizer}}}]\nstop: {{max_iterations: 12}}\n"
    )
    before = (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
    output = sys.stdout
    try:
        outcome = hofit("fit", "m.py", "-c", "a.yaml", "--run-dir", tmp_path / "run")
    finally:
        sys.stdout = output
    assert outcome.code in STATUSES, outcome.text
    assert "Traceback" not in outcome.text
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()) == before
    run = tmp_path / "run"
    if outcome.code == 2:
        assert not run.exists() and outcome.err.startswith("hofit: ")
        return
    if not run.exists():  # nothing could be begun there
        return
    status = json.loads((run / "fit.json").read_text())["status"]
    assert status in ("converged", "max_iterations", "model_error", "non_finite", "no_progress", "flat_direction"), (
        status
    )
    assert bool(torch.isfinite(find_checkpoint(run).snapshot.params["x"]).all())
    assert read_table(Estimate, run / "estimates.csv")
    assert table(run / "progress.csv")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_characters_comes_back(tmp_path: Path, hofit: Hofit, name: str) -> None:
    (tmp_path / "m.py").write_text(
        "import pyro, torch\ndef model():\n"
        f"    x = pyro.param({name!r}, torch.ones(2))\n    pyro.factor('f', -((x - 2) ** 2).sum())\n"
    )
    (tmp_path / "a.yaml").write_text("optimizers: [{params: '*', optimizer: newton}]\n")
    outcome = hofit("fit", "m.py", "-c", "a.yaml", "--run-dir", "run")
    assert outcome.code in (0, 2) and "Traceback" not in outcome.text, outcome.text
    if outcome.code == 0:
        assert "\x1b" not in outcome.text
        assert {row.name for row in read_table(Estimate, Path("run/estimates.csv"))} == {name.replace("$$$", ".")}
        assert hofit("report", "run").code == 0
        assert hofit("resume", "run", "-q").code == 0
