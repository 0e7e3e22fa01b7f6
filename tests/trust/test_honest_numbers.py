"""Where a number is not finite, no fit is called converged, no checkpoint holds it, and the last good point is told."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pyro
import pytest
import torch

import hofit
from hofit.errors import HofitError
from hofit.run.checkpoint import read_checkpoint
from tests.trust.numbers import OBJECTIVES, Case, bowl, cases

FEW = 8
MANY = 240
"""Cases of an objective, spread evenly over all that there are."""
NEAR = 1e-2
"""Of the minimum: where a fit that says it has converged must be. The gradient it may leave is 1e-4."""
EQUAL = 1e-9
"""Of the loss that is told and the loss of the point that is told."""


@cache
def minimum(objective: str) -> torch.Tensor:
    """Where it is. Two are even about that of `bowl`; the draws of the bound are not, but as they are in a good fit."""
    if objective != "elbo":
        return torch.ones(3, 1)
    pyro.clear_param_store()
    good = Case("loss", math.nan, "nowhere", "trust_region", objective)
    result = hofit.fit(good.model(), good.config())
    assert result.converged
    return result.values["x"]


def faults(case: Case, folder: Path) -> tuple[str, list[str]]:
    """How a fit ended, and what of it is not honest."""
    shutil.rmtree(folder, ignore_errors=True)
    pyro.clear_param_store()
    try:
        result = hofit.fit(case.model(), case.config(), run_dir=folder)
    except HofitError as refused:
        return f"refused with {refused.exit_code}", []
    found = []
    if result.converged and case.lasting:
        found.append("called converged")
    x = result.values["x"]
    if result.converged and not torch.allclose(x, minimum(case.objective), atol=NEAR):
        found.append(f"called converged at {x.tolist()}")
    if not all(bool(torch.isfinite(value).all()) for value in (*result.params.values(), *result.values.values())):
        found.append("a parameter is not finite")
    if case.place == "first":
        pass  # there never was a good point
    elif result.loss is None or not math.isfinite(result.loss):
        found.append(f"the loss is {result.loss}")
    elif case.objective == "map" and abs(result.loss - float(bowl(x))) > EQUAL * max(1.0, abs(result.loss)):
        found.append(f"the loss is not that of the point: {result.loss} and {float(bowl(x))}")
    for path in folder.glob("checkpoint*"):
        read_checkpoint(path)  # which refuses numbers that are not finite
    return result.status, found


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_not_finite_is_never_called_converged(tmp_path: Path, full: bool, objective: str) -> None:
    everything, count = [case for case in cases() if case.objective == objective], MANY if full else FEW
    chosen = [everything[number * len(everything) // count] for number in range(count)]
    ends, dishonest = Counter[str](), []
    for case in chosen:
        status, found = faults(case, tmp_path / "run")
        ends[status] += 1
        dishonest += [f"{case}: {status}: {text}" for text in found]
    assert not dishonest, "\n".join(dishonest[:40])
    assert ends["refused with 2"] < len(chosen) / 10, ends


def test_a_fitter_that_believes_its_own_numbers_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    naive = SimpleNamespace(
        converged=True, loss=math.nan, status="converged", params={}, values={"x": torch.full((3, 1), math.nan)}
    )
    monkeypatch.setattr(hofit, "fit", lambda *arguments, **options: naive)
    _, found = faults(Case("loss", math.nan, "last", "adam", "map"), tmp_path / "run")
    assert len(found) == 4
