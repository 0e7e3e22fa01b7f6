"""``trust_region`` on the classic problems, from their starts and from ten times as far.

Source of problems, starts and minima: Moré, Garbow & Hillstrom (1981), "Testing unconstrained optimization software",
ACM Transactions on Mathematical Software 7; their numbers are given in parentheses.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, exp, sqrt

import hofit
from hofit.curvature.structure import Curvature
from hofit.errors import OptionError
from hofit.fitting.result import FitResult
from hofit.optim.trust_region import TrustRegion
from hofit.point import TracedPoint

Function = Callable[[Tensor], Tensor]


def rosenbrock(x: Tensor) -> Tensor:
    """(1), and (21) in more dimensions."""
    odd, even = x[::2], x[1::2]
    return torch.stack([10 * (even - odd**2), 1 - odd])


def freudenstein_roth(x: Tensor) -> Tensor:
    """(2)"""
    a, b = x
    return torch.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def powell_badly_scaled(x: Tensor) -> Tensor:
    """(3)"""
    a, b = x
    return torch.stack([1e4 * a * b - 1, exp(-a) + exp(-b) - 1.0001])


def brown_badly_scaled(x: Tensor) -> Tensor:
    """(4)"""
    a, b = x
    return torch.stack([a - 1e6, b - 2e-6, a * b - 2])


def beale(x: Tensor) -> Tensor:
    """(5)"""
    a, b = x
    power: Tensor = torch.arange(1.0, 4.0)
    rest: Tensor = torch.tensor([1.5, 2.25, 2.625]) - a * (1 - b**power)
    return rest


def helical_valley(x: Tensor) -> Tensor:
    """(7)"""
    a, b, c = x
    theta = torch.atan(b / a) / (2 * math.pi) + torch.where(a < 0, 0.5, 0.0)
    return torch.stack([10 * (c - 10 * theta), 10 * (sqrt(a**2 + b**2) - 1), c])


BARD = torch.tensor(
    [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39], dtype=torch.float64
)


def bard(x: Tensor) -> Tensor:
    """(8)"""
    u = torch.arange(1.0, 16.0)
    v = 16 - u
    return BARD - (x[0] + u / (v * x[1] + torch.minimum(u, v) * x[2]))


def box(x: Tensor) -> Tensor:
    """(12)"""
    t = 0.1 * torch.arange(1.0, 11.0)
    return exp(-t * x[0]) - exp(-t * x[1]) - x[2] * (exp(-t) - exp(-10 * t))


def powell_singular(x: Tensor) -> Tensor:
    """(13)"""
    a, b, c, d = x
    return torch.stack([a + 10 * b, math.sqrt(5) * (c - d), (b - 2 * c) ** 2, math.sqrt(10) * (a - d) ** 2])


def wood(x: Tensor) -> Tensor:
    """(14)"""
    a, b, c, d = x
    return torch.stack(
        [
            10 * (b - a**2),
            1 - a,
            math.sqrt(90) * (d - c**2),
            1 - c,
            math.sqrt(10) * (b + d - 2),
            (b - d) / math.sqrt(10),
        ]
    )


KOWALIK_Y = torch.tensor(
    [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246], dtype=torch.float64
)
KOWALIK_U = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625], dtype=torch.float64)


def kowalik_osborne(x: Tensor) -> Tensor:
    """(15)"""
    u = KOWALIK_U
    return KOWALIK_Y - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x: Tensor) -> Tensor:
    """(16)"""
    t = torch.arange(1.0, 21.0) / 5
    return (x[0] + t * x[1] - exp(t)) ** 2 + (x[2] + x[3] * torch.sin(t) - torch.cos(t)) ** 2


def biggs(x: Tensor) -> Tensor:
    """(18), the six parameters."""
    t = 0.1 * torch.arange(1.0, 14.0)
    y = exp(-t) - 5 * exp(-10 * t) + 3 * exp(-4 * t)
    return x[2] * exp(-t * x[0]) - x[3] * exp(-t * x[1]) + x[5] * exp(-t * x[4]) - y


def trigonometric(x: Tensor) -> Tensor:
    """(26)"""
    n = len(x)
    i = torch.arange(1.0, n + 1)
    return n - torch.cos(x).sum() + i * (1 - torch.cos(x)) - torch.sin(x)


def broyden_tridiagonal(x: Tensor) -> Tensor:
    """(30)"""
    zero = torch.zeros(1)
    return (3 - 2 * x) * x - torch.cat([zero, x[:-1]]) - 2 * torch.cat([x[1:], zero]) + 1


def variably_dimensioned(x: Tensor) -> Tensor:
    """(25)"""
    total = (torch.arange(1.0, len(x) + 1) * (x - 1)).sum()
    return torch.cat([x - 1, total[None], total[None] ** 2])


@dataclass(frozen=True)
class Problem:
    residuals: Function
    start: list[float]
    minimum: float


PROBLEMS = {
    "rosenbrock": Problem(rosenbrock, [-1.2, 1.0], 0.0),
    "freudenstein_roth": Problem(freudenstein_roth, [0.5, -2.0], 48.98425),
    "powell_badly_scaled": Problem(powell_badly_scaled, [0.0, 1.0], 0.0),
    "brown_badly_scaled": Problem(brown_badly_scaled, [1.0, 1.0], 0.0),
    "beale": Problem(beale, [1.0, 1.0], 0.0),
    "helical_valley": Problem(helical_valley, [-1.0, 0.0, 0.0], 0.0),
    "bard": Problem(bard, [1.0, 1.0, 1.0], 8.214877e-3),
    "box": Problem(box, [0.0, 10.0, 20.0], 0.0),
    "powell_singular": Problem(powell_singular, [3.0, -1.0, 0.0, 1.0], 0.0),
    "wood": Problem(wood, [-3.0, -1.0, -3.0, -1.0], 0.0),
    "kowalik_osborne": Problem(kowalik_osborne, [0.25, 0.39, 0.415, 0.39], 3.0750561e-4),
    "brown_dennis": Problem(brown_dennis, [25.0, 5.0, -5.0, -1.0], 85822.2),
    "biggs": Problem(biggs, [1.0, 2.0, 1.0, 1.0, 1.0, 1.0], 0.0),
    "extended_rosenbrock": Problem(rosenbrock, [-1.2, 1.0] * 5, 0.0),
    "variably_dimensioned": Problem(variably_dimensioned, [1 - k / 10 for k in range(1, 11)], 0.0),
    "trigonometric": Problem(trigonometric, [0.1] * 10, 0.0),
    "broyden_tridiagonal": Problem(broyden_tridiagonal, [-1.0] * 10, 0.0),
}


NOT_SOLVED = {
    # The valley b → 1, a → −∞, where f falls to 0.4520 and never rises. MINPACK's lmder, scaled as here, is there after
    # 2000 evaluations; scipy's trust-exact, trust-ncg and BFGS, not scaled, go the other way and solve it.
    ("beale", 10.0): 0.4520092,
    # Two of the three exponentials merge and their weights grow without end; with initial_radius 0.1 it is solved. So
    # it is by scipy's trust-exact and trust-ncg and by lmder; BFGS ends at 5.7e-3.
    ("biggs", 1.0): 0.24267,
    # A hyperbola x₁x₂ = 1e-4, 1e5 times as long as it is wide, is followed too slowly. So lmder does: 1.0e-8 after 2000
    # evaluations; trust-ncg stops at 4.2e-9 on its gradient; trust-exact gets to 1.9e-23 in 490 steps, BFGS to 1e-28.
    ("powell_badly_scaled", 10.0): 1e-8,
}
"""Runs that find no minimum, and the loss that they stay above: all they must do is say so."""

CASES = [(name, factor) for factor in (1.0, 10.0) for name in PROBLEMS]
SOLVED = [case for case in CASES if case not in NOT_SOLVED]

LOCAL = {("trigonometric", 1.0): 2.795056e-5, ("trigonometric", 10.0): 4.218634e-5}
"""Other minima: the first is published; the second has a positive definite Hessian, as the verdict finds."""

SINGULAR = "powell_singular"
"""Its Hessian at the minimum has rank 2: a point near it is not proved to be a minimum."""


def solve(name: str, factor: float, run_dir: Path, **options: Any) -> FitResult:
    """The sum of squares, minimised from ``factor`` times the start; relative_loss has no meaning where f goes to 0."""
    problem = PROBLEMS[name]

    def model() -> None:
        x = pyro.param("x", lambda: factor * torch.tensor(problem.start))
        pyro.factor("minus_f", -problem.residuals(x).square().sum())

    entry = {"params": "*", "optimizer": "trust_region", **options}
    return hofit.fit(model, {"optimizers": [entry], "stop": {"relative_loss": 0.0}}, run_dir=run_dir)


def assert_never_uphill(run_dir: Path) -> None:
    """No accepted step raises the loss, but for rounding."""
    rounding = 64 * torch.finfo(torch.float64).eps
    with (run_dir / "progress.csv").open(encoding="utf-8", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    for before, after in pairwise(losses):
        assert after <= before + rounding * abs(before)


@pytest.mark.parametrize(("name", "factor"), SOLVED)
def test_a_classic_problem_is_solved_without_a_step_uphill(name: str, factor: float, tmp_path: Path) -> None:
    result = solve(name, factor, tmp_path / "run")
    minima = [PROBLEMS[name].minimum, *(LOCAL[case] for case in LOCAL if case == (name, factor))]
    within = 1e-9 if name == SINGULAR else 1e-11
    assert any(result.loss == pytest.approx(minimum, rel=1e-6, abs=within) for minimum in minima)
    if name == SINGULAR:
        assert result.status in ("no_progress", "flat_direction", "converged")
    else:
        assert result.status == "converged", result.remarks
        assert result.gradient_norm <= 1e-6
    assert_never_uphill(tmp_path / "run")


@pytest.mark.parametrize(("name", "factor"), NOT_SOLVED)
def test_a_run_that_finds_no_minimum_says_so(name: str, factor: float, tmp_path: Path) -> None:
    result = solve(name, factor, tmp_path / "run")
    assert result.loss > NOT_SOLVED[name, factor]
    assert not result.converged
    assert_never_uphill(tmp_path / "run")


def test_biggs_is_solved_with_a_smaller_first_radius(tmp_path: Path) -> None:
    result = solve("biggs", 1.0, tmp_path / "run", initial_radius=0.1)
    assert (result.status, result.converged) == ("converged", True)
    assert result.loss == pytest.approx(0.0, abs=1e-11)


def test_there_are_at_least_14_problems() -> None:
    assert len(PROBLEMS) >= 14


# --- The optimizer itself -------------------------------------------------------------------------


def test_a_saddle_is_left() -> None:
    def model() -> None:
        x = pyro.param("x", lambda: torch.tensor([0.0, 0.0]))
        pyro.factor("minus_f", -(x[0] ** 2 - x[1] ** 2 + 0.25 * x[1] ** 4))

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    assert result.status == "converged"
    assert result.values["x"].abs().tolist() == pytest.approx([0.0, math.sqrt(2)], abs=1e-6)


def test_units_do_not_matter() -> None:
    """The same steps, whatever the units: iterations and loss agree."""
    ends = []
    for unit in (1.0, 2.0**20):

        def model(unit: float = unit) -> None:
            x = pyro.param("x", lambda: torch.tensor([-1.2, unit]))
            pyro.factor("minus_f", -rosenbrock(x / torch.tensor([1.0, unit])).square().sum())

        pyro.clear_param_store()
        ends.append(hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}))
    assert ends[0].iterations == ends[1].iterations
    assert ends[0].loss == pytest.approx(ends[1].loss, abs=1e-15)


def test_a_hierarchical_logistic_regression_takes_its_newton_steps_in_full() -> None:
    groups, rows = 50, 2000
    group, x = torch.randint(groups, (rows,)), torch.randn(rows, 3)
    logits = torch.randn(groups)[group] + x @ torch.tensor([0.5, -1.0, 0.2])
    y = torch.bernoulli(torch.sigmoid(logits))

    def model() -> None:
        beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("groups", groups):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", rows):
            pyro.sample("y", dist.Bernoulli(logits=a[group] + x @ beta), obs=y)

    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}], "init": {"strategy": "zero"}}
    result = hofit.fit(model, config)
    assert result.status == "converged"
    assert result.iterations <= 8


@pytest.mark.parametrize("radius", [0.0, -1.0])
def test_a_radius_that_is_not_positive_is_refused(radius: float) -> None:
    with pytest.raises(OptionError, match="initial_radius"):
        TrustRegion(initial_radius=radius)


def test_a_hessian_that_turns_matrix_free_keeps_the_scale_that_it_has_shown() -> None:
    """Gradient and products are scaled alike: the step is the Newton step, to the minimum of a quadratic."""
    hessian = torch.tensor([1.0, 1e4])

    def at(x: Tensor) -> TracedPoint:
        leaf = x.requires_grad_()
        return TracedPoint({"x": leaf.detach()}, 0.5 * (hessian * leaf.square()).sum(), {"x": leaf})

    part = TrustRegion("dense")
    part.propose(at(torch.tensor([1.0, 1.0])))
    part.curvature, part.radius.value = Curvature("matrix_free"), 1e3
    updated = part.propose(at(torch.tensor([1e-3, 1e-3]))).params["x"]
    assert updated.abs().max() <= 1e-6


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6])
def test_a_number_that_nothing_depends_on_leaves_the_steps_of_the_others_as_they_are(unit: float) -> None:
    """It is held with a curvature of one, which is far more than the others have where the loss's unit is small."""

    def at(loss: Function, x: Tensor, leaves: int) -> TracedPoint:
        leaf = torch.cat([x, torch.zeros(leaves - 2)]).requires_grad_()
        return TracedPoint({"x": leaf.detach()}, unit * loss(leaf[:2]), {"x": leaf})

    def step(leaves: int) -> Tensor:
        part = TrustRegion("dense", initial_radius=unit**0.5)
        return part.propose(at(lambda x: (x.square() - 1).square().sum(), torch.tensor([0.1, 0.2]), leaves)).params["x"]

    assert torch.allclose(step(3)[:2], step(2), rtol=1e-6)
    assert step(3)[2] == 0.0
