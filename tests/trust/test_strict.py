"""A resume goes on with the model that a checkpoint is of, and with no other, even where changes are allowed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors

from hofit.record import CHECKPOINT
from tests.run.test_checkpoint import forged
from tests.trust import mutants, toy
from tests.trust.server import Ended, Server

MODEL = """
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

Y = torch.tensor([1.5, 2.5, -0.5])


def model():
    mean = pyro.param("mean", torch.tensor(0.5))
    slope = pyro.param("slope", torch.tensor(0.1))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    drift = pyro.sample("drift", dist.Normal(0.0, 1.0))
    shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", 3):
        effect = pyro.sample("effect", dist.Normal(mean + slope + drift + shift, 1.0))
        pyro.sample("y", dist.Normal(effect, sigma), obs=Y)
"""
CONFIG = 'optimizers: [{params: "*", optimizer: adam, lr: 0.05}]\nstop: {max_iterations: 4}\n'
MEAN = 'mean = pyro.param("mean", torch.tensor(0.5))'
SLOPE = 'slope = pyro.param("slope", torch.tensor(0.1))'
SIGMA = 'pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)'
DRIFT = 'drift = pyro.sample("drift", dist.Normal(0.0, 1.0))'
SHIFT = 'shift = pyro.sample("shift", dist.Normal(0.0, 1.0))'

CHANGES = {
    "a parameter's shape": (MEAN, MEAN.replace("tensor(0.5)", "tensor([0.5])"), "mean"),
    "a parameter's length": (MEAN, MEAN.replace("tensor(0.5)", "full((3,), 0.5)"), "mean"),
    "a parameter's dtype": (MEAN, MEAN.replace("tensor(0.5)", "tensor(0.5, dtype=torch.float32)"), "mean|float32"),
    "a latent's shape": (DRIFT, DRIFT.replace("0.0,", "torch.zeros(3),").replace("))", ").to_event(1))"), "drift"),
    "a plate's size": ('"groups", 3)', '"groups", 1)', "effect"),
    "a constraint gone": (SIGMA, SIGMA.replace(", constraint=constraints.positive", ""), "sigma"),
    "a constraint added": (MEAN, MEAN.replace("))", "), constraint=constraints.positive)"), "mean"),
    "another bound": (SIGMA, SIGMA.replace("constraints.positive", "constraints.greater_than(0.5)"), "sigma"),
    "another kind": (SIGMA, SIGMA.replace("constraints.positive", "constraints.interval(0.1, 9)"), "sigma"),
    "a latent's support": (DRIFT, DRIFT.replace("Normal", "LogNormal"), "drift"),
    "a latent's interval": (DRIFT, DRIFT.replace("Normal(0.0, 1.0)", "Uniform(-2.0, 2.0)"), "drift"),
    "a parameter's name": ('"mean"', '"average"', "average, mean"),
    "a latent's name": ('"drift"', '"trend"', "drift, trend"),
    "a parameter for a latent": (DRIFT, 'drift = pyro.param("drift", torch.tensor(0.0))', "drift"),
    "a latent for a parameter": (MEAN, 'mean = pyro.sample("mean", dist.Normal(0.0, 1.0))', "mean"),
    "two parameters in turn": (f"{MEAN}\n    {SLOPE}", f"{SLOPE}\n    {MEAN}", "order"),
    "two latents in turn": (f"{DRIFT}\n    {SHIFT}", f"{SHIFT}\n    {DRIFT}", "order"),
    "a parameter added": (MEAN, f'{MEAN} + pyro.param("more", torch.tensor(0.0))', "more"),
    "a latent added": (MEAN, f'{MEAN} + pyro.sample("more", dist.Normal(0.0, 1.0))', "more"),
    "a parameter dropped": (SLOPE, "slope = 0.1", "slope"),
    "a latent dropped": (DRIFT, "drift = 0.0", "drift"),
}
ANOTHER_START = (MEAN, MEAN.replace("0.5", "0.6"), "toy.py has changed")


@pytest.fixture(scope="module")
def run(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of four iterations."""
    folder = toy.lay_out(tmp_path_factory.mktemp("run"), MODEL, CONFIG)
    assert server.run(folder, *toy.FIT).code == 3
    return folder


def changed(server: Server, run: Path, folder: Path, change: str, *options: str, mutant: str | None = None) -> Ended:
    """A resume after the model has changed."""
    before, after, _ = CHANGES.get(change, ANOTHER_START)
    assert before in MODEL
    toy.lay_out(folder, MODEL.replace(before, after), CONFIG)
    shutil.copytree(run / "run", folder / "run")
    settle(folder)
    setups = [] if mutant is None else [mutants.setup(mutant)]
    return server.run(folder, *toy.RESUME, *options, "-s", "stop.max_iterations=6", setups=setups)


def settle(folder: Path) -> None:
    """Let a copied run be of the model beside it, by name and not by digest."""

    def moved(body: Any, tensors: Any) -> None:
        body["provenance"]["model"] = f"{folder / 'toy.py'}:model"
        body["provenance"]["config"]["model"] = body["provenance"]["model"]
        (digest,) = body["provenance"]["model_files"].values()
        body["provenance"]["model_files"] = {str(folder / "toy.py"): digest}

    for path in (folder / "run").glob("checkpoint*"):
        forged(path, moved)


@pytest.mark.parametrize("change", CHANGES)
def test_another_model_is_refused_even_where_changes_are_allowed(
    server: Server, run: Path, tmp_path: Path, change: str
) -> None:
    ended = changed(server, run, tmp_path, change, "--allow-changed")
    assert ended.code in (2, 5) and "Traceback" not in ended.text, ended
    assert any(word in ended.text for word in CHANGES[change][2].split("|")), ended


def test_any_change_is_refused_where_none_is_allowed(server: Server, run: Path, tmp_path: Path) -> None:
    ended = changed(server, run, tmp_path, "another start")
    assert ended.code == 5 and ANOTHER_START[2] in ended.text


@pytest.mark.parametrize(
    ("mutant", "change", "options"),
    [
        ("forms are not compared", "a constraint gone", ["--allow-changed"]),
        ("forms are not compared", "two parameters in turn", ["--allow-changed"]),
        ("files are not compared", "another start", []),
    ],
)
def test_a_mutant_is_found(
    server: Server, run: Path, tmp_path: Path, mutant: str, change: str, options: list[str]
) -> None:
    assert changed(server, run, tmp_path, change, *options, mutant=mutant).code == 3


@pytest.mark.parametrize("number", [0, 2, 99, "1", None])
def test_another_format_is_refused(server: Server, run: Path, tmp_path: Path, number: Any) -> None:
    folder = toy.lay_out(tmp_path, MODEL, CONFIG)
    shutil.copytree(run / "run", folder / "run")
    forged(folder / "run" / CHECKPOINT, lambda body, tensors: body.update(format=number))
    ended = server.run(folder, "resume", f"run/{CHECKPOINT}")
    assert ended.code == 5 and "format" in ended.text, ended


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("versions", {"torch": "2.9.0"}, "torch 2.9.0 →"),
        ("threads", 7, "threads 7 → 1"),
    ],
)
def test_another_torch_or_thread_count_goes_on_and_is_said(
    server: Server, run: Path, tmp_path: Path, key: str, value: Any, said: str
) -> None:
    folder = toy.lay_out(tmp_path, MODEL, CONFIG)
    shutil.copytree(run / "run", folder / "run")
    settle(folder)

    def of_another(body: Any, tensors: Any) -> None:
        provenance = body["provenance"]
        provenance[key] = {**provenance[key], **value} if isinstance(value, dict) else value

    forged(folder / "run" / CHECKPOINT, of_another)
    ended = server.run(folder, *toy.RESUME, "-s", "stop.max_iterations=6")
    assert ended.code == 3 and "not bit for bit" in ended.text and said in ended.text, ended


def test_a_checkpoint_without_supports_still_resumes(server: Server, run: Path, tmp_path: Path) -> None:
    folder = toy.lay_out(tmp_path, MODEL, CONFIG)
    shutil.copytree(run / "run", folder / "run")
    settle(folder)
    forged(folder / "run" / CHECKPOINT, lambda body, tensors: body["provenance"].pop("sites") and None)
    with safetensors.safe_open(folder / "run" / CHECKPOINT, framework="pt") as file:
        assert "sites" not in json.loads(file.metadata()["hofit"])["provenance"]
    ended = server.run(folder, *toy.RESUME, "-s", "stop.max_iterations=6")
    assert ended.code == 3 and "not bit for bit" not in ended.text, ended
