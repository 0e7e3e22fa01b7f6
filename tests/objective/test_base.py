"""What every objective answers of itself, so that nobody asks for its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import log, pi
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from hofit.linear.dense import Dense
from hofit.model.elbo import ElboProgram
from hofit.model.program import Program
from hofit.objective.at_mode import laplace
from hofit.objective.base import Objective
from hofit.objective.density import DensityObjective
from hofit.objective.elbo import ElboObjective
from hofit.objective.marginal import MarginalObjective

Y = torch.tensor([0.5, 1.5, 1.0], dtype=torch.float64)


def all_latent() -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=Y)


def no_prior() -> None:
    mu = pyro.param("mu", torch.tensor(0.0))
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=Y)


def rows() -> None:
    mu = pyro.param("mu", torch.tensor(0.7))
    with pyro.plate("rows", len(Y)):
        b = pyro.sample("b", dist.Normal(0.5 * mu, 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=Y)


Make = Callable[..., Any]


@pytest.fixture
def traced() -> Iterator[Make]:
    """traced(program): its sites found, its scope entered."""
    with ExitStack() as stack:

        def trace(program: Program) -> Program:
            stack.enter_context(program.scope())
            program.discover()
            return program

        yield trace


def test_minus_the_loss_is_a_likelihood_where_nothing_optimised_has_a_prior(traced: Make) -> None:
    assert DensityObjective(traced(Program(no_prior, {}))).is_likelihood
    assert not DensityObjective(traced(Program(all_latent, {}))).is_likelihood
    program = traced(Program(rows, {}))
    program.integrate(["b"])
    assert MarginalObjective(program, ["b"]).is_likelihood
    assert not ElboObjective(traced(ElboProgram(all_latent, "normal", {}))).is_likelihood


def test_an_elbo_has_a_fact_of_its_own_and_no_mode(traced: Make) -> None:
    bound = ElboObjective(traced(ElboProgram(all_latent, "normal", {})))
    assert bound.facts(2.5) == {"elbo": -2.5} and bound.without_mode
    density = DensityObjective(traced(Program(all_latent, {})))
    assert density.facts(2.5) == {} and not density.without_mode


def test_the_log_evidence_is_of_a_density_of_latents_on_the_unconstrained_scale(traced: Make) -> None:
    program = traced(Program(all_latent, {}))
    mode, precision = Y.sum() / 3.25, torch.tensor([[3.25]])
    factor = Dense(precision).factor()
    objective = DensityObjective(program, "map_unconstrained")
    loss = objective.at({"mu": mode}).value
    normal = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3) + 4.0)
    assert objective.log_evidence(loss, factor, 1) == pytest.approx(normal.log_prob(Y).item(), rel=1e-12)
    others: list[Objective] = [
        DensityObjective(program),
        DensityObjective(traced(Program(no_prior, {})), "map_unconstrained"),
    ]
    assert [one.log_evidence(loss, factor, 1) for one in others] == [None, None]


def test_the_posterior_of_gaussian_rows_is_theirs_in_closed_form(traced: Make) -> None:
    """b | y, μ ~ N((μ/2 + y)/2, ½): H is 2, the mode moves by ¼ with μ, and the integral is N(y; μ/2, 2)."""
    program = traced(Program(rows, {}))
    program.integrate(["b"])
    objective = MarginalObjective(program, ["b"])
    assert DensityObjective(program).posterior(objective.at(objective.start())) is None
    posterior = objective.posterior(objective.at(objective.start()))
    assert posterior.names == ["b"] and posterior.jacobian == {"b"} and posterior.fitted is None
    assert torch.allclose(posterior.factor.inverse_diagonal(), torch.full((3,), 0.5))
    assert posterior.sensitivity is None
    assert torch.allclose(posterior.find_sensitivity(), torch.full((1, 3), 0.25))
    integral = -0.5 * ((Y - 0.35).square() / 2 + log(2 * pi * 2)).sum()
    assert -float(laplace(posterior.expansion).detach()) == pytest.approx(integral.item(), rel=1e-12)
