"""Covariances as people read them, against lme4's VarCorr, another parametrisation, and closed forms."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.record import Quantity
from tests.tolerances import ESTIMATE, MODE
from tests.uncertainty.fits import COLUMNS, REFERENCE, ROOT, TRUST_REGION, assert_close, fit, marginal

NORMAL = 1.959963984540054


def sleepstudy(reaction: Tensor, days: Tensor, subject: Tensor, n_subjects: int) -> None:
    """models/sleepstudy.py with one Cholesky factor in the place of two deviations and a correlation."""
    beta = pyro.param("beta", torch.tensor([250.0, 10.0]))
    factor = pyro.param("L", torch.diag(torch.tensor([25.0, 5.0])), constraint=constraints.lower_cholesky)
    sigma = pyro.param("sigma", torch.tensor(30.0), constraint=constraints.positive)
    with pyro.plate("subjects", n_subjects):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=factor))
    line = beta + b[subject]
    with pyro.plate("observations", len(reaction)):
        pyro.sample("reaction", dist.Normal(line[:, 0] + line[:, 1] * days, sigma), obs=reaction)


@cache
def by_factor() -> hofit.FitResult:
    path, columns = COLUMNS["sleepstudy"]
    rows = np.genfromtxt(ROOT / "models" / "data" / path, delimiter=",", names=True)
    data = {
        "reaction": torch.tensor(rows[columns["reaction"]]),
        "days": torch.tensor(rows[columns["days"]]),
        "subject": torch.tensor(np.unique(rows["Subject"], return_inverse=True)[1]),
        "n_subjects": 18,
    }
    return fit(sleepstudy, {"type": "marginal", "integrate": {"b": "laplace"}}, data)


@cache
def numbers() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [-0.3, 0.2, 2.0]], dtype=torch.float64)
    return torch.randn(100, 3, generator=generator, dtype=torch.float64) @ mixing.T


def by_correlation(y: Tensor) -> None:
    root = pyro.param("R", torch.eye(3), constraint=constraints.corr_cholesky)
    sd = pyro.param("sd", torch.ones(3), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), scale_tril=sd[:, None] * root), obs=y)


def by_precision(y: Tensor) -> None:
    precision = pyro.param("P", torch.eye(3), constraint=constraints.positive_definite)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), precision_matrix=precision), obs=y)


def named(result: hofit.FitResult) -> dict[str, Quantity]:
    return {one.name: one for one in result.quantities}


def columns_of(one: Quantity) -> list[float]:
    found = [one.estimate, one.std_error, one.lower, one.upper]
    return [number for number in found if number is not None]


def test_a_cholesky_factor_is_told_as_lme4_tells_it() -> None:
    found, expected = named(by_factor()), REFERENCE["sleepstudy"]
    assert list(found) == ["L: sd[0]", "L: sd[1]", "L: corr[0,1]"] and by_factor().uncertainty.restated == ["L"]
    for name, key in zip(found, ("sd_intercept", "sd_days", "correlation"), strict=True):
        assert found[name].estimate == pytest.approx(expected[key], rel=ESTIMATE)


def test_errors_and_intervals_are_those_of_a_fit_that_has_deviations_and_correlation_as_parameters() -> None:
    """Its intervals are mapped from log sd and, of ρ on (−1, 1), from twice Fisher's z: the same scales."""
    rows = {row.name: row for row in marginal("sleepstudy").estimate_rows()}
    for one, name in zip(by_factor().quantities, ("sd_intercept", "sd_days", "correlation"), strict=True):
        row = rows[name]
        assert_close(columns_of(one), [row.estimate, row.std_error, row.lower, row.upper], ESTIMATE)


def test_what_is_a_parameter_already_is_not_said_twice_and_slopes_have_no_intraclass_correlation() -> None:
    assert marginal("sleepstudy").quantities == []


def test_correlations_of_normal_data_have_fisher_s_error() -> None:
    """By maximum likelihood: r of the data, (1 − r²)/√n, and tanh(atanh r ± 1.96/√n)."""
    result, n = fit(by_correlation, arguments={"y": numbers()}), len(numbers())
    assert list(named(result)) == ["y: corr[0,1]", "y: corr[0,2]", "y: corr[1,2]"]
    second = numbers().T @ numbers() / n
    for (i, j), one in zip(((0, 1), (0, 2), (1, 2)), result.quantities, strict=True):
        r = float(second[i, j] / (second[i, i] * second[j, j]).sqrt())
        ends = np.tanh(np.arctanh(r) + np.array([-NORMAL, NORMAL]) / n**0.5)
        assert_close(columns_of(one), [r, (1 - r**2) / n**0.5, *ends], MODE)


def test_a_precision_is_told_by_the_covariance_of_its_site() -> None:
    """Also sd: its own over √(2n), on the logarithmic scale."""
    result, n = fit(by_precision, arguments={"y": numbers()}), len(numbers())
    assert result.uncertainty.restated == [] and len(result.quantities) == 6
    sd = numbers().square().mean(0).sqrt().tolist()
    for one, value in zip(result.quantities, sd, strict=False):
        ends = value * np.exp(np.array([-NORMAL, NORMAL]) / (2 * n) ** 0.5)
        assert_close(columns_of(one), [value, value / (2 * n) ** 0.5, *ends], MODE)


def test_intraclass_correlations_are_shares_of_the_variance() -> None:
    """lme4's deviations give the shares; their errors are by the sites' own covariance and the shares' slopes."""
    result, expected = marginal("penicillin"), REFERENCE["penicillin"]
    sds = ["sd_plate", "sd_sample", "sigma"]
    variances = np.array([float(result.values[name]) ** 2 for name in sds])
    covariance, total = result.covariance(sds).numpy(), variances.sum()
    for place, (name, one) in enumerate(zip(("plate_effect", "sample_effect"), result.quantities, strict=True)):
        assert one.name == f"{name}: icc" and one.estimate is not None and one.std_error is not None
        share = variances[place] / total
        slope = 2 * np.sqrt(variances) * ((np.arange(3) == place) - share) / total
        error = np.sqrt(slope @ covariance @ slope)
        assert_close([one.estimate, one.std_error], [share, error], MODE)
        half = NORMAL * error / (share * (1 - share))
        ends = 1 / (1 + np.exp(-np.log(share / (1 - share)) - np.array([-half, half])))
        assert_close([one.lower, one.upper], ends, MODE)
    assert float(result.values["sigma"]) == pytest.approx(expected["sigma"], rel=ESTIMATE)


def test_slopes_alone_have_no_intraclass_correlation() -> None:
    """The same model has one where x is one in every row: then they are intercepts."""

    def model(y: Tensor, x: Tensor, group: Tensor) -> None:
        tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
        sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("groups", 6):
            b = pyro.sample("b", dist.Normal(0.0, tau))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(b[group] * x, sigma), obs=y)

    generator, group = torch.Generator().manual_seed(0), torch.arange(6).repeat_interleave(5)
    effect, noise = torch.randn(6, generator=generator).double(), torch.randn(30, generator=generator).double()
    for x, names in ((torch.arange(-2.0, 3.0).repeat(6), []), (torch.ones(30), ["b: icc"])):
        data = {"y": effect[group] * x + noise, "x": x, "group": group}
        result = fit(model, {"type": "marginal", "integrate": {"b": "laplace"}}, data)
        assert result.status == "converged" and list(named(result)) == names


def test_a_process_of_one_row_and_a_factor_held_have_none() -> None:
    def model() -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        kernel = scale**2 * torch.exp(-(torch.arange(4.0)[:, None] - torch.arange(4.0)).abs())
        pyro.sample("f", dist.MultivariateNormal(torch.zeros(4), kernel), obs=torch.tensor([0.3, 1.0, -0.5, 0.8]))
        root = pyro.param("root", torch.eye(2), constraint=constraints.lower_cholesky)
        pyro.factor("g", -root.square().sum())

    result = hofit.fit(model, {"optimizers": TRUST_REGION, "fixed": {"root": None}})
    assert result.quantities == [] and result.uncertainty.restated == []


def test_ordered_values_have_plain_intervals_and_a_deterministic_site_too() -> None:
    def model() -> None:
        cuts = pyro.param("cuts", torch.tensor([0.0, 1.0]), constraint=dist.constraints.ordered_vector)
        pyro.sample("x", dist.Normal(cuts, 0.5).to_event(1), obs=torch.tensor([0.25, 1.75]))
        pyro.deterministic("gap", cuts[1] - cuts[0])

    result = fit(model)
    assert_close(result.lower["cuts"], [0.25 - 0.5 * NORMAL, 1.75 - 0.5 * NORMAL], MODE)
    (gap,) = result.derived_rows()
    assert_close([gap.lower, gap.upper], 1.5 + 0.5**0.5 * np.array([-NORMAL, NORMAL]), MODE)


def test_at_the_edge_a_correlation_has_no_error_and_the_deviations_keep_theirs() -> None:
    """L₁₁ runs to zero: the correlation to one; the other entries have curvature two, so the error √½."""

    def model() -> None:
        root = pyro.param("root", 0.5 * torch.eye(2), constraint=constraints.lower_cholesky)
        pyro.factor("f", -((root[0, 0] - 1) ** 2) - (root[1, 0] - 1) ** 2 - root[1, 1])

    result = fit(model)
    first, second, correlation = result.quantities
    assert result.status == "converged_on_boundary"
    for one in (first, second):
        assert_close([one.estimate, one.std_error], [1.0, 0.5**0.5], 1e-3)
    assert correlation.estimate == pytest.approx(1.0, abs=1e-3)
    assert correlation.std_error is correlation.lower is correlation.upper is None


def test_what_is_as_good_as_at_its_edge_or_hardly_known_has_no_error_although_its_place_has_one() -> None:
    """log L₁₁ = −12 has the error one, and Fisher's z of the correlation is 12.7; log L₀₀ = 0 has the error √1000."""

    def model(far: bool) -> None:
        root = pyro.param("root", torch.eye(2), constraint=constraints.lower_cholesky)
        below, last = (1.0, (root[1, 1].log() + 12) ** 2) if far else (0.5, (root[1, 1] - 1) ** 2)
        first = (root[0, 0] - 1) ** 2 if far else 1e-3 * root[0, 0].log() ** 2
        pyro.factor("f", -0.5 * (first + (root[1, 0] - below) ** 2 + last))

    for far, without in ((True, "root: corr[0,1]"), (False, "root: sd[0]")):
        result = fit(model, arguments={"far": far})
        assert result.status == "converged"
        for one in result.quantities:
            assert one.name == without or (one.std_error is not None and one.lower is not None)
        lost = named(result)[without]
        assert lost.std_error is lost.lower is lost.upper is None


@pytest.mark.parametrize("start", [0.3, 0.5])
def test_a_correlation_of_minus_one_has_no_interval_wherever_the_fit_began(start: float) -> None:
    """Slopes fall as intercepts rise: the verdict holds L₁₁ where it ran to, and that place depends on the start."""

    def model(y: Tensor, x: Tensor, group: Tensor) -> None:
        beta = pyro.param("beta", torch.zeros(2))
        root = pyro.param("L", torch.tensor([[start, 0.0], [-0.2, 0.1]]), constraint=constraints.lower_cholesky)
        sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
        pyro.deterministic("rho", root[1, 0] / root[1].norm())
        with pyro.plate("groups", 8):
            b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=root))
        line = beta + b[group]
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(line[:, 0] + line[:, 1] * x, sigma), obs=y)

    generator, group = torch.Generator().manual_seed(3), torch.arange(8).repeat_interleave(5)
    x, effect = torch.arange(5.0, dtype=torch.float64).repeat(8), torch.randn(8, generator=generator).double()
    y = 1 + 0.5 * x + effect[group] * (1 - 0.4 * x) + torch.randn(40, generator=generator).double()
    result = fit(model, {"type": "marginal", "integrate": {"b": "laplace"}}, {"y": y, "x": x, "group": group})
    assert result.status == "converged_on_boundary"
    *deviations, correlation = result.quantities
    assert all(one.std_error is not None for one in deviations)
    (derived,) = result.derived_rows()
    for one in (correlation, derived):
        assert one.estimate == pytest.approx(-1.0, abs=1e-6)
        assert one.std_error is one.lower is one.upper is None


def test_in_single_precision_a_matrix_is_told_once() -> None:
    config = {"optimizers": TRUST_REGION, "dtype": "float32", "stop": {"gradient": 1e-3}}
    result = hofit.fit(by_correlation, config, data={"y": numbers()})
    assert [one.name for one in result.quantities] == ["y: corr[0,1]", "y: corr[0,2]", "y: corr[1,2]"]
