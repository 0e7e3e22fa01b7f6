"""Marginal fits whose log determinant is estimated by probes, held against the exact ones."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.curvature import choice, cost
from hofit.errors import ModelError
from hofit.fitting.result import FitResult
from hofit.model.program import Program
from hofit.objective.marginal import MarginalObjective
from hofit.point import Params
from tests.tolerances import SLOPE, close

FAR = 4.0
"""Standard errors that an estimate may be off; seeds are fixed."""

USERS, ITEMS, ROWS = 60, 40, 600
NOISE = torch.Generator().manual_seed(12)
USER, ITEM = (torch.randint(0, count, (ROWS,), generator=NOISE) for count in (USERS, ITEMS))
X, U, V, W = (torch.randn(count, generator=NOISE, dtype=torch.float64) for count in (ROWS, USERS, ITEMS, USERS))
ETA = (0.4 + W[USER]) * X + U[USER] + 0.7 * V[ITEM]
Y = torch.bernoulli(ETA.sigmoid(), generator=NOISE)


def logistic() -> None:
    beta = pyro.param("beta", torch.zeros(2))
    sd_user = pyro.param("sd_user", torch.tensor(0.8), constraint=constraints.positive)
    sd_item = pyro.param("sd_item", torch.tensor(0.8), constraint=constraints.positive)
    with pyro.plate("users", USERS):
        user = pyro.sample("user", dist.Normal(0.0, sd_user))
    with pyro.plate("items", ITEMS):
        item = pyro.sample("item", dist.Normal(0.0, sd_item))
    with pyro.plate("rows", ROWS):
        pyro.sample("y", dist.Bernoulli(logits=beta[0] + beta[1] * X + user[USER] + item[ITEM]), obs=Y)


def slopes() -> None:
    """Two correlated numbers of each user, beside items."""
    sd = pyro.param("sd", torch.tensor([0.7, 0.3]), constraint=constraints.positive)
    mu = pyro.param("mu", torch.tensor(0.1))
    with pyro.plate("users", USERS):
        user = pyro.sample("user", dist.Normal(torch.zeros(2), sd).to_event(1))
    with pyro.plate("items", ITEMS):
        item = pyro.sample("item", dist.Normal(0.0, 0.5))
    with pyro.plate("rows", ROWS):
        rate = mu + user[USER, 0] + user[USER, 1] * X + item[ITEM]
        pyro.sample("y", dist.Bernoulli(logits=rate), obs=Y)


def section(**more: Any) -> dict[str, Any]:
    return {"type": "marginal", "integrate": {"user": "laplace", "item": "laplace"}, **more}


def fitted(model: Callable[[], None] = logistic, /, more: Any = None, **given: Any) -> FitResult:
    optimizers = [{"params": "*", "optimizer": "trust_region"}]
    config = {"objective": section(**given), "optimizers": optimizers, **(more or {})}
    return hofit.fit(model, config)


def flat(params: Params) -> Tensor:
    return torch.cat([value.reshape(-1) for value in params.values()])


def test_value_and_gradient_of_the_evidence_belong_together() -> None:
    """The gradient against central differences of the loss."""
    for model in (logistic, slopes):
        program = Program(model, {})
        with program.scope():
            program.discover()
            program.integrate({"user": "laplace", "item": "laplace"})
            objective = MarginalObjective(program, ["user", "item"], probes=4)
            start = {name: value + 0.1 for name, value in objective.start().items()}
            gradient, h = objective.at(start).gradient(), 1e-4
            for name, value in start.items():
                ahead, behind = (objective.at({**start, name: value + by}).value for by in (h, -h))
                expected = torch.tensor((ahead - behind) / (2 * h))
                assert close(gradient[name].sum(), expected, 10 * SLOPE), name


@pytest.mark.parametrize("model", [logistic, slopes])
def test_a_fit_is_within_its_stated_error_of_the_exact_one(model: Callable[[], None]) -> None:
    exact, found = fitted(model), fitted(model, logdet="stochastic")
    assert exact.converged and found.converged
    remark = next(remark for remark in found.remarks if remark.startswith("stochastic: log-determinant by 32 probes"))
    assert "standard error" in remark and "no Ritz value denies it" in remark
    facts = found.facts
    assert facts["logdet_probes"] == 32
    assert 0 < abs(found.loss - exact.loss) <= FAR * facts["loss_error"]
    for name in ("beta", "sd_user", "sd_item") if model is logistic else ("sd", "mu"):
        off = (found.values[name] - exact.values[name]) / exact.uncertainty.std_errors[name]
        assert float(off.abs().max()) <= FAR * facts["estimates_error"]
        assert close(found.uncertainty.std_errors[name], exact.uncertainty.std_errors[name], 0.05)
    for name in ("user", "item"):
        assert close(found.uncertainty.std_errors[name], exact.uncertainty.std_errors[name], 0.1)


def test_more_probes_err_less_and_the_same_bits_come_twice() -> None:
    few, again, many = (fitted(logdet="stochastic", probes=count) for count in (8, 8, 128))
    assert few.loss == again.loss and torch.equal(flat(few.params), flat(again.params))
    assert many.facts["loss_error"] < few.facts["loss_error"]
    assert abs(many.loss - few.loss) <= FAR * few.facts["loss_error"]


def test_a_resumed_fit_is_the_same_to_the_bit(tmp_path: Path) -> None:
    whole = fitted(logdet="stochastic", probes=8, more={"stop": {"max_iterations": 6}})
    config = {
        "objective": section(logdet="stochastic", probes=8),
        "optimizers": [{"params": "*", "optimizer": "trust_region"}],
        "stop": {"max_iterations": 2},
    }
    hofit.fit(logistic, config, run_dir=tmp_path / "run")
    resumed = hofit.resume(tmp_path / "run", model=logistic, set=["stop.max_iterations=6"])
    assert resumed.loss == whole.loss
    assert torch.equal(flat(resumed.params), flat(whole.params))


def test_what_is_too_large_for_a_factor_is_refused_with_the_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    for border, clearly in ((8, inf), (8, 0.0)):  # by rows beside a dense border; on its pattern
        monkeypatch.setattr(choice, "BORDER_LIMIT", border)
        monkeypatch.setattr(choice, "FILL_LIMIT", 8)
        monkeypatch.setattr(choice, "WIDE_BORDER", 8)
        monkeypatch.setattr(choice, "SPARSE", 1.0)
        monkeypatch.setattr(cost, "CLEARLY", clearly)
        with pytest.raises(ModelError, match=r"100 numbers.*the most: with `logdet: stochastic` in the objective"):
            fitted()
        assert fitted(logdet="stochastic").converged
