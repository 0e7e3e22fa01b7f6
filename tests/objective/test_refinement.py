"""A mode near where it is thought to be is reached by Newton's steps alone, and is the one that a search finds."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

from hofit.objective.marginal import MarginalPoint
from hofit.objective.mode import ModeFinder
from hofit.point import Params, Point

from .conftest import Evidence, Make

ROWS, EACH = 6, 5
GROUP = torch.arange(ROWS).repeat_interleave(EACH)
COUNTS = torch.poisson(3.0 * torch.ones(ROWS * EACH), generator=torch.Generator().manual_seed(2))


def counted() -> None:
    mu = pyro.param("mu", torch.tensor(0.5))
    sd = pyro.param("sd", torch.tensor(0.8), constraint=constraints.positive)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("observations", len(COUNTS)):
        pyro.sample("y", dist.Poisson((mu + b[GROUP]).exp()), obs=COUNTS)


def tied_later() -> None:
    """Rows that are apart, to any order, until ``tie`` is above one."""
    tie = pyro.param("tie", torch.tensor(0.5))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.3, 1.0))
    pyro.factor("ties", -((tie - 1.0).clamp_min(0.0) ** 4) * (b[1:] - b[:-1] - 1.0).square().sum() - tie**2)


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A place for each search for a mode."""
    found: list[int] = []
    find = ModeFinder.find

    def noted(self: ModeFinder, *given: Any) -> Params:
        found.append(1)
        return find(self, *given)

    monkeypatch.setattr(ModeFinder, "find", noted)
    return found


def told(own: Evidence, point: Point) -> torch.Tensor:
    """Loss, gradient and Hessian, flat."""
    assert isinstance(point, MarginalPoint) and point.failure is None
    return torch.cat([point.loss.reshape(1), own.flat(point.gradient()), own.hessian(point).reshape(-1)])


def beside(point: MarginalPoint, name: str, distance: float) -> Point:
    return point.at({**point.params, name: point.params[name] + distance})


@pytest.mark.parametrize(("moved", "count"), [(0.1, 1), (3.0, 2)], ids=["near", "far"])
def test_only_a_mode_that_is_far_is_searched_for(moved: float, count: int, evidence: Make, searches: list[int]) -> None:
    own = evidence(counted, ["b"])
    there = beside(own.at(own.start), "mu", moved)
    assert len(searches) == count
    found = told(own, there)
    fresh = evidence(counted, ["b"])
    expected = told(fresh, fresh.at(fresh.flat(there.params)))
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_rows_that_come_to_interact_are_seen_where_nothing_is_searched(evidence: Make, searches: list[int]) -> None:
    own = evidence(tied_later, ["b"])
    start = own.at(own.start)
    beside(start, "tie", 0.1)
    assert len(searches) == 1
    tied = beside(start, "tie", 0.68)  # a thousandth of the curvature: Newton's steps settle with or without it
    found = told(own, tied)
    fresh = evidence(tied_later, ["b"])
    expected = told(fresh, fresh.at(fresh.flat(tied.params)))
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_what_is_remarked_of_an_exact_determinant_takes_no_evaluation(evidence: Make) -> None:
    own = evidence(counted, ["b"])
    at_start = own.at(own.start)
    own.at(own.start + 0.1)
    before = own.objective.evaluations.copy()
    own.objective.remarks(at_start.params)
    assert own.objective.evaluations == before
