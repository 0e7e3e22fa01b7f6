"""What is integrated out: latents under free scales, however the model is written; and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from hofit.model.program import Program
from hofit.suggestion.effects import Effect, effects

Y = torch.linspace(-1.0, 2.0, 12, dtype=torch.float64)
GROUP = torch.arange(12) % 4


def observed(mean: Any) -> None:
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=Y)


def scale(name: str = "sd") -> Any:
    return pyro.param(name, torch.tensor(1.0), constraint=constraints.positive)


def centred() -> None:
    with pyro.plate("groups", 4):
        b = pyro.sample("b", dist.Normal(0.0, scale()))
    observed(b[GROUP])


def not_centred() -> None:
    sd = pyro.sample("sd", dist.HalfCauchy(1.0))
    mean = pyro.sample("mean", dist.Normal(0.0, 5.0))
    with pyro.plate("groups", 4):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
    observed(mean + (sd * eta)[GROUP])


def correlated_and_not_centred() -> None:
    sds = pyro.param("sds", torch.ones(2), constraint=constraints.positive)
    root = pyro.sample("root", dist.LKJCholesky(2, 1.0))
    with pyro.plate("groups", 4):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    b = z @ (sds[:, None] * root).T
    observed(b[GROUP, 0] + b[GROUP, 1] * torch.linspace(0.0, 1.0, len(Y)))


def walk() -> None:
    level = pyro.sample("level", dist.ImproperUniform(constraints.real, (), (len(Y),)))
    pyro.factor("steps", dist.Normal(0.0, scale()).log_prob(level.diff()).sum())
    observed(level)


def field() -> None:
    where = torch.linspace(0.0, 1.0, len(Y))
    kernel = (-((where[:, None] - where) ** 2) / scale("length") ** 2).exp() + 1e-6 * torch.eye(len(Y))
    observed(pyro.sample("f", dist.MultivariateNormal(torch.zeros(len(Y)), kernel)))


def levels() -> None:
    with pyro.plate("regions", 2):
        region = pyro.sample("region", dist.Normal(0.0, scale("sd_region")))
    with pyro.plate("groups", 4):
        b = pyro.sample("b", dist.Normal(region[torch.arange(4) % 2], 1.0))
    observed(b[GROUP])


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (centred, [Effect("b", "sd", True)]),
        (not_centred, [Effect("eta", "sd", False)]),
        (correlated_and_not_centred, [Effect("z", "sds", False)]),
        (walk, [Effect("level", "sd", True)]),
        (field, [Effect("f", "length", True)]),
        (levels, [Effect("region", "sd_region", True), Effect("b", "region", True)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_latent_under_a_free_scale_is_found(model: Callable[[], None], found: list[Effect]) -> None:
    program = Program(model, {})
    with program.scope():
        program.discover()
        before = {name: leaf.clone() for name, leaf in program.leaves.items()}
        assert effects(program) == found
        assert all(torch.equal(leaf, before[name]) for name, leaf in program.leaves.items())


def regression() -> None:
    b = pyro.sample("b", dist.Normal(torch.zeros(3), 2.0).to_event(1))
    sd = scale()
    with pyro.plate("rows", len(Y)):
        pyro.sample("y", dist.Normal(b[GROUP % 3], sd), obs=Y)


def flat_coefficients() -> None:
    b = pyro.sample("b", dist.ImproperUniform(constraints.real, (), (3,)))
    observed(b[GROUP % 3] + pyro.param("a", torch.tensor(0.0)))


@pytest.mark.parametrize("model", [regression, flat_coefficients])
def test_coefficients_with_a_prior_of_their_own_are_left(model: Callable[[], None]) -> None:
    program = Program(model, {})
    with program.scope():
        program.discover()
        assert effects(program) == []
