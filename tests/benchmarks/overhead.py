"""Time of one hofit iteration over one of a hand-written Pyro loop: the same trace, gradient and torch.optim step.

Both run Adam on the same model and data, with distribution validation off and the same number of threads, in turn,
in one process; hofit writes its run directory. Printed: the medians, and the median of the ratios pair by pair.


    make bench
"""

from __future__ import annotations

import csv
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions import transforms
from torch import Tensor
from torch.distributions import biject_to

import hofit

PAIRS = 31


def eight_schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def logistic(x: Tensor, y: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.5))
    slope = pyro.sample("slope", dist.Normal(0.0, 2.5))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=intercept + scale * slope * x), obs=y)


def by_hand(model: Callable[..., None], data: dict[str, Tensor], iterations: int) -> float:
    """Seconds an iteration of the loop that a user of Pyro writes."""
    with poutine.trace() as prototype:
        model(**data)
    latents = {
        name: biject_to(site["fn"].support)
        for name, site in prototype.trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and hasattr(site["fn"], "support")
    }
    shapes = {name: prototype.trace.nodes[name]["value"].shape for name in latents}
    leaves = {name: torch.zeros(shapes[name], requires_grad=True) for name in latents}
    optimizer = torch.optim.Adam(list(leaves.values()), lr=1e-3)
    losses = []

    def iterate() -> None:
        optimizer.zero_grad()
        values = {
            name: leaf if latents[name] is transforms.identity_transform else latents[name](leaf)
            for name, leaf in leaves.items()
        }
        trace = poutine.trace(poutine.condition(model, values)).get_trace(**data)
        loss = -trace.log_prob_sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    for _ in range(10):
        iterate()
    start = time.perf_counter()
    for _ in range(iterations):
        iterate()
    return (time.perf_counter() - start) / iterations


def by_hofit(model: Callable[..., None], data: dict[str, Tensor], iterations: int, threads: int) -> float:
    """Seconds an iteration of hofit, from the seconds in its progress.csv."""
    config: dict[str, Any] = {
        "optimizers": [{"params": "*", "optimizer": "adam", "lr": 1e-3}],
        "stop": {"max_iterations": iterations + 10, "gradient": 0.0, "relative_loss": 0.0},
        "threads": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        hofit.fit(model, config, run_dir=Path(folder) / "run", data=data)
        with (Path(folder) / "run" / "progress.csv").open() as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return (seconds[-1] - seconds[10]) / iterations


def compare(name: str, model: Callable[..., None], data: dict[str, Tensor], iterations: int, threads: int) -> None:
    torch.set_num_threads(threads)
    pairs = []
    with pyro.validation_enabled(False):
        for k in range(PAIRS):
            if k % 2:
                hand = by_hand(model, data, iterations)
                pairs.append((by_hofit(model, data, iterations, threads), hand))
            else:
                pairs.append((by_hofit(model, data, iterations, threads), by_hand(model, data, iterations)))
    ours, theirs = (statistics.median(times) * 1e6 for times in zip(*pairs, strict=True))
    ratios = sorted(one / other for one, other in pairs)
    print(
        f"| {name} | {threads} | {ours:.0f} µs | {theirs:.0f} µs | {statistics.median(ratios):.3f} "
        f"| {ratios[0]:.3f} – {ratios[-1]:.3f} |"
    )


def main() -> None:
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(0)
    schools = {
        "y": torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        "sigma": torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    }
    x = torch.randn(100_000, generator=generator)
    rows = {"x": x, "y": torch.bernoulli(torch.sigmoid(x - 0.5), generator=generator)}
    print(f"Python {platform.python_version()}, torch {torch.__version__}, pyro {pyro.__version__}, {PAIRS} pairs\n")
    print("| model | threads | hofit | by hand | median ratio | range |")
    print("|---|---|---|---|---|---|")
    compare("eight schools", eight_schools, schools, 500, 1)
    compare("logistic, 100,000 rows", logistic, rows, 200, 1)
    compare("logistic, 100,000 rows", logistic, rows, 200, 2)


if __name__ == "__main__":
    main()
