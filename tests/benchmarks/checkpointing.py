"""What the run directory costs a fit of a minute at the default interval: ``python -m tests.benchmarks.checkpointing``.

Seconds in what writes rows and checkpoints, the disk's own included, over those of the whole fit: the share of one fit
needs no second fit beside it, whose own noise is larger.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pyro
import pyro.distributions as dist
import torch

import hofit
from hofit.run.recorder import RunRecorder

SIZES = (10, 10_000, 1_000_000)
WRITES = ("on_iteration", "on_pause", "checkpoint")
"""Of these the first two write rows, and call the last."""


class Stopwatch:
    """Seconds in a method, and calls of it."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method, self.seconds, self.calls = method, 0.0, 0

    def method(self) -> Callable[..., Any]:
        def timed(*arguments: Any, **more: Any) -> Any:
            began = time.perf_counter()
            try:
                return self._method(*arguments, **more)
            finally:
                self.seconds, self.calls = self.seconds + time.perf_counter() - began, self.calls + 1

        return timed


def share(size: int, seconds: float, folder: Path) -> str:
    """A fit by Adam, whose state is three times its parameters, that takes so long: what of it was writing."""

    def model() -> None:
        with pyro.plate("rows", size):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.StudentT(4.0, z, 1.0), obs=torch.full((size,), 3.0))

    config = {
        "optimizers": [{"params": "*", "optimizer": "adam", "lr": 1e-9}],
        "stop": {"max_iterations": 10**9, "max_seconds": seconds, "relative_loss": 0.0, "gradient": 0.0},
    }
    watches = {name: Stopwatch(getattr(RunRecorder, name)) for name in WRITES}
    with ExitStack() as stack:
        for name, watch in watches.items():
            stack.enter_context(patch.object(RunRecorder, name, watch.method()))
        began = time.perf_counter()
        result = hofit.fit(model, config, run_dir=folder)
        whole = time.perf_counter() - began
    saved = watches["checkpoint"]
    rows = sum(watch.seconds for watch in watches.values()) - 2 * saved.seconds  # the others call it
    return (
        f"{size:9,} {result.iterations:11,} {whole:8.1f} {saved.calls:12} {saved.seconds:8.3f} "
        f"{saved.seconds / whole:7.2%} {rows / whole:7.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=61.0, help="of each fit; a checkpoint is due after 60")
    seconds = parser.parse_args().seconds
    print("  numbers  iterations  seconds  checkpoints  seconds   share    rows")
    for size in SIZES:
        with TemporaryDirectory() as folder:
            print(share(size, seconds, Path(folder) / "run"), flush=True)


if __name__ == "__main__":
    main()
