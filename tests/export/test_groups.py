"""The groups for ArviZ against closed forms: the posterior, the likelihood by row, data drawn anew, and dims."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import hofit
from hofit.errors import HofitError
from hofit.export.draws import NUMBERS, at_draws
from hofit.export.groups import Groups, groups_of
from hofit.fitting.result import FitResult
from tests.export.models import SIGMA, config, fitted_groups, fitted_regression, regression, regression_data

DRAWS = 2000
FIVE = 5.0
"""Monte Carlo errors: one of these few hundred numbers in ten thousand seeds."""


def groups_at(result: FitResult, draws: int, seed: int = 0) -> Groups:
    assert result.program_again is not None
    with result.program_again() as program:
        return groups_of(result.uncertainty, result.sites, program, draws, seed)


@cache
def many_draws() -> Groups:
    """Of the regression, for tests of moments."""
    return groups_at(fitted_regression(), DRAWS, seed=4)


def likelihood_at_the_mode(result: FitResult) -> dict[str, torch.Tensor]:
    assert result.program_again is not None and result.uncertainty.reading is not None
    free = {name: value[None] for name, value in result.params.items() if result.sites[name].role != "fixed"}
    with result.program_again() as program:
        return at_draws(program, free, result.uncertainty.reading.likelihood, 0).likelihood


def test_draws_have_the_mean_and_the_covariance_of_the_exact_posterior() -> None:
    x, y = regression_data()
    beta = many_draws().groups["posterior"]["beta"].values
    covariance = SIGMA**2 * torch.linalg.inv(x.T @ x)
    mean_error = (covariance.diagonal() / DRAWS).sqrt()
    assert ((beta.mean(0) - torch.linalg.lstsq(x, y[:, None]).solution[:, 0]).abs() < FIVE * mean_error).all()
    # The sampling covariance of an entry of Wishart's distribution: (s_ij² + s_ii s_jj) / n.
    sd = covariance.diagonal()
    error = ((covariance**2 + sd[:, None] * sd) / DRAWS).sqrt()
    assert ((torch.cov(beta.T) - covariance).abs() < FIVE * error).all()


def test_draws_are_those_of_hofit_draws_and_their_spread_is_the_standard_error() -> None:
    result = fitted_regression()
    found = many_draws().groups["posterior"]
    assert torch.equal(found["beta"].values, hofit.draws(result, DRAWS, seed=4)["beta"])
    spread, error = found["beta"].values.std(0), result.std_errors["beta"]
    assert ((spread - error).abs() < FIVE * error / math.sqrt(2 * DRAWS)).all()
    assert torch.allclose(found["slope_twice"].values, 2 * found["beta"].values[:, 1], rtol=1e-14)


def test_the_likelihood_of_a_row_at_a_draw_is_the_normal_density_there() -> None:
    x, y = regression_data()
    found = groups_at(fitted_regression(), 50).groups
    beta = found["posterior"]["beta"].values
    z = (y - beta @ x.T) / SIGMA
    expected = -0.5 * z**2 - math.log(SIGMA) - 0.5 * math.log(2 * math.pi)
    assert torch.allclose(found["log_likelihood"]["y"].values, expected, rtol=1e-12)
    assert found["log_likelihood"]["y"].dims == ("rows",)
    assert torch.equal(found["observed_data"]["y"].values, y)


def test_data_drawn_anew_have_the_moments_of_the_predictive_distribution() -> None:
    x, _ = regression_data()
    result = fitted_regression()
    drawn = many_draws().groups["posterior_predictive"]["y"].values
    variance = SIGMA**2 * (1 + (x @ torch.linalg.inv(x.T @ x) * x).sum(1))
    assert ((drawn.mean(0) - x @ result.values["beta"]).abs() < FIVE * (variance / DRAWS).sqrt()).all()
    assert ((drawn.var(0) - variance).abs() < FIVE * variance * math.sqrt(2 / DRAWS)).all()


def mixture(y: torch.Tensor) -> None:
    means = pyro.param("means", torch.tensor([-1.0, 1.0]))
    with pyro.plate("rows", len(y)):
        kind = pyro.sample("kind", dist.Bernoulli(0.3))
        pyro.sample("y", dist.Normal(means[kind.long()], 0.5), obs=y)


def masked(y: torch.Tensor) -> None:
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("rows", len(y)), pyro.poutine.mask(mask=torch.arange(len(y)) % 3 > 0):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def weighted(y: torch.Tensor) -> None:
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("rows", len(y)), pyro.poutine.scale(scale=torch.linspace(0.5, 2.0, len(y))):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def of_a_factor(y: torch.Tensor) -> None:
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("rows", len(y)):
        pyro.factor("y", dist.Normal(mean, 1.0).log_prob(y))


def subsampled(y: torch.Tensor) -> None:
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("rows", len(y), subsample_size=4) as rows:
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


def of_vectors(y: torch.Tensor) -> None:
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("pairs", len(y) // 2):
        pyro.sample("y", dist.Normal(mean, 1.0).expand([2]).to_event(1), obs=y.reshape(-1, 2))


ADAM = {"optimizers": [{"params": "*", "optimizer": "adam", "lr": 0.1}], "stop": {"max_iterations": 400}}


@pytest.mark.parametrize(
    ("model", "settings", "entries"),
    [
        (mixture, config(objective={"integrate": {"kind": "enumerate"}}), 12),
        (masked, config(), 8),
        (weighted, config(), 12),
        (of_a_factor, config(), 12),
        (subsampled, ADAM, 12),
        (of_vectors, config(), 6),
    ],
)
def test_the_likelihood_at_the_mode_sums_to_that_of_the_fit(model: Any, settings: dict[str, Any], entries: int) -> None:
    y = torch.randn(12, generator=torch.Generator().manual_seed(1))
    result = hofit.fit(model, settings, y=y)
    found = likelihood_at_the_mode(result)
    assert {name: value.shape for name, value in found.items()} == {"y": (1, entries)}
    assert result.log_likelihood == pytest.approx(float(found["y"].sum()), rel=1e-12)


def test_a_prior_that_is_a_factor_is_no_likelihood() -> None:
    def walk(y: torch.Tensor) -> None:
        level = pyro.sample("level", dist.ImproperUniform(dist.constraints.real, (), (len(y),)))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        pyro.factor("wandering", dist.Normal(0.0, 0.5).log_prob(level.diff()).sum())
        with pyro.plate("times", len(y)):
            pyro.sample("y", dist.Normal(level, scale), obs=y)

    y = torch.randn(12, generator=torch.Generator().manual_seed(1)).cumsum(0)
    integrated = {"type": "marginal", "integrate": {"level": "laplace"}}
    found = groups_at(hofit.fit(walk, config(objective=integrated), y=y), 5).groups
    assert {name: one.values.shape for name, one in found["log_likelihood"].items()} == {"y": (5, 12)}
    posterior = found["posterior"]
    expected = dist.Normal(posterior["level"].values, posterior["scale"].values[:, None]).log_prob(y)
    assert torch.allclose(found["log_likelihood"]["y"].values, expected, rtol=1e-12)


def test_a_mixture_s_data_are_drawn_with_its_discrete_latents() -> None:
    y = torch.randn(12, generator=torch.Generator().manual_seed(1))
    settings = config(objective={"integrate": {"kind": "enumerate"}}, fixed={"means": [-1.0, 4.0]})
    with pytest.raises(HofitError):
        hofit.fit(mixture, settings, y=y)  # nothing is left to fit
    result = hofit.fit(mixture, {**settings, "fixed": {}, "init": {"values": {"means": [-0.5, 0.5]}}}, y=y)
    found = groups_at(result, 400).groups
    means = found["posterior"]["means"].values
    expected = 0.7 * means[:, 0] + 0.3 * means[:, 1]
    drawn = found["posterior_predictive"]["y"].values
    assert abs(float(drawn.mean() - expected.mean())) < FIVE * float(drawn.std()) / math.sqrt(12 * 400)


def test_dims_are_the_plates_and_held_sites_are_constant() -> None:
    found = groups_at(fitted_groups(), 7).groups
    assert {name: one.dims for name, one in found["posterior"].items()} == {
        "weights": (None,),
        "mean": ("group", "cells"),
    }
    assert found["posterior"]["weights"].values.shape == (7, 3)
    assert float(found["constant_data"]["sd/all"].values) == 0.8
    assert found["log_likelihood"]["y"].values.shape == (7, 4, 3)


def test_a_result_s_model_is_left_as_it_was_found() -> None:
    result = fitted_regression()
    pyro.param("own", torch.tensor(3.0))
    torch.set_default_dtype(torch.float32)
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    first, second = (groups_at(result, 5, seed=9).groups for _ in range(2))
    for group in first:
        for name in first[group]:
            assert torch.equal(first[group][name].values, second[group][name].values)
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    assert str(np.random.get_state()) == before[1]
    assert torch.get_default_dtype() == torch.float32
    assert dict(pyro.get_param_store().items()) == {"own": torch.tensor(3.0)}


def test_a_module_keeps_its_fitted_weights() -> None:
    net = torch.nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 10)[:, None]

    def model() -> None:
        pyro.module("net", net)
        with pyro.plate("rows", 10):
            pyro.sample("y", dist.Normal(net(x)[:, 0], 1.0), obs=3 * x[:, 0] + 1)

    result = hofit.fit(model, config())
    fitted = net.weight.detach().clone()
    found = groups_at(result, 20).groups
    assert torch.equal(net.weight, fitted)
    weight = found["posterior"]["net.weight"].values
    mean = weight[:, 0] @ x.T + found["posterior"]["net.bias"].values
    expected = dist.Normal(mean, 1.0).log_prob(3 * x[:, 0] + 1)
    assert torch.allclose(found["log_likelihood"]["y"].values, expected, rtol=1e-12)


def test_each_of_many_fits_has_its_own_data() -> None:
    x, y = regression_data()
    datasets = [{"x": x, "y": y + shift} for shift in (0.0, 1.0, 2.0)]
    for one, result in zip(datasets, hofit.fit_many(regression, config(), datasets), strict=True):
        assert torch.equal(groups_at(result, 2).groups["observed_data"]["y"].values, one["y"])
        assert result.log_likelihood == pytest.approx(float(likelihood_at_the_mode(result)["y"].sum()), rel=1e-12)


def test_draws_outside_what_the_model_can_compute_are_left_out_and_counted() -> None:
    def model() -> None:
        scale = pyro.param("scale", torch.tensor(1.0))  # no constraint: a third of the draws are negative
        with pyro.plate("rows", 2):
            pyro.sample("y", dist.Normal(0.0, scale), obs=torch.tensor([0.5, -0.4]))

    with pyro.validation_enabled(True):
        found = groups_at(hofit.fit(model, config(init={"values": {"scale": 0.5}})), 300)
    (remark,) = found.remarks
    kept = len(found.groups["posterior"]["scale"].values)
    assert remark.startswith(f"{300 - kept} of 300 draws are left out") and 0 < kept < 300
    assert (found.groups["posterior"]["scale"].values > 0).all()
    assert len(found.groups["log_likelihood"]["y"].values) == kept


def test_a_support_that_moves_is_remarked() -> None:
    def model() -> None:
        low = pyro.sample("low", dist.LogNormal(0.0, 0.1))
        inside = pyro.sample("inside", dist.Uniform(low, low + 3.0))
        pyro.sample("y", dist.Normal(inside - low, 0.5), obs=torch.tensor(1.4))

    (remark,) = groups_at(
        hofit.fit(model, config(objective="map_unconstrained", init={"values": {"low": 1.2}})), 3
    ).remarks
    assert remark.startswith("inside is drawn on the support that it has at the mode")


def test_a_model_that_cannot_draw_its_data_has_the_other_groups() -> None:
    class Unsampled(dist.Normal):
        def rsample(self, *shape: torch.Size) -> torch.Tensor:
            raise NotImplementedError("no draws")

        sample = rsample

    def model(y: torch.Tensor) -> None:
        with pyro.plate("rows", len(y)):
            pyro.sample("y", Unsampled(pyro.param("mean", torch.tensor(0.0)), 1.0), obs=y)

    found = groups_at(hofit.fit(model, config(), y=torch.tensor([0.3, 1.1])), 5)
    assert set(found.groups) == {"posterior", "log_likelihood", "observed_data"}
    assert "no data could be drawn" in found.remarks[0]


def test_more_than_memory_is_refused_with_how_many_fit() -> None:
    x, y = regression_data()
    result = hofit.fit(regression, config(), x=x.repeat(2000, 1), y=y.repeat(2000))
    with pytest.raises(HofitError, match="take --draws 838 at most"):
        groups_at(result, 2000)
    assert NUMBERS // (2 * 80_000 + 1) == 838


def test_without_a_gaussian_there_are_no_draws() -> None:
    x, y = regression_data()
    result = hofit.fit(regression, {**ADAM, "stop": {"max_iterations": 1}}, x=x, y=y)
    with pytest.raises(HofitError, match="has not converged"):
        groups_at(result, 5)
