"""Many fits at once are the fits one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.errors import HofitError
from hofit.fitting.many import _learned
from hofit.objective.stacked import StackedEvidence

SUBJECTS, DAYS = 12, 8
DAY = torch.arange(float(DAYS)).repeat(SUBJECTS).double() / 4 - 1
SUBJECT = torch.arange(SUBJECTS).repeat_interleave(DAYS)
NEWTON = [{"params": "*", "optimizer": "trust_region"}]
LAPLACE = {"type": "marginal", "integrate": {"b": "laplace"}}


def mixed(y: Tensor, day: Tensor, subject: Tensor, subjects: int) -> None:
    beta = pyro.param("beta", torch.zeros(2))
    sd = pyro.param("sd", torch.ones(2), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)
    pyro.deterministic("ratio", sd[0] / sigma)
    with pyro.plate("subjects", subjects):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), sd).to_event(1))
    line = beta + b[subject]
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(line[:, 0] + line[:, 1] * day, sigma), obs=y)


def counts(y: Tensor, day: Tensor, subject: Tensor, subjects: int) -> None:
    rate = pyro.param("rate", torch.zeros(()))
    sd = pyro.param("sd", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("subjects", subjects):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((rate + b[subject] + 0.2 * day).exp()), obs=y)


def beside_a_border(y: Tensor, day: Tensor, subject: Tensor, subjects: int) -> None:
    beta = pyro.sample("beta", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sd = pyro.param("sd", torch.tensor(0.5), constraint=constraints.positive)
    with pyro.plate("subjects", subjects):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Poisson((beta[0] + b[subject] + beta[1] * day).exp()), obs=y)


def logistic(x: Tensor, y: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 3.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=intercept + slope * x), obs=y)


def mixed_data(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    found = []
    for _ in range(count):
        b = torch.randn(SUBJECTS, 2, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.7])
        noise = 0.5 * torch.randn(len(DAY), generator=generator, dtype=torch.float64)
        found.append({"y": 1.0 + b[SUBJECT, 0] + (0.5 + b[SUBJECT, 1]) * DAY + noise})
    return found


def count_data(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(6)
    found = []
    for _ in range(count):
        b = 0.8 * torch.randn(SUBJECTS, generator=generator, dtype=torch.float64)
        found.append({"y": torch.poisson((0.7 + b[SUBJECT] + 0.2 * DAY).exp(), generator=generator)})
    return found


def logistic_data(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(7)
    found = []
    for _ in range(count):
        x = torch.randn(60, generator=generator, dtype=torch.float64)
        found.append({"x": x, "y": torch.bernoulli(torch.sigmoid(x - 0.5), generator=generator)})
    return found


COMMON = {"day": DAY, "subject": SUBJECT, "subjects": SUBJECTS}
CASES: dict[str, tuple[Callable[..., None], dict[str, Any], list[dict[str, Any]], dict[str, Any]]] = {
    "a mixed model": (mixed, {"optimizers": NEWTON, "objective": LAPLACE}, mixed_data(6), COMMON),
    "counts": (counts, {"optimizers": NEWTON, "objective": LAPLACE}, count_data(6), COMMON),
    "beside a border": (
        beside_a_border,
        {"optimizers": NEWTON, "objective": {**LAPLACE, "integrate": {"b": "laplace", "beta": "laplace"}}},
        count_data(4),
        COMMON,
    ),
    "a joint mode": (logistic, {"optimizers": NEWTON}, logistic_data(6), {}),
    "with the Jacobian": (logistic, {"optimizers": NEWTON, "objective": "map_unconstrained"}, logistic_data(4), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_is_its_own_fit(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, config, data, common = CASES[case]
    alone: list[int] = []
    monkeypatch.setattr("hofit.run.many.run_fit", lambda *given: alone.append(1))
    together = hofit.fit_many(model, config, iter(data), **common)
    assert alone == []
    for arguments, found in zip(data, together, strict=True):
        own = hofit.fit(model, config, data=arguments, **common)
        assert found.status == own.status == "converged" and found.objective == own.objective
        assert found.loss == pytest.approx(own.loss, rel=1e-11)
        assert found.log_likelihood == pytest.approx(own.log_likelihood) and found.aic == pytest.approx(own.aic)
        assert found.values.keys() == own.values.keys() and found.std_errors.keys() == own.std_errors.keys()
        for name, value in own.values.items():
            assert torch.allclose(found.values[name], value, rtol=1e-9, atol=1e-8)
        for name, error in own.std_errors.items():
            assert torch.allclose(found.std_errors[name], error, rtol=1e-6)
            assert torch.allclose(found.upper[name], own.upper[name], rtol=1e-6, atol=1e-7)
        for name, (value, error) in own.derived.items():
            assert torch.allclose(found.derived[name][0], value) and torch.allclose(found.derived[name][1], error)


def test_what_is_not_alike_and_what_is_not_plain_is_fitted_alone() -> None:
    data = logistic_data(5)
    data[2] = {"x": data[2]["x"][:40], "y": data[2]["y"][:40]}

    def unregularised(x: Tensor, y: Tensor) -> None:
        slope = pyro.param("slope", torch.zeros(()))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(logits=slope * x), obs=y)

    data[3] = {"x": data[3]["x"], "y": (data[3]["x"] > 0).double()}  # separated: the slope runs to infinity
    found = hofit.fit_many(unregularised, {"optimizers": NEWTON}, data)
    assert [one.status for one in found] == ["converged"] * 3 + ["converged_on_boundary"] + ["converged"]
    for arguments, one in zip(data, found, strict=True):
        own = hofit.fit(unregularised, {"optimizers": NEWTON}, data=arguments)
        assert own.status == one.status and own.loss == pytest.approx(one.loss, rel=1e-9, abs=1e-9)


def reads_the_data(x: Tensor, y: Tensor) -> None:
    logistic(x - float(x.mean()), y)


@pytest.mark.parametrize("model", [reads_the_data, logistic])
@pytest.mark.parametrize("optimizer", ["lbfgs", "newton_cg"])
def test_any_model_and_any_optimizer(model: Callable[..., None], optimizer: str) -> None:
    data, config = logistic_data(4), {"optimizers": [{"params": "*", "optimizer": optimizer}]}
    for arguments, one in zip(data, hofit.fit_many(model, config, data), strict=True):
        own = hofit.fit(model, config, data=arguments)
        assert one.status == own.status and one.loss == pytest.approx(own.loss, rel=1e-11)


def test_a_wrong_data_set_is_named_by_its_number() -> None:
    data = logistic_data(4)
    data[2] = {"x": data[2]["x"]}
    with pytest.raises(HofitError, match="data set 2"):
        hofit.fit_many(logistic, {"optimizers": NEWTON}, data)
    assert hofit.fit_many(logistic, {"optimizers": NEWTON}, []) == []


def test_the_parameters_of_the_first_do_not_leak_into_the_others() -> None:
    data = mixed_data(4)
    config = {"optimizers": NEWTON, "objective": LAPLACE}
    forward = hofit.fit_many(mixed, config, data, **COMMON)
    backward = hofit.fit_many(mixed, config, data[::-1], **COMMON)[::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-11)
        assert torch.allclose(one.values["b"], other.values["b"], atol=1e-7)


def test_a_hessian_is_computed_only_near_a_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    hessian, gradient = StackedEvidence.hessian, StackedEvidence.gradient
    hessians: list[int] = []
    gradients: list[int] = []

    def noted(self: StackedEvidence) -> tuple[Tensor, Tensor]:
        hessians.append(len(self.point.loss))
        return hessian(self)

    def noted_gradient(self: StackedEvidence) -> Tensor:
        gradients.append(len(self.point.loss))
        found: Tensor = gradient.fget(self)  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(StackedEvidence, "hessian", noted)
    monkeypatch.setattr(StackedEvidence, "gradient", property(noted_gradient))
    hofit.fit_many(mixed, {"optimizers": NEWTON, "objective": LAPLACE}, mixed_data(6), **COMMON)
    assert sum(hessians) <= 4 * 6 and 2 * sum(hessians) < sum(gradients)  # at the start, and at the last steps


def test_a_learned_hessian_gives_the_change_of_the_gradient() -> None:
    """After steps along a basis it is that of a quadratic (Nocedal & Wright 2006, theorem 6.1)."""
    generator = torch.Generator().manual_seed(8)
    root = torch.randn(2, 4, 4, generator=generator, dtype=torch.float64)
    true = root + root.mT
    found = torch.eye(4).expand(2, 4, 4).double()
    for step in torch.eye(4).double():
        along = step.expand(2, 4)
        found = _learned(found, along, torch.einsum("bij,bj->bi", true, along))
    assert torch.allclose(found, true)
    assert torch.equal(_learned(true, torch.zeros(2, 4).double(), torch.zeros(2, 4).double()), true)
