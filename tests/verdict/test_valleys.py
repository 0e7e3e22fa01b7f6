"""Numbers that run away together, along a valley: what the loss does at its end, and where its rounding hides that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import constraints

import hofit

SAME = torch.full((6,), 0.3, dtype=torch.float64)
COUNTS = torch.tensor([[5.0, 3, 2], [5, 3, 2], [6, 2, 2], [4, 4, 2]]).double()
DOSE = torch.linspace(0.5, 4.0, 8).double()
ANSWER = 2 * DOSE + 0.1 * DOSE**2 + torch.tensor([0.03, -0.12, 0.08, 0.02, -0.05, 0.11, -0.09, 0.04]).double()
GROWN = torch.exp(0.5 * DOSE) + 0.005 * DOSE**4 - 0.1
OPTIMIZERS = ["trust_region", "lbfgs", "newton_cg"]


def positive(name: str, start: Any) -> Tensor:
    value: Tensor = pyro.param(name, torch.as_tensor(start), constraint=constraints.positive)
    return value


def real(name: str, start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start))
    return value


def observe(distribution: Any, values: Tensor) -> None:
    with pyro.plate("rows", len(values)):
        pyro.sample("y", distribution, obs=values)


def equal_gamma(start: float) -> None:
    observe(dist.Gamma(positive("a", start), positive("b", 1.0)), SAME)


def equal_beta(start: float) -> None:
    observe(dist.Beta(positive("a", start), positive("b", 1.0)), SAME)


def equal_angles(start: float) -> None:
    observe(dist.VonMises(real("loc", 0.1), positive("k", start)), SAME)


def multinomial(start: float) -> None:
    concentration = positive("concentration", start * torch.tensor([1.0, 0.5, 2.0]))
    observe(dist.DirichletMultinomial(concentration, total_count=10), COUNTS)


def saturating(start: float) -> None:
    observe(dist.Normal(real("v", start).exp() * DOSE / (real("k", 0.0).exp() + DOSE), 0.5), ANSWER)


def growth(start: float) -> None:
    height, rate, middle = positive("height", 10.0), positive("rate", start), real("middle", 2.0)
    observe(dist.Normal(height / (1 + torch.exp(-rate * (DOSE - middle))), 0.3), GROWN)


def fit(model: Callable[[float], None], start: float, optimizer: str) -> hofit.FitResult:
    return hofit.fit(lambda: model(start), {"optimizers": [{"params": "*", "optimizer": optimizer}]})


def exponential() -> float:
    def loss(u: Any) -> float:
        return -float(dist.Normal(torch.exp(u[0] + u[1] * DOSE), 0.3).log_prob(GROWN).sum())

    return float(minimize(loss, [0.0, 0.5], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}).fun)


def line() -> float:
    slope = (DOSE * ANSWER).sum() / (DOSE * DOSE).sum()
    return -float(dist.Normal(slope * DOSE, 0.5).log_prob(ANSWER).sum())


def shares() -> float:
    return -float(dist.Multinomial(10, COUNTS.sum(0) / COUNTS.sum()).log_prob(COUNTS).sum())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("start", [0.7, 3.0, 6.0])
@pytest.mark.parametrize("model", [equal_gamma, equal_beta, equal_angles])
def test_a_loss_without_a_floor_is_unbounded_although_its_rounding_has_stopped_the_fit(
    model: Callable[[float], None], start: float, optimizer: str
) -> None:
    """It falls by half a logarithm an observation, and is rounded by more from 1e15 on: there it falls by chance."""
    assert fit(model, start, optimizer).status == "unbounded"


@pytest.mark.parametrize("optimizer", ["newton", "lbfgs"])
def test_no_direction_is_called_flat_where_the_loss_is_rounding(optimizer: str) -> None:
    """In a unit of 1e-9 each gradient is small at once; the shape has gone to e³⁰, and what is seen there is chance."""

    def model(start: float) -> None:
        with poutine.scale(scale=1e-9):
            observe(dist.Weibull(positive("scale", 1.0), positive("shape", start)), SAME)

    assert fit(model, 2.0, optimizer).status == "unbounded"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("start", [1.0, 4.0])
def test_counts_that_vary_no_more_than_a_multinomial_s_send_the_concentration_away(
    start: float, optimizer: str
) -> None:
    """Differences of lgamma are rounded by some 1e-6 where as much is left to fall."""
    result = fit(multinomial, start, optimizer)
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(shares(), abs=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("model", "start", "supremum"),
    [(saturating, 1.0, line), (growth, 0.7, exponential), (growth, 0.4, exponential), (growth, 2.5, exponential)],
    ids=["scales", "logistic", "logistic, further out", "logistic, flat by rounding"],
)
def test_a_valley_is_followed_in_steps_where_ratios_leave_it(
    model: Callable[[float], None], start: float, supremum: Callable[[], float], optimizer: str
) -> None:
    result = fit(model, start, optimizer)
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(supremum(), abs=1e-6)
