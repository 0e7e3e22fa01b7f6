"""What is found about a fit before its first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints

from hofit.config.source import from_mapping
from hofit.errors import ModelError, StartError
from hofit.run.check import Cost, inner, measured, structures, traced_start
from hofit.run.prepare import prepared
from hofit.run.session import Request, Session, parse

Y = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def model() -> None:
    scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    with pyro.plate("rows", 3):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mean, scale), obs=Y)


@contextmanager
def checked(model: Callable[[], None], **config: object) -> Iterator[Session]:
    mix = [{"params": "mean", "optimizer": "newton"}, {"params": "*", "optimizer": "adam"}]
    request = Request(from_mapping({"optimizers": mix, **config}), model)
    with prepared(request, *parse(request)) as session:
        yield session


def test_the_start_has_the_loss_of_the_model_there() -> None:
    loss = -dist.Normal(0.0, 1.0).log_prob(torch.zeros(3)).sum() - dist.Normal(0.0, 2.0).log_prob(Y).sum()
    with checked(model, init={"strategy": "zero"}) as session:
        start = traced_start(session)
    assert start.value == pytest.approx(float(loss), rel=1e-12)


def test_the_verdict_s_structure_is_found_last() -> None:
    with checked(model) as session:
        names = [name for name, _ in structures(session, traced_start(session))]
    assert names[-1] == "verdict"


def test_the_structure_of_what_is_integrated_is_told_with_what_derivatives_take() -> None:
    mix = [{"params": "*", "optimizer": "trust_region"}]
    with checked(model, optimizers=mix, objective={"type": "marginal", "integrate": {"mean": "laplace"}}) as session:
        start = traced_start(session)
        found, cost = inner(session, start), measured(session, start)
    assert found is not None and found.startswith("diagonal: 3 rows of 1 (mean)")
    assert cost is not None and cost.gradient > 0 and cost.hessian > 0 and cost.warning() is None


def test_where_nothing_is_integrated_nothing_is_told_of_it() -> None:
    with checked(model) as session:
        start = traced_start(session)
        assert inner(session, start) is None and measured(session, start) is None


def test_a_fit_that_would_take_minutes_is_warned_of() -> None:
    warning = Cost(gradient=3.0, hessian=27.0, peak=0).warning()
    assert warning is not None and "10 minutes" in warning


def test_a_start_without_a_finite_loss_is_refused() -> None:
    def nowhere() -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        pyro.factor("hole", mean - math.inf)

    with (
        checked(nowhere, optimizers=[{"params": "*", "optimizer": "adam"}]) as session,
        pytest.raises(StartError, match="not finite at the start"),
    ):
        traced_start(session)


def test_a_loss_that_changes_is_a_model_error() -> None:
    def dice() -> None:
        pyro.factor("noise", pyro.param("mean", torch.tensor(0.0)) + torch.rand(()))

    with (
        checked(dice, optimizers=[{"params": "*", "optimizer": "adam"}]) as session,
        pytest.raises(ModelError, match="the loss is random"),
    ):
        traced_start(session)
