"""Locations of components: which sites are, and places spread over the data."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from hofit.model.locations import locations, placed, spread
from hofit.model.program import Program

DATA = torch.tensor([-5.1, -4.9, -5.0, 0.1, -0.1, 5.0, 5.2])


def normals(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(torch.zeros(3), 10.0).to_event(1))
    scale = pyro.param("scale", torch.ones(3), constraint=constraints.positive)
    slope = pyro.param("slope", torch.ones(3))
    weight = pyro.param("weight", torch.ones(3) / 3, constraint=constraints.simplex)
    with pyro.plate("rows", len(y)):
        kind = pyro.sample("kind", dist.Categorical(weight))
        pyro.sample("y", dist.Normal(mean[kind] + slope[kind] * y.abs(), scale[kind]), obs=y)


def counts(y: Tensor) -> None:
    rate = pyro.param("rate", torch.tensor([1.0, 2.0]), constraint=constraints.positive)
    weight = pyro.param("weight", torch.tensor([0.5, 0.5]), constraint=constraints.simplex)
    mixture = dist.MixtureSameFamily(dist.Categorical(weight), dist.Poisson(rate))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", mixture, obs=y)


def groups(y: Tensor) -> None:
    mean = pyro.param("mean", torch.zeros(3))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean[torch.arange(len(y)) % 3], 1.0), obs=y)


def found(model: object, y: Tensor, integration: tuple[str, ...] = ()) -> tuple[list[str], dict[str, Tensor]]:
    program = Program(model, {"y": y}, integration)  # type: ignore[arg-type]
    with program.scope():
        program.discover()
        before = {name: program.unconstrained(name).detach().clone() for name in program.sites}
        seen = locations(program, list(program.sites))
        assert all(torch.equal(program.unconstrained(name), value) for name, value in before.items())
        return list(seen), placed(program, seen, torch.Generator().manual_seed(0))


def test_the_means_of_normals_are_locations_and_their_scales_slopes_and_weights_are_not() -> None:
    names, starts = found(normals, DATA, ("kind",))
    assert names == ["mean"] and set(starts["mean"].tolist()) <= set(DATA.tolist())


def test_the_rates_of_a_mixture_of_counts_are_locations() -> None:
    names, starts = found(counts, torch.tensor([1.0, 2.0, 9.0, 8.0, 0.0]))
    assert names == ["rate"]
    assert set(starts["rate"].exp().round().tolist()) <= {1.0, 2.0, 8.0, 9.0}  # no rate is zero


def test_without_components_there_are_none() -> None:
    assert found(groups, DATA)[0] == []


def test_places_fall_into_clusters_that_lie_far_apart() -> None:
    """Three clusters whose distance is a hundred times their width: k-means++ takes one of each, by its weights."""
    clusters = torch.cat([centre + 0.01 * torch.arange(5.0) for centre in (0.0, 100.0, 200.0)])[:, None]
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        places = spread(clusters, 3, generator)
        assert sorted((places[:, 0] / 100).round().int().tolist()) == [0, 1, 2]


def test_fewer_values_than_components_are_taken_twice() -> None:
    assert spread(torch.ones(4, 1), 3, torch.Generator().manual_seed(0)).tolist() == [[1.0]] * 3
