"""A model that computes in float32 inside a fit in float64 is told where."""

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
from hofit.errors import ModelError
from hofit.model.program import Program

X = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
Y = X @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 0.3
MODULE = torch.nn.Linear(3, 1).float().requires_grad_(False)


def regression(mean: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    def model() -> None:
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 10.0).to_event(1))
        sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("rows", len(Y)):
            pyro.sample("y", dist.Normal(mean(b), sd), obs=Y)

    return model


NARROW: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda b: X.float() @ b.float(),
    "cast and back": lambda b: (X @ b).float().double(),
    "half": lambda b: (X @ b).half().double(),
    "module": lambda b: MODULE((X * b).float())[:, 0],
    "constant that narrows a scalar": lambda b: X[:, 0].float() * b.sum(),
}


def said(model: Callable[[], None]) -> str | None:
    program = Program(model, {})
    with program.scope():
        program.discover()
        return program.lower_precision()


@pytest.mark.parametrize("mean", NARROW.values(), ids=NARROW)
def test_the_site_the_dtype_and_the_line_are_named(mean: Callable[[Tensor], Tensor]) -> None:
    found = said(regression(mean))
    assert found is not None and found.startswith("precision: at site 'y' the model computes in float")
    assert "though the fit is in float64" in found and "test_precision.py:" in found and "lambda b:" in found


@pytest.mark.parametrize("mean", [lambda b: X @ b, lambda b: X.float().double() @ b])
def test_a_model_in_the_fit_s_precision_is_not(mean: Any) -> None:
    assert said(regression(mean)) is None


def test_a_fit_that_ends_for_it_says_so_and_one_without_does_not() -> None:
    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    result = hofit.fit(regression(NARROW["cast"]), config)
    assert result.status != "converged" or any("rounding" in remark for remark in result.remarks)
    assert any("at site 'y' the model computes in float32" in remark for remark in result.remarks)
    cut = hofit.fit(regression(lambda b: X @ b), {**config, "stop": {"max_iterations": 1}})
    assert cut.status == "max_iterations" and not any("computes in" in remark for remark in cut.remarks)


def test_a_random_loss_in_a_lower_precision_is_told_both() -> None:
    def model() -> None:
        regression(lambda b: X.float() @ b.float() + 1e-3 * torch.rand(()))()

    with pytest.raises(ModelError, match=r"the loss is random(.|\n)*computes in float32"):
        hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "adam"}]})
