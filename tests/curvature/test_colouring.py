"""Columns that share a product: the matrix that is read off is the one that was multiplied with."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from hofit.curvature.colouring import coloured
from hofit.curvature.structure import Curvature
from hofit.linear.dense import Dense
from tests.curvature.hessians import objective, random_point, true_hessian
from tests.tolerances import CONDITIONED

N = 40


def chain(hubs: int = 0) -> Tensor:
    noise = torch.randn(N, N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    places = torch.arange(N)
    band = ((places[:, None] - places).abs() <= 1) | (places < hubs) | (places[:, None] < hubs)
    return torch.where(band, noise + noise.T, 0.0)


def test_a_chain_takes_three_products_and_each_hub_one_more() -> None:
    for hubs in (0, 2):
        matrix = chain(hubs)
        found = coloured(matrix != 0)
        assert found is not None and found.count == 3 + hubs
        assert torch.allclose(found.matrix(found.probes(matrix) @ matrix), matrix, rtol=0.0, atol=CONDITIONED)


def test_columns_that_all_meet_share_nothing() -> None:
    assert coloured(torch.ones(N, N, dtype=torch.bool)) is None


def loop() -> None:
    mean, before = pyro.sample("mean", dist.Normal(0.0, 1.0)), torch.tensor(0.0)
    for t in range(N):
        before = pyro.sample(f"h_{t}", dist.Normal(mean + 0.5 * before, 1.0))
        pyro.sample(f"y_{t}", dist.Poisson(torch.exp(before)), obs=torch.tensor(float(t % 3)))


def test_a_loop_takes_few_products_also_after_a_state() -> None:
    with objective(loop) as at:
        names, curvature, again = list(at.start()), Curvature(), Curvature()
        curvature.at(at.at(at.start()), names)
        again.load_state_dict(curvature.state_dict())
        params = random_point(at.start(), 3)
        found = [one.at(at.at(params), names) for one in (curvature, again)]
        assert curvature.products == again.products == 4
        expected = true_hessian(at, params)
        for operator in found:
            assert isinstance(operator, Dense) and torch.equal(operator.matrix, found[0].matvec(torch.eye(N + 1)))
            assert float((operator.matrix - expected).abs().max()) <= CONDITIONED


def test_what_was_zero_where_it_was_looked_for_is_found_where_it_is_not() -> None:
    def model() -> None:
        x = [pyro.sample(f"x_{k}", dist.Normal(0.0, 1.0)) for k in range(N)]
        pyro.factor("far out", -(torch.relu(x[0] - 2.0) * torch.relu(x[1] - 2.0)).square())

    with objective(model) as at:
        names, curvature = list(at.start()), Curvature()
        curvature.at(at.at(at.start()), names)
        assert curvature.products == 1
        params = {name: torch.full_like(value, 3.0) for name, value in at.start().items()}
        operator = curvature.at(at.at(params), names)
        assert isinstance(operator, Dense)
        assert float((operator.matrix - true_hessian(at, params)).abs().max()) <= CONDITIONED
        curvature.at(at.at(params), names)
        assert curvature.products == 2
