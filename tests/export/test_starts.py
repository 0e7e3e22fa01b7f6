"""The mode for other programs: Pyro's own store and module, and its NUTS as a sampler that starts from JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide.initialization import init_to_value
from pyro.infer.mcmc.util import initialize_model
from torch.distributions import constraints

import hofit
from hofit.errors import HofitError
from hofit.export.starts import starts_of, store_of
from hofit.fitting.result import FitResult
from tests.export.models import config

Y = torch.tensor([0.3, 1.1, -0.4])


def model() -> None:
    pyro.param("rate", torch.tensor(2.0), constraint=constraints.positive)
    low = pyro.param("low", torch.tensor(-1.0))
    pyro.sample("weights", dist.Dirichlet(torch.tensor([4.0, 3.0, 5.0])))
    inside = pyro.sample("inside", dist.Uniform(low, low + 3.0))
    pyro.sample("corr", dist.LKJCholesky(3, 2.0))
    pyro.sample("low_obs", dist.Normal(low, 1.0), obs=torch.tensor(-0.8))
    with pyro.plate("rows", 3):
        pyro.sample("y", dist.Normal(inside, pyro.param("rate")), obs=Y)


def fitted() -> FitResult:
    return hofit.fit(model, config(objective="map_unconstrained"))


def test_a_store_that_pyro_loads_gives_back_every_constrained_value(tmp_path: Path) -> None:
    result = fitted()
    assert result.program_again is not None
    with result.program_again() as program:
        torch.save(store_of(result.values, program.supports), tmp_path / "params.pt")
    store = pyro.get_param_store()
    store.load(str(tmp_path / "params.pt"))
    assert set(store) == set(result.values)
    for name, value in result.values.items():
        assert torch.allclose(pyro.param(name), value, rtol=1e-12, atol=1e-14), name
    state = store.get_state()
    pyro.clear_param_store()
    store.set_state(state)
    assert torch.allclose(pyro.param("rate"), result.values["rate"], rtol=1e-12)
    (gradient,) = torch.autograd.grad(pyro.param("rate"), store["rate"].unconstrained())
    assert float(gradient) == pytest.approx(float(result.values["rate"]))  # d exp(u) / du: one can go on from it


def test_a_module_takes_its_weights_from_the_store(tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 10)[:, None]

    def with_net(net: torch.nn.Module) -> None:
        pyro.module("net", net)
        with pyro.plate("rows", 10):
            pyro.sample("y", dist.Normal(net(x)[:, 0], 1.0), obs=3 * x[:, 0] + 1)

    result = hofit.fit(with_net, config(), net=torch.nn.Linear(1, 1))
    assert result.program_again is not None
    with result.program_again() as program:
        torch.save(store_of(result.values, program.supports), tmp_path / "params.pt")
    pyro.get_param_store().load(str(tmp_path / "params.pt"))
    fresh = torch.nn.Linear(1, 1)
    pyro.module("net", fresh, update_module_params=True)
    assert torch.equal(fresh.weight, result.values["net.weight"]) and fresh.weight.item() == pytest.approx(3.0)


def test_nuts_starts_where_the_json_says() -> None:
    def latents() -> None:
        scale = pyro.sample("scale", dist.HalfNormal(2.0))
        pyro.sample("weights", dist.Dirichlet(torch.tensor([4.0, 3.0, 5.0])))
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mean, scale), obs=Y)

    result = hofit.fit(latents, config(objective="map_unconstrained"))
    starts = {name: torch.tensor(value) for name, value in json.loads(starts_of(result.values)).items()}
    for name, value in result.values.items():
        assert torch.equal(starts[name], value)
    initial, potential, transforms, _ = initialize_model(latents, init_strategy=init_to_value(values=starts))
    assert set(initial) == {"scale", "weights", "mean"}
    for name, unconstrained in initial.items():
        assert torch.allclose(transforms[name].inv(unconstrained), starts[name], rtol=1e-10, atol=1e-12), name
    assert float(potential(initial)) == pytest.approx(result.loss, rel=1e-10)  # the mode of what NUTS samples


def test_a_value_that_is_no_number_is_no_start() -> None:
    with pytest.raises(HofitError, match="a is not finite"):
        starts_of({"a": torch.tensor([1.0, float("inf")])})
