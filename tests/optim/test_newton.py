"""Newton, from plain Pyro code and in a fit."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim.multi as theirs
import pytest
import torch
from torch import Tensor

import hofit
from hofit.errors import OptionError
from hofit.optim import Newton


def quadratic(x: Tensor, H: Tensor, c: Tensor) -> Tensor:
    return 0.5 * torch.einsum("ni,nij,nj->", x - c, H, x - c)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(7, 3, 3, generator=generator)
    return A @ A.mT + torch.eye(3), torch.randn(7, 3, generator=generator)


def test_newton_reaches_a_quadratic_minimum_in_one_step(rows: tuple[Tensor, Tensor]) -> None:
    H, c = rows
    x = torch.zeros(7, 3, requires_grad=True)
    newton = Newton()
    newton.step(quadratic(x, H, c), {"x": x})
    assert torch.allclose(x, c, atol=1e-12)
    assert torch.allclose(newton.covariance["x"], torch.linalg.inv(H), atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_an_unregularised_step_and_its_covariance_equal_pyros(length: int, rows: tuple[Tensor, Tensor]) -> None:
    H, c = rows[0][:, :length, :length], rows[1][:, :length]

    def loss(x: Tensor) -> Tensor:
        return quadratic(x, H, c) + x.exp().sum()

    mine, other = (torch.zeros(7, length, requires_grad=True) for _ in range(2))
    newton = Newton()
    ours = newton.get_step(loss(mine), {"x": mine})["x"]
    step, covariance = pyro.ops.newton.newton_step(loss(other), other)
    assert torch.allclose(ours, step, atol=1e-12) and torch.allclose(newton.covariance["x"], covariance, atol=1e-12)


def test_get_step_is_differentiable_as_implicit_differentiation_says() -> None:
    """x*(t) minimises Σ cosh(x − t) + (x − 2t)²/2 … one Newton step at x* has the derivative −H⁻¹ ∂²f/∂x∂t."""

    def loss(x: Tensor, t: Tensor) -> Tensor:
        return torch.cosh(x - t).sum() + 0.5 * (x - 2 * t).square().sum() + 0.1 * (x.sum(-1) ** 2).sum()

    t = torch.tensor([0.3, -0.2, 0.5, 1.0], requires_grad=True)
    x = torch.zeros(1, 4)
    newton = Newton()
    for _ in range(30):
        x = newton.get_step(loss(x.requires_grad_(True), t.detach()), {"x": x})["x"].detach()
    x.requires_grad_(True)
    stepped = newton.get_step(loss(x, t), {"x": x})["x"][0]
    jacobian = torch.stack([torch.autograd.grad(stepped[i], t, retain_graph=True)[0] for i in range(4)])
    hessian = torch.autograd.functional.hessian(lambda x, t: loss(x[None], t), (x.detach()[0], t.detach()))
    assert torch.allclose(jacobian, -torch.linalg.solve(hessian[0][0], hessian[0][1]), atol=1e-9)


@pytest.mark.parametrize("radius", [0, -1.0, float("nan"), "wide", True])
def test_a_radius_that_is_not_positive_is_refused(radius: Any) -> None:
    with pytest.raises(OptionError, match="trust_radius"):
        Newton({"x": radius})


def test_sites_of_one_plate_are_joined_into_rows_and_converge_quadratically() -> None:
    """Each row couples a (scalar) and b (a pair): block Newton on the joint row needs a handful of steps."""

    def model(y: Tensor) -> None:
        with pyro.plate("groups", len(y)):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Poisson((a + b[..., 0] + 0.5 * b[..., 1]).exp()), obs=y)

    y = torch.arange(50.0) % 4
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton"}]}, y=y)
    assert result.converged and result.iterations <= 12 and result.gradient_norm <= 1e-6

    def gradient(a: Tensor, b: Tensor) -> Tensor:  # the stationarity conditions, by hand
        rate = (a + b[:, 0] + 0.5 * b[:, 1]).exp() - y
        return torch.stack([a + rate, b[:, 0] + rate, b[:, 1] + 0.5 * rate])

    assert gradient(result.values["a"], result.values["b"]).abs().max() < 1e-6


def test_rows_in_nested_plates_are_read_from_the_trace() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("columns", 4, dim=-1):
            c = pyro.sample("c", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                pyro.sample("y", dist.Normal(z.sum(-1), 1.0), obs=y)
        pyro.factor("c too", -c.pow(4).sum())

    y = torch.arange(12.0).reshape(3, 4)
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton"}]}, y=y)
    assert result.sites["z"].rows == 12 and result.sites["z"].row_length == 2 and result.sites["c"].rows == 4
    assert result.converged and torch.allclose(result.values["z"], y[..., None].expand(3, 4, 2) / 3, atol=1e-9)
    assert not any("interact" in remark for remark in result.remarks)


def test_a_trust_radius_bounds_every_rows_step() -> None:
    def model() -> None:
        with pyro.plate("rows", 5):
            pyro.sample("x", dist.Normal(torch.arange(5.0) * 3, 1.0))

    entry = {"params": "x", "optimizer": "newton", "trust_radius": {"re:^x$": 0.5}}
    config = {"optimizers": [entry], "init": {"strategy": "zero"}, "stop": {"max_iterations": 2}}
    moved = hofit.fit(model, config).values["x"]
    assert torch.allclose(moved, torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]), atol=1e-12)


def test_newton_is_a_multi_optimizer_of_pyro() -> None:
    assert issubclass(Newton, theirs.MultiOptimizer) and Newton({"x": 0.5}).trust_radii == {"x": 0.5}
    assert Newton().trust_radii == {}


def test_get_step_has_the_derivative_of_a_step_that_its_radius_binds() -> None:
    """Against central differences of the same step."""

    def stepped(t: Tensor) -> Tensor:
        x = torch.tensor([[0.5, 0.3]], requires_grad=True)
        loss = (t * (x - t) ** 2).sum() + (x**4).sum() + x.prod()
        return Newton({"x": 0.3}).get_step(loss, {"x": x})["x"] @ torch.tensor([1.0, -0.5])

    t = torch.tensor(2.0, requires_grad=True)
    (slope,) = torch.autograd.grad(stepped(t).sum(), t)
    difference = (stepped(torch.tensor(2 + 1e-5)) - stepped(torch.tensor(2 - 1e-5))).sum() / 2e-5
    assert slope.item() == pytest.approx(difference.item(), abs=1e-7)
