"""A folder with a toy model, its data and its config, which is the working directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Write

MODEL = """
import os
import time

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

PAUSE = float(os.environ.get("TOY_PAUSE", "0"))


def model(y, group, n_groups):
    time.sleep(PAUSE)
    mean = pyro.param("mean", torch.tensor(0.0))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("groups", n_groups):
        effect = pyro.sample("effect", dist.Normal(mean, 1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(effect[group], sigma), obs=y)


def other_model(y):
    pyro.sample("y", dist.Normal(pyro.param("mean", torch.tensor(0.0)), 1.0).expand([len(y)]).to_event(1), obs=y)
"""

DATA = """y,group,text,holes
1.5,a,one,1
2.5,b,two,
0.5,a,three,3
3.0,c,four,4
-0.7,b,five,5
"""

CONFIG = """\
data:
  path: data.csv
  columns:
    y: y
    group: {column: group, codes: true, levels: n_groups}
optimizers:
  - params: "*"
    optimizer: adam
    lr: 0.05
stop: {max_iterations: 20}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> Path:
    """tmp_path with toy.py, data.csv and a.yaml; the working directory."""
    write("toy.py", MODEL)
    write("data.csv", DATA)
    write("a.yaml", CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path
