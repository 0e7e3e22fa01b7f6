"""Linear maps in every way to write them: matrices, indices, joined tensors, and functions entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.ops.indexing import Vindex
from torch import Tensor

from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import (
    GROUP,
    MIXED,
    X3,
    Case,
    Cases,
    G,
    N,
    X,
    bernoulli,
    local,
    normal,
    poisson,
)

CASES = Cases()


def regression(predictor: Callable[[Tensor], Tensor]) -> Model:
    def model() -> None:
        beta = normal("beta", 3)
        alpha = pyro.sample("alpha", dist.Normal(0.0, 1.0))
        poisson((alpha + predictor(beta)).clamp(max=20.0).exp())

    return model


PREDICTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "matmul": lambda beta: X3 @ beta,
    "mv": lambda beta: X3.mv(beta),
    "torch_matmul": lambda beta: torch.matmul(X3, beta),
    "from_the_left": lambda beta: beta @ X3.T,
    "column": lambda beta: (X3 @ beta[:, None])[:, 0],
    "column_by_mm": lambda beta: torch.mm(X3, beta.unsqueeze(-1)).squeeze(-1),
    "row": lambda beta: (beta[None] @ X3.T)[0],
    "linear": lambda beta: F.linear(X3, beta[None]).squeeze(-1),
    "product_and_sum": lambda beta: (X3 * beta).sum(-1),
    "torch_sum": lambda beta: torch.sum(beta * X3, dim=1),
    "mean": lambda beta: 3 * (X3 * beta).mean(-1),
    "einsum": lambda beta: torch.einsum("nk,k->n", X3, beta),
    "einsum_reversed": lambda beta: torch.einsum("j,ij->i", beta, X3),
    "column_by_column": lambda beta: beta[0] * X3[:, 0] + beta[1] * X3[:, 1] - X3[:, 2] * (-beta[2]),
    "unbound": lambda beta: sum((b * x for b, x in zip(beta, X3.unbind(1), strict=True)), torch.zeros(())),
    "split": lambda beta: (
        X3[:, :2] @ beta.split([2, 1])[0] + X3[:, 2:] @ beta.split([2, 1])[1] + 0.1 * beta.chunk(3)[0]
    ),
    "divided": lambda beta: X3 @ (beta / 2) + (X3 @ beta) / torch.arange(1.0, G * N + 1, dtype=torch.float64),
    "stacked": lambda beta: X3 @ torch.stack([beta[2], beta[0], beta[1]]),
    "cat": lambda beta: X3 @ torch.cat([beta[1:], -2 * beta[:1]]),
    "cat_of_products": lambda beta: torch.cat([X3[:60] @ beta, beta[:1], X3[61:] @ beta]),
    "total_of_products": lambda beta: X3[:, 0] * (X3 @ beta).mean(),
    "batched": lambda beta: (X3.view(G, N, 3) @ beta).reshape(-1),
    "negated_and_subtracted": lambda beta: 1.0 - (-(X3 @ beta)) - torch.sub(beta[0], beta[1], alpha=2),
    "numpy_index": lambda beta: X3 @ beta[np.array([2, 1, 0])],
    "total": lambda beta: X3[:, 0] * beta.sum() + X3[:, 1] * beta.mean(),
    "double_matrix": lambda beta: X3 @ (X3[:3] @ beta),
    "in_place_sum": lambda beta: _in_place(beta),
}


def _in_place(beta: Tensor) -> Tensor:
    eta = X3[:, 0] * beta[0]
    eta += X3[:, 1] * beta[1]
    eta -= beta[2]
    return eta


for _label, _predictor in PREDICTORS.items():
    CASES[f"poisson_{_label}"] = Case(partial(regression, _predictor), True, "dense (4)")


@CASES.case(structure="dense (20)")
def poisson_of_twenty_columns() -> Model:
    x = 0.3 * torch.randn(200, 20, generator=torch.Generator().manual_seed(2))
    y = torch.poisson(torch.ones(200), generator=torch.Generator().manual_seed(2))

    def model() -> None:
        beta = normal("beta", 20)
        with pyro.plate("n", 200):
            pyro.sample("y", dist.Poisson((x @ beta).exp()), obs=y)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 3 (beta)")
def matrix_and_groups() -> Model:
    def model() -> None:
        beta = normal("beta", 3)
        b = local("b", "g", G)
        poisson((X3 @ beta + b[MIXED]).exp())

    return model


@CASES.case(structure="arrowhead: 12 rows of 3 (b)")
def groups_by_product_and_sum() -> Model:
    def model() -> None:
        mu = normal("mu", 3)
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(mu, 1.0).to_event(1))
        bernoulli((X3 * b[MIXED]).sum(-1))

    return model


@CASES.case(structure="rows: 12 rows of 3 (b)")
def groups_by_batched_matmul() -> Model:
    def model() -> None:
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        bernoulli((X3.view(G, N, 3) @ b[..., None]).squeeze(-1).reshape(-1))

    return model


@CASES.case(structure="rows: 12 rows of 3 (b)")
def groups_by_einsum() -> Model:
    def model() -> None:
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        bernoulli(torch.einsum("gnk,gk->gn", X3.view(G, N, 3), b).reshape(-1))

    return model


@CASES.case(structure="arrowhead: 12 rows of 2 (b0, b1); border of 2 (mu)")
def stacked_locals() -> Model:
    def model() -> None:
        mu = normal("mu", 2)
        with pyro.plate("g", G):
            b0, b1 = pyro.sample("b0", dist.Normal(0.0, 1.0)), pyro.sample("b1", dist.Normal(0.0, 1.0))
        b = torch.stack([mu[0] + b0, mu[1] + 0.5 * b1], -1)
        bernoulli((X3[:, :2] * b[GROUP]).sum(-1))

    return model


@CASES.case(structure="diagonal: 11 rows of 1 (b)")
def cat_with_a_constant() -> Model:
    def model() -> None:
        b = local("b", "g", G - 1)
        bernoulli(torch.cat([torch.zeros(1), b])[GROUP] * 1.5)

    return model


def lookup(read: Callable[[Tensor], Tensor]) -> Model:
    return lambda: bernoulli(read(local("b", "g", G)))


LOOKUPS: dict[str, Callable[[Tensor], Tensor]] = {
    "index": lambda b: b[MIXED],
    "index_select": lambda b: torch.index_select(b, 0, MIXED),
    "gather": lambda b: b.gather(0, MIXED),
    "take": lambda b: b.take(MIXED),
    "take_along_dim": lambda b: b.take_along_dim(MIXED),
    "embedding": lambda b: F.embedding(MIXED, b[:, None]).squeeze(-1),
    "vindex": lambda b: Vindex(b)[..., MIXED],
    "mask": lambda b: b[torch.arange(G) % 2 == 0].repeat(20),
    "slice": lambda b: b[1::2].repeat(20) + b[1:12:2].tile(20),
    "flip_and_roll": lambda b: b.flip(0).roll(1).repeat_interleave(N),
    "built_anew": lambda b: b[MIXED.double().long().clone()],
    "list": lambda b: b[MIXED.tolist()],
    "numpy": lambda b: b[MIXED.numpy()],
    "broadcast": lambda b: b[:, None].expand(G, N).reshape(-1),
    "of_a_function": lambda b: (0.3 * b).exp()[MIXED],
    "of_a_chain": lambda b: (b[MIXED] + 1.0)[torch.arange(G * N).flip(0)].view(G, N).T.reshape(-1),
    "narrow_select": lambda b: b.narrow(0, 1, 10).repeat(12) * 2.0 + b.narrow(0, 1, 10).tile(12),
    "two_dimensional": lambda b: b.view(4, 3)[MIXED // 3, MIXED % 3],
}
for _label, _predictor in LOOKUPS.items():
    CASES[f"lookup_{_label}"] = Case(partial(lookup, _predictor), True, "diagonal: 12 rows of 1 (b)")


def entry_by_entry(function: Callable[[Tensor, Tensor], Tensor]) -> Model:
    return lambda: bernoulli(function(local("a", "p", G), local("b", "q", G)))


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "where": lambda a, b: torch.where(X3[:, 0] > 0, a[GROUP], b[MIXED] * 2),
    "where_of_itself": lambda a, b: torch.where(a[GROUP] > 0, a[GROUP] ** 2, b[MIXED].sin()),
    "clamp": lambda a, b: a[GROUP].clamp(-0.5, 0.5) + b[MIXED].clamp(min=0.0) ** 2,
    "power": lambda a, b: a[GROUP].pow(2) * b[MIXED] ** 3 + 2.0 ** a[GROUP],
    "division": lambda a, b: a[GROUP] / (2 + b[MIXED] ** 2) + 1 / (3 + a[GROUP].cos()),
    "maximum": lambda a, b: torch.maximum(a[GROUP], b[MIXED]) + torch.logaddexp(a[GROUP], b[GROUP]),
    "product": lambda a, b: a[GROUP] * b[MIXED],
    "relu": lambda a, b: F.relu(a[GROUP] * X.reshape(-1)) * F.softplus(b[MIXED]),
    "abs_and_tanh": lambda a, b: a[GROUP].abs() * b[MIXED].tanh(),
    "lerp": lambda a, b: torch.lerp(a[GROUP], b[MIXED], 0.3) ** 2,
    "addcmul": lambda a, b: torch.addcmul(a[GROUP], b[MIXED], a[GROUP]),
    "masked_fill": lambda a, b: (a[GROUP] * b[MIXED]).masked_fill(X3[:, 0] > 0, 0.5),
}
for _label, _function in FUNCTIONS.items():
    CASES[f"function_{_label}"] = Case(partial(entry_by_entry, _function), True, "12 rows of")
