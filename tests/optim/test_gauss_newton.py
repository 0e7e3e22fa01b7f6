"""gauss_newton against the Fisher information in closed form, and against scipy's Levenberg–Marquardt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.curvature.structure import Curvature
from hofit.model.program import Program
from hofit.objective.density import DensityObjective

N = 6


def normal() -> None:
    mean, scale = pyro.param("mean", torch.tensor(0.3)), pyro.param("scale", torch.tensor(2.0), constraints.positive)
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Normal(mean, scale), obs=torch.linspace(-1, 4, N))


def cauchy() -> None:
    mean, scale = pyro.param("mean", torch.tensor(0.3)), pyro.param("scale", torch.tensor(2.0), constraints.positive)
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Cauchy(mean, scale), obs=torch.linspace(-1, 4, N))


def poisson() -> None:
    eta = pyro.param("eta", torch.tensor(0.7))
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Poisson(eta.exp()), obs=torch.arange(N).double())


def gamma_rate() -> None:
    rate = pyro.param("rate", torch.tensor(1.7), constraints.positive)
    with pyro.plate("rows", N):
        pyro.sample("y", dist.Exponential(rate), obs=torch.linspace(0.5, 4, N))


INFORMATION = {
    # log scale: N · (1/σ², 2) for the normal, N · (1/2γ², ½) for Cauchy's (Lehmann & Casella 1998, table 2.5.1)
    normal: torch.diag(torch.tensor([N / 4.0, 2.0 * N])),
    cauchy: torch.diag(torch.tensor([N / 8.0, 0.5 * N])),
    poisson: torch.tensor([[N * np.exp(0.7)]]),
    gamma_rate: torch.tensor([[1.0 * N]]),
}


@pytest.mark.parametrize("model", INFORMATION, ids=lambda model: model.__name__)
def test_the_curvature_is_the_fisher_information(model: Callable[[], None]) -> None:
    program = Program(model, {})
    with program.scope():
        program.discover()
        objective = DensityObjective(program)
        start = objective.start()
        point = objective.information(objective.at(start))
        matrix = Curvature().at(point, list(start)).matvec(torch.eye(len(start)))
    assert torch.allclose(matrix, INFORMATION[model].to(matrix), rtol=1e-10, atol=1e-12)


def test_it_ends_where_scipys_levenberg_marquardt_ends() -> None:
    x = torch.linspace(0, 5, 30)
    y = 2.5 * torch.exp(-0.9 * x) + 0.05 * torch.sin(40 * x)

    def model(x: Tensor, y: Tensor) -> None:
        b = pyro.param("b", torch.tensor([1.0, 0.2]))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(b[0] * torch.exp(-b[1] * x), 0.1), obs=y)

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "gauss_newton"}]}, x=x, y=y)
    xs, ys = x.double().numpy(), y.double().numpy()
    reference = least_squares(lambda b: b[0] * np.exp(-b[1] * xs) - ys, [1.0, 0.2], method="lm", xtol=1e-15, ftol=1e-15)
    assert result.converged and result.iterations <= 15
    assert np.allclose(result.values["b"].numpy(), reference.x, rtol=1e-7)


def test_cauchy_likelihoods_with_a_cauchy_prior_on_their_scale_reach_the_minimum_of_trust_region() -> None:
    def model() -> None:
        scale = pyro.sample("scale", dist.HalfCauchy(1.0))
        mean = pyro.param("mean", torch.tensor(0.0))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Cauchy(mean, scale), obs=torch.tensor([1.0, 2.0, 2.5, 3.0]))

    stop = {"max_iterations": 300}
    reference, result = (
        hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": name}], "stop": stop})
        for name in ("trust_region", "gauss_newton")
    )
    assert result.converged and result.loss == pytest.approx(reference.loss, abs=1e-9)
