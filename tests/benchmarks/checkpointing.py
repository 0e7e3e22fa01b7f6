"""What the run directory costs a fit of a minute at the default interval: ``python -m tests.benchmarks.checkpointing``.

Seconds in what writes rows and checkpoints, the disk's own included, over those of the whole fit: the share of one fit
needs no second fit beside it, whose own noise is larger.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyro
import pyro.distributions as dist
import torch

import hofit
from hofit.run.recorder import RunRecorder

SIZES = (10, 10_000, 1_000_000)
WRITES = ("on_iteration", "on_pause", "checkpoint")


class Stopwatch:
    """Seconds, and calls, of some methods, those inside one another counted once."""

    def __init__(self) -> None:
        self.seconds, self.checkpoints, self._inside = 0.0, 0, False

    def around(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **more: Any) -> Any:
            self.checkpoints += name == "checkpoint"
            if self._inside:
                return method(*arguments, **more)
            self._inside, began = True, time.perf_counter()
            try:
                return method(*arguments, **more)
            finally:
                self._inside = False
                self.seconds += time.perf_counter() - began

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
    watch, plain = Stopwatch(), {name: getattr(RunRecorder, name) for name in WRITES}
    for name, method in plain.items():
        setattr(RunRecorder, name, watch.around(name, method))
    try:
        began = time.perf_counter()
        result = hofit.fit(model, config, run_dir=folder)
        whole = time.perf_counter() - began
    finally:
        for name, method in plain.items():
            setattr(RunRecorder, name, method)
    return (
        f"{size:9,} {result.iterations:11,} {whole:8.1f} {watch.checkpoints:12} {watch.seconds:8.3f} "
        f"{watch.seconds / whole:7.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=61.0, help="of each fit; a checkpoint is due after 60")
    seconds = parser.parse_args().seconds
    print("  numbers  iterations  seconds  checkpoints  writing   share")
    for size in SIZES:
        with TemporaryDirectory() as folder:
            print(share(size, seconds, Path(folder) / "run"), flush=True)


if __name__ == "__main__":
    main()
