"""Central differences against derivatives in closed form, and curvature by them where torch has none."""

from __future__ import annotations

from math import exp

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import hofit
from hofit.differences import central


@pytest.mark.parametrize("unit", [0.1, 1.0])
def test_a_derivative_of_exp_is_exp(unit: float) -> None:
    found = central(lambda t: torch.tensor([exp(1 + t), exp(-2 * t)], dtype=torch.float64), unit)
    assert torch.allclose(found, torch.tensor([exp(1), -2.0], dtype=torch.float64), rtol=1e-7)


def kernel(squared: Tensor, n: int) -> None:
    noise = pyro.param("noise", torch.tensor(0.3), constraint=dist.constraints.positive)
    covariance = torch.exp(-0.5 * squared) + noise**2 * torch.eye(n)
    y = torch.sin(6 * torch.linspace(0, 1, n)) + 0.1 * torch.cos(torch.arange(n) * 1.7)
    pyro.sample("y", dist.MultivariateNormal(torch.zeros(n), covariance_matrix=covariance), obs=y)


def by_cdist() -> None:
    """Its second derivative is nan where two points coincide."""
    x = torch.linspace(0, 1, 20)[:, None] / pyro.param(
        "length", torch.tensor(1.0), constraint=dist.constraints.positive
    )
    kernel(torch.cdist(x, x) ** 2, 20)


def by_squares() -> None:
    x = torch.linspace(0, 1, 20)[:, None] / pyro.param(
        "length", torch.tensor(1.0), constraint=dist.constraints.positive
    )
    kernel((x - x.T) ** 2, 20)


def test_a_model_without_second_derivatives_is_fitted_by_differences_and_says_so() -> None:
    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    found, plain = hofit.fit(by_cdist, config), hofit.fit(by_squares, config)
    assert found.status == plain.status == "converged"
    assert found.loss == pytest.approx(plain.loss, abs=1e-9)
    for name, error in plain.std_errors.items():
        assert float(found.values[name]) == pytest.approx(float(plain.values[name]), rel=1e-5)
        assert float(found.std_errors[name]) == pytest.approx(float(error), rel=1e-4)
    assert any("no second derivative of 'y' (" in remark for remark in found.remarks)
