"""Captured or refused with a reason, and never another number: every distribution, observed and latent, and the models
of the invariance study, traced at every point and replayed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import hofit
from tests.benchmarks.invariance_models import CASES, Case, Parameters
from tests.contracts.test_distributions import LATENT, OBSERVED, Hidden, example, observed

Model = Callable[[], None]
ITERATIONS = 16
"""More than come before a replay is used, the tenth evaluation: `AFTER` and `PROOFS` of `hofit.objective.captured`."""


def of_the_study(case: Case) -> Model:
    model = case.build()
    return lambda: model(Parameters())


MODELS: dict[str, Callable[[], Model]] = {
    **{f"observed {name}": partial(lambda name: observed(example(name)), name) for name in OBSERVED},
    **{f"latent {name}": partial(lambda name: Hidden(example(name)).model, name) for name in LATENT},
    **{case.name: partial(of_the_study, case) for case in CASES},
}


@pytest.fixture(autouse=True)
def _in_double() -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("optimizer", [{"optimizer": "adam", "lr": 0.02}, {"optimizer": "newton_cg"}])
@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_model_gives_the_bits_of_a_traced_one(name: str, optimizer: dict[str, Any]) -> None:
    ends: list[Any] = []
    for capture in ("auto", "off"):
        config = {
            "optimizers": [{"params": "*", **optimizer}],
            "stop": {"max_iterations": ITERATIONS, "gradient": 0.0, "relative_loss": 0.0},
            "capture": capture,
        }
        try:
            result = hofit.fit(MODELS[name](), config)
        except hofit.errors.HofitError as error:
            ends.append(str(error))
            continue
        remarks = [remark for remark in result.remarks if not remark.startswith("capture: ")]
        values = {name: value.tolist() for name, value in result.values.items()}
        ends.append((result.status, result.loss, result.iterations, result.evaluations, values, remarks))
    assert repr(ends[0]) == repr(ends[1])
