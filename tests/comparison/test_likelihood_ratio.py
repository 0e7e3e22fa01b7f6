"""Likelihood-ratio tests: the mixtures of χ² against scipy, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest
from scipy.stats import chi2

from hofit.comparison.compare import compare
from hofit.comparison.likelihood_ratio import NoTest, likelihood_ratio, tail
from hofit.comparison.outcome import Outcome
from hofit.errors import HofitError
from hofit.record import Estimate
from tests.tolerances import CONDITIONED

REAL, POSITIVE = "real", "positive"


def model(label: str, level: float, sites: dict[str, tuple[str, int, str]], **fit: Any) -> Outcome:
    """An outcome of maximum likelihood; ``sites`` has role, numbers and support of each."""
    free = sum(count for role, count, _ in sites.values() if role == "parameter")
    rows = [Estimate(n, str(i), role, 1.0, 0.1) for n, (role, count, _) in sites.items() for i in range(count)]
    whole = {
        "status": "converged",
        "converged": True,
        "objective": "marginal",
        "loss": -level,
        "log_likelihood": level,
        "aic": 2.0 * free - 2.0 * level,
        "observations": 100,
        "constraints": {name: support for name, (_, _, support) in sites.items()},
    }
    return Outcome(label, {**whole, **fit}, rows)


LINE = {"beta": ("parameter", 2, REAL), "sigma": ("parameter", 1, POSITIVE)}
EFFECTS = {**LINE, "tau": ("parameter", 1, POSITIVE), "b": ("integrated", 8, REAL)}


@pytest.mark.parametrize("statistic", [0.3, 2.7055, 9.0])
@pytest.mark.parametrize(
    ("inside", "variances", "weights"),
    [(2, 0, {2: 1.0}), (0, 1, {0: 0.5, 1: 0.5}), (1, 1, {1: 0.5, 2: 0.5}), (0, 2, {0: 0.25, 1: 0.5, 2: 0.25})],
)
def test_tails_are_those_of_scipy(inside: int, variances: int, weights: dict[int, float], statistic: float) -> None:
    expected = sum(weight * chi2.sf(statistic, df) for df, weight in weights.items() if df)
    assert tail(statistic, inside, variances) == pytest.approx(expected, rel=CONDITIONED)


def test_at_a_statistic_of_zero_p_is_one() -> None:
    assert tail(0.0, 0, 1) == tail(0.0, 2, 0) == 1.0


def test_a_line_by_map_is_tested_against_its_effects_integrated_out() -> None:
    """As R's anova takes lm beside lmer: both are log likelihoods."""
    small = model("small", -201.5, LINE, objective="map")
    test = likelihood_ratio(model("large", -200.0, EFFECTS), small)
    assert test.p_value == pytest.approx(0.5 * chi2.sf(3.0, 1), rel=CONDITIONED)
    assert compare([small, model("large", -200.0, EFFECTS)]).best == "large"


def test_models_that_observe_other_values_are_refused() -> None:
    plain, logged = (
        model(n, -200.0, LINE, observed_sums=sums) for n, sums in (("y", [9.0, 30.0]), ("log", [2.0, 1.0]))
    )
    with pytest.raises(
        HofitError, match="y and log cannot be compared: they observe other values, whose sum is 9 against 2"
    ):
        compare([plain, logged])


def test_one_variance_alone_is_half_chi2_0_and_half_chi2_1() -> None:
    test = likelihood_ratio(model("large", -200.0, EFFECTS), model("small", -201.5, LINE))
    assert (test.df, test.reference, "tau" in test.assumed) == (1, "½χ²(0) + ½χ²(1)", True)
    assert test.p_value == pytest.approx(0.5 * chi2.sf(3.0, 1), rel=CONDITIONED)


@pytest.mark.parametrize(
    "correlated",
    [
        {"tau": ("parameter", 2, POSITIVE), "L": ("parameter", 4, "corr cholesky")},
        {
            "tau": ("parameter", 1, POSITIVE),
            "sd": ("parameter", 1, POSITIVE),
            "rho": ("parameter", 1, "interval > -1 < 1"),
        },
    ],
)
def test_a_slope_with_its_correlation_is_half_chi2_1_and_half_chi2_2(correlated: dict[str, Any]) -> None:
    larger = model("large", -200.0, {**LINE, "b": ("integrated", 16, REAL), **correlated}, aic=2.0 * 6 + 400.0)
    test = likelihood_ratio(larger, model("small", -203.0, EFFECTS))
    assert (test.df, test.reference) == (2, "½χ²(1) + ½χ²(2)")
    assert test.p_value == pytest.approx(0.5 * chi2.sf(6.0, 1) + 0.5 * chi2.sf(6.0, 2), rel=CONDITIONED)


def test_a_covariance_matrix_that_grows_has_a_variance_and_covariances_more() -> None:
    small = {**LINE, "T": ("parameter", 1, "lower cholesky"), "b": ("integrated", 8, REAL)}
    large = {**LINE, "T": ("parameter", 4, "lower cholesky"), "b": ("integrated", 16, REAL)}
    test = likelihood_ratio(model("l", -200.0, large, aic=2.0 * 6 + 400.0), model("s", -203.0, small))
    assert test.reference == "½χ²(1) + ½χ²(2)"


def test_a_scale_that_is_fixed_at_zero_is_on_the_boundary_and_one_that_is_fixed_inside_is_not() -> None:
    larger = model("large", -200.0, EFFECTS)
    for value, reference in ((1e-9, "½χ²(0) + ½χ²(1)"), (0.5, "χ²(1)")):
        held = model("small", -201.0, {**EFFECTS, "tau": ("fixed", 1, POSITIVE)})
        rows = [row if row.name != "tau" else Estimate("tau", "", "fixed", value, None) for row in held.rows]
        assert likelihood_ratio(larger, Outcome("small", held.fit, rows)).reference == reference


def test_of_a_positive_number_that_may_be_a_variance_it_is_said_what_was_assumed() -> None:
    shape = {**LINE, "nu": ("parameter", 1, POSITIVE)}
    test = likelihood_ratio(model("large", -200.0, shape), model("small", -202.0, LINE))
    assert test.p_value == pytest.approx(chi2.sf(4.0, 1), rel=CONDITIONED)
    assert (
        f"nu is inside its support in the smaller model; were it at an end of its support there, p would be "
        f"{0.5 * chi2.sf(4.0, 1):.3g}" in test.assumed
    )


def test_a_probability_that_may_be_zero_in_the_smaller_model_is_said_to_be_assumed_inside() -> None:
    zeros = {**LINE, "gate": ("parameter", 2, "> 0 and < 1")}
    test = likelihood_ratio(model("large", -200.0, zeros), model("small", -202.0, LINE))
    assert test.p_value == pytest.approx(chi2.sf(4.0, 2), rel=CONDITIONED)
    edge = 0.5 * chi2.sf(4.0, 1) + 0.25 * chi2.sf(4.0, 2)  # ¼χ²(0) + ½χ²(1) + ¼χ²(2)
    assert "gate is inside" in test.assumed and test.assumed.endswith(f"p would be {edge:.3g}")


def test_models_that_each_read_a_column_of_their_own_may_observe_other_data_and_this_is_said() -> None:
    def of(label: str, sites: dict[str, tuple[str, int, str]], columns: dict[str, Any]) -> Outcome:
        one = model(label, -200.0, sites)
        digests = {"model_sha256": {label: label}, "data_sha256": {"d.csv": "aa"}}
        return Outcome(label, {**one.fit, **digests}, one.rows, {"data": {"columns": columns}})

    plain = of("plain", LINE, {"y": "Y"})
    logged = of("logged", EFFECTS, {"resp": "logY", "g": {"column": "g", "codes": True}})
    larger = of("larger", EFFECTS, {"y": "Y", "g": {"column": ["g", "h"], "codes": True}})
    said = [remark for remark in compare([plain, logged]).remarks if "reads the column" in remark]
    assert len(said) == 1 and "plain reads the column Y, logged g, logY" in said[0]
    assert not [remark for remark in compare([plain, larger]).remarks if "reads the column" in remark]


def test_more_components_have_no_chi2() -> None:
    mixed = {**LINE, "weights": ("parameter", 2, "simplex")}
    assert likelihood_ratio(model("large", -200.0, mixed), model("small", -202.0, LINE)).p_value is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"log_likelihood": None}, "has a prior"),
        ({"aic": None, "status": "max_iterations"}, "has not converged"),
        ({"log_likelihood": -150.0, "aic": 306.0}, "lower likelihood"),
        ({"aic": 410.0}, "no more parameters"),
    ],
)
def test_no_test_says_why(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(NoTest, match=why):
        likelihood_ratio(model("large", -200.0, EFFECTS), model("small", -201.0, LINE, **changed))


def test_a_fit_that_counts_no_observations_is_not_of_other_data() -> None:
    assert len(compare([model("map", -200.0, LINE), model("elbo", -210.0, EFFECTS, observations=0)]).rows) == 2


def test_what_does_not_look_nested_is_not_tested_unless_it_is_said() -> None:
    other = {"gamma": ("parameter", 2, REAL), "sigma": ("parameter", 1, POSITIVE)}
    larger, smaller = model("large", -200.0, EFFECTS), model("small", -201.0, other)
    with pytest.raises(NoTest, match="'gamma'"):
        likelihood_ratio(larger, smaller)
    assert likelihood_ratio(larger, smaller, nested=True).df == 1
