"""Central differences against derivatives in closed form, and curvature by them where torch has none."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

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


def by_euclid(x: Tensor, y: Tensor) -> Tensor:
    """`torch.cdist` by the function whose backward has no derivative, for any number of rows."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def written_out(x: Tensor, y: Tensor) -> Tensor:
    return ((x[:, None] - y) ** 2).sum(-1).sqrt()


OBSERVED = torch.tensor([1.1, 1.6, 3.4, 0.7, 1.2, 2.9])


def distances(by: Callable[[Tensor, Tensor], Tensor], y: Tensor = OBSERVED) -> Callable[..., None]:
    """Rows at a random place each, seen from one point: at what distance they are is observed."""

    def model(y: Tensor = y) -> None:
        level, sd = pyro.param("level", torch.tensor(0.2)), pyro.param("sd", torch.tensor(1.5), constraint=POSITIVE)
        with pyro.plate("rows", 3):
            u = pyro.sample("u", dist.Normal(0.0, sd))
        far = by(torch.stack([u, torch.full((3,), 0.5)], -1), torch.tensor([[0.3, 0.0]]))[:, 0]
        with pyro.plate("observations", 6):
            pyro.sample("y", dist.Normal(level + far.repeat(2), 0.4), obs=y)

    return model


POSITIVE = dist.constraints.positive


def evidence(method: str) -> dict[str, Any]:
    return {
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
        "objective": {"type": "marginal", "integrate": {"u": method}},
    }


def assert_same(found: hofit.FitResult, plain: hofit.FitResult, error: float = 1e-4) -> None:
    assert found.status == plain.status == "converged"
    assert found.loss == pytest.approx(plain.loss, abs=1e-7)
    for name, own in plain.std_errors.items():
        torch.testing.assert_close(found.values[name], plain.values[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.std_errors[name], own, rtol=error, atol=0.0)


@pytest.mark.parametrize("method", ["laplace", "aghq"])
def test_an_evidence_without_second_derivatives_of_the_density_is_had_by_differences(method: str) -> None:
    config = evidence(method)
    found, plain = hofit.fit(distances(by_euclid), config), hofit.fit(distances(written_out), config)
    assert_same(found, plain)
    assert any("no second derivative of 'y' (" in remark and "cdist" in remark for remark in found.remarks)


def test_a_second_derivative_is_lacking_in_what_is_not_integrated_alone() -> None:
    def model(by: Callable[[Tensor, Tensor], Tensor]) -> None:
        place = pyro.param("place", torch.tensor(1.2))
        with pyro.plate("rows", 6):
            u = pyro.sample("u", dist.Normal(0.0, 0.5))
            far = by(torch.stack([place, torch.tensor(0.5)])[None], torch.tensor([[0.3, 0.0]]))[0, 0]
            pyro.sample("y", dist.Poisson((far * u + far).exp()), obs=OBSERVED.round())

    config = evidence("laplace")
    assert_same(hofit.fit(lambda: model(by_euclid), config), hofit.fit(lambda: model(written_out), config))


class Quadratic(torch.autograd.Function):
    """3 x², whose second derivative torch would have, and whose third raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 3 * x**2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * Linear.apply(*ctx.saved_tensors)  # type: ignore[no-untyped-call]


class Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 6 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise NotImplementedError("the derivative for 'linear' is not implemented")


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] * Quadratic.apply(*ctx.saved_tensors)  # type: ignore[no-untyped-call]


def test_a_third_derivative_that_raises_is_had_by_differences_as_one_that_is_nan() -> None:
    def model(cube: Callable[[Tensor], Tensor]) -> None:
        level, sd = pyro.param("level", torch.tensor(0.3)), pyro.param("sd", torch.tensor(1.0), constraint=POSITIVE)
        with pyro.plate("rows", 5):
            u = pyro.sample("u", dist.Normal(0.0, sd))
            mean = level + 0.1 * cube(u)
            pyro.sample("y", dist.Normal(mean, 0.3), obs=torch.tensor([-3.0, -0.5, 0.1, 1.0, 4.0]))

    config = evidence("laplace")
    found, plain = hofit.fit(lambda: model(Cube.apply), config), hofit.fit(lambda: model(lambda u: u**3), config)
    assert_same(found, plain)
    assert any("no third derivative of 'y' (the derivative for 'linear'" in remark for remark in found.remarks)


def test_many_data_sets_of_a_model_without_second_derivatives_are_fitted_one_by_one() -> None:
    def model(y: Tensor) -> None:
        place = pyro.param("place", torch.tensor([0.5, 1.7]))
        seen = torch.tensor([[0.1, 0.2], [0.8, 0.9], [1.0, 0.0]])
        with pyro.plate("observations", 6):
            pyro.sample("y", dist.Normal(torch.cdist(seen, place[None])[:, 0].repeat(2), 1.0), obs=y)

    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    data = [OBSERVED + 0.1 * k for k in range(4)]
    for result, y in zip(hofit.fit_many(model, config, [{"y": y} for y in data]), data, strict=True):
        assert result.status == "converged" and result.loss == hofit.fit(model, config, y=y).loss
