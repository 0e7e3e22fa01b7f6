"""What minus the loss is a likelihood of: the same model by sample sites and by factors; lme4's criteria for REML."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from tests.tolerances import LOG_LIKELIHOOD

ROOT = Path(__file__).parents[2]
Y = torch.randn(30, generator=torch.Generator().manual_seed(5)).double()
GROUP = torch.arange(6).repeat_interleave(5)


def fit(model: Callable[[], None], objective: Any = "map", **data: Any) -> hofit.FitResult:
    entry = {"params": "*", "optimizer": "trust_region"}
    found = hofit.fit(model, {"optimizers": [entry], "objective": objective, "data": data})
    assert found.converged
    return found


def said(found: hofit.FitResult) -> str:
    return " ".join(remark for remark in found.remarks if remark.startswith("likelihood"))


def normal() -> Any:
    mean = pyro.param("mean", torch.tensor(0.3))
    return dist.Normal(mean, pyro.param("sd", torch.tensor(1.5), constraint=constraints.positive))


def by_site() -> None:
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", normal(), obs=Y)


def by_factor() -> None:
    with pyro.plate("rows", len(Y)):
        pyro.factor("y", normal().log_prob(Y))


def by_delta() -> None:
    pyro.sample("y", dist.Delta(Y, log_density=normal().log_prob(Y)), obs=Y)


def by_sum() -> None:
    pyro.factor("y", normal().log_prob(Y).sum())


@pytest.mark.parametrize("model", [by_factor, by_delta])
def test_the_entries_of_a_factor_are_observations_where_there_are_no_others(model: Callable[[], None]) -> None:
    found, expected = fit(model), fit(by_site)
    assert expected.observations == 30 and not said(expected)
    assert found.observations == 30 and "'y' (30 entries) is taken" in said(found)
    assert "30 observations are counted" in said(found)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood)
    assert (found.aic, found.bic) == pytest.approx((expected.aic, expected.bic))


def test_a_factor_of_one_entry_tells_no_number_of_observations_and_the_config_does() -> None:
    expected, found, told = fit(by_site), fit(by_sum), fit(by_sum, observations=30)
    assert found.aic == pytest.approx(expected.aic) and found.bic is None and found.observations is None
    (check,) = [check for check in found.checks if check.name == "likelihood"]
    assert (
        check.ok
        and check.value == found.log_likelihood
        and "is not known: say `data: {observations: …}`" in check.message
        and not said(found)
    )
    assert told.bic == pytest.approx(expected.bic) and not said(told)
    assert told.fit_json()["observations"] == 30


def test_a_site_with_one_entry_for_many_observations_is_told_their_number() -> None:
    def model() -> None:
        pyro.sample("y", normal().expand([len(Y)]).to_event(1), obs=Y)

    assert fit(model).bic is None
    assert fit(model, observations=30).bic == pytest.approx(fit(by_site).bic)


def penalty(mean: Tensor) -> None:
    pyro.factor("ridge", -0.5 * mean**2)


def prior(mean: Tensor) -> None:
    pyro.sample("prior", dist.Normal(0.0, 1.0), obs=mean)


@pytest.mark.parametrize(("what", "name"), [(penalty, "ridge"), (prior, "prior")])
def test_what_may_be_a_penalty_beside_observed_sites_leaves_no_likelihood(
    what: Callable[[Tensor], None], name: str
) -> None:
    def model() -> None:
        by_site()
        what(pyro.param("mean"))

    found, told = fit(model), fit(model, observations=30)
    assert found.log_likelihood is None and found.aic is None and found.observations == 30
    assert f"{name!r} (1 entry) may be a penalty" in said(found)
    assert told.log_likelihood == pytest.approx(-told.loss) and not said(told)


def test_a_constant_factor_is_nothing() -> None:
    def model() -> None:
        by_site()
        pyro.factor("constant", torch.tensor(2.0))

    found, without = fit(model), fit(by_site)
    assert found.log_likelihood is not None and without.log_likelihood is not None and not said(found)
    assert found.log_likelihood == pytest.approx(without.log_likelihood + 2.0)


def test_a_factor_of_what_is_integrated_is_part_of_the_integrand() -> None:
    """A random effect, its prior written as a factor."""

    def model(as_factor: bool) -> None:
        sd = pyro.param("between", torch.tensor(0.7), constraint=constraints.positive)
        effects = dist.Normal(0.0, sd)
        with pyro.plate("groups", 6):
            b = pyro.sample("b", dist.ImproperUniform(constraints.real, (), ()) if as_factor else effects)
            if as_factor:
                pyro.factor("prior", effects.log_prob(b))
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(b[GROUP] + pyro.param("mean", torch.tensor(0.0)), 0.5), obs=Y)

    objective = {"type": "marginal", "integrate": {"b": "laplace"}}
    found, expected = fit(lambda: model(True), objective), fit(lambda: model(False), objective)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood) and not said(found)
    assert found.observations == expected.observations == 30
    assert found.aic == pytest.approx(expected.aic) and found.bic == pytest.approx(expected.bic)


def test_a_latent_under_a_flat_prior_is_a_parameter() -> None:
    def model() -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0).mask(False))
        sd = pyro.sample("sd", dist.ImproperUniform(constraints.positive, (), ()))
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(mean, sd), obs=Y)

    found, expected = fit(model), fit(by_site)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood)
    assert found.bic == pytest.approx(expected.bic)
    assert fit(model, "map_unconstrained").log_likelihood is None


def test_reml_counts_the_fixed_effects_as_lme4_does() -> None:
    """lme4: df of logLik(fm) is 6 with REML too, nobs 180; AIC(fm) is 1755.628 and BIC(fm) 1774.786."""
    found = hofit.fit(ROOT / "models/sleepstudy.py:restricted", ROOT / "configs/sleepstudy_reml.yaml")
    assert found.observations == 180 and found.aic == pytest.approx(1755.628, abs=5e-4)
    assert found.bic == pytest.approx(1774.786, abs=5e-4)
    assert found.log_likelihood == pytest.approx((2 * 6 - 1755.6282720) / 2, abs=LOG_LIKELIHOOD)
    assert found.bic == pytest.approx(6 * math.log(180) + 1755.6282720 - 2 * 6)
