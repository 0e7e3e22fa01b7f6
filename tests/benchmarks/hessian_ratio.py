"""Time of one structured Hessian, assembled, over one trace with its gradient, at the same point, in one run.

    python tests/benchmarks/hessian_ratio.py [--threads 2] [--repeats 15] [--groups 100000]

Pairs are taken in turn; the ratio is that of each pair, and its median is quoted. Distribution validation is off; the
first Hessian, which finds and proves the structure, is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hofit.curvature.structure import Curvature  # noqa: E402
from hofit.linear.operator import Operator  # noqa: E402
from hofit.model.program import Program  # noqa: E402
from hofit.objective.density import DensityObjective  # noqa: E402
from hofit.run.memory import keep_large_temporaries  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--groups", type=int, default=100_000)
    arguments = parser.parse_args()
    keep_large_temporaries()
    torch.set_num_threads(arguments.threads)
    torch.set_default_dtype(torch.float64)
    pyro.enable_validation(False)
    print("| model | structure | gradient | Hessian | median ratio | range of the ratio |")
    print("|---|---|---|---|---|---|")
    for name, model, data in problems(arguments.groups):
        gradients, hessians, structure = measure(model, data, arguments.repeats)
        ratios = sorted(h / g for g, h in zip(gradients, hessians, strict=True))
        print(
            f"| {name} | {structure} | {1e3 * statistics.median(gradients):.1f} ms "
            f"| {1e3 * statistics.median(hessians):.1f} ms | {statistics.median(ratios):.2f} "
            f"| {ratios[0]:.2f} – {ratios[-1]:.2f} |"
        )


def problems(groups: int) -> list[tuple[str, Callable[..., Any], dict[str, Any]]]:
    from models import hierarchical_logistic, item_response, poisson_regression

    found: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []
    for layout in ("nested", "indexed"):
        data = hierarchical_logistic.load_data(groups=groups, seed=0, layout=layout)
        found.append(
            (f"hierarchical logistic, {groups} groups, {layout}", getattr(hierarchical_logistic, layout), data)
        )
    for layout in ("nested", "indexed"):
        data = item_response.load_data(persons=5000, items=40, seed=0, layout=layout)
        found.append((f"item response, 5000 × 40, {layout}", getattr(item_response, layout), data))
    rows = poisson_regression.load_data(rows=200_000, covariates=50, seed=0)
    return [*found, ("Poisson, 200,000 rows × 50", poisson_regression.model, rows)]


def measure(model: Callable[..., Any], data: dict[str, Any], repeats: int) -> tuple[list[float], list[float], str]:
    program = Program(model, data)
    with program.scope():
        program.discover("zero")
        objective = DensityObjective(program)
        start = objective.start()
        names = list(start)
        curvature = Curvature()
        point = objective.at(start)
        operator = curvature.at(point, names)
        assert isinstance(operator, Operator)
        gradients, hessians = [], []
        for _ in range(repeats):
            began = time.perf_counter()
            point = objective.at(start)
            point.gradient()
            gradients.append(time.perf_counter() - began)
            began = time.perf_counter()
            curvature.at(point, names)
            hessians.append(time.perf_counter() - began)
    return gradients, hessians, f"{operator.structure} ({curvature.products} products)"


if __name__ == "__main__":
    main()
