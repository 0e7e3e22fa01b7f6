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
from hofit.run.check import Check, CheckedSite, Start
from hofit.run.session import Request, parse, prepared

Y = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)


def model() -> None:
    scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
    with pyro.plate("rows", 3):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mean, scale), obs=Y)


@contextmanager
def checked(model: Callable[[], None], **config: object) -> Iterator[Check]:
    mix = [{"params": "mean", "optimizer": "newton"}, {"params": "*", "optimizer": "adam"}]
    request = Request(from_mapping({"optimizers": mix, **config}), model)
    with prepared(request, *parse(request)) as session:
        yield Check(session)


def test_every_site_is_described_with_its_rows_and_its_optimizer() -> None:
    with checked(model, fixed={"scale": None}, optimizers=[{"params": "mean", "optimizer": "newton"}]) as check:
        assert check.sites() == [
            CheckedSite("scale", "fixed", (), "positive", (), 1, 1, None),
            CheckedSite("mean", "latent", (3,), "real", (("rows", 3),), 3, 1, "newton"),
        ]


def test_the_start_has_the_loss_of_the_model_there() -> None:
    loss = -dist.Normal(0.0, 1.0).log_prob(torch.zeros(3)).sum() - dist.Normal(0.0, 2.0).log_prob(Y).sum()
    with checked(model, init={"strategy": "zero"}) as check:
        start = check.start()
    assert (start.unknowns, start.objective) == (4, "map") and start.loss == pytest.approx(float(loss), rel=1e-12)


def test_the_verdict_s_structure_is_found_last() -> None:
    with checked(model) as check:
        assert isinstance(check.start(), Start)
        names = [name for name, _ in check.structures()]
    assert names[-1] == "verdict"


def test_discrete_latents_are_summed_out() -> None:
    def mixture() -> None:
        where = pyro.param("where", torch.tensor([0.0, 1.0]))
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Categorical(torch.ones(2)))
            pyro.sample("y", dist.Normal(where[z], 1.0), obs=Y)

    entries = [{"params": "*", "optimizer": "adam"}]
    with checked(mixture, objective={"integrate": {"z": "enumerate"}}, optimizers=entries) as check:
        assert check.summed_out() == ["z"] and [site.name for site in check.sites()] == ["where"]


def test_a_start_without_a_finite_loss_is_refused() -> None:
    def nowhere() -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        pyro.factor("hole", mean - math.inf)

    with (
        checked(nowhere, optimizers=[{"params": "*", "optimizer": "adam"}]) as check,
        pytest.raises(StartError, match="not finite at the start"),
    ):
        check.start()


def test_a_loss_that_changes_is_a_model_error() -> None:
    def dice() -> None:
        pyro.factor("noise", pyro.param("mean", torch.tensor(0.0)) + torch.rand(()))

    with (
        checked(dice, optimizers=[{"params": "*", "optimizer": "adam"}]) as check,
        pytest.raises(ModelError, match="the loss is random"),
    ):
        check.start()
