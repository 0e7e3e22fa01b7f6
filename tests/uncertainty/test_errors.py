"""Standard errors, covariances, draws, derived quantities: against closed forms, published values, dense algebra."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import one_hot

import hofit
from hofit.errors import HofitError
from hofit.linear import coupling
from hofit.uncertainty import errors, gaussian

ROOT = Path(__file__).parents[2]
REFERENCE = json.loads((ROOT / "models" / "data" / "reference.json").read_text())
TRUST_REGION = [{"params": "*", "optimizer": "trust_region"}]

PUBLISHED = 1e-3  # relative: what other programs' numerical Hessians are good to
CLOSED_FORM = 1e-6  # relative: a gradient of 1e-6 moves the estimate, and the error with it
SIMULATED = 0.08  # relative, of a variance from 4000 draws: its own error is 0.022


def codes(column: str, levels: str) -> dict[str, Any]:
    return {"column": column, "codes": True, "levels": levels}


COLUMNS: dict[str, tuple[str, dict[str, Any]]] = {
    "sleepstudy": (
        "sleepstudy.csv",
        {"reaction": "Reaction", "days": "Days", "subject": codes("Subject", "n_subjects")},
    ),
    "cbpp": (
        "cbpp.csv",
        {
            "incidence": "incidence",
            "size": "size",
            "period": codes("period", "n_periods"),
            "herd": codes("herd", "n_herds"),
        },
    ),
    "radon": (
        "radon.csv",
        {
            "log_radon": "log_radon",
            "floor": "floor",
            "log_uranium": "log_uranium",
            "county": codes("county", "n_counties"),
        },
    ),
    "penicillin": (
        "penicillin.csv",
        {"diameter": "diameter", "plate": codes("plate", "n_plates"), "sample": codes("sample", "n_samples")},
    ),
    "theophylline": (
        "theoph.csv",
        {"concentration": "conc", "time": "Time", "dose": "Dose", "subject": codes("Subject", "n_subjects")},
    ),
}


@cache
def marginal(name: str, kind: str = "conditional") -> hofit.FitResult:
    """The example with all its latents integrated out."""
    path, columns = COLUMNS[name]
    latents = "*_effect" if name == "penicillin" else "b"
    config = {
        "data": {"path": str(ROOT / "models" / "data" / path), "columns": columns},
        "objective": {"type": "marginal", "integrate": {latents: "laplace"}, "uncertainty": kind},
        "optimizers": TRUST_REGION,
    }
    return hofit.fit(ROOT / "models" / f"{name}.py", config)


def fit(model: Any, objective: Any = "map", arguments: Mapping[str, Any] | None = None) -> hofit.FitResult:
    return hofit.fit(model, {"objective": objective, "optimizers": TRUST_REGION}, data=arguments)


def assert_close(found: Any, expected: Any, relative: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=relative, atol=1e-12)


# published values ----------------------------------------------------------------------------------------------------


def test_sleepstudy_has_the_errors_of_lme4() -> None:
    expected = REFERENCE["sleepstudy"]["se_fixed"]
    assert_close(marginal("sleepstudy").std_errors["beta"], [expected["(Intercept)"], expected["Days"]], PUBLISHED)


def test_cbpp_has_the_errors_of_glmmtmb() -> None:
    result, expected = marginal("cbpp"), REFERENCE["cbpp_laplace"]["se_fixed_then_log_sd"]
    assert_close(result.std_errors["beta"], expected[:4], PUBLISHED)
    log_error = result.std_errors["sd_herd"] / result.values["sd_herd"]
    assert_close(log_error, expected[4], PUBLISHED)
    ends = result.values["sd_herd"] * torch.tensor([-1.959964, 1.959964]).mul(log_error).exp()
    assert_close(torch.stack([result.lower["sd_herd"], result.upper["sd_herd"]]), ends, 1e-6)


def test_radon_has_the_errors_of_the_whole_hessian() -> None:
    expected = REFERENCE["radon"]["se_hessian"]
    assert_close(
        marginal("radon").std_errors["beta"],
        [expected["(Intercept)"], expected["floor"], expected["log_uranium"]],
        PUBLISHED,
    )


def test_penicillin_has_the_error_of_lme4() -> None:
    result = marginal("penicillin")
    assert_close(result.std_errors["intercept"], REFERENCE["penicillin"]["se_fixed"]["(Intercept)"], PUBLISHED)


def test_theophylline_has_the_errors_of_tmb() -> None:
    result, expected = marginal("theophylline"), REFERENCE["theoph_laplace"]["se"]
    assert_close([float(result.std_errors[name]) for name in ("lKe", "lKa", "lCl")], expected[:3], PUBLISHED)
    for name, error in zip(("sd_lKa", "sd_lCl", "sigma"), expected[3:], strict=True):
        assert_close(result.std_errors[name] / result.values[name], error, PUBLISHED)


def test_sleepstudy_has_the_criteria_of_lme4() -> None:
    fit_json = marginal("sleepstudy").fit_json()
    assert fit_json["observations"] == 180
    assert fit_json["log_likelihood"] == pytest.approx(REFERENCE["sleepstudy"]["log_likelihood"], abs=1e-6)
    assert fit_json["aic"] == pytest.approx(1763.9393, abs=1e-3)
    assert fit_json["bic"] == pytest.approx(1783.0971, abs=1e-3)


# random effects ------------------------------------------------------------------------------------------------------


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
    assert_close(result.std_errors["b"].reshape(-1), np.sqrt(inverse.diagonal()), CLOSED_FORM)


def test_conditional_errors_of_cbpp_are_those_of_its_hessian() -> None:
    result = marginal("cbpp")
    rows = np.genfromtxt(ROOT / "models/data/cbpp.csv", delimiter=",", names=True)
    herd = np.unique(rows["herd"], return_inverse=True)[1]
    period = np.unique(rows["period"], return_inverse=True)[1]
    beta, b = result.values["beta"].numpy(), result.values["b"].numpy()
    p = 1 / (1 + np.exp(-(beta[0] + np.where(period > 0, beta[period], 0) + b[herd])))
    curvature = np.bincount(herd, rows["size"] * p * (1 - p)) + float(result.values["sd_herd"]) ** -2
    assert_close(result.std_errors["b"], curvature**-0.5, CLOSED_FORM)
    mode_variance, variance = b.var(), (1 / curvature).mean()
    assert_close(result.uncertainty.shrinkage["b"], variance / (variance + mode_variance), CLOSED_FORM)


def mixed(y: Tensor, x: Tensor, group: Tensor) -> None:
    """A Gaussian mixed model with its scales known."""
    beta = pyro.param("beta", torch.zeros(2))
    with pyro.plate("groups", 6):
        b = pyro.sample("b", dist.Normal(0.0, 0.7))
    pyro.deterministic("total", beta[0] + b)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ beta + b[group], 0.5), obs=y)


@cache
def mixed_data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.stack([torch.ones(40), torch.randn(40, generator=generator, dtype=torch.float64)], 1).double()
    group = torch.arange(40) % 6
    return {"y": torch.randn(40, generator=generator, dtype=torch.float64), "x": x, "group": group}


def mixed_inverse() -> np.ndarray[Any, Any]:
    """The inverse of the Hessian of (beta, b) jointly, Henderson's equations: their covariance, scales being known."""
    x, z = mixed_data()["x"].numpy(), one_hot(mixed_data()["group"], 6).double().numpy()
    design = np.hstack([x, z])
    return np.linalg.inv(design.T @ design / 0.25 + np.diag([0.0] * 2 + [1 / 0.49] * 6))


def mixed_fit(kind: str) -> hofit.FitResult:
    objective = {"type": "marginal", "integrate": {"b": "laplace"}, "uncertainty": kind}
    return fit(mixed, objective, mixed_data())


def test_a_gaussian_mixed_model_has_the_errors_of_generalised_least_squares() -> None:
    x, z = mixed_data()["x"].numpy(), one_hot(mixed_data()["group"], 6).double().numpy()
    covariance = 0.25 * np.eye(40) + 0.49 * z @ z.T
    expected = np.linalg.inv(x.T @ np.linalg.solve(covariance, x))
    result = mixed_fit("conditional")
    assert_close(result.std_errors["beta"], np.sqrt(expected.diagonal()), CLOSED_FORM)
    assert_close(result.covariance("beta"), expected, CLOSED_FORM)


def test_full_uncertainty_is_the_inverse_of_the_joint_hessian_of_a_gaussian_model() -> None:
    result, expected = mixed_fit("full"), mixed_inverse()
    assert_close(result.std_errors["b"], np.sqrt(expected.diagonal()[2:]), CLOSED_FORM)
    assert_close(result.covariance(["beta", "b"]), expected, CLOSED_FORM)
    conditional = mixed_fit("conditional")
    assert_close(conditional.covariance(["b", "beta"]), np.roll(expected, (-2, -2), (0, 1)), CLOSED_FORM)
    assert (conditional.std_errors["b"] < result.std_errors["b"]).all()


def test_a_deterministic_site_of_a_marginal_holds_all_uncertainty() -> None:
    result, inverse = mixed_fit("conditional"), mixed_inverse()
    value, error = result.derived["total"]
    variance = inverse[0, 0] + inverse.diagonal()[2:] + 2 * inverse[0, 2:]
    assert_close(value, result.values["beta"][0] + result.values["b"], 1e-12)
    assert_close(error, np.sqrt(variance), CLOSED_FORM)


@pytest.mark.parametrize("name", ["sleepstudy", "cbpp"])
def test_full_uncertainty_adds_what_the_modes_move_with_the_parameters(name: str) -> None:
    """Against central differences of the mode."""
    result, conditional = marginal(name, "full"), marginal(name)
    covariance = conditional.uncertainty.gaussian
    assert covariance is not None
    outer = covariance.block(torch.arange(len(covariance.held)))
    step, moves = 1e-4, []
    for parameter in covariance.outer.names:
        for k in range(result.params[parameter].numel()):
            ends = []
            for sign in (1, -1):
                moved = {n: result.params[n].clone() for n in covariance.outer.names}
                moved[parameter].view(-1)[k] += sign * step
                ends.append(modes_at(name, moved))
            moves.append((ends[0] - ends[1]) / (2 * step))
    sensitivity = torch.stack(moves)  # (p, d)
    expected = conditional.std_errors["b"].reshape(-1) ** 2 + ((outer @ sensitivity) * sensitivity).sum(0)
    assert_close(result.std_errors["b"].reshape(-1), expected.sqrt(), 1e-5)


def modes_at(name: str, params: dict[str, Tensor]) -> Tensor:
    """The mode of b, found with the parameters fixed."""
    path, columns = COLUMNS[name]
    transforms = marginal(name).uncertainty.transforms
    config = {
        "data": {"path": str(ROOT / "models" / "data" / path), "columns": columns},
        "fixed": {n: transforms[n](value).tolist() for n, value in params.items()},
        "optimizers": TRUST_REGION,
    }
    return hofit.fit(ROOT / "models" / f"{name}.py", config).values["b"].reshape(-1)


# without integrals ---------------------------------------------------------------------------------------------------


def regression(x: Tensor, y: Tensor) -> None:
    beta = pyro.param("beta", torch.zeros(3))
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    pyro.deterministic("ratio", beta[1] / beta[2])
    pyro.deterministic("both", torch.stack([beta[0], sigma**2]))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def regression_data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(50, generator=generator, dtype=torch.float64)
    return {"x": x, "y": x @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.3 * noise}


def test_linear_regression_has_the_textbook_errors() -> None:
    """σ² (XᵀX)⁻¹, and σ/√(2n) for σ by maximum likelihood."""
    data = regression_data()
    result = fit(regression, arguments=data)
    sigma = float(result.values["sigma"])
    covariance = sigma**2 * np.linalg.inv(data["x"].numpy().T @ data["x"].numpy())
    assert_close(result.std_errors["beta"], np.sqrt(covariance.diagonal()), CLOSED_FORM)
    assert_close(result.std_errors["sigma"], sigma / 100**0.5, CLOSED_FORM)
    assert_close(result.covariance("beta"), covariance, CLOSED_FORM)
    joint = result.covariance(["sigma", "beta"])
    assert_close(joint[1:, 1:], covariance, CLOSED_FORM)
    assert joint[0, 1:].abs().max() < 1e-8
    beta = result.values["beta"].numpy()
    slope = np.array([0, 1 / beta[2], -beta[1] / beta[2] ** 2])
    assert_close(result.derived["ratio"][1], np.sqrt(slope @ covariance @ slope), CLOSED_FORM)
    assert_close(result.derived["both"][1], [covariance[0, 0] ** 0.5, 2 * sigma * sigma / 10], CLOSED_FORM)
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
    assert_close(result.std_errors["mu"], (4 + 0.25) ** -0.5, CLOSED_FORM)
    evidence = dist.MultivariateNormal(torch.zeros(4), torch.eye(4) + 4.0).log_prob(y)
    fit_json = result.fit_json()
    assert fit_json["log_evidence"] == pytest.approx(float(evidence), abs=1e-9)
    assert fit_json["log_likelihood"] is None and fit_json["aic"] is None and fit_json["bic"] is None


def multinomial() -> None:
    p = pyro.param("p", torch.ones(3) / 3, constraint=constraints.simplex)
    pyro.sample("x", dist.Multinomial(40, p), obs=torch.tensor([20.0, 12.0, 8.0]))


def test_a_simplex_has_the_errors_of_the_multinomial() -> None:
    """√(p (1 − p) / n), covariances −p q / n; no interval."""
    result = fit(multinomial)
    p = np.array([0.5, 0.3, 0.2])
    expected = (np.diag(p) - p[:, None] * p) / 40
    assert_close(result.std_errors["p"], np.sqrt(expected.diagonal()), CLOSED_FORM)
    assert_close(result.covariance("p"), expected, CLOSED_FORM)
    assert {row["lower"] for row in result.estimates()} == {None}


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


# structures ----------------------------------------------------------------------------------------------------------


def hierarchy(y: Tensor) -> None:
    """An arrowhead: rows of two, a border of two."""
    mean = pyro.sample("mean", dist.Normal(torch.zeros(2), 3.0).to_event(1))
    with pyro.plate("groups", len(y)):
        b = pyro.sample("b", dist.Normal(mean, 1.0).to_event(1))
        pyro.sample("y", dist.Poisson(b.exp()).to_event(1), obs=y)


def counts(groups: int) -> dict[str, Tensor]:
    return {"y": torch.poisson(torch.full((groups, 2), 3.0), generator=torch.Generator().manual_seed(4))}


def test_an_arrowhead_has_the_errors_of_the_dense_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    data = counts(60)
    plain = fit(hierarchy, "map_unconstrained", data)
    for module in (coupling, gaussian):
        monkeypatch.setattr(module, "MEMORY_BUDGET", 5000)
    result = fit(hierarchy, "map_unconstrained", data)

    def loss(flat: Tensor) -> Tensor:
        mean, b = flat[:2], flat[2:].reshape(60, 2)
        prior = dist.Normal(0.0, 3.0).log_prob(mean).sum() + dist.Normal(mean, 1.0).log_prob(b).sum()
        total: Tensor = prior + dist.Poisson(b.exp()).log_prob(data["y"]).sum()
        return -total

    flat = torch.cat([result.params["mean"], result.params["b"].reshape(-1)])
    inverse = torch.autograd.functional.hessian(loss, flat).inverse()
    for one in (plain, result):
        assert_close(one.std_errors["mean"], inverse.diagonal()[:2].sqrt(), CLOSED_FORM)
        assert_close(one.std_errors["b"].reshape(-1), inverse.diagonal()[2:].sqrt(), CLOSED_FORM)
        assert_close(one.covariance(["mean", "b"]), inverse, CLOSED_FORM)


def test_without_a_structure_there_are_no_errors_and_the_names_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hofit.curvature.structure.BORDER_LIMIT", 1)
    result = fit(regression, arguments=regression_data())
    assert result.converged and not result.std_errors
    assert any("standard errors: none for beta, sigma" in remark for remark in result.remarks)
    with pytest.raises(HofitError, match="none for beta, sigma"):
        result.covariance("beta")


def test_a_deterministic_site_of_too_many_numbers_has_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "DERIVED_LIMIT", 1)
    result = fit(regression, arguments=regression_data())
    assert torch.isfinite(result.derived["ratio"][1]) and torch.isnan(result.derived["both"][1]).all()
    assert any("none for both: 2 numbers" in remark for remark in result.remarks)


# what has no error ---------------------------------------------------------------------------------------------------


def flat_sum() -> None:
    a, b = pyro.param("a", torch.tensor(1.0)), pyro.param("b", torch.tensor([2.0, 0.0]))
    pyro.deterministic("known", a + b[0])
    pyro.deterministic("unknown", a - b[0])
    pyro.factor("loss", -((a + b[0] - 5) ** 2) - 2 * (b[1] - 1) ** 2)


def test_a_flat_direction_leaves_the_others_their_errors() -> None:
    result = fit(flat_sum)
    assert result.status == "flat_direction"
    errors = {(row["name"], row["index"]): row["std_error"] for row in result.estimates()}
    assert errors["a", ""] is None and errors["b", "0"] is None
    assert errors["b", "1"] == pytest.approx(0.5)
    assert float(result.derived["known"][1]) == pytest.approx(0.5**0.5)  # what does not move along the direction
    assert torch.isnan(result.derived["unknown"][1])
    covariance = result.covariance(["a", "b"])
    assert torch.isnan(covariance[:2]).all() and torch.isnan(covariance[2, 0]) and covariance[2, 2] > 0
    drawn = hofit.draws(result, 4000)
    assert_close((drawn["a"] + drawn["b"][:, 0]).var(), 0.5, SIMULATED)


def test_many_unused_numbers_leave_the_others_their_errors() -> None:
    def model() -> None:
        x = pyro.param("x", torch.zeros(40))
        pyro.factor("loss", -(x[:3] ** 2).sum() - x[1] * x[2] / 2)

    result = fit(model)
    expected = np.linalg.inv(np.array([[2, 0.5], [0.5, 2]]))[0, 0] ** 0.5
    assert_close(result.std_errors["x"][:3], [0.5**0.5, expected, expected], CLOSED_FORM)
    assert torch.isnan(result.std_errors["x"][3:]).all()


def test_a_value_on_the_boundary_has_no_error_and_the_others_are_held_with_it() -> None:
    def model() -> None:
        tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
        mu = pyro.param("mu", torch.tensor(0.5))
        pyro.factor("loss", -(tau**2) - tau * mu**2 - 2 * (mu - 1) ** 2)

    result = fit(model)
    assert result.status == "converged_on_boundary"
    errors = {row["name"]: row["std_error"] for row in result.estimates()}
    assert errors["tau"] is None and errors["mu"] == pytest.approx(0.5, rel=1e-3)


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


# draws ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["marginal", "map"])
def test_draws_have_the_covariance_of_the_gaussian(kind: str) -> None:
    names = ["beta", "b"] if kind == "marginal" else ["mean", "b"]
    result = mixed_fit("full") if kind == "marginal" else fit(hierarchy, "map_unconstrained", counts(4))
    state = torch.get_rng_state()
    drawn = hofit.draws(result, 4000, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    flat = torch.cat([drawn[name].reshape(4000, -1) for name in names], 1)
    covariance = result.covariance(names)
    half = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(half, flat.T - flat.mean(0)[:, None], upper=False)
    assert (white @ white.T / 4000 - torch.eye(len(white))).abs().max() < SIMULATED
    here = torch.cat([result.values[name].reshape(-1) for name in names])
    assert ((flat.mean(0) - here) / covariance.diagonal().sqrt()).abs().max() < SIMULATED
    again = hofit.draws(result, 4000, seed=3)
    assert all(torch.equal(drawn[name], again[name]) for name in names)
    assert not torch.equal(drawn["b"], hofit.draws(result, 4000, seed=4)["b"])


def test_draws_are_in_the_support_and_hold_fixed_sites() -> None:
    config = {"optimizers": TRUST_REGION, "fixed": {"sigma": 0.3}}
    result = hofit.fit(regression, config, data=regression_data())
    drawn = hofit.draws(result, 7)
    assert drawn["beta"].shape == (7, 3) and drawn["sigma"].tolist() == [0.3] * 7
    simplex = hofit.draws(fit(multinomial), 9)["p"]
    assert simplex.shape == (9, 3) and torch.allclose(simplex.sum(-1), torch.ones(9))


def test_an_unknown_name_has_no_covariance() -> None:
    with pytest.raises(HofitError, match=r"no covariance of 'gamma': there are beta, sigma"):
        fit(regression, arguments=regression_data()).covariance("gamma")


# files ---------------------------------------------------------------------------------------------------------------


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
    assert table[0] == "name,index,estimate,std_error" and len(table) == 7
    assert table[1].split(",")[:2] == ["total", "0"] and float(table[1].split(",")[3]) > 0


# discrete latents ----------------------------------------------------------------------------------------------------


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


def test_a_complex_deterministic_site_is_left_out_of_what_is_derived() -> None:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(1.0, 1.0))
        pyro.deterministic("both", torch.complex(mu, mu))
        pyro.deterministic("twice", 2 * mu)

    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "trust_region"}]})
    assert list(result.derived) == ["twice"]
    assert [row.name for row in result.derived_rows()] == ["twice"]
