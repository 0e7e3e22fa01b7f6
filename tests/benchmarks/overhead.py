"""Time of one hofit iteration over one of a hand-written Pyro loop: the same trace, gradient and torch.optim step.

Both run Adam on the same model and data, with distribution validation off and the same number of threads, in turn,
in one process; hofit writes its run directory, and replays the model where it can. Beside it the least that can be had:
the same step on a captured graph of the same loss, in a loop of five lines. Printed: the medians, and the medians of
the ratios pair by pair.

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
from torch import Tensor, nn
from torch.distributions import biject_to

import hofit
from hofit.capture.replay import by_script
from hofit.capture.tape import Recorder
from models import radon

PAIRS = 31
RADON = ("log_radon", "floor", "log_uranium")
SETTLED = 100
"""Iterations before the clock: the model has been captured by then."""


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


class Network:
    """A network of 64 hidden units on 20 covariates, by minibatches of 256 of 10,000 rows."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 1))

    def __call__(self, x: Tensor, y: Tensor) -> None:
        net = pyro.module("net", self.net)
        with pyro.plate("rows", len(y), subsample_size=256) as rows:
            pyro.sample("y", dist.Normal(net(x[rows]).squeeze(-1), 1.0), obs=y[rows])


class ByHand:
    """The loop that a user of Pyro writes: a trace, `backward`, a step."""

    def __init__(self, model: Callable[..., None], data: dict[str, Any]) -> None:
        self._model, self._data = model, data
        with poutine.trace() as prototype:
            model(**data)
        latents = {
            name: site
            for name, site in prototype.trace.nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and hasattr(site["fn"], "support")
        }
        self._transforms = {name: biject_to(site["fn"].support) for name, site in latents.items()}
        self._latents = {name: torch.zeros(site["value"].shape, requires_grad=True) for name, site in latents.items()}
        self.leaves = [*self._latents.values(), *dict(pyro.get_param_store().named_parameters()).values()]
        self._optimizer = torch.optim.Adam(self.leaves, lr=1e-3)
        self.losses: list[float] = []

    def loss(self) -> Tensor:
        values = {name: self._transforms[name](leaf) for name, leaf in self._latents.items()}
        found: Tensor = -poutine.trace(poutine.condition(self._model, values)).get_trace(**self._data).log_prob_sum()
        return found

    def iterate(self) -> None:
        self._optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self._optimizer.step()
        self.losses.append(loss.item())

    def captured(self) -> Callable[[], None]:
        """The same iteration on a graph of loss and gradient."""
        with Recorder(self.leaves) as recorder:
            loss = self.loss()
            gradients = torch.autograd.grad(loss, self.leaves)
        replay = by_script(recorder.finish([loss.detach(), *gradients]), self.leaves)

        def iterate() -> None:
            loss, *gradients = replay(self.leaves)
            for leaf, gradient in zip(self.leaves, gradients, strict=True):
                leaf.grad = gradient
            self._optimizer.step()
            self.losses.append(loss.item())

        return iterate


def timed(iterate: Callable[[], None], iterations: int) -> float:
    """Seconds an iteration."""
    for _ in range(10):
        iterate()
    start = time.perf_counter()
    for _ in range(iterations):
        iterate()
    return (time.perf_counter() - start) / iterations


def by_hand(model: Callable[..., None], data: dict[str, Any], iterations: int, bare: bool) -> tuple[float, float]:
    """Seconds an iteration of the loop, and of that on the captured graph (nan where there is none)."""
    with pyro.get_param_store().scope():
        loop = ByHand(model, data)
        traced = timed(loop.iterate, iterations)
        return traced, timed(loop.captured(), iterations) if bare else float("nan")


def by_hofit(model: Callable[..., None], data: dict[str, Any], iterations: int, threads: int) -> float:
    """Seconds an iteration of hofit, from the seconds in its progress.csv."""
    config: dict[str, Any] = {
        "optimizers": [{"params": "*", "optimizer": "adam", "lr": 1e-3}],
        "stop": {"max_iterations": iterations + SETTLED, "gradient": 0.0, "relative_loss": 0.0},
        "threads": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        hofit.fit(model, config, run_dir=Path(folder) / "run", data=data)
        with (Path(folder) / "run" / "progress.csv").open() as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    return (seconds[-1] - seconds[SETTLED]) / iterations


def compare(
    name: str,
    model: Callable[..., None],
    data: dict[str, Any],
    iterations: int,
    threads: int,
    bare: bool = True,
) -> None:
    torch.set_num_threads(threads)
    triples = []
    with pyro.validation_enabled(False):
        for k in range(PAIRS):
            first = by_hofit(model, data, iterations, threads) if k % 2 == 0 else None
            hand, graph = by_hand(model, data, iterations, bare)
            triples.append((first or by_hofit(model, data, iterations, threads), hand, graph))
    medians = " | ".join(
        "–" if times[0] != times[0] else f"{statistics.median(times) * 1e6:.0f} µs"
        for times in zip(*triples, strict=True)
    )
    ratios = sorted(ours / hand for ours, hand, _ in triples)
    beside = f"{statistics.median(ours / graph for ours, _, graph in triples):.2f}" if bare else "–"
    print(
        f"| {name} | {threads} | {medians} | {statistics.median(ratios):.3f} | {ratios[0]:.3f} – {ratios[-1]:.3f} "
        f"| {beside} |",
        flush=True,
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
    with (Path(radon.__file__).parent / "data" / "radon.csv").open() as file:
        homes = list(csv.DictReader(file))
    names = sorted({home["county"] for home in homes})
    columns = {name: torch.tensor([float(home[name]) for home in homes]) for name in RADON}
    county = torch.tensor([names.index(home["county"]) for home in homes])
    minnesota = {**columns, "county": county, "n_counties": len(names)}
    inputs = torch.randn(10_000, 20, generator=generator)
    network = {"x": inputs, "y": inputs[:, 0].sin() + torch.randn(10_000, generator=generator)}
    print("| model | threads | hofit | by hand | bare graph | hofit / by hand | range | hofit / bare graph |")
    print("|---|---|---|---|---|---|---|---|")
    compare("eight schools", eight_schools, schools, 500, 1)
    compare("radon", radon.model, minnesota, 500, 1)
    compare("logistic, 100,000 rows", logistic, rows, 100, 1)
    compare("logistic, 100,000 rows", logistic, rows, 100, 2)
    compare("neural network, minibatches of 256", Network(), network, 300, 1, bare=False)


if __name__ == "__main__":
    main()
