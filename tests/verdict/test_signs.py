"""Which signs the curvature has, in small models and beyond the size of a dense spectrum."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import hofit
from hofit.linear.dense import Dense
from hofit.verdict import signs
from hofit.verdict.signs import Signs
from tests.verdict.problems import NEWTON, check


def test_the_verdict_of_a_large_model_rests_on_its_structure() -> None:
    def model() -> None:
        with pyro.plate("rows", 600):
            pyro.sample("x", dist.Normal(torch.linspace(0, 1, 600), 1.0))

    result = hofit.fit(model, {"optimizers": NEWTON, "init": {"strategy": "zero"}})
    assert result.status == "converged" and check(result, "curvature") is True
    assert result.remarks == []


def test_a_large_model_at_a_maximum_is_not_converged_and_on_its_way_to_infinity_on_the_boundary() -> None:
    def maximum() -> None:
        x = pyro.param("x", torch.zeros(600))
        pyro.factor("f", (x**2 - x**4 / 4).sum())

    def separated(X: Tensor, y: Tensor) -> None:
        b = pyro.param("b", torch.zeros(600))
        with pyro.plate("n", len(X)):
            pyro.sample("y", dist.Bernoulli(logits=X @ b), obs=y)

    adam = [{"params": "*", "optimizer": "adam", "lr": 1.0}]
    assert not hofit.fit(maximum, {"optimizers": adam, "stop": {"max_iterations": 5}}).converged
    X = torch.randn(100, 600, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] > 0).double()
    result = hofit.fit(separated, {"optimizers": adam, "stop": {"max_iterations": 60}}, X=X, y=y)
    assert result.status in ("converged_on_boundary", "max_iterations", "no_progress")
    assert not result.converged or any("b[0] → ∞" in remark for remark in result.remarks)


INDEFINITE = torch.diag(torch.tensor([2.0, -1.0, 0.0, 3.0], dtype=torch.float64))
TURN = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]


@pytest.mark.parametrize("limit", [500, 1])
def test_signs_are_those_of_the_matrix_in_whatever_units(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the whole spectrum, and beyond the limit by factorisations; Sylvester: units change no sign."""
    monkeypatch.setattr(signs, "DENSE_LIMIT", limit)
    hessian = TURN @ INDEFINITE @ TURN.T
    for unit in (torch.ones(4), torch.tensor([1e-6, 1.0, 1e3, 1e8])):
        found = Signs(Dense(hessian * unit[:, None] * unit))
        assert (found.negative.shape, found.zero.shape) == ((4, 1), (4, 1))
        along, curved = found.zero[:, 0] * unit, hessian @ (found.zero[:, 0] * unit)
        assert float(curved.norm() / along.norm()) < 1e-10
        assert found.check().ok is False and found.lowest < 0


@pytest.mark.parametrize("limit", [500, 1])
def test_a_newton_step_leaves_directions_of_no_curvature_alone(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the pseudo-inverse, in units where the diagonal is one already."""
    monkeypatch.setattr(signs, "DENSE_LIMIT", limit)
    hessian = torch.eye(3) + torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    gradient = hessian @ torch.tensor([0.3, -2.0, 5.0])
    expected = -torch.linalg.pinv(hessian) @ gradient
    torch.testing.assert_close(Signs(Dense(hessian)).newton_step(gradient), expected, rtol=1e-12, atol=1e-12)


def test_a_curvature_that_the_loss_cannot_show_is_faint() -> None:
    found = Signs(Dense(torch.diag(torch.tensor([1e-18, 1.0]))))
    (direction,) = found.faint(torch.zeros(2), 1e-14).T
    assert direction[0] != 0.0 and direction[1] == 0.0
    assert found.faint(torch.tensor([1e5, 0.0]), 1e-14).shape == (2, 0)
