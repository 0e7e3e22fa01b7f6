"""What an iteration has computed is let go with it: no tensor waits in a circle of references for Python's collector.

The collector counts objects and not their bytes, so it lets gigabytes of a large model wait.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hofit.config.load import load_source
from hofit.fitting.state import Snapshot
from hofit.record import Progress
from hofit.run.fit import FitOptions, run_fit
from hofit.run.session import Request

ROOT = Path(__file__).parents[2]


class Collecting:
    """At each iteration after the first, the tensors that only the collector would have let go."""

    keeps_every = None

    def __init__(self) -> None:
        self.found: list[int] | None = None

    def on_iteration(self, record: Progress, snapshot: Callable[[], Snapshot] | None) -> None:
        if self.found is None:  # what was made to prepare the fit
            self.found = []
            gc.collect()
            return
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        self.found.append(sum(isinstance(one, torch.Tensor) for one in gc.garbage))
        gc.garbage.clear()

    def on_pause(self, snapshot: Callable[[], Snapshot]) -> None:
        pass


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("sleepstudy", "sleepstudy_marginal"),
        ("sleepstudy", "sleepstudy_newton"),
        ("penicillin", "penicillin_marginal"),
        ("cbpp", "cbpp_quadrature"),
        ("cbpp", "cbpp_adam"),
        ("nile", "nile_marginal"),
        ("theophylline", "theophylline_mixed"),
    ],
)
def test_an_iteration_leaves_no_tensor_to_the_collector(model: str, config: str) -> None:
    overrides = ["stop.max_iterations=4"]
    request = Request(load_source(ROOT / f"configs/{config}.yaml", overrides), str(ROOT / f"models/{model}.py"))
    watching = Collecting()
    gc.disable()
    try:
        run_fit(request, FitOptions(watch=lambda session: [watching]))
    finally:
        gc.enable()
    assert watching.found and not any(watching.found), watching.found
