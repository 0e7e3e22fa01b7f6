"""Do 95 % intervals cover? A seeded simulation study of the standard errors of `marginal`.

    python tests/benchmarks/coverage.py [--data-sets 50]

Three mixed models, simulated from known parameters and fitted by maximum marginal likelihood, the group effects
integrated out by Laplace's approximation, all data sets of a model at once. An interval is the estimate ± 1.96
standard errors on the unconstrained scale (log of a scale, atanh of a correlation), mapped back; a fit that did not
converge, or gave no error, covers nothing.
Prints a table and leaves with 1 when a model's coverage, over all its parameters, is not within 90 and 98 %.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hofit

Z = 1.959963984540054  # the 97.5 % point of a normal
LOWEST, HIGHEST = 0.90, 0.98
CONFIG = {
    "objective": {"type": "marginal", "integrate": {"b": "laplace"}},
    "optimizers": [{"params": "*", "optimizer": "trust_region"}],
    "threads": 1,
}


@dataclass(frozen=True)
class Study:
    """A model, its true parameters by name, and how its data are drawn from them."""

    model: Callable[..., None]
    truth: dict[str, Any]
    draw: Callable[[dict[str, Any], torch.Generator], dict[str, Any]]


def scale(name: str) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(0.5), constraint=constraints.positive)
    return value


# --- Three models ---------------------------------------------------------------------------------


def random_intercept(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """y ~ Normal(β₀ + b_g + β₁ x, σ), b_g ~ Normal(0, τ)."""
    beta, sd, sigma = pyro.param("beta", torch.zeros(2)), scale("sd"), scale("sigma")
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(beta[0] + b[group] + beta[1] * x, sigma), obs=y)


def poisson_intercept(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """y ~ Poisson(exp(β₀ + b_g + β₁ x)), b_g ~ Normal(0, τ)."""
    beta, sd = pyro.param("beta", torch.zeros(2)), scale("sd")
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((beta[0] + b[group] + beta[1] * x).exp()), obs=y)


def correlated_slope(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """y ~ Normal(β₀ + b₀_g + (β₁ + b₁_g) x, σ), b_g ~ Normal(0, Σ) with τ₀, τ₁ and ρ."""
    beta, sd_intercept, sd_slope = pyro.param("beta", torch.zeros(2)), scale("sd_intercept"), scale("sd_slope")
    correlation = pyro.param("correlation", torch.tensor(0.0), constraint=constraints.interval(-1.0, 1.0))
    sigma = scale("sigma")
    factor = cholesky_factor(sd_intercept, sd_slope, correlation)
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=factor))
    line = beta + b[group]
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(line[:, 0] + line[:, 1] * x, sigma), obs=y)


def cholesky_factor(sd_first: Tensor, sd_second: Tensor, correlation: Tensor) -> Tensor:
    """The lower triangle L of the 2 × 2 covariance Σ = L Lᵀ."""
    first_row = torch.stack([sd_first, torch.zeros(())])
    second_row = sd_second * torch.stack([correlation, (1 - correlation**2).sqrt()])
    return torch.stack([first_row, second_row])


def layout(groups: int, rows: int, generator: torch.Generator) -> dict[str, Any]:
    """The covariate and the groups: `rows` to a group."""
    group = torch.arange(groups).repeat_interleave(rows)
    return {"x": torch.randn(len(group), generator=generator), "group": group, "n_groups": groups}


def draw_random_intercept(truth: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    data = layout(30, 8, generator)
    mean = (truth["beta"][0] + truth["sd"] * torch.randn(30, generator=generator))[data["group"]]
    noise = truth["sigma"] * torch.randn(len(mean), generator=generator)
    return data | {"y": mean + truth["beta"][1] * data["x"] + noise}


def draw_poisson_intercept(truth: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    data = layout(60, 15, generator)
    log_rate = (truth["beta"][0] + truth["sd"] * torch.randn(60, generator=generator))[data["group"]]
    return data | {"y": torch.poisson((log_rate + truth["beta"][1] * data["x"]).exp(), generator=generator)}


def draw_correlated_slope(truth: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    data = layout(40, 10, generator)
    sds = (torch.tensor(truth[name]) for name in ("sd_intercept", "sd_slope", "correlation"))
    b = torch.randn(40, 2, generator=generator) @ cholesky_factor(*sds).T
    line = (torch.tensor(truth["beta"]) + b)[data["group"]]
    noise = truth["sigma"] * torch.randn(len(line), generator=generator)
    return data | {"y": line[:, 0] + line[:, 1] * data["x"] + noise}


STUDIES = {
    "Gaussian, 30 intercepts of 8 rows": Study(
        random_intercept, {"beta": [1.0, 0.5], "sd": 0.8, "sigma": 1.0}, draw_random_intercept
    ),
    "Poisson, 60 intercepts of 15 rows": Study(
        poisson_intercept, {"beta": [0.5, 0.3], "sd": 0.5}, draw_poisson_intercept
    ),
    "Gaussian, 40 correlated intercepts and slopes of 10 rows": Study(
        correlated_slope,
        {"beta": [1.0, -0.5], "sd_intercept": 1.0, "sd_slope": 0.7, "correlation": 0.3, "sigma": 1.0},
        draw_correlated_slope,
    ),
}


# --- The study ------------------------------------------------------------------------------------


def covered(study: Study, count: int) -> list[dict[str, bool]]:
    """Of each data set, whether each parameter's interval holds the truth."""
    data = [study.draw(study.truth, torch.Generator().manual_seed(number)) for number in range(count)]
    return [inside(study.truth, result) for result in hofit.fit_many(study.model, CONFIG, data)]


def inside(truths: dict[str, Any], result: hofit.FitResult) -> dict[str, bool]:
    found = {}
    for parameter, truth in truths.items():
        values, errors = result.values[parameter].reshape(-1), result.std_errors.get(parameter)
        for k, true in enumerate(truth if isinstance(truth, list) else [truth]):
            label = f"{parameter}[{k}]" if isinstance(truth, list) else parameter
            error = float("nan") if errors is None or not result.converged else float(errors.reshape(-1)[k])
            found[label] = holds(parameter, float(values[k]), error, true)
    return found


def holds(parameter: str, estimate: float, error: float, truth: float) -> bool:
    """Whether the interval around the estimate, made on the unconstrained scale, holds the truth; nan never does."""
    if parameter.startswith("sd") or parameter == "sigma":
        distance, unconstrained_error = math.log(estimate / truth), error / estimate
    elif parameter == "correlation":
        distance, unconstrained_error = math.atanh(estimate) - math.atanh(truth), error / (1 - estimate**2)
    else:
        distance, unconstrained_error = estimate - truth, error
    return abs(distance) <= Z * unconstrained_error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=50)
    arguments = parser.parse_args()

    torch.set_default_dtype(torch.float64)
    print("| model | parameter | covered | coverage |\n|---|---|---|---|")
    missed = []
    for name, study in STUDIES.items():
        fits = covered(study, arguments.data_sets)
        for parameter in fits[0]:
            print(line(name, parameter, [fit[parameter] for fit in fits]))
        everything = [one for fit in fits for one in fit.values()]
        print(line(name, "all", everything), flush=True)
        coverage = sum(everything) / len(everything)
        if not LOWEST <= coverage <= HIGHEST:
            missed.append(f"{name}: {coverage:.1%} is not within {LOWEST:.0%} and {HIGHEST:.0%}")
    print("", *missed, sep="\n")
    return 1 if missed else 0


def line(name: str, parameter: str, held: list[bool]) -> str:
    return f"| {name} | {parameter} | {sum(held)} of {len(held)} | {sum(held) / len(held):.1%} |"


if __name__ == "__main__":
    sys.exit(main())
