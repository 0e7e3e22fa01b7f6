"""Standard errors, covariances, derived quantities: against closed forms, published values, normal equations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints
from torch.nn.functional import one_hot

import hofit
from hofit.errors import HofitError
from hofit.uncertainty import errors
from tests.tolerances import MODE, STANDARD_ERROR
from tests.uncertainty.fits import (
    REFERENCE,
    ROOT,
    TRUST_REGION,
    assert_close,
    fit,
    marginal,
    mixed,
    mixed_data,
    mixed_fit,
    mixed_inverse,
    multinomial,
    regression,
    regression_data,
)


def test_sleepstudy_has_the_errors_of_lme4() -> None:
    expected = REFERENCE["sleepstudy"]["se_fixed"]
    assert_close(marginal("sleepstudy").std_errors["beta"], [expected["(Intercept)"], expected["Days"]], STANDARD_ERROR)


def test_cbpp_has_the_errors_of_glmmtmb() -> None:
    result, expected = marginal("cbpp"), REFERENCE["cbpp_laplace"]["se_fixed_then_log_sd"]
    assert_close(result.std_errors["beta"], expected[:4], STANDARD_ERROR)
    log_error = result.std_errors["sd_herd"] / result.values["sd_herd"]
    assert_close(log_error, expected[4], STANDARD_ERROR)
    ends = result.values["sd_herd"] * torch.tensor([-1.959964, 1.959964]).mul(log_error).exp()
    assert_close(torch.stack([result.lower["sd_herd"], result.upper["sd_herd"]]), ends, 1e-6)


def test_radon_has_the_errors_of_the_whole_hessian() -> None:
    expected = REFERENCE["radon"]["se_hessian"]
    assert_close(
        marginal("radon").std_errors["beta"],
        [expected["(Intercept)"], expected["floor"], expected["log_uranium"]],
        STANDARD_ERROR,
    )


def test_penicillin_has_the_error_of_lme4() -> None:
    result = marginal("penicillin")
    assert_close(result.std_errors["intercept"], REFERENCE["penicillin"]["se_fixed"]["(Intercept)"], STANDARD_ERROR)


def test_theophylline_has_the_errors_of_tmb() -> None:
    result, expected = marginal("theophylline"), REFERENCE["theoph_laplace"]["se"]
    assert_close([float(result.std_errors[name]) for name in ("lKe", "lKa", "lCl")], expected[:3], STANDARD_ERROR)
    for name, error in zip(("sd_lKa", "sd_lCl", "sigma"), expected[3:], strict=True):
        assert_close(result.std_errors[name] / result.values[name], error, STANDARD_ERROR)


def sleepstudy_design() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """X (180, 2), Z (180, 36) and the precision of (b₀, b₁) at the fit."""
    rows = np.genfromtxt(ROOT / "models/data/sleepstudy.csv", delimiter=",", names=True)
    x = np.stack([np.ones(180), rows["Days"]], 1)
    subject = np.unique(rows["Subject"], return_inverse=True)[1]
    z = np.zeros((180, 18, 2))
    z[np.arange(180), subject] = x
    values = {name: float(marginal("sleepstudy").values[name]) for name in ("sd_intercept", "sd_days", "correlation")}
    sd = np.array([values["sd_intercept"], values["sd_days"]])
    covariance = sd[:, None] * sd * np.array([[1, values["correlation"]], [values["correlation"], 1]])
    return x, z.reshape(180, 36), np.kron(np.eye(18), np.linalg.inv(covariance))


def test_conditional_errors_of_sleepstudy_are_those_of_its_normal_equations() -> None:
    _, z, precision = sleepstudy_design()
    result = marginal("sleepstudy")
    inverse = np.linalg.inv(z.T @ z / float(result.values["sigma"]) ** 2 + precision)
    assert_close(result.std_errors["b"].reshape(-1), np.sqrt(inverse.diagonal()), MODE)


def test_conditional_errors_of_cbpp_are_those_of_its_hessian() -> None:
    result = marginal("cbpp")
    rows = np.genfromtxt(ROOT / "models/data/cbpp.csv", delimiter=",", names=True)
    herd = np.unique(rows["herd"], return_inverse=True)[1]
    period = np.unique(rows["period"], return_inverse=True)[1]
    beta, b = result.values["beta"].numpy(), result.values["b"].numpy()
    p = 1 / (1 + np.exp(-(beta[0] + np.where(period > 0, beta[period], 0) + b[herd])))
    curvature = np.bincount(herd, rows["size"] * p * (1 - p)) + float(result.values["sd_herd"]) ** -2
    assert_close(result.std_errors["b"], curvature**-0.5, MODE)
    mode_variance, variance = b.var(), (1 / curvature).mean()
    assert_close(result.uncertainty.shrinkage["b"], variance / (variance + mode_variance), MODE)


def test_a_gaussian_mixed_model_has_the_errors_of_generalised_least_squares() -> None:
    x, z = mixed_data()["x"].numpy(), one_hot(mixed_data()["group"], 6).double().numpy()
    covariance = 0.25 * np.eye(40) + 0.49 * z @ z.T
    expected = np.linalg.inv(x.T @ np.linalg.solve(covariance, x))
    result = mixed_fit("conditional")
    assert_close(result.std_errors["beta"], np.sqrt(expected.diagonal()), MODE)
    assert_close(result.covariance("beta"), expected, MODE)


def test_a_deterministic_site_of_a_marginal_holds_all_uncertainty() -> None:
    result, inverse = mixed_fit("conditional"), mixed_inverse()
    value, error = result.derived["total"]
    variance = inverse[0, 0] + inverse.diagonal()[2:] + 2 * inverse[0, 2:]
    assert_close(value, result.values["beta"][0] + result.values["b"], 1e-12)
    assert_close(error, np.sqrt(variance), MODE)


def test_linear_regression_has_the_textbook_errors() -> None:
    """σ² (XᵀX)⁻¹, and σ/√(2n) for σ by maximum likelihood."""
    data = regression_data()
    result = fit(regression, arguments=data)
    sigma = float(result.values["sigma"])
    covariance = sigma**2 * np.linalg.inv(data["x"].numpy().T @ data["x"].numpy())
    assert_close(result.std_errors["beta"], np.sqrt(covariance.diagonal()), MODE)
    assert_close(result.std_errors["sigma"], sigma / 100**0.5, MODE)
    assert_close(result.covariance("beta"), covariance, MODE)
    joint = result.covariance(["sigma", "beta"])
    assert_close(joint[1:, 1:], covariance, MODE)
    assert joint[0, 1:].abs().max() < 1e-8
    beta = result.values["beta"].numpy()
    slope = np.array([0, 1 / beta[2], -beta[1] / beta[2] ** 2])
    assert_close(result.derived["ratio"][1], np.sqrt(slope @ covariance @ slope), MODE)
    assert_close(result.derived["both"][1], [covariance[0, 0] ** 0.5, 2 * sigma * sigma / 10], MODE)
    assert "ratio" not in {row["name"] for row in result.estimates()}
    rows = result.estimates()
    assert rows[0]["lower"] == pytest.approx(beta[0] - 1.959964 * covariance[0, 0] ** 0.5)


def test_a_laplace_posterior_of_a_conjugate_model_is_exact() -> None:
    """Normal data and prior: the posterior's variance, and the evidence, in closed form."""
    y = torch.tensor([0.3, -0.2, 1.1, 0.9])

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", 4):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    result = fit(model, "map_unconstrained")
    assert_close(result.std_errors["mu"], (4 + 0.25) ** -0.5, MODE)
    evidence = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 4.0).log_prob(y)
    fit_json = result.fit_json()
    assert fit_json["log_evidence"] == pytest.approx(float(evidence), abs=1e-9)
    assert fit_json["log_likelihood"] is None and fit_json["aic"] is None and fit_json["bic"] is None


def test_a_simplex_has_the_errors_of_the_multinomial() -> None:
    """√(p (1 − p) / n), covariances −p q / n; intervals symmetric on the logit's scale."""
    result = fit(multinomial)
    p = np.array([0.5, 0.3, 0.2])
    expected = (np.diag(p) - p[:, None] * p) / 40
    assert_close(result.std_errors["p"], np.sqrt(expected.diagonal()), MODE)
    assert_close(result.covariance("p"), expected, MODE)
    half = 1.959963984540054 * np.sqrt(expected.diagonal()) / (p * (1 - p))
    for sign, ends in ((-1, result.lower["p"]), (1, result.upper["p"])):
        assert_close(ends, 1 / (1 + np.exp(-np.log(p / (1 - p)) - sign * half)), MODE)


def test_a_transform_of_too_many_numbers_has_no_errors_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "JACOBIAN_LIMIT", 1)
    result = fit(multinomial)
    assert {row["std_error"] for row in result.estimates()} == {None}
    assert any("p: 3 numbers under one transform" in remark for remark in result.remarks)


def test_a_support_that_moves_has_no_error_and_says_so() -> None:
    def model() -> None:
        top = pyro.sample("top", dist.Gamma(9.0, 1.0))
        x = pyro.sample("x", dist.Uniform(0.0, top))
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(3.0))

    result = fit(model, "map_unconstrained")
    errors = {row["name"]: row["std_error"] for row in result.estimates()}
    assert errors["x"] is None and errors["top"] is not None
    assert any("none for x: its support moves" in remark for remark in result.remarks)


def test_a_deterministic_site_of_too_many_numbers_has_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "DERIVED_LIMIT", 1)
    result = fit(regression, arguments=regression_data())
    assert torch.isfinite(result.derived["ratio"][1]) and torch.isnan(result.derived["both"][1]).all()
    assert any("none for both: 2 numbers" in remark for remark in result.remarks)


def test_an_unknown_name_has_no_covariance() -> None:
    with pytest.raises(HofitError, match=r"no covariance of 'gamma': there are beta, sigma"):
        fit(regression, arguments=regression_data()).covariance("gamma")


def test_a_resumed_fit_has_the_same_errors(tmp_path: Path) -> None:
    data = mixed_data()
    objective = {"type": "marginal", "integrate": {"b": "laplace"}, "uncertainty": "full"}
    config = {"objective": objective, "optimizers": TRUST_REGION, "stop": {"max_iterations": 1}}
    cut = hofit.fit(mixed, config, data=data, run_dir=tmp_path / "run")
    assert cut.status == "max_iterations" or cut.converged
    resumed = hofit.resume(tmp_path / "run", model=mixed, data=data, set=["stop.max_iterations=50"])
    whole = fit(mixed, objective, data)
    for name in ("beta", "b"):
        assert torch.equal(resumed.std_errors[name], whole.std_errors[name])
    table = (tmp_path / "run" / "derived.csv").read_text().splitlines()
    assert table[0] == "name,index,estimate,std_error,lower,upper" and len(table) == 7
    assert table[1].split(",")[:2] == ["total", "0"] and float(table[1].split(",")[3]) > 0


def test_a_deterministic_site_that_depends_on_a_discrete_latent_is_left_out() -> None:
    y = torch.cat([torch.randn(30), torch.randn(20) + 6.0])

    def model() -> None:
        location = pyro.param("location", torch.tensor([-1.0, 5.0]))
        gap = pyro.deterministic("gap", location[1] - location[0])
        assert gap.dim() == 0
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Bernoulli(0.4)).long()
            mean = pyro.deterministic("mean", location[z], event_dim=0)
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    result = fit(model, {"type": "map", "integrate": {"z": "enumerate"}})
    assert result.converged and list(result.derived) == ["gap"]
    covariance = result.covariance("location")
    assert_close(result.derived["gap"][1], (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5, 1e-9)
    assert any("mean has no one value" in remark for remark in result.remarks)
    fit_json = result.fit_json()
    assert fit_json["observations"] == 50
    assert fit_json["bic"] == pytest.approx(2 * np.log(50) + 2 * result.loss)


def test_a_site_without_free_numbers_is_known_exactly() -> None:
    """The Cholesky factor of a 1 × 1 correlation matrix is 1."""

    def model() -> None:
        pyro.param("one", torch.eye(1), constraint=constraints.corr_cholesky)
        pyro.factor("loss", -((pyro.param("x", torch.tensor(0.0)) - 1) ** 2))

    result = fit(model)
    assert result.std_errors["one"].tolist() == [[0.0]]
    assert float(result.std_errors["x"]) == pytest.approx(0.5**0.5)


def test_a_complex_deterministic_site_is_left_out_of_what_is_derived() -> None:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(1.0, 1.0))
        pyro.deterministic("both", torch.complex(mu, mu))
        pyro.deterministic("twice", 2 * mu)

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    assert list(result.derived) == ["twice"]
    assert [row.name for row in result.derived_rows()] == ["twice"]
