"""GMRF: its density against a dense Gaussian, its draws against their covariance, its fits against numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.curvature.structure import Curvature
from hofit.distributions import GMRF
from hofit.linalg import SparseSymmetric, identity, laplacian, log_determinant, random_walk
from hofit.model.program import Program
from hofit.objective.marginal import MarginalObjective
from tests.curvature.hessians import check, objective, random_point
from tests.examples import marginals
from tests.tolerances import (
    APPROXIMATE_LOG_LIKELIHOOD,
    CONDITIONED,
    CURVATURE_BY_DIFFERENCES,
    ROUNDING,
    SLOPE,
    STANDARD_ERRORS,
    close,
)

SIDE = 9
N = SIDE * SIDE
PLACE = torch.arange(N).view(SIDE, SIDE)
EDGES = torch.cat(
    [
        torch.stack([one.reshape(-1), other.reshape(-1)])
        for one, other in ((PLACE[1:], PLACE[:-1]), (PLACE[:, 1:], PLACE[:, :-1]))
    ],
    1,
)
OWN = PLACE.reshape(-1).expand(2, -1)
COUNT = torch.poisson(torch.full((N,), 2.0, dtype=torch.float64), generator=torch.Generator().manual_seed(1))


def proper(tau: Tensor, kappa: Tensor) -> SparseSymmetric:
    return tau * (kappa * identity(N) + laplacian(EDGES, N))


def by_values(tau: Tensor, kappa: Tensor) -> SparseSymmetric:
    degree = torch.zeros(N).index_add(0, EDGES.reshape(-1), torch.ones(EDGES.numel()))
    return SparseSymmetric(
        torch.cat([EDGES, OWN], 1), torch.cat([-tau * torch.ones(EDGES.shape[1]), tau * (degree + kappa)]), N
    )


def constant(tau: Tensor, kappa: Tensor) -> SparseSymmetric:
    return tau * SparseSymmetric.of(torch.eye(N) + laplacian(EDGES, N).to_dense())


def intrinsic(tau: Tensor, kappa: Tensor) -> SparseSymmetric:
    return tau * laplacian(EDGES, N)


def two_walks(tau: Tensor, kappa: Tensor) -> SparseSymmetric:
    return tau * random_walk(N) + kappa * random_walk(N, 2)


Precision = Callable[[Tensor, Tensor], SparseSymmetric]
PRECISIONS: list[Precision] = [proper, by_values, constant, intrinsic, two_walks]


@pytest.mark.parametrize("precision", [proper, by_values, constant])
def test_the_density_is_that_of_a_dense_gaussian(precision: Precision) -> None:
    tau, kappa = torch.tensor(1.7), torch.tensor(0.3)
    loc, x = torch.linspace(-1.0, 1.0, N), torch.randn(2, 3, N)
    found = GMRF(precision(tau, kappa), loc)
    dense = dist.MultivariateNormal(loc, precision_matrix=precision(tau, kappa).to_dense())
    assert close(found.log_prob(x), dense.log_prob(x), CONDITIONED)
    assert close(found.mean, dense.mean, ROUNDING) and close(found.variance, dense.variance, CONDITIONED)


def test_an_intrinsic_density_is_that_of_the_eigenvalues_that_are_not_zero() -> None:
    precision, x = intrinsic(torch.tensor(1.7), torch.tensor(0.0)), torch.randn(N)
    values, vectors = np.linalg.eigh(precision.to_dense().numpy())
    parts = vectors[:, 1:].T @ x.numpy()
    expected = 0.5 * (np.log(values[1:] / (2 * np.pi)) - values[1:] * parts**2).sum()
    assert float(GMRF(precision).log_prob(x)) == pytest.approx(expected, rel=CONDITIONED)
    assert float(GMRF(precision).log_prob(x + 3.0)) == pytest.approx(expected, rel=CONDITIONED)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_density_is_differentiated_twice(precision: Precision) -> None:
    def density(tau: Tensor, kappa: Tensor, x: Tensor) -> Tensor:
        found: Tensor = GMRF(precision(tau, kappa), 0.5).log_prob(x) + 0.0 * kappa
        return found

    given = [one.requires_grad_() for one in (torch.tensor(1.7), torch.tensor(0.3), torch.randn(N))]
    assert torch.autograd.gradcheck(density, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(density, given, fast_mode=True)


def test_shapes_are_those_of_torch() -> None:
    one = GMRF(proper(torch.tensor([1.0, 2.0]), torch.tensor(0.3)), torch.zeros(3, 1, N))
    assert (one.batch_shape, one.event_shape) == ((3, 2), (N,))
    assert one.log_prob(torch.zeros(N)).shape == (3, 2)
    wide = GMRF(proper(torch.tensor(1.0), torch.tensor(0.3)), 1.0).expand([5])
    assert isinstance(wide, GMRF) and wide.batch_shape == (5,) and wide.sample((2,)).shape == (2, 5, N)
    assert GMRF(torch.eye(N)).log_prob(torch.zeros(4, N)).shape == (4,)


@pytest.mark.parametrize("precision", [proper, intrinsic])
def test_draws_have_the_covariance(precision: Precision) -> None:
    draws = 20_000
    found = GMRF(precision(torch.tensor(1.7), torch.tensor(0.3)), 0.5)
    dense = precision(torch.tensor(1.7), torch.tensor(0.3)).to_dense()
    covariance = torch.linalg.pinv(dense, hermitian=True)
    x = found.sample((draws,)) - 0.5
    variance = covariance.diagonal()
    error = ((covariance**2 + torch.outer(variance, variance)) / draws).sqrt()
    assert (((x.T @ x / draws) - covariance).abs() <= STANDARD_ERRORS * error).all()
    if precision is intrinsic:
        assert close(x.sum(-1), torch.zeros(draws), CONDITIONED)


@pytest.mark.parametrize("precision", [proper, intrinsic])
def test_draws_have_the_derivative_of_their_expectation(precision: Precision) -> None:
    draws = 20_000
    given = (torch.tensor(1.7, requires_grad=True), torch.tensor(0.3, requires_grad=True))
    squares = GMRF(precision(*given)).rsample((draws,)).square().sum(-1)
    slope = torch.autograd.grad(squares.mean(), given[0])[0]
    expected = -float(torch.linalg.pinv(precision(*given).to_dense().detach(), hermitian=True).trace()) / 1.7
    assert abs(float(slope) - expected) <= STANDARD_ERRORS * float(squares.detach().std()) / 1.7 / draws**0.5
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        drawn = GMRF(precision(*given)).rsample().square().sum()
        torch.autograd.grad(torch.autograd.grad(drawn, given[0], create_graph=True)[0], given[0])


def test_what_has_no_factor_or_no_variance_says_so() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        GMRF(-1.0 * identity(N)).sample()
    with pytest.raises(ValueError, match="batch"):
        GMRF(torch.tensor([1.0, 2.0]) * identity(N)).sample()
    with pytest.raises(NotImplementedError, match="no variance"):
        GMRF(laplacian(EDGES, N)).variance  # noqa: B018
    with pytest.raises(ValueError, match="real numbers"):
        GMRF(identity(N)).log_prob(torch.full((N,), torch.nan))
    with pytest.raises(ValueError, match="real numbers"):
        GMRF(identity(N)).log_prob(torch.zeros(1))
    assert GMRF(identity(N), validate_args=False).log_prob(torch.full((N,), torch.nan)).isnan()
    with pytest.raises(ValueError, match="square"):
        GMRF(torch.ones(2, 3))


# --- In a model that is watched -------------------------------------------------------------------


def counts(precision: Precision) -> None:
    mu = pyro.param("mu", torch.tensor(0.3))
    tau = pyro.param("tau", torch.tensor(1.5), constraint=constraints.positive)
    kappa = pyro.param("kappa", torch.tensor(0.4), constraint=constraints.positive)
    x = pyro.sample("x", GMRF(precision(tau, kappa)))
    with pyro.plate("places", N):
        pyro.sample("y", dist.Poisson((0.1 * mu + x).exp()), obs=COUNT)


def written_out(precision: Precision) -> None:
    """The same by a factor, the determinant from hofit.linalg; the places one by one."""
    mu = pyro.param("mu", torch.tensor(0.3))
    tau = pyro.param("tau", torch.tensor(1.5), constraint=constraints.positive)
    kappa = pyro.param("kappa", torch.tensor(0.4), constraint=constraints.positive)
    x = pyro.sample("x", dist.ImproperUniform(constraints.real, (), (N,)))
    matrix = precision(tau, kappa)
    pyro.factor("field", 0.5 * log_determinant(matrix) - 0.5 * matrix.quadratic_form(x))
    for k in range(N):
        pyro.sample(f"y{k}", dist.Poisson((0.1 * mu + x[k]).exp()), obs=COUNT[k])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_hessian_of_a_model_is_autograds(precision: Precision) -> None:
    with objective(partial(counts, precision)) as at:
        for names in (["x"], list(at.start())):
            curvature = Curvature("sparse")
            for seed in (1, 2):
                check(curvature, at, random_point(at.start(), seed), names)
            assert curvature.lifts or (precision is by_values and len(names) > 1)


@pytest.mark.parametrize(
    "model, precision", [*((counts, one) for one in PRECISIONS), (written_out, proper), (written_out, intrinsic)]
)
def test_the_evidence_has_the_derivatives_of_its_differences(
    precision: Precision, model: Callable[[Precision], None]
) -> None:
    program = Program(partial(model, precision), {})
    with program.scope():
        program.discover("median")
        evidence = MarginalObjective(program, ["x"])
        start = {name: value + 0.1 for name, value in evidence.start().items()}
        names, step = list(start), 1e-4
        gradient = evidence.at(start).gradient()
        probes = {name: torch.eye(len(names))[k] for k, name in enumerate(names)}
        hessian = evidence.at_full(start).hvp(probes)
        for name in names:
            up, down = (evidence.at(start | {name: start[name] + by}) for by in (step, -step))
            assert close(gradient[name], (up.loss - down.loss) / (2 * step), SLOPE)
            for k, other in enumerate(names):
                slope = (up.gradient()[other] - down.gradient()[other]) / (2 * step)
                assert close(hessian[name][k], slope, CURVATURE_BY_DIFFERENCES)


@pytest.mark.parametrize("precision", [proper, intrinsic])
def test_a_fit_has_the_evidence_of_numpy(precision: Precision) -> None:
    """By the dense Laplace approximation of `marginals`."""
    config = {
        "objective": {"type": "marginal", "integrate": {"x": "laplace"}},
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
        "fixed": {"mu": 0.0, "kappa": 0.4},
    }
    result = hofit.fit(partial(counts, precision), config, data={})
    assert result.converged, result.remarks
    dense = precision(result.values["tau"].double(), torch.tensor(0.4)).to_dense().numpy()
    zeros = 1 if precision is intrinsic else 0
    values = np.linalg.eigvalsh(dense)[zeros:]
    prior = marginals.Prior(dense, -0.5 * np.log(values / (2 * np.pi)).sum())
    loss, mode, _ = marginals.laplace(marginals.poisson(COUNT.numpy()), 0.0, np.eye(N), prior)
    assert result.loss == pytest.approx(float(loss), abs=APPROXIMATE_LOG_LIKELIHOOD)
    assert result.values["x"].numpy() == pytest.approx(mode.real, abs=SLOPE)
