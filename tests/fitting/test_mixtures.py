"""Fits of mixtures by every kind of optimizer, against EM written in numpy (Dempster, Laird & Rubin 1977)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

import hofit
from tests.tolerances import MINIMUM, MODE

OBJECTIVE = {"type": "map", "integrate": {"kind": "enumerate"}}
START = (0.5, np.array([-1.0, 1.0]), np.array([1.0, 1.0]))

EM_STOPS = 1e-13
"""EM ends where a round moves nothing by more."""
LAPLACE_BY_DIFFERENCES = 1e-6
"""Relative: a curvature by a difference of second order with a step of 1e-3."""


def data(rows: int = 150) -> Any:
    generator = np.random.default_rng(0)
    return np.where(generator.random(rows) < 0.4, generator.normal(-2.0, 1.0, rows), generator.normal(1.5, 0.7, rows))


def model(y: Tensor) -> None:
    weight = pyro.param("weight", torch.tensor(START[0]), constraint=constraints.unit_interval)
    mean = pyro.param("mean", torch.as_tensor(START[1]))
    scale = pyro.param("scale", torch.as_tensor(START[2]), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        kind = pyro.sample("kind", dist.Bernoulli(weight)).long()
        pyro.sample("y", dist.Normal(mean[kind], scale[kind]), obs=y)


def expectation_maximization(y: Any) -> tuple[float, Any, Any, Any]:
    """The loss, the share of the second kind, the means and the scales, from the model's own start."""
    weight, mean, scale = START
    while True:
        joint = np.log([1 - weight, weight]) + stats.norm.logpdf(y[:, None], mean, scale)
        loss = -logsumexp(joint, axis=1).sum()
        shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        sizes = shares.sum(0)
        before = np.concatenate([[weight], mean, scale])
        weight, mean = sizes[1] / len(y), (shares * y[:, None]).sum(0) / sizes
        scale = np.sqrt((shares * (y[:, None] - mean) ** 2).sum(0) / sizes)
        if np.abs(np.concatenate([[weight], mean, scale]) - before).max() < EM_STOPS:
            return float(loss), weight, mean, scale


@pytest.mark.parametrize(
    "entry",
    [
        {"optimizer": "trust_region"},
        {"optimizer": "gauss_newton"},
        {"optimizer": "newton_cg"},
        {"optimizer": "lbfgs"},
        {"optimizer": "adam", "lr": 0.05, "schedule": {"name": "exponential", "gamma": 0.99}},
    ],
    ids=lambda entry: entry["optimizer"],
)
def test_a_mixture_is_fitted_to_the_optimum_of_em(entry: dict[str, Any]) -> None:
    y = data()
    loss, weight, mean, scale = expectation_maximization(y)
    result = hofit.fit(
        model,
        {"objective": OBJECTIVE, "optimizers": [{"params": "*", **entry}], "stop": {"relative_loss": 0.0}},
        y=torch.as_tensor(y),
    )
    assert result.status == "converged", result.remarks
    assert [*result.values] == ["weight", "mean", "scale"]
    assert result.loss == pytest.approx(loss, rel=MINIMUM)
    assert result.log_likelihood == -result.loss
    assert float(result.values["weight"]) == pytest.approx(weight, abs=MODE)
    assert result.values["mean"].numpy() == pytest.approx(mean, abs=MODE)
    assert result.values["scale"].numpy() == pytest.approx(scale, abs=MODE)


def test_a_mixture_of_many_rows_is_fitted_though_its_maps_cannot_be_lifted() -> None:
    y = data(20_000)
    loss, *_ = expectation_maximization(y)
    config = {"objective": OBJECTIVE, "optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    result = hofit.fit(model, config, y=torch.as_tensor(y))
    assert result.status == "converged", result.remarks
    assert result.loss == pytest.approx(loss, rel=MINIMUM)


@pytest.mark.parametrize("optimizer", [{"optimizer": "trust_region"}, {"optimizer": "newton", "adaptive": True}])
def test_rows_of_latents_below_a_discrete_one_are_fitted_as_with_the_mixture_written_out(
    optimizer: dict[str, Any],
) -> None:
    y = torch.as_tensor(data(80)).reshape(20, 4)

    def summed_out() -> None:
        with pyro.plate("groups", 20, dim=-2):
            kind = pyro.sample("kind", dist.Bernoulli(0.6)).long()
            b = pyro.sample("b", dist.Normal(torch.tensor([-2.0, 1.5])[kind], 0.8))
            with pyro.plate("rows", 4, dim=-1):
                pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    def written_out() -> None:
        with pyro.plate("groups", 20, dim=-2):
            b = pyro.sample("b", dist.ImproperUniform(constraints.real, (20, 1), ()))
            parts = [np.log(w) + dist.Normal(m, 0.8).log_prob(b) for w, m in ((0.4, -2.0), (0.6, 1.5))]
            pyro.factor("mixture", torch.logaddexp(*parts))
            with pyro.plate("rows", 4, dim=-1):
                pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    optimizers = [{"params": "*", **optimizer}]
    found = hofit.fit(summed_out, {"objective": OBJECTIVE, "optimizers": optimizers})
    expected = hofit.fit(written_out, {"optimizers": optimizers})
    assert (found.status, expected.status) == ("converged", "converged")
    assert found.loss == pytest.approx(expected.loss, rel=MINIMUM)
    assert found.values["b"].numpy() == pytest.approx(expected.values["b"].numpy(), abs=MODE)


def test_a_discrete_latent_is_summed_out_inside_a_laplace_approximation() -> None:
    """Against Laplace's method in numpy, a group at a time, by scipy's minimum and a difference of second order."""
    generator = np.random.default_rng(1)
    y = generator.normal(0, 0.7, (12, 1)) + generator.choice([-2.0, 2.0], (12, 5)) + generator.normal(0, 0.5, (12, 5))

    def of_groups() -> None:
        weight = pyro.param("weight", torch.tensor(0.5), constraint=constraints.unit_interval)
        spread = pyro.param("spread", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("groups", 12, dim=-2):
            b = pyro.sample("b", dist.Normal(0.0, spread))
            with pyro.plate("rows", 5, dim=-1):
                kind = pyro.sample("kind", dist.Bernoulli(weight)).long()
                pyro.sample("y", dist.Normal(torch.tensor([-2.0, 2.0])[kind] + b, 0.5), obs=torch.as_tensor(y))

    objective = {"type": "marginal", "integrate": {"b": "laplace", "kind": "enumerate"}}
    result = hofit.fit(
        of_groups, {"objective": objective, "optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    )
    assert result.status == "converged", result.remarks
    weight, spread = float(result.values["weight"]), float(result.values["spread"])

    def loss_of_group(row: Any) -> float:
        def joint(b: float) -> float:
            kinds = np.log([1 - weight, weight]) + stats.norm.logpdf(row[:, None], np.array([-2.0, 2.0]) + b, 0.5)
            return float(-logsumexp(kinds, axis=1).sum() - stats.norm.logpdf(b, 0.0, spread))

        mode = float(minimize_scalar(joint, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-9}).x)
        curvature = (joint(mode + 1e-3) - 2 * joint(mode) + joint(mode - 1e-3)) / 1e-6
        return joint(mode) + 0.5 * float(np.log(curvature / (2 * np.pi)))

    assert result.loss == pytest.approx(sum(map(loss_of_group, y)), rel=LAPLACE_BY_DIFFERENCES)
