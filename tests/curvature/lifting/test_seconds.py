"""Second derivatives between nodes: what interacts later, what is not finite, what takes too many probes."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from hofit.curvature.structure import Curvature
from hofit.linear.operator import Operator
from tests.curvature.hessians import check, objective, random_point
from tests.curvature.lifting.models.base import MIXED, G, local


@pytest.mark.parametrize("power", [1.5, 0.5])
@pytest.mark.parametrize("mixed", [False, True])
def test_second_derivatives_that_are_not_finite_crash_nothing(power: float, mixed: bool) -> None:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        size = (b[MIXED] + mu).abs() ** power
        pyro.factor("f", -(size.logsumexp(0) if mixed else size.sum()))

    with objective(model) as at:
        curvature = Curvature()
        zero = {name: torch.zeros_like(p) for name, p in at.start().items()}
        for params in (random_point(zero, 1), zero, random_point(zero, 2), zero):
            operator = curvature.at(at.at(params), list(params))
            assert isinstance(operator, Operator)
            # Where the gradient is finite and has no slope, differences of it stand for one.
            assert torch.isfinite(operator.diagonal()).all() == (params is not zero or power > 1)
        check(curvature, at, random_point(zero, 3))
        fresh = Curvature()
        fresh.at(at.at(zero), list(zero))
        check(fresh, at, random_point(zero, 1))
        check(fresh, at, random_point(zero, 2))


@pytest.mark.parametrize("column", range(8))
def test_two_entries_that_interact_later_are_not_taken_for_their_own_curvature(column: int) -> None:
    """By a probe with equal entries a coupling of two would look like a part of the diagonal."""
    only = torch.eye(8)[column]

    def model() -> None:
        k, x = pyro.param("k", torch.zeros(())), pyro.param("x", torch.ones(2, 8))
        pyro.factor("f", -(x**2).sum() - k**2 * (x.prod(0) * only).sum())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, {"k": torch.zeros(()), "x": torch.ones(2, 8)})
        check(curvature, at, random_point(at.start(), 1))
        assert curvature.lifts


def test_many_steps_of_a_loop_are_not_lifted_at_any_price() -> None:
    y = torch.randn(300, generator=torch.Generator().manual_seed(1))

    def model() -> None:
        a, b, s = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "abs")
        states = []
        state = torch.zeros(())
        for t in range(300):
            state = torch.tanh(a * state + b + 0.1 * y[t])
            states.append(state)
        pyro.sample("y", dist.Normal(torch.stack(states), s.exp()).to_event(1), obs=y)

    with objective(model) as at:
        check(Curvature(), at, random_point(at.start(), 1))
