"""What a fit returns: criteria, and what there is of a fit that has not converged."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import hofit
from hofit.errors import HofitError
from hofit.fitting.result import FitResult
from tests.tolerances import LOG_LIKELIHOOD
from tests.uncertainty.fits import (
    REFERENCE,
    marginal,
    regression,
    regression_data,
)


def test_sleepstudy_has_the_criteria_of_lme4() -> None:
    fit_json = marginal("sleepstudy").fit_json()
    assert fit_json["observations"] == 180
    assert fit_json["log_likelihood"] == pytest.approx(REFERENCE["sleepstudy"]["log_likelihood"], abs=LOG_LIKELIHOOD)
    assert fit_json["aic"] == pytest.approx(1763.9393, abs=1e-3)
    assert fit_json["bic"] == pytest.approx(1783.0971, abs=1e-3)


def test_a_simplex_of_three_numbers_counts_as_two_parameters() -> None:
    """Closed form: the multinomial likelihood at the frequencies."""
    chosen = torch.tensor([0] * 5 + [1] * 10 + [2] * 15)

    def model() -> None:
        weights = pyro.param("weights", torch.tensor([0.5, 0.3, 0.2]), constraint=constraints.simplex)
        with pyro.plate("people", len(chosen)):
            pyro.sample("chosen", dist.Categorical(weights), obs=chosen)

    found = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    log_likelihood = sum(n * math.log(n / 30) for n in (5, 10, 15))
    assert found.aic == pytest.approx(2 * 2 - 2 * log_likelihood)
    assert found.bic == pytest.approx(2 * math.log(30) - 2 * log_likelihood)


@pytest.mark.parametrize(
    ("support", "unknowns"),
    [(constraints.lower_cholesky, 6), (constraints.positive_definite, 6), (constraints.corr_cholesky, 3)],
)
def test_numbers_above_a_triangle_are_no_unknowns(support: constraints.Constraint, unknowns: int) -> None:
    y = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))

    def model() -> None:
        matrix = pyro.param("matrix", torch.eye(3), constraint=support)
        name = "covariance_matrix" if support is constraints.positive_definite else "scale_tril"
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), **{name: matrix}), obs=y)

    found = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    assert found.converged and found.log_likelihood is not None and found.bic is not None
    assert found.fit_json()["parameters"] == unknowns
    assert found.aic == pytest.approx(2 * unknowns - 2 * found.log_likelihood)
    assert found.bic == pytest.approx(unknowns * math.log(40) - 2 * found.log_likelihood)
    assert len(found.estimates()) == 9


def test_a_fit_that_has_not_converged_has_no_errors() -> None:
    result = hofit.fit(
        regression,
        {"optimizers": [{"params": "*", "optimizer": "adam"}], "stop": {"max_iterations": 3}},
        data=regression_data(),
    )
    assert result.status == "max_iterations" and not result.std_errors
    assert {row.std_error for row in result.derived_rows()} == {None}
    with pytest.raises(HofitError, match="not converged"):
        hofit.draws(result, 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda result: pickle.loads(pickle.dumps(result))])
def test_a_result_can_be_copied_and_pickled_without_its_model(copied: Callable[[FitResult], FitResult]) -> None:
    result = hofit.fit(gaussian, {"optimizers": [{"params": "*", "optimizer": "newton"}]})
    again = copied(result)
    assert again.program_again is None and result.program_again is not None
    assert again.estimates() == result.estimates()
    assert torch.equal(hofit.draws(again, 3)["x"], hofit.draws(result, 3)["x"])


def gaussian() -> None:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(1.0))
