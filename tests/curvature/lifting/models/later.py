"""Models whose rows look independent at a first point, and are not."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from hofit.point import Params
from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import GROUP, MIXED, X3, Cases, G, gaussian, local, normal

CASES = Cases()


def zero(like: Params) -> Params:
    return {name: torch.zeros_like(p) for name, p in like.items()}


@CASES.case(lifted=None, first=zero)
def coupling_by_a_zero_coefficient() -> Model:
    def model() -> None:
        a, b = local("a", "p", 15), local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        pyro.factor("f", k**2 * a.sum() * (b**2).sum())

    return model


@CASES.case(lifted=None, first=zero)
def square_of_a_sum_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        pyro.factor("f", k**2 * b.exp().sum() ** 2)

    return model


@CASES.case(lifted=None, first=zero)
def total_that_is_read_twice() -> Model:
    def model() -> None:
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        total = local("b", "q", G).exp().sum()
        gaussian((total * X3[:, 0]).sin())
        pyro.factor("f", k**2 * total**2)

    return model


@CASES.case(lifted=None, first=zero)
def cumsum_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        gaussian((b + k**2 * b.cumsum(0))[GROUP].exp())

    return model


@CASES.case(lifted=None, first=zero)
def index_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        gaussian(b[GROUP] + k**2 * b[MIXED] * b[GROUP])

    return model


@CASES.case(lifted=None, first=lambda like: {"b": torch.linspace(-1.0, 1.0, G)})
def sorted_at_first() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        pyro.factor("f", -(b.sort().values * b).sum() - (b**4).sum())

    return model


@CASES.case(lifted=None, first=zero)
def product_of_rows_behind_a_zero() -> Model:
    def model() -> None:
        with pyro.plate("q", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("f", 0.1 * (b[:, 0] * b[:, 1]).sum() * b.sin().sum())

    return model


@CASES.case(lifted=None, first=zero)
def function_of_a_cumsum_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        gaussian((b + (b**2).cumsum(0)).cos()[MIXED] ** 2)

    return model


@CASES.case(lifted=None, first=zero)
def branch_on_a_value() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        mean = b[GROUP] * b[GROUP].detach().sum() if k == 0 else b[GROUP] * b[GROUP].sum()
        gaussian(mean)

    return model


@CASES.case(lifted=None, first=zero)
def softmax_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        pyro.factor("f", (k * b).logsumexp(0) - (b**2).sum())

    return model


@CASES.case(lifted=None, first=zero)
def elementwise_and_transposed() -> Model:
    def model() -> None:
        b = normal("b", 9, 9)
        pyro.factor("f", -((b**2 * b.T).sin() * b.T).sum() - (b**4).sum())

    return model


@CASES.case(lifted=None, first=zero)
def matrix_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        pyro.factor("f", -(b**2).sum() - ((b**2) @ torch.ones(G, G) @ (b**2)))

    return model
