"""The expected information around a point, against its closed form for an exponential family."""

from __future__ import annotations

from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch

from hofit.model.program import Program
from hofit.objective.density import DensityObjective

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
Y = torch.poisson(torch.full((20,), 2.0, dtype=torch.float64), generator=torch.Generator().manual_seed(3))
HERE = {"b": torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), "mu": torch.tensor(0.4, dtype=torch.float64)}


def model() -> None:
    """Counts by a regression, their rates told, and a mean that a model hands to its distribution as it is."""
    b = pyro.sample("b", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    mu = pyro.param("mu", torch.tensor(0.0))
    pyro.deterministic("rate", (X @ b).exp())
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Poisson((X @ b).exp()), obs=Y)
    pyro.sample("z", dist.Normal(mu, 0.5), obs=torch.tensor(3.0))


@pytest.fixture
def density() -> Iterator[DensityObjective]:
    program = Program(model, {})
    with program.scope():
        program.discover()
        yield DensityObjective(program)


def test_the_hessian_is_the_fisher_information_and_the_prior_s(density: DensityObjective) -> None:
    point = density.information(density.at(HERE))
    found = point.hvp({"b": torch.eye(3), "mu": torch.zeros(3)})["b"]
    expected = X.T @ ((X @ HERE["b"]).exp()[:, None] * X) + torch.eye(3) / 4.0
    assert torch.allclose(found, expected, rtol=1e-12)
    alone = point.hvp({"b": torch.zeros(1, 3), "mu": torch.ones(1)})["mu"]
    assert alone.item() == pytest.approx(1 / 0.5**2)


def test_the_divergence_has_no_slope_where_it_is_taken(density: DensityObjective) -> None:
    gradient = density.information(density.at(HERE)).gradient()
    assert torch.allclose(gradient["b"], HERE["b"] / 4.0) and gradient["mu"].item() == pytest.approx(0.0, abs=1e-12)


def test_what_it_is_taken_from_stays_when_the_leaves_move(density: DensityObjective) -> None:
    point = density.information(density.at(HERE))
    density.at({name: value + 1.0 for name, value in HERE.items()})
    assert point.gradient()["mu"].item() == pytest.approx(0.0, abs=1e-12)
    assert point.gradient()["b"].tolist() == pytest.approx((HERE["b"] / 4.0).tolist())
