"""Fits that a version wrote checkpoints of, halfway, and where it ended itself: kept, and resumed by every later one.

``python -m tests.trust.old`` adds those of this version to ``old_checkpoints/``. It never changes what is there: what a
released version has written is what users have.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

import hofit
from hofit.record import CHECKPOINT
from hofit.version import __version__

KEPT = Path(__file__).parent / "old_checkpoints"
ENDS = "ends.json"
"""Of a version's folder: what each fit ended with, as that version found it."""


def groups() -> None:
    """Parameters with and without an edge, latents in rows: what the fits are of."""
    mean = pyro.param("mean", torch.tensor(0.5))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("groups", 3):
        effect = pyro.sample("effect", dist.Normal(mean, 1.0))
        with pyro.plate("repeats", 2):
            y = torch.tensor([[1.5, 2.5, -0.5], [0.5, 3.5, 0.0]])
            pyro.sample("y", dist.Normal(effect, sigma), obs=y)


def squares() -> None:
    """A sum of squares, which Gauss and Newton's method wants."""
    slope = pyro.param("slope", torch.tensor(0.5))
    curve = pyro.param("curve", torch.tensor(0.1))
    x = torch.linspace(0.0, 2.0, 6)
    with pyro.plate("rows", 6):
        pyro.sample("y", dist.Normal(slope * x + (curve * x).exp(), 0.5), obs=1.0 + x + 0.3 * x.square())


@dataclass(frozen=True)
class Kept:
    """A fit that is stopped after ``halfway`` iterations; what a checkpoint holds of it is its optimizers' state."""

    optimizers: list[dict[str, Any]]
    halfway: int
    iterations: int = 100
    model: Callable[[], None] = groups
    more: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "stop": {"max_iterations": self.halfway}, **self.more}

    @property
    def to_the_end(self) -> list[str]:
        """What ``resume`` is told."""
        return [f"stop.max_iterations={self.iterations}"]


def one(optimizer: str, **options: Any) -> list[dict[str, Any]]:
    return [{"params": "*", "optimizer": optimizer, **options}]


MARGINAL = {"type": "marginal", "integrate": {"effect": "laplace"}}

FITS = {
    "adam": Kept(one("adam", lr=0.05), 7, 20),
    "adam, decaying": Kept(one("adam", lr=0.05, schedule={"name": "exponential", "gamma": 0.9}), 7, 20),
    "sgd with momentum": Kept(one("sgd", lr=0.01, momentum=0.9), 7, 20),
    "newton": Kept(one("newton", trust_radius=0.2), 3),
    "trust_region": Kept(one("trust_region", initial_radius=0.2), 3),
    "newton_cg": Kept(one("newton_cg", initial_radius=0.2), 3),
    "lbfgs": Kept(one("lbfgs"), 4),
    "gauss_newton": Kept(one("gauss_newton", initial_radius=0.1), 2, model=squares),
    "a mix": Kept([{"params": "effect", "optimizer": "newton", "trust_radius": 0.1}, *one("adam", lr=0.05)], 7, 20),
    "marginal": Kept(one("trust_region", initial_radius=0.1), 2, more={"objective": MARGINAL}),
    "random draws": Kept(one("adam", lr=0.05), 7, 20, more={"objective": {"type": "elbo", "autoguide": "normal"}}),
    "starts": Kept(one("trust_region", initial_radius=0.2), 3, more={"starts": 3}),
}


def end_of(result: hofit.FitResult) -> dict[str, Any]:
    """What a fit ended with, as JSON has it."""
    values = {name: value.tolist() for name, value in result.values.items()}
    return {"status": result.status, "iterations": result.iterations, "loss": result.loss, "values": values}


def end_of_resume(path: Path, fit: Kept) -> dict[str, Any]:
    """What this version makes of a checkpoint. The model may be written otherwise by then."""
    pyro.clear_param_store()
    return end_of(hofit.resume(path, model=fit.model, set=fit.to_the_end, allow_changed=True))


def write(folder: Path) -> None:
    """The checkpoints of this version, and its own ends."""
    folder.mkdir()
    ends = {}
    with TemporaryDirectory() as elsewhere:
        for name, fit in FITS.items():
            pyro.clear_param_store()
            hofit.fit(fit.model, fit.config(), run_dir=Path(elsewhere) / name)
            shutil.copyfile(Path(elsewhere) / name / CHECKPOINT, folder / f"{name}.safetensors")
            pyro.clear_param_store()
            whole = {**fit.config(), "stop": {"max_iterations": fit.iterations}}
            ends[name] = end_of(hofit.fit(fit.model, whole))
    (folder / ENDS).write_text(json.dumps(ends, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    if (KEPT / __version__).exists():
        sys.exit(f"{KEPT / __version__} is there: what a version has written is not written again")
    write(KEPT / __version__)
