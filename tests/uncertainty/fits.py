"""Fits whose errors are known, and how close is close."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot

import hofit

ROOT = Path(__file__).parents[2]
REFERENCE = json.loads((ROOT / "models" / "data" / "reference.json").read_text())
TRUST_REGION = [{"params": "*", "optimizer": "trust_region"}]

SIMULATED = 0.08
"""Relative, of a variance from 4000 draws: its own error is 0.022."""


def codes(column: str, levels: str) -> dict[str, Any]:
    return {"column": column, "codes": True, "levels": levels}


COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sleepstudy": (
        "sleepstudy.csv",
        {"reaction": "Reaction", "days": "Days", "subject": codes("Subject", "n_subjects")},
    ),
    "cbpp": (
        "cbpp.csv",
        {
            "incidence": "incidence",
            "size": "size",
            "period": codes("period", "n_periods"),
            "herd": codes("herd", "n_herds"),
        },
    ),
    "radon": (
        "radon.csv",
        {
            "log_radon": "log_radon",
            "floor": "floor",
            "log_uranium": "log_uranium",
            "county": codes("county", "n_counties"),
        },
    ),
    "penicillin": (
        "penicillin.csv",
        {"diameter": "diameter", "plate": codes("plate", "n_plates"), "sample": codes("sample", "n_samples")},
    ),
    "theophylline": (
        "theoph.csv",
        {"concentration": "conc", "time": "Time", "dose": "Dose", "subject": codes("Subject", "n_subjects")},
    ),
}


@cache
def marginal(name: str, kind: str = "conditional") -> hofit.FitResult:
    """The example with all its latents integrated out."""
    path, columns = COLUMNS[name]
    latents = "*_effect" if name == "penicillin" else "b"
    config = {
        "data": {"path": str(ROOT / "models" / "data" / path), "columns": columns},
        "objective": {"type": "marginal", "integrate": {latents: "laplace"}, "uncertainty": kind},
        "optimizers": TRUST_REGION,
    }
    return hofit.fit(ROOT / "models" / f"{name}.py", config)


def fit(model: Any, objective: Any = "map", arguments: Mapping[str, Any] | None = None) -> hofit.FitResult:
    return hofit.fit(model, {"objective": objective, "optimizers": TRUST_REGION}, data=arguments)


def assert_close(found: Any, expected: Any, relative: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=relative, atol=1e-12)


def mixed(y: Tensor, x: Tensor, group: Tensor) -> None:
    """A Gaussian mixed model with its scales known."""
    beta = pyro.param("beta", torch.zeros(2))
    with pyro.plate("groups", 6):
        b = pyro.sample("b", dist.Normal(0.0, 0.7))
    pyro.deterministic("total", beta[0] + b)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ beta + b[group], 0.5), obs=y)


@cache
def mixed_data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.stack([torch.ones(40), torch.randn(40, generator=generator, dtype=torch.float64)], 1).double()
    group = torch.arange(40) % 6
    return {"y": torch.randn(40, generator=generator, dtype=torch.float64), "x": x, "group": group}


def mixed_inverse() -> np.ndarray[Any, Any]:
    """The inverse of the Hessian of (beta, b) jointly, Henderson's equations: their covariance, scales being known."""
    x, z = mixed_data()["x"].numpy(), one_hot(mixed_data()["group"], 6).double().numpy()
    design = np.hstack([x, z])
    return np.linalg.inv(design.T @ design / 0.25 + np.diag([0.0] * 2 + [1 / 0.49] * 6))


def mixed_fit(kind: str) -> hofit.FitResult:
    objective = {"type": "marginal", "integrate": {"b": "laplace"}, "uncertainty": kind}
    return fit(mixed, objective, mixed_data())


def regression(x: Tensor, y: Tensor) -> None:
    beta = pyro.param("beta", torch.zeros(3))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    pyro.deterministic("ratio", beta[1] / beta[2])
    pyro.deterministic("both", torch.stack([beta[0], sigma**2]))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def regression_data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(50, generator=generator, dtype=torch.float64)
    return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.3 * noise}


def multinomial() -> None:
    p = pyro.param("p", torch.ones(3) / 3, constraint=constraints.simplex)
    pyro.sample("x", dist.Multinomial(40, p), obs=torch.tensor([20.0, 12.0, 8.0]))
