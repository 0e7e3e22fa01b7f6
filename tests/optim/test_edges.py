"""No number with an edge leaps: near an edge a quadratic model is none for long."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import hofit
from hofit.coordinates import Coordinates
from hofit.optim.acceptance import EDGEWARD, without_leap
from hofit.optim.subproblem.step import Step
from hofit.point import Site
from tests.optim.closed_form import ClosedForm


def test_a_step_of_a_bounded_number_is_clipped_and_that_of_a_real_one_is_not() -> None:
    source = ClosedForm(lambda params: params["sd"].square().sum() + params["b"].square().sum())
    shapes = {"sd": torch.Size([3]), "b": torch.Size([1])}
    constraint = {"sd": "positive", "b": "real"}
    source.sites = {n: Site(n, "parameter", shape, shape, constraint[n]) for n, shape in shapes.items()}
    point = source.at({"sd": torch.tensor([0.0, -30.0, 1.0]), "b": torch.zeros(1)})
    own = Coordinates.of(point.params)

    def kept(*step: float, curvature: float = 1e-6) -> Step:
        whole = Step(torch.tensor(step), predicted=1.0, on_boundary=False, length=1.0)
        return without_leap(own, point, whole, -whole.step, lambda one: curvature * one)

    assert kept(-80.0, -80.0, 2.0, 500.0).step.tolist() == [-EDGEWARD, -15.0, 2.0, 500.0]
    assert kept(-4.0, 4.0, 2.0, 500.0).step.tolist() == [-4.0, 4.0, 2.0, 500.0]


def test_of_a_clipped_step_and_a_shortened_one_that_is_taken_along_which_the_model_falls_more() -> None:
    """Two numbers that must move together: −g is (1, 1), and only along (1, 1) is there little curvature."""
    source = ClosedForm(lambda params: params["sd"].sum())
    source.sites = {"sd": Site("sd", "parameter", torch.Size([2]), torch.Size([2]), "positive")}
    point = source.at({"sd": torch.tensor([0.0, -40.0])})
    hessian = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    whole = Step(torch.tensor([20.0, 20.0]), predicted=40.0, on_boundary=False, length=20.0)
    short = without_leap(Coordinates.of(point.params), point, whole, -torch.ones(2), lambda one: hessian @ one)
    assert short.step.tolist() == [EDGEWARD, EDGEWARD]
    assert short.predicted == 2 * EDGEWARD and short.length == pytest.approx(EDGEWARD)


def test_a_step_that_was_shortened_is_what_is_corrected() -> None:
    """A beta-binomial whose first step is indefinite and far: its correction went on from where the leap had led."""

    def model() -> None:
        a = pyro.param("a", torch.tensor(1.8802120072262123).exp(), constraint=constraints.positive)
        share = pyro.param("share", torch.tensor(0.8312794575991518).sigmoid(), constraint=constraints.unit_interval)
        counts = torch.tensor([4.0, 5.0, 6.0, 5.0, 4.0, 5.0, 6.0, 5.0, 5.0, 4.0])
        with pyro.plate("rows", 10):
            pyro.sample("y", dist.BetaBinomial(a * share, a * (1 - share), 10), obs=counts)

    optimizers = [{"params": "*", "optimizer": "trust_region"}]
    result = hofit.fit(model, {"optimizers": optimizers, "stop": {"max_iterations": 1}})
    assert all(abs(float(value)) <= 2 * EDGEWARD for value in result.params.values())
