"""A fit of some milliseconds with three checkpoints, and what two equal runs of it share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.written import fit_json, progress_but_time

MODEL = """
import os
import time

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

PAUSE = float(os.environ.get("TOY_PAUSE", "0"))


def model():
    time.sleep(PAUSE)
    mean = pyro.param("mean", torch.tensor(0.5))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("groups", 3):
        effect = pyro.sample("effect", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(effect, sigma), obs=torch.tensor([1.5, 2.5, -0.5]))
"""

CONFIG = """\
optimizers:
  - {params: effect, optimizer: newton, trust_radius: 0.1}
  - {params: "*", optimizer: adam, lr: 0.05}
stop: {max_iterations: 12}
checkpoint: {every: 4}
"""

EVERY = 4
CLOCK = ("seconds", "total_seconds", "repeated_iterations")
"""What a clock says, and what a kill has cost."""

FIT = ("fit", "toy.py", "-c", "toy.yaml", "--run-dir", "run")
RESUME = ("resume", "run")


def lay_out(folder: Path, model: str = MODEL, config: str = CONFIG) -> Path:
    """A folder with a model and a config to be fitted there; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.py").write_text(model)
    (folder / "toy.yaml").write_text(config)
    return folder


def outcome(run: Path) -> dict[str, Any]:
    """All that two equal runs share, to the last digit: everything but what a clock and a place say."""
    fit = {key: value for key, value in fit_json(run).items() if key not in CLOCK}
    fit["model_sha256"] = sorted(fit["model_sha256"].values())
    return {"fit": fit, "estimates": (run / "estimates.csv").read_text(), "progress": progress_but_time(run)}
