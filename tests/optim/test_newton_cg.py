"""Truncated conjugate gradients and the optimizer on them, against scipy and known minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import torch
from torch import Tensor

import hofit
from hofit.errors import OptionError
from hofit.optim.newton_cg import NewtonCG
from hofit.optim.subproblem.by_rows import solve_rows
from hofit.optim.subproblem.truncated import truncated_step


def identity(vector: Tensor) -> Tensor:
    return vector


def model_value(H: Tensor, g: Tensor, p: Tensor) -> float:
    return float(g @ p + 0.5 * p @ H @ p)


def symmetric(size: int, lowest: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    return (basis * torch.linspace(lowest, 5.0, size)) @ basis.T


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_without_a_binding_radius_the_step_is_newtons(size: int) -> None:
    H, g = symmetric(size, 0.5), torch.randn(size)
    for radius in (float("inf"), 1e3):
        found = truncated_step(lambda v: H @ v, g, radius, identity, lambda _: 1e-12, 4 * size)
        expected = -torch.linalg.solve(H, g)
        assert not found.on_boundary
        assert torch.allclose(found.step, expected, atol=1e-10)
        assert found.length == pytest.approx(float(expected.norm()))
        assert found.predicted == pytest.approx(-model_value(H, g, expected))


@pytest.mark.parametrize("lowest", [0.5, 0.0, -2.0])
@pytest.mark.parametrize("radius", [1e-3, 0.3, 2.0])
def test_a_step_inside_a_radius_keeps_what_steihaug_promises(lowest: float, radius: float) -> None:
    """At least half of the best fall there is where H is positive definite (Yuan 2000), never less than Cauchy's."""
    H, g = symmetric(12, lowest), torch.randn(12)
    found = truncated_step(lambda v: H @ v, g, radius, identity, lambda _: 1e-10, 60)
    assert float(found.step.norm()) <= radius * (1 + 1e-12)
    assert found.length == pytest.approx(float(found.step.norm()), rel=1e-9)
    assert found.predicted == pytest.approx(-model_value(H, g, found.step), rel=1e-9)
    best = float(solve_rows(g[None], H[None], torch.tensor([radius])).predicted[0])
    along = float(g @ H @ g)
    tau = min(radius / float(g.norm()), float(g @ g) / along if along > 0 else float("inf"))
    assert found.predicted >= -model_value(H, g, -tau * g) * (1 - 1e-12)
    assert found.predicted <= best * (1 + 1e-6)
    if lowest > 0:
        assert found.predicted >= 0.5 * best
    assert found.on_boundary or lowest > 0


def test_the_radius_is_in_the_preconditioners_norm() -> None:
    H, g = symmetric(9, -1.0), torch.randn(9)
    M = symmetric(9, 0.3, seed=4)
    inverse = torch.linalg.inv(M)
    found = truncated_step(lambda v: H @ v, g, 0.7, lambda v: inverse @ v, lambda _: 1e-10, 60)
    assert found.on_boundary and float(found.step @ M @ found.step) == pytest.approx(0.49)
    exact = truncated_step(lambda v: M @ v, g, 100.0, lambda v: inverse @ v, lambda _: 1e-8, 60)
    assert exact.products == 1 and torch.allclose(exact.step, -inverse @ g, atol=1e-10)


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30, 1e200])
def test_a_gradient_of_any_size(size: float) -> None:
    H, g = symmetric(6, 0.5), torch.randn(6) * size
    found = truncated_step(lambda v: H @ v, g, float("inf"), identity, lambda _: 1e-12, 30)
    assert torch.allclose(found.step / size, -torch.linalg.solve(H, g / size), atol=1e-9)


def test_negative_curvature_without_a_radius_is_followed_to_a_finite_place() -> None:
    H, g = torch.diag(torch.tensor([-1.0, 1.0])), torch.tensor([1e-3, 1.0])
    found = truncated_step(lambda v: H @ v, g, float("inf"), identity, lambda _: 1e-10, 10)
    assert found.on_boundary and torch.isfinite(found.step).all() and found.length >= 1.0 and found.predicted > 0


def test_nothing_to_do_and_nothing_to_know() -> None:
    zero = truncated_step(identity, torch.zeros(3), 1.0, identity, lambda _: 0.5, 5)
    assert zero.predicted == 0.0 and not zero.step.any()
    unknown = truncated_step(lambda v: v * torch.nan, torch.ones(3), 1.0, identity, lambda _: 0.5, 5)
    assert torch.isnan(unknown.step).all()


def fit(model: Callable[..., Any], start: dict[str, Any] | None = None, **options: Any) -> hofit.FitResult:
    config: dict[str, Any] = {"optimizers": [{"params": "*", "optimizer": "newton_cg", **options}]}
    config["init"] = {"values": start} if start else {"strategy": "zero"}
    return hofit.fit(model, config)


def rosenbrock() -> None:
    x = pyro.param("x", torch.zeros(6))
    pyro.factor("f", -(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


@pytest.mark.parametrize("preconditioner", ["auto", "none", "rows"])
def test_rosenbrock_as_scipys_trust_ncg(preconditioner: str) -> None:
    start = [-1.2, 1.0, -1.2, 1.0, -1.2, 1.0]
    result = fit(rosenbrock, {"x": start}, preconditioner=preconditioner)
    theirs = scipy.optimize.minimize(
        scipy.optimize.rosen,
        start,
        jac=scipy.optimize.rosen_der,
        hessp=scipy.optimize.rosen_hess_prod,
        method="trust-ncg",
        options={"gtol": 1e-8},
    )
    assert result.converged and result.loss <= theirs.fun + 1e-12
    assert np.allclose(result.values["x"].numpy(), theirs.x, atol=1e-5)
    assert result.iterations <= 2 * theirs.nit


def test_a_start_where_the_hessian_is_indefinite() -> None:
    """Σ (x² − 1)²/4 + coupling: near 0 every eigenvalue is negative."""

    def model() -> None:
        x = pyro.param("x", torch.full((5,), 0.01) * torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
        pyro.factor("wells", -((x**2 - 1) ** 2).sum() / 4 - 0.01 * x.sum() ** 2)

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton_cg"}]})
    assert result.converged and torch.allclose(result.values["x"].abs(), torch.ones(5), atol=0.1)


def logistic(groups: int, each: int) -> tuple[Callable[[], None], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(groups * each, 3, generator=generator, dtype=torch.float64)
    group = torch.arange(groups).repeat_interleave(each)
    y = (torch.rand(groups * each, generator=generator, dtype=torch.float64) < 0.4).double()

    def model() -> None:
        beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("groups", groups):
            a = pyro.sample("a", dist.Normal(mu, 0.7))
            b = pyro.sample("b", dist.Normal(0.0, 0.5))
        with pyro.plate("rows", len(y)):
            logits = a[group] + b[group] * features[:, 0] + features @ beta
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=y)

    return model, features, y


def test_two_thousand_unknowns_of_a_hierarchical_logistic_model() -> None:
    groups, each = 1000, 5
    model, features, y = logistic(groups, each)
    result = fit(model)
    assert result.converged and result.iterations <= 15 and result.evaluations["hvp"] <= 3000
    group = torch.arange(groups).repeat_interleave(each)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:  # the density by hand, its gradient by torch
        x = torch.tensor(flat, requires_grad=True)
        beta, mu, a, b = x[:3], x[3], x[4 : 4 + groups], x[4 + groups :]
        logits = a[group] + b[group] * features[:, 0] + features @ beta
        total = torch.nn.functional.softplus(logits).sum() - (y * logits).sum()
        total = total + 0.5 * beta.square().sum() + mu.square() / 8
        total = total + 0.5 * ((a - mu) / 0.7).square().sum() + 0.5 * (b / 0.5).square().sum()
        return float(total.detach()), torch.autograd.grad(total, x)[0].numpy()

    theirs = scipy.optimize.minimize(
        loss, np.zeros(4 + 2 * groups), jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7, "ftol": 0}
    )
    mine = torch.cat([result.values[name].reshape(-1) for name in ("beta", "mu", "a", "b")]).numpy()
    assert np.allclose(mine, theirs.x, atol=1e-4)
    assert loss(mine)[0] <= theirs.fun + 1e-9


def test_the_blocks_of_the_plates_spare_products() -> None:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 200):
            scale = torch.logspace(-3, 3, 200)
            x = pyro.sample("x", dist.Normal(mu * torch.ones(200), 100.0))
            pyro.factor("f", -(scale * (x - 1) ** 2 + 0.1 * (x - 1) ** 4))

    products = {kind: fit(model, preconditioner=kind).evaluations["hvp"] for kind in ("auto", "none")}
    assert products["auto"] < products["none"]


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionError, match="preconditioner"):
        NewtonCG("best")
    for radius in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="initial_radius"):
            NewtonCG(initial_radius=radius)


def test_from_plain_pyro_code_a_step_is_taken_unjudged() -> None:
    x = torch.tensor([3.0, -2.0], requires_grad=True)
    loss = (x**2).sum() + 0.1 * x.prod()
    NewtonCG().step(loss, {"x": x})
    assert float((x**2).sum().detach()) < 6.5  # half of the way at least
