"""Fields in time and space, nested beside crossed levels: loss, slope, seconds and memory, beside scipy's answer.

    python -m tests.benchmarks.fields [NAME…]

Each problem is simulated, fitted as a user would write it, and held against a Laplace approximation in numpy and scipy
at the parameters that were found: Newton's method and SuperLU on matrices that are written down by hand. The loss there
must agree, and its slope by differences vanish. A problem is a process of its own. docs/benchmarks.md has the table.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log, pi
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import scipy.sparse as sp
import scipy.sparse.linalg as sl
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from torch import Tensor
from torch.distributions import constraints

import hofit

Array = NDArray[np.float64]
Sparse = Any

SOFT = 1e-3
"""Standard deviation that a soft constraint allows the mean of a field."""


@dataclass
class Problem:
    """Counts with log rates μ + design · u. ``prior`` of the parameters gives u's precision and the logarithm of its
    normalising constant; ``level`` is a row that a soft constraint holds near zero."""

    model: Callable[[], None]
    integrated: tuple[str, ...]
    names: tuple[str, ...]
    counts: Array
    design: Sparse
    prior: Callable[[Array], tuple[Sparse, float]]
    level: Array | None = field(default=None)


class Factor:
    """Of S + V W Vᵀ, by SuperLU and Woodbury's formula."""

    def __init__(self, matrix: Sparse, column: Array | None, weight: float) -> None:
        options = {"SymmetricMode": True}
        self._lu = sl.splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        self._column, self._weight = column, weight
        self.log_determinant = float(np.log(self._lu.U.diagonal()).sum())
        if column is not None:
            self._solved = self._lu.solve(column)
            self._inner = 1 + weight * float(column @ self._solved)
            self.log_determinant += log(self._inner)

    def solve(self, right: Array) -> Array:
        found: Array = self._lu.solve(right)
        if self._column is not None:
            found = found - self._solved * (self._weight * float(self._column @ found) / self._inner)
        return found


def reference(problem: Problem, theta: Array) -> float:
    """Minus the log evidence by Laplace, at the mode that Newton's method finds."""
    precision, constant = problem.prior(theta)
    y, design, level = problem.counts, problem.design.tocsr(), problem.level
    weight = 0.0 if level is None else SOFT**-2
    if level is not None:
        constant -= log(SOFT) + 0.5 * log(2 * pi)
    u, mu = np.zeros(design.shape[1]), theta[0] if "mu" in problem.names else 0.0

    def density(u: Array) -> float:
        eta = mu + design @ u
        soft = 0.0 if level is None else 0.5 * weight * float(level @ u) ** 2
        return float((y * eta - np.exp(eta) - gammaln(y + 1)).sum() - 0.5 * u @ (precision @ u) - soft + constant)

    for _ in range(200):
        rate = np.exp(mu + design @ u)
        slope = design.T @ (y - rate) - precision @ u
        if level is not None:
            slope -= weight * float(level @ u) * level
        factor = Factor(precision + design.T @ sp.diags(rate) @ design, level, weight)
        step, size = factor.solve(slope), 1.0
        while density(u + size * step) < density(u) - 1e-9 * abs(density(u)) and size > 1e-6:
            size /= 2
        u = u + size * step
        if np.abs(step).max() < 1e-10:
            break
    return -(density(u) + 0.5 * len(u) * log(2 * pi) - 0.5 * factor.log_determinant)


def positive(name: str, start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start), constraint=constraints.positive)
    return value


def free(name: str, start: float, *bounds: float) -> Tensor:
    support = constraints.interval(*bounds) if bounds else constraints.real
    value: Tensor = pyro.param(name, torch.tensor(start), constraint=support)
    return value


def flat(name: str, *shape: int) -> Tensor:
    value: Tensor = pyro.sample(name, dist.ImproperUniform(constraints.real, (), shape))
    return value


def observe(log_rate: Tensor, y: Tensor) -> None:
    with pyro.plate("observations", len(y)):
        pyro.sample("y", dist.Poisson(log_rate.exp()), obs=y)


def counts(log_rate: Array, seed: int) -> Array:
    return np.random.default_rng(seed).poisson(np.exp(log_rate)).astype(float)


def differences(size: int, order: int) -> Sparse:
    matrix = sp.eye(size, format="csr")
    for _ in range(order):
        matrix = matrix[1:] - matrix[:-1]
    return matrix


def areas(side: int = 100) -> Problem:
    """10,000 areas on a lattice: an intrinsic field, held by a soft constraint, beside an unstructured effect (BYM)."""
    size, places = side * side, np.arange(side * side).reshape(side, side)
    one = np.concatenate([places[1:].ravel(), places[:, 1:].ravel()])
    other = np.concatenate([places[:-1].ravel(), places[:, :-1].ravel()])
    edges = np.arange(len(one))
    ends = sp.csr_matrix((np.r_[np.ones(len(one)), -np.ones(len(one))], (np.r_[edges, edges], np.r_[one, other])))
    structure = (ends.T @ ends).tocsc()
    rng = np.random.default_rng(5)
    smooth = sl.spsolve((structure + 0.02 * sp.eye(size)).tocsc(), ends.T @ rng.normal(size=len(one)))
    y = counts(1.0 + 0.7 * (smooth - smooth.mean()) + rng.normal(0, 0.3, size), 6)
    i, j, data = torch.tensor(one), torch.tensor(other), torch.tensor(y)

    def model() -> None:
        mu, sd, tau = free("mu", 0.0), positive("sd", 0.5), positive("tau", 1.0)
        x = flat("field", size)
        pyro.factor("smooth", 0.5 * (size - 1) * tau.log() - 0.5 * tau * (x[i] - x[j]).square().sum())
        pyro.factor("level", dist.Normal(0.0, SOFT).log_prob(x.mean()))
        with pyro.plate("areas", size):
            own = pyro.sample("own", dist.Normal(0.0, sd))
        observe(mu + x + own, data)

    def prior(theta: Array) -> tuple[Sparse, float]:
        _, sd, tau = theta
        precision = sp.block_diag([tau * structure, sp.eye(size) / sd**2])
        return precision, 0.5 * (size - 1) * log(tau) - size * (log(sd) + 0.5 * log(2 * pi))

    level = np.r_[np.full(size, 1.0 / size), np.zeros(size)]
    design = sp.hstack([sp.eye(size), sp.eye(size)])
    return Problem(model, ("field", "own"), ("mu", "sd", "tau"), y, design, prior, level)


def second_order_walk(size: int = 20_000) -> Problem:
    """A smooth curve through 20,000 counts: second differences, the level and slope held by the counts."""
    times = np.arange(size)
    y = counts(1.0 + np.sin(times / 900) + 0.3 * np.cos(times / 70), 8)
    data, second = torch.tensor(y), differences(size, 2)

    def model() -> None:
        tau, x = positive("tau", 10.0), flat("x", size)
        pyro.factor("smooth", 0.5 * (size - 2) * tau.log() - 0.5 * tau * x.diff(n=2).square().sum())
        observe(x, data)

    def prior(theta: Array) -> tuple[Sparse, float]:
        return theta[0] * (second.T @ second), 0.5 * (size - 2) * log(theta[0])

    return Problem(model, ("x",), ("tau",), y, sp.eye(size), prior)


def second_order_autoregression(size: int = 20_000) -> Problem:
    """An AR(2) with estimated coefficients."""
    rng = np.random.default_rng(9)
    x = np.zeros(size)
    for t in range(2, size):
        x[t] = 1.2 * x[t - 1] - 0.3 * x[t - 2] + rng.normal(0, 0.25)
    y = counts(0.5 + x, 10)
    data = torch.tensor(y)

    def model() -> None:
        mu, sd = free("mu", 0.0), positive("sd", 0.5)
        a, b = free("a", 0.5), free("b", 0.0)
        x = flat("x", size)
        pyro.factor("first", dist.Normal(0.0, 1.0).log_prob(x[:2]).sum())
        pyro.factor("steps", dist.Normal(a * x[1:-1] + b * x[:-2], sd).log_prob(x[2:]).sum())
        observe(mu + x, data)

    def prior(theta: Array) -> tuple[Sparse, float]:
        _, sd, a, b = theta
        eye = sp.eye(size, format="csr")
        steps = eye[2:] - a * eye[1:-1] - b * eye[:-2]
        return eye[:2].T @ eye[:2] + steps.T @ steps / sd**2, -(size - 2) * log(sd) - 0.5 * size * log(2 * pi)

    return Problem(model, ("x",), ("mu", "sd", "a", "b"), y, sp.eye(size), prior)


def subjects(many: int = 300, times: int = 50) -> Problem:
    """An AR(1) a subject."""
    rng = np.random.default_rng(11)
    x = np.empty((many, times))
    x[:, 0] = rng.normal(0, 0.5, many)
    for t in range(1, times):
        x[:, t] = 0.8 * x[:, t - 1] + rng.normal(0, 0.3, many)
    y = counts((1.0 + x).ravel(), 12)
    data = torch.tensor(y)

    def model() -> None:
        mu, sd, rho = free("mu", 0.0), positive("sd", 0.5), free("rho", 0.5, -1.0, 1.0)
        with pyro.plate("subjects", many):
            x = pyro.sample("x", dist.ImproperUniform(constraints.real_vector, (), (times,)))
        pyro.factor("first", dist.Normal(0.0, sd / (1 - rho**2).sqrt()).log_prob(x[:, 0]).sum())
        pyro.factor("steps", dist.Normal(rho * x[:, :-1], sd).log_prob(x[:, 1:]).sum())
        observe(mu + x.reshape(-1), data)

    def prior(theta: Array) -> tuple[Sparse, float]:
        _, sd, rho = theta
        eye = sp.eye(times, format="csr")
        steps = eye[1:] - rho * eye[:-1]
        one = (steps.T @ steps + (1 - rho**2) * eye[:1].T @ eye[:1]) / sd**2
        constant = -times * log(sd) + 0.5 * log(1 - rho**2) - 0.5 * times * log(2 * pi)
        return sp.block_diag([one] * many), many * constant

    return Problem(model, ("x",), ("mu", "sd", "rho"), y, sp.eye(many * times), prior)


def levels(rows: int = 100_000) -> Problem:
    """Classes in schools in regions, beside teachers who go round."""
    rng = np.random.default_rng(13)
    sizes = {"region": 50, "school": 1_000, "room": 10_000, "teacher": 500}
    room = rng.integers(0, sizes["room"], rows)
    code = {
        "region": room // 200,
        "school": room // 10,
        "room": room,
        "teacher": rng.integers(0, sizes["teacher"], rows),
    }
    sds = {"region": 0.4, "school": 0.3, "room": 0.25, "teacher": 0.35}
    y = counts(0.3 + sum(rng.normal(0, sds[k], sizes[k])[code[k]] for k in sizes), 14)
    data, codes = torch.tensor(y), {k: torch.tensor(v) for k, v in code.items()}

    def model() -> None:
        rate = free("mu", 0.0)
        for name, size in sizes.items():
            with pyro.plate(f"{name}s", size):
                rate = rate + pyro.sample(name, dist.Normal(0.0, positive(f"sd_{name}", 0.5)))[codes[name]]
        observe(rate, data)

    def prior(theta: Array) -> tuple[Sparse, float]:
        sd = np.repeat(theta[1:], list(sizes.values()))
        return sp.diags(sd**-2.0), -float(np.log(sd).sum()) - 0.5 * len(sd) * log(2 * pi)

    one = [sp.csr_matrix((np.ones(rows), (np.arange(rows), code[k])), shape=(rows, sizes[k])) for k in sizes]
    return Problem(model, tuple(sizes), ("mu", *(f"sd_{k}" for k in sizes)), y, sp.hstack(one), prior)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "areas": areas,
    "second_order_walk": second_order_walk,
    "second_order_autoregression": second_order_autoregression,
    "subjects": subjects,
    "levels": levels,
}


def run(name: str) -> None:
    torch.set_num_threads(1)
    problem = PROBLEMS[name]()
    config = {
        "objective": {"type": "marginal", "integrate": dict.fromkeys(problem.integrated, "laplace")},
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
    }
    began, clock = time.process_time(), time.perf_counter()
    result = hofit.fit(problem.model, config)
    cpu, wall = time.process_time() - began, time.perf_counter() - clock
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theta = np.array([float(result.values[one]) for one in problem.names])
    loss = reference(problem, theta)
    slopes = []
    for k, value in enumerate(theta):
        step = 1e-4 * max(abs(value), 0.1)
        moved = [theta + sign * step * (np.arange(len(theta)) == k) for sign in (1, -1)]
        slopes.append((reference(problem, moved[0]) - reference(problem, moved[1])) / (2 * step))
    errors = np.array([float(result.std_errors.get(one, torch.tensor(np.nan))) for one in problem.names])
    off = np.nanmax(np.abs(np.array(slopes) * errors))
    print(
        f"| {name} | {problem.design.shape[1]} | {result.status} | {result.loss:.6f} | {result.loss - loss:.1e} | "
        f"{off:.1e} | {result.iterations} | {cpu:.1f} | {wall:.1f} | {memory:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run(arguments.one)
        return
    print("| problem | integrated | status | loss | less scipy's | slope × error | iterations | CPU s | s | peak MiB |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in arguments.names or PROBLEMS:
        subprocess.run([sys.executable, "-m", "tests.benchmarks.fields", "--one", name], check=True)


if __name__ == "__main__":
    main()
