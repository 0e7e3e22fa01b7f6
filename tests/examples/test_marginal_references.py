"""Empirical Bayes against what is published, and against the evidences in numpy (`marginals`, `fields`).

Published are the answers of lme4, glmmTMB and TMB in models/data/reference.json; the evidences hold these too, so the
two references are held against each other first.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import yaml

import hofit
from hofit.fitting.result import FitResult
from tests.examples import fields, marginals
from tests.examples.marginals import Evidence, Marginal, Values
from tests.examples.references import REFERENCE, Array, standard_deviations
from tests.examples.test_examples import CONFIGS, NOT_MARGINAL, ROOT, fitted, load
from tests.tolerances import (
    APPROXIMATE_LOG_LIKELIHOOD,
    ESTIMATE,
    LOG_LIKELIHOOD,
    ROUNDING,
    STANDARD_ERROR,
)

EFFECT = 1e-5
"""Of the largest effect, and of each conditional error: they move with the estimates, which ESTIMATE holds."""
FIVE_DIGITS = 1e-4
"""Of a book's variances, printed with five; its optimiser stopped in the last of them."""
NO_SPREAD = 1e-3
"""A standard deviation that stands at its boundary: the loss no longer tells it from zero."""


@dataclass(frozen=True)
class Published:
    """`values` are constrained; `errors` are those of the Hessian, `log_errors` those of the logarithm."""

    log_likelihood: float
    values: Values
    errors: Values
    tolerance: float
    log_errors: Values


def published(name: str) -> Published:
    """What reference.json says of a config."""
    match name:
        case "sleepstudy_marginal" | "sleepstudy_reml":
            restricted = name == "sleepstudy_reml"
            r = REFERENCE["sleepstudy_reml" if restricted else "sleepstudy"]
            values = {key: r[key] for key in ("sd_intercept", "sd_days", "correlation", "sigma")}
            if restricted:
                return Published(r["restricted_log_likelihood"], values, {}, LOG_LIKELIHOOD, {})
            values["beta"] = [*r["fixed"].values()]
            return Published(r["log_likelihood"], values, {"beta": [*r["se_fixed"].values()]}, LOG_LIKELIHOOD, {})
        case "radon_marginal":
            r = REFERENCE["radon"]
            scales = named(("sd_intercept", "sd_floor", "correlation", "sigma"), standard_deviations("radon"))
            values = {"beta": [*r["fixed"].values()], **scales}
            return Published(r["log_likelihood"], values, {"beta": [*r["se_hessian"].values()]}, LOG_LIKELIHOOD, {})
        case "penicillin_marginal":
            r = REFERENCE["penicillin"]
            scales = named(("sd_plate", "sd_sample", "sigma"), standard_deviations("penicillin"))
            values = {"intercept": [*r["fixed"].values()], **scales}
            return Published(r["log_likelihood"], values, {"intercept": [*r["se_fixed"].values()]}, LOG_LIKELIHOOD, {})
        case "cbpp_laplace":
            r = REFERENCE[name]
            values = {"beta": [*r["fixed"].values()], "sd_herd": np.exp(r["log_sd_herd"])}
            *fixed, log_sd = r["se_fixed_then_log_sd"]
            return Published(
                r["log_likelihood"], values, {"beta": fixed}, APPROXIMATE_LOG_LIKELIHOOD, {"sd_herd": log_sd}
            )
        case "cbpp_quadrature":
            r = REFERENCE[name]
            values = {"beta": [*r["fixed"].values()], "sd_herd": r["sd_herd"]}
            return Published(r["log_likelihood"], values, {}, APPROXIMATE_LOG_LIKELIHOOD, {})
        case "theophylline_laplace":
            r = REFERENCE["theoph_laplace"]
            fixed, spreads = ("lKe", "lKa", "lCl"), ("sd_lKa", "sd_lCl", "sigma")
            log_spreads = np.array([*r["log_sd_lKa_lCl"], r["log_sigma"]])
            values = named(fixed, r["lKe_lKa_lCl"]) | named(spreads, np.exp(log_spreads))
            errors, log_errors = named(fixed, r["se"][:3]), named(spreads, r["se"][3:])
            return Published(r["log_likelihood"], values, errors, APPROXIMATE_LOG_LIKELIHOOD, log_errors)
        case "theophylline_quadrature":
            r = REFERENCE["theoph_quadrature"]
            scales = {f"sd_{key}": value for key, value in r["sd"].items()} | {"sigma": r["sigma"]}
            return Published(r["log_likelihood"], r["fixed"] | scales, {}, APPROXIMATE_LOG_LIKELIHOOD, {})
        case "eight_schools_marginal_jacobian":
            r = REFERENCE["eight_schools"]["eta integrated out, with the Jacobian of log tau"]
            return Published(r["log_density"], {"mu": r["mu"], "tau": r["tau"]}, {}, LOG_LIKELIHOOD, {})
    raise KeyError(name)


def named(names: tuple[str, ...], numbers: Iterable[float]) -> Values:
    return dict(zip(names, numbers, strict=True))


PUBLISHED = [
    "sleepstudy_marginal",
    "sleepstudy_reml",
    "radon_marginal",
    "penicillin_marginal",
    "cbpp_laplace",
    "cbpp_quadrature",
    "theophylline_laplace",
    "theophylline_quadrature",
    "eight_schools_marginal_jacobian",
]
SIMULATED = ["correlated_logistic_marginal", "crossed_effects_marginal"]
FIELDS = [f"{name}_marginal" for name in ("bank_calls", "body_weight", "nile", "sids", "van_drivers")]
"""In time and space."""
INSIDE = [*PUBLISHED, *SIMULATED, *FIELDS, "poisson_counts_marginal", "smoother_marginal"]
BOUNDARY = "eight_schools_marginal"


@cache
def evidence(name: str) -> Marginal:
    """The config's evidence in numpy."""
    if name.startswith("eight_schools"):
        return marginals.eight_schools(jacobian=name.endswith("jacobian"))
    model = name.removesuffix("_marginal")
    if name in SIMULATED:
        config = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
        data = load(model).load_data(**config["data"]["options"])
        arrays = {key: value if isinstance(value, int) else value.numpy() for key, value in data.items()}
        simulated: Marginal = getattr(marginals, model)(arrays)
        return simulated
    real: Marginal = getattr(fields if name in FIELDS else marginals, model)()
    return real


def point_of(values: Values, free: Marginal) -> Array:
    """The flat point at the constrained values."""
    inverse: dict[Callable[[Array], Array], Callable[[Array], Array]] = {
        marginals.identity: marginals.identity,
        np.exp: np.log,
        marginals.correlation: lambda v: 2 * np.arctanh(v),
    }
    parts = [inverse[transform](np.atleast_1d(values[name])) for name, (transform, _) in free.free.items()]
    return np.concatenate(parts)


def flat_values(values: Values, free: Marginal) -> Array:
    return np.concatenate([np.ravel(values[name]) for name in free.free])


def flat_point(result: FitResult, free: Marginal) -> Array:
    return np.concatenate([result.params[name].numpy().ravel() for name in free.free])


def flat_errors(result: FitResult, free: Marginal) -> Array:
    return np.concatenate([result.std_errors[name].numpy().ravel() for name in free.free])


@cache
def curvature(name: str) -> tuple[Array, Array]:
    """At the end of a config's fit: numpy's gradient and the inverse of its Hessian, unconstrained."""
    free = evidence(name)
    point = flat_point(fitted(name), free)
    return free.gradient(point), np.linalg.inv(free.hessian(point))


@cache
def evidence_there(name: str) -> Evidence:
    """At the end of a config's fit, by numpy."""
    free = evidence(name)
    return free.evidence(free.values(flat_point(fitted(name), free)))


def test_every_marginal_config_is_held_against_numpy() -> None:
    assert sorted({*CONFIGS} - {*NOT_MARGINAL}) == sorted([*INSIDE, BOUNDARY])


# --- The references against each other ------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numpy_evidence_has_the_published_log_likelihood(name: str) -> None:
    known, free = published(name), evidence(name)
    loss = free.density(point_of(known.values, free))
    assert -loss == pytest.approx(known.log_likelihood, rel=0.0, abs=known.tolerance)


@cache
def published_covariance(name: str) -> Array:
    """The inverse of numpy's Hessian at the published estimates, unconstrained."""
    free = evidence(name)
    return np.linalg.inv(free.hessian(point_of(published(name).values, free)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numpy_evidence_is_highest_at_the_published_estimates(name: str) -> None:
    known, free = published(name), evidence(name)
    point = point_of(known.values, free)
    covariance, slopes = published_covariance(name), free.slopes(point)
    step, errors = slopes * (covariance @ free.gradient(point)), slopes * np.sqrt(np.diag(covariance))
    values = flat_values(known.values, free)
    assert (np.abs(step) <= ESTIMATE * np.maximum(np.abs(values), errors)).all()


@pytest.mark.parametrize("name", [name for name in PUBLISHED if published(name).errors])
def test_the_hessian_of_the_numpy_evidence_has_the_published_standard_errors(name: str) -> None:
    known, free = published(name), evidence(name)
    errors = np.sqrt(np.diag(published_covariance(name)))
    by_name = free.split(errors)
    for parameter, error in {**known.errors, **known.log_errors}.items():
        assert np.ravel(by_name[parameter]) == pytest.approx(np.ravel(error), rel=STANDARD_ERROR), parameter


def test_the_numpy_evidence_of_eight_schools_is_highest_at_no_spread() -> None:
    known = REFERENCE["eight_schools"]["eta integrated out, constrained (marginal)"]
    free = evidence(BOUNDARY)
    near_zero = [free.density(np.array([known["mu"], log_tau])) for log_tau in (-20.0, -5.0, 0.0)]
    assert -near_zero[0] == pytest.approx(known["log_density"], rel=0.0, abs=LOG_LIKELIHOOD)
    assert sorted(near_zero) == near_zero


# --- The fits against what is published -----------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_fit_has_the_published_log_likelihood(name: str) -> None:
    known = published(name)
    assert -fitted(name).loss == pytest.approx(known.log_likelihood, rel=0.0, abs=known.tolerance)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_fit_has_the_published_estimates(name: str) -> None:
    known, free = published(name), evidence(name)
    point = flat_point(fitted(name), free)
    found, expected = flat_values(free.values(point), free), flat_values(known.values, free)
    scale = np.maximum(np.abs(expected), free.slopes(point) * np.sqrt(np.diag(curvature(name)[1])))
    assert (np.abs(found - expected) <= ESTIMATE * scale).all()


@pytest.mark.parametrize("name", [name for name in PUBLISHED if published(name).errors])
def test_a_fit_has_the_published_standard_errors(name: str) -> None:
    known, result = published(name), fitted(name)
    for parameter, error in known.errors.items():
        assert result.std_errors[parameter].numpy().ravel() == pytest.approx(np.ravel(error), rel=STANDARD_ERROR), (
            parameter
        )
    for parameter, error in known.log_errors.items():
        relative = result.std_errors[parameter] / result.values[parameter]  # that of the log, by the delta method
        assert relative.numpy() == pytest.approx(error, rel=STANDARD_ERROR), parameter


def test_sleepstudy_has_the_conditional_modes_of_lme4() -> None:
    b = fitted("sleepstudy_marginal").values["b"].numpy()
    for column, modes in enumerate(REFERENCE["sleepstudy"]["modes_first5"].values()):
        known = np.array([*modes["first5"].values()])
        assert np.abs(b[:5, column] - known).max() <= EFFECT * np.abs(known).max()
        assert (b[:, column] ** 2).sum() == pytest.approx(modes["sumsq"], rel=2 * EFFECT)


def test_cbpp_has_the_conditional_modes_of_glmmtmb() -> None:
    known = np.array(REFERENCE["cbpp_laplace"]["herd_modes_first10"])
    b = fitted("cbpp_laplace").values["b"].numpy()
    assert np.abs(b[:10] - known).max() <= EFFECT * np.abs(known).max()


def test_eight_schools_end_on_the_boundary_and_say_so() -> None:
    known = REFERENCE["eight_schools"]["eta integrated out, constrained (marginal)"]
    result = fitted(BOUNDARY)
    assert result.status == "converged_on_boundary"
    assert any("tau" in remark for remark in result.remarks)
    assert -result.loss == pytest.approx(known["log_density"], rel=0.0, abs=LOG_LIKELIHOOD)
    assert float(result.values["tau"]) <= NO_SPREAD
    assert float(result.values["mu"]) == pytest.approx(known["mu"], rel=ESTIMATE)
    (error,) = [row["std_error"] for row in result.estimates() if row["name"] == "tau"]
    assert error is None


def test_the_nile_has_the_variances_of_durbin_and_koopman() -> None:
    known, values = REFERENCE["nile"], fitted("nile_marginal").values
    assert float(values["sigma"]) ** 2 == pytest.approx(known["variance_of_noise"], rel=FIVE_DIGITS)
    assert float(values["sd_level"]) ** 2 == pytest.approx(known["variance_of_steps"], rel=FIVE_DIGITS)


# --- The fits against numpy -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*INSIDE, BOUNDARY])
def test_a_fit_has_the_evidence_of_numpy_where_it_ends(name: str) -> None:
    result, free = fitted(name), evidence(name)
    point = flat_point(result, free)
    tolerance = APPROXIMATE_LOG_LIKELIHOOD if "aghq" in config_text(name) else LOG_LIKELIHOOD
    assert result.loss == pytest.approx(free.density(point), rel=0.0, abs=tolerance)
    for parameter, value in free.values(point).items():
        assert result.values[parameter].numpy().ravel() == pytest.approx(np.ravel(value), rel=ROUNDING), parameter


@pytest.mark.parametrize("name", INSIDE)
def test_a_newton_step_of_numpy_stays_where_a_fit_ends(name: str) -> None:
    gradient, covariance = curvature(name)
    free = evidence(name)
    point = flat_point(fitted(name), free)
    slopes, values = free.slopes(point), flat_values(free.values(point), free)
    step, errors = slopes * (covariance @ gradient), slopes * np.sqrt(np.diag(covariance))
    assert (np.abs(step) <= ESTIMATE * np.maximum(np.abs(values), errors)).all(), step


@pytest.mark.parametrize("name", INSIDE)
def test_the_standard_errors_are_those_of_the_hessian_of_numpy(name: str) -> None:
    free, result = evidence(name), fitted(name)
    errors = free.slopes(flat_point(result, free)) * np.sqrt(np.diag(curvature(name)[1]))
    assert flat_errors(result, free) == pytest.approx(errors, rel=STANDARD_ERROR)


@pytest.mark.parametrize("name", [*INSIDE, BOUNDARY])
def test_the_integrated_latents_have_their_conditional_modes(name: str) -> None:
    result, there = fitted(name), evidence_there(name)
    for latent, mode in there.modes.items():
        scale = np.maximum(np.abs(mode), there.errors[latent]).max()
        assert np.abs(result.values[latent].numpy() - mode).max() <= EFFECT * scale, latent


@pytest.mark.parametrize("name", [*INSIDE, BOUNDARY])
def test_the_integrated_latents_have_their_conditional_errors(name: str) -> None:
    result, there = fitted(name), evidence_there(name)
    for latent, errors in there.errors.items():
        assert result.std_errors[latent].numpy() == pytest.approx(errors, rel=EFFECT), latent


def test_the_share_of_nonwhite_births_leaves_nothing_smooth_of_sudden_infant_deaths() -> None:
    result = hofit.fit(ROOT / "models" / "sids.py", ROOT / "configs" / "sids_marginal.yaml")
    assert result.status == "converged_on_boundary"
    assert any("sd_smooth → 0" in remark for remark in result.remarks)
    at = float(result.values["slope"]), float(result.values["sd_own"])
    assert result.loss == pytest.approx(fields.sids_of_own_effects_alone(*at), rel=0.0, abs=LOG_LIKELIHOOD)


def config_text(name: str) -> str:
    return (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
