"""Where a fit starts: strategies, init.values, jitter, fixed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from scipy import stats

import hofit
from hofit import FitResult
from hofit.config.load import load_source
from hofit.errors import ConfigError
from hofit.run.fit import FitOptions, run_fit
from hofit.run.session import Request

ADAM = [{"params": "*", "optimizer": "adam"}]


def model() -> None:
    location = pyro.param("location", torch.tensor([1.0, 2.0]))
    scale = pyro.param("scale", torch.tensor(3.0), constraint=constraints.positive)
    tau = pyro.sample("tau", dist.Gamma(2.0, 1.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    flat = pyro.sample("flat", dist.ImproperUniform(constraints.positive, (), ()))
    mean = location.sum() + tau + weights[0] + flat
    pyro.sample("y", dist.Normal(mean, scale), obs=torch.tensor(0.5))


def start(of: Callable[[], None] = model, /, iterations: int = 0, **config: Any) -> FitResult:
    return hofit.fit(of, {"optimizers": ADAM, "stop": {"max_iterations": iterations}, **config})


# strategies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["median", "sample", "zero", "uniform"])
def test_a_strategy_moves_latents_only(strategy: str) -> None:
    result = start(init={"strategy": strategy})
    assert result.values["location"].tolist() == [1.0, 2.0]
    assert float(result.values["scale"]) == pytest.approx(3.0, rel=1e-15)
    assert float(result.values["tau"]) > 0


def test_zero_is_zero_on_the_unconstrained_scale() -> None:
    result = start(init={"strategy": "zero"})
    assert float(result.params["tau"]) == 0.0
    assert result.params["weights"].tolist() == [0.0, 0.0]


def test_uniform_draws_inside_two_units() -> None:
    drawn = torch.cat([start(init={"strategy": "uniform"}, seed=seed).params["weights"] for seed in range(5)])
    assert bool((drawn.abs() <= 2).all())
    assert len(drawn.unique()) == 10


@pytest.mark.parametrize(("fixed", "expected"), [({}, 3), ({"tau": 2.0}, 4)])
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", "trust_region"])
def test_the_first_gradient_comes_from_the_last_of_few_traces(
    optimizer: str, fixed: dict[str, float], expected: int
) -> None:
    """One finds the sites, one tells the slope beside the start, one is held against the first where it cannot tell."""
    calls: list[int] = []

    def counted() -> None:
        calls.append(1)
        model()

    class Watcher:
        keeps_every = None

        def on_iteration(self, record: Any, snapshot: Any) -> None:
            seen.append(len(calls))

        def on_pause(self, snapshot: Any) -> None:
            pass

    seen: list[int] = []
    config = {"optimizers": [{"params": "*", "optimizer": optimizer}], "stop": {"max_iterations": 1}, "fixed": fixed}
    run_fit(Request(load_source(config), counted), FitOptions(watch=lambda session: [Watcher()]))
    assert seen[0] == expected


def test_a_loss_that_settles_after_the_first_trace_is_not_random() -> None:
    calls: list[int] = []

    def settling() -> None:
        calls.append(1)
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.factor("first", x * 0.0 + float(len(calls) == 1))

    assert start(settling, init={"strategy": "zero"}).loss == pytest.approx(0.5 * math.log(2 * math.pi), rel=1e-12)


def test_the_seed_decides_a_random_start() -> None:
    one, again, other = (start(init={"strategy": "sample"}, seed=seed).params["tau"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_median_is_near_the_median_of_the_prior() -> None:
    def narrow() -> None:
        pyro.sample("x", dist.Normal(5.0, 0.01))

    assert float(start(narrow).values["x"]) == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("strategy", ["median", "sample"])
def test_a_site_that_cannot_be_sampled_starts_at_zero(strategy: str) -> None:
    assert float(start(init={"strategy": strategy}).params["flat"]) == 0.0


def test_a_latent_is_drawn_given_the_start_values_of_the_parameters() -> None:
    def chain() -> None:
        centre = pyro.param("centre", torch.tensor(0.0))
        x = pyro.sample("x", dist.Normal(centre, 0.01))
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(0.0))

    assert float(start(chain, init={"values": {"centre": 50.0}}).values["x"]) == pytest.approx(50.0, abs=0.1)


# init.values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"scale": 0.25}, "scale", 0.25),
        ({"location": 4}, "location", [4.0, 4.0]),
        ({"location": [4.0, -5.0]}, "location", [4.0, -5.0]),
        ({"weights": [0.5, 0.25, 0.25]}, "weights", [0.5, 0.25, 0.25]),
        ({"t*": 0.125}, "tau", 0.125),
        ({"re:^ta": 0.125}, "tau", 0.125),
        ({"t*": 0.125, "tau": 0.5}, "tau", 0.5),
    ],
)
def test_a_start_value_overrides_every_other_start(values: dict[str, Any], name: str, expected: Any) -> None:
    found = start(init={"values": values, "strategy": "uniform"}).values[name]
    assert torch.allclose(found, torch.tensor(expected).double(), rtol=1e-12)


@pytest.mark.parametrize(
    ("values", "key", "says"),
    [
        ({"sacle": 1.0}, "init.values.sacle", '"scale"'),
        ({"y": 1.0}, "init.values.y", "'y' is observed"),
        ({"scale": -1.0}, "init.values.scale", "positive"),
        ({"scale": 0.0}, "init.values.scale", "positive"),
        ({"scale": float("nan")}, "init.values.scale", "nan"),
        ({"scale": "big"}, "init.values.scale", "'big'"),
        ({"scale": None}, "init.values.scale", "None"),
        ({"scale": [1.0, 2.0]}, "init.values.scale", "shape"),
        ({"location": [1.0, 2.0, 3.0]}, "init.values.location", "shape"),
        ({"location": [[1.0], [2.0, 3.0]]}, "init.values.location", "number"),
        ({"weights": [0.5, 0.5, 0.5]}, "init.values.weights", "simplex"),
        ({"*a*": -1.0}, "init.values.*a*", "'scale'"),
    ],
)
def test_a_start_value_that_cannot_be_is_refused_by_key(values: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(init={"values": values})
    assert any(key in mistake and says in mistake for mistake in caught.value.mistakes), caught.value.mistakes


# jitter -----------------------------------------------------------------------------------------------------------


def test_jitter_adds_normal_noise_to_the_unconstrained_latents_only() -> None:
    still = start(init={"strategy": "zero"})
    small = start(init={"strategy": "zero", "jitter": 0.1})
    large = start(init={"strategy": "zero", "jitter": 0.2})
    assert torch.equal(small.params["location"], still.params["location"])
    for name in ("tau", "weights", "flat"):
        assert bool((small.params[name] != 0).all())
        assert torch.allclose(large.params[name], 2 * small.params[name], rtol=1e-12)


# fixed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fixed", "name", "value"),
    [
        ({"scale": 2.5}, "scale", 2.5),
        ({"tau": 2.5}, "tau", 2.5),
        ({"location": [0.1, 0.3]}, "location", [0.1, 0.3]),
        ({"weights": [0.2, 0.3, 0.5]}, "weights", [0.2, 0.3, 0.5]),
        ({"ta*": 0.1}, "tau", 0.1),
    ],
)
def test_a_fixed_site_is_held_at_its_value_to_the_last_bit(fixed: dict[str, Any], name: str, value: Any) -> None:
    result = start(iterations=3, fixed=fixed)
    assert result.values[name].tolist() == value
    assert result.sites[name].role == "fixed"
    rows = [row for row in result.estimates() if row["name"] == name]
    assert {row["role"] for row in rows} == {"fixed"}
    assert {row["optimizer"] for row in rows} == {None}
    assert {row["std_error"] for row in rows} == {None}
    free = sum(site.shape.numel() for site in result.sites.values() if site.role != "fixed")
    assert result.fit_json()["parameters"] == free


@pytest.mark.parametrize("name", ["scale", "tau"])
def test_fixed_at_null_is_held_where_it_starts(name: str) -> None:
    before = start()
    result = start(iterations=3, fixed={name: None})
    assert torch.equal(result.values[name], before.values[name])
    assert not torch.equal(result.values["flat"], before.values["flat"])


@pytest.mark.parametrize("name", ["scale", "tau"])
def test_fixed_at_null_is_held_at_its_start_value(name: str) -> None:
    result = start(iterations=3, fixed={name: None}, init={"values": {name: 0.7}})
    assert float(result.values[name]) == pytest.approx(0.7, rel=1e-15)


def test_a_fixed_latent_still_counts_in_the_loss() -> None:
    def pair() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        z = pyro.sample("z", dist.Gamma(2.0, 1.0))
        pyro.sample("y", dist.Normal(x, z), obs=torch.tensor(1.0))

    result = start(pair, fixed={"z": 0.5}, init={"values": {"x": 0.25}})
    expected = stats.norm.logpdf(0.25) + stats.gamma.logpdf(0.5, 2) + stats.norm.logpdf(1.0, 0.25, 0.5)
    assert -result.loss == pytest.approx(expected, rel=1e-12)


def test_a_fixed_module_weight_stays() -> None:
    net = torch.nn.Linear(1, 1)
    weight = net.weight.detach().clone()

    def regression() -> None:
        pyro.module("net", net)
        pyro.sample("y", dist.Normal(net(torch.ones(1)), 1.0).to_event(1), obs=torch.tensor([9.0]))

    result = start(regression, iterations=3, fixed={"net.weight": None})
    assert torch.equal(net.weight, weight)
    assert result.sites["net.weight"].role == "fixed"
    assert net.weight.requires_grad


@pytest.mark.parametrize(
    ("config", "key", "says"),
    [
        ({"fixed": {"tua": 1.0}}, "fixed.tua", '"tau"'),
        ({"fixed": {"tau": -1.0}}, "fixed.tau", "positive"),
        ({"fixed": {"tau": "x"}}, "fixed.tau", "'x'"),
        ({"fixed": {"location": [1.0, 2.0, 3.0]}}, "fixed.location", "shape"),
        ({"fixed": {"*": None}}, "optimizers.0.params", "gets no parameter"),
        (
            {"fixed": {"tau": 1.0}, "optimizers": [{"params": "tau", "optimizer": "adam"}, *ADAM]},
            "optimizers.0.params",
            "gets no parameter",
        ),
    ],
)
def test_what_cannot_be_fixed_is_refused_by_key(config: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        start(**config)
    assert any(key in mistake and says in mistake for mistake in caught.value.mistakes), caught.value.mistakes


def test_no_near_miss_of_an_optimizer_s_pattern_is_a_fixed_name() -> None:
    entries = [{"params": "tua", "optimizer": "adam"}, *ADAM]
    with pytest.raises(ConfigError) as caught:
        start(fixed={"tau": 1.0}, optimizers=entries)
    assert '"tau"' not in str(caught.value)
