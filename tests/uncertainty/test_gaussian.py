"""The Gaussian at the mode, what it leaves out and its draws: against dense algebra and closed forms."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.errors import HofitError
from hofit.linear import coupling
from hofit.uncertainty import gaussian
from tests.tolerances import MODE
from tests.uncertainty.fits import (
    COLUMNS,
    ROOT,
    SIMULATED,
    TRUST_REGION,
    assert_close,
    fit,
    marginal,
    mixed_fit,
    mixed_inverse,
    multinomial,
    regression,
    regression_data,
)


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
        assert_close(one.std_errors["mean"], inverse.diagonal()[:2].sqrt(), MODE)
        assert_close(one.std_errors["b"].reshape(-1), inverse.diagonal()[2:].sqrt(), MODE)
        assert_close(one.covariance(["mean", "b"]), inverse, MODE)


def test_without_a_structure_there_are_no_errors_and_the_names_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hofit.curvature.choice.COLUMNS_LIMIT", 1)
    result = fit(regression, arguments=regression_data())
    assert result.converged and not result.std_errors
    assert any("standard errors: none for beta, sigma" in remark for remark in result.remarks)
    with pytest.raises(HofitError, match="none for beta, sigma"):
        result.covariance("beta")


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
    assert_close(result.std_errors["x"][:3], [0.5**0.5, expected, expected], MODE)
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


def test_full_uncertainty_is_the_inverse_of_the_joint_hessian_of_a_gaussian_model() -> None:
    result, expected = mixed_fit("full"), mixed_inverse()
    assert_close(result.std_errors["b"], np.sqrt(expected.diagonal()[2:]), MODE)
    assert_close(result.covariance(["beta", "b"]), expected, MODE)
    conditional = mixed_fit("conditional")
    assert_close(conditional.covariance(["b", "beta"]), np.roll(expected, (-2, -2), (0, 1)), MODE)
    assert (conditional.std_errors["b"] < result.std_errors["b"]).all()


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
