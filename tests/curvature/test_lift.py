"""Lifted Hessians against autograd's: many small models, at two points each with one and the same Curvature.

The second point is where a silent error would hide: nothing is proved there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.ops.indexing import Vindex
from torch import Tensor
from torch.distributions import constraints

from hofit.coordinates import Coordinates
from hofit.curvature.lifting.maps import IndexCache
from hofit.curvature.lifting.pieces import LiftedLoss
from hofit.curvature.lifting.watch import Watch
from hofit.curvature.structure import Curvature
from hofit.model.program import Program
from hofit.objective.density import DensityObjective
from hofit.point import Params, TracedPoint

Model = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A model, whether its maps are lifted (None: either will do), and what the structure is."""

    make: Callable[[], Model]
    lifted: bool | None
    structure: str


CASES: dict[str, Case] = {}


def case(lifted: bool | None = True, structure: str = "") -> Callable[[Callable[[], Model]], Callable[[], Model]]:
    def add(make: Callable[[], Model]) -> Callable[[], Model]:
        CASES[make.__name__] = Case(make, lifted, structure)
        return make

    return add


G, N = 12, 10
"""Groups, and observations of a group."""
GROUP = torch.arange(G).repeat_interleave(N)
MIXED = torch.randperm(G * N, generator=torch.Generator().manual_seed(3)) % G
ITEM = torch.randperm(G * N, generator=torch.Generator().manual_seed(4)) % 15
X = torch.randn(G, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
X3 = torch.randn(G * N, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
Y01 = (torch.rand(G, N, generator=torch.Generator().manual_seed(7)) < 0.5).double()
COUNTS = torch.poisson(torch.full((G * N,), 2.0, dtype=torch.float64), generator=torch.Generator().manual_seed(8))
Z = torch.randn(G * N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def normal(name: str, *shape: int, scale: float = 1.0) -> Tensor:
    value: Tensor = pyro.sample(name, dist.Normal(0.0, scale).expand(shape).to_event(len(shape)))
    return value


def local(name: str, plate: str, size: int, scale: float = 1.0) -> Tensor:
    with pyro.plate(plate, size):
        value: Tensor = pyro.sample(name, dist.Normal(0.0, scale))
    return value


def bernoulli(logits: Tensor, y: Tensor | None = None) -> None:
    pyro.sample("y", dist.Bernoulli(logits=logits).to_event(logits.dim()), obs=Y01.reshape(-1) if y is None else y)


def gaussian(mean: Tensor, scale: Any = 1.0) -> None:
    pyro.sample("y", dist.Normal(mean, scale).to_event(mean.dim()), obs=Z[: mean.numel()].view(mean.shape))


def poisson(rate: Tensor) -> None:
    pyro.sample("y", dist.Poisson(rate).to_event(rate.dim()), obs=COUNTS[: rate.numel()].view(rate.shape))


# hierarchical models --------------------------------------------------------------------------------------------------


@case(structure="arrowhead: 12 rows of 2 (b); border of 2 (beta)")
def hierarchical_nested() -> Model:
    def model() -> None:
        beta = normal("beta", 2)
        with pyro.plate("g", G, dim=-2):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), torch.tensor([0.8, 0.5])).to_event(1))
            with pyro.plate("o", N, dim=-1):
                pyro.sample("y", dist.Bernoulli(logits=beta[0] + b[..., 0] + (beta[1] + b[..., 1]) * X), obs=Y01)

    return model


@case(structure="arrowhead: 12 rows of 2 (b); border of 2 (beta)")
def hierarchical_indexed() -> Model:
    def model() -> None:
        beta = normal("beta", 2)
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        bernoulli(beta[0] + b[MIXED, 0] + (beta[1] + b[MIXED, 1]) * X.reshape(-1))

    return model


@case(structure="arrowhead: 12 rows of 2 (b0, b1); border of 4 (log_tau, mu)")
def centred_with_free_scales() -> Model:
    def model() -> None:
        tau = normal("log_tau", 2).exp()
        mu = normal("mu", 2)
        with pyro.plate("g", G):
            b0 = pyro.sample("b0", dist.Normal(mu[0], tau[0]))
            b1 = pyro.sample("b1", dist.Normal(mu[1], tau[1]))
        bernoulli(b0[GROUP] + b1[GROUP] * X.reshape(-1))

    return model


@case(structure="arrowhead: 12 rows of 1 (z); border of 3 (mu, tau, sigma)")
def non_centred() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("g", G):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        gaussian((mu + tau * z)[GROUP], sigma)

    return model


@case(structure="arrowhead: 12 rows of 1 (z); border of 2 (mu, tau)")
def non_centred_nested() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        with pyro.plate("g", G, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("o", N, dim=-1):
                pyro.sample("y", dist.Normal(mu + tau * z, 1.0), obs=Z.view(G, N))

    return model


@case(structure="arrowhead: 12 rows of 1 (z); border of 2 (mu, log_tau)")
def non_centred_reparameterised() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("log_tau", dist.Normal(0.0, 1.0)).exp()
        with pyro.plate("g", G):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        b = mu + tau * z
        bernoulli(b.index_select(0, GROUP))

    return model


@case(structure="arrowhead: 12 rows of 1 (school); border of 5")
def nested_effects() -> Model:
    district = torch.arange(G) % 4

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        u = local("district", "d", 4)
        with pyro.plate("s", G):
            v = pyro.sample("school", dist.Normal(u[district], 0.5))
        bernoulli(mu + v[GROUP])

    return model


@case(structure="arrowhead: 12 rows of 1 (school); border of 5")
def nested_effects_through_two_indices() -> Model:
    district = torch.arange(G) % 4

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        u, v = local("district", "d", 4), local("school", "s", G)
        bernoulli(mu + u[district][MIXED] + v[MIXED])

    return model


@case(structure="arrowhead: 15 rows of 1 (item); border of 12 (subject)")
def crossed_effects() -> Model:
    def model() -> None:
        b, c = local("subject", "subjects", G), local("item", "items", 15)
        bernoulli(b[MIXED] + c[ITEM])

    return model


@case(structure="arrowhead: 15 rows of 1 (item); border of 15 (subject, tau)")
def crossed_effects_with_scales() -> Model:
    def model() -> None:
        tau = normal("tau", 3).exp()
        with pyro.plate("subjects", G):
            b = pyro.sample("subject", dist.Normal(0.0, tau[0]))
        with pyro.plate("items", 15):
            c = pyro.sample("item", dist.Normal(0.0, tau[1]))
        gaussian(b[MIXED] + c[ITEM], tau[2])

    return model


@case(structure="arrowhead: 30 rows of 1 (th); border of 16 (la, b)")
def irt_nested() -> Model:
    y = (torch.rand(30, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()

    def model() -> None:
        with pyro.plate("items", 8, dim=-1):
            la, b = pyro.sample("la", dist.Normal(0.0, 0.5)), pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("persons", 30, dim=-2):
            th = pyro.sample("th", dist.Normal(0.0, 1.0))
            with pyro.plate("items2", 8, dim=-1):
                pyro.sample("y", dist.Bernoulli(logits=la.exp() * (th - b)), obs=y)

    return model


@case(structure="arrowhead: 30 rows of 1 (th); border of 24 (la, b)")
def irt_indexed() -> Model:
    person, item = torch.arange(360) // 12, torch.arange(360) % 12
    y = (torch.rand(360, generator=torch.Generator().manual_seed(1)) < 0.5).double()

    def model() -> None:
        with pyro.plate("items", 12):
            la, b = pyro.sample("la", dist.Normal(0.0, 0.5)), pyro.sample("b", dist.Normal(0.0, 1.0))
        th = local("th", "persons", 30)
        bernoulli(la.exp()[item] * (th[person] - b[item]), y)

    return model


@case(structure="arrowhead: 30 rows of 1 (th); border of 12 (b)")
def rasch_nested() -> Model:
    y = (torch.rand(30, 12, generator=torch.Generator().manual_seed(1)) < 0.5).double()

    def model() -> None:
        with pyro.plate("items", 12, dim=-1):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("persons", 30, dim=-2):
            th = pyro.sample("th", dist.Normal(0.0, 1.0))
        with pyro.plate("persons2", 30, dim=-2), pyro.plate("items2", 12, dim=-1):
            pyro.sample("y", dist.Bernoulli(logits=th - b), obs=y)

    return model


@case(structure="arrowhead: 12 rows of 2 (b)")
def lkj_random_effects() -> Model:
    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([2]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(2, 2.0))
        mu = normal("mu", 2)
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.MultivariateNormal(mu, scale_tril=tau[:, None] * corr))
        bernoulli(b[GROUP, 0] + b[GROUP, 1] * X.reshape(-1))

    return model


@case(structure="arrowhead: 12 rows of 3 (b)")
def lkj_random_effects_of_three() -> Model:
    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([3]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(3, 1.0))
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(3), scale_tril=tau.diag() @ corr))
        bernoulli((b[GROUP] * X3).sum(-1))

    return model


@case(structure="arrowhead: 12 rows of 3 (z)")
def lkj_non_centred() -> Model:
    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([3]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(3, 1.0))
        with pyro.plate("g", G):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        b = z @ (tau[:, None] * corr).T
        bernoulli((b[GROUP] * X3).sum(-1))

    return model


@case(lifted=None)
def free_scale_tril() -> Model:
    def model() -> None:
        tril = pyro.param("tril", torch.eye(2), constraint=constraints.lower_cholesky)
        mu = pyro.param("mu", torch.zeros(2))
        with pyro.plate("n", 60):
            pyro.sample("y", dist.MultivariateNormal(mu, scale_tril=tril), obs=Z.view(60, 2))

    return model


# regressions ----------------------------------------------------------------------------------------------------------


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
    CASES[f"poisson_{_label}"] = Case(lambda predictor=_predictor: regression(predictor), True, "dense (4)")


@case(structure="dense (20)")
def poisson_of_twenty_columns() -> Model:
    x = 0.3 * torch.randn(200, 20, generator=torch.Generator().manual_seed(2))
    y = torch.poisson(torch.ones(200), generator=torch.Generator().manual_seed(2))

    def model() -> None:
        beta = normal("beta", 20)
        with pyro.plate("n", 200):
            pyro.sample("y", dist.Poisson((x @ beta).exp()), obs=y)

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 3 (beta)")
def matrix_and_groups() -> Model:
    def model() -> None:
        beta = normal("beta", 3)
        b = local("b", "g", G)
        poisson((X3 @ beta + b[MIXED]).exp())

    return model


@case(structure="arrowhead: 12 rows of 3 (b)")
def groups_by_product_and_sum() -> Model:
    def model() -> None:
        mu = normal("mu", 3)
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(mu, 1.0).to_event(1))
        bernoulli((X3 * b[MIXED]).sum(-1))

    return model


@case(structure="rows: 12 rows of 3 (b)")
def groups_by_batched_matmul() -> Model:
    def model() -> None:
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        bernoulli((X3.view(G, N, 3) @ b[..., None]).squeeze(-1).reshape(-1))

    return model


@case(structure="rows: 12 rows of 3 (b)")
def groups_by_einsum() -> Model:
    def model() -> None:
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        bernoulli(torch.einsum("gnk,gk->gn", X3.view(G, N, 3), b).reshape(-1))

    return model


@case(structure="arrowhead: 12 rows of 2 (b0, b1); border of 2 (mu)")
def stacked_locals() -> Model:
    def model() -> None:
        mu = normal("mu", 2)
        with pyro.plate("g", G):
            b0, b1 = pyro.sample("b0", dist.Normal(0.0, 1.0)), pyro.sample("b1", dist.Normal(0.0, 1.0))
        b = torch.stack([mu[0] + b0, mu[1] + 0.5 * b1], -1)
        bernoulli((X3[:, :2] * b[GROUP]).sum(-1))

    return model


@case(structure="diagonal: 11 rows of 1 (b)")
def cat_with_a_constant() -> Model:
    def model() -> None:
        b = local("b", "g", G - 1)
        bernoulli(torch.cat([torch.zeros(1), b])[GROUP] * 1.5)

    return model


# indices --------------------------------------------------------------------------------------------------------------

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
    CASES[f"lookup_{_label}"] = Case(
        lambda lookup=_predictor: lambda: bernoulli(lookup(local("b", "g", G))), True, "diagonal: 12 rows of 1 (b)"
    )


# elementwise functions ------------------------------------------------------------------------------------------------

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
    CASES[f"function_{_label}"] = Case(
        lambda function=_function: lambda: bernoulli(function(local("a", "p", G), local("b", "q", G))),
        True,
        "12 rows of",
    )


# distributions --------------------------------------------------------------------------------------------------------


@case(structure="arrowhead: 12 rows of 1 (b); border of 3")
def student_t() -> Model:
    def model() -> None:
        mu, s, df = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("mu", "log_s", "log_df"))
        b = local("b", "g", G)
        pyro.sample("y", dist.StudentT(2 + df.exp(), mu + b[GROUP], s.exp()).to_event(1), obs=Z)

    return model


@case(structure="arrowhead: 12 rows of 1 (rate); border of 2 (shape, scale)")
def gamma_latents() -> Model:
    def model() -> None:
        shape = pyro.sample("shape", dist.Gamma(2.0, 1.0))
        scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
        with pyro.plate("g", G):
            rate = pyro.sample("rate", dist.Gamma(shape, scale))
        poisson(rate[GROUP])

    return model


@case(structure="arrowhead: 12 rows of 1 (p); border of 2 (ab)")
def beta_binomial() -> Model:
    def model() -> None:
        ab = pyro.param("ab", torch.tensor([1.5, 2.5]), constraint=constraints.positive)
        with pyro.plate("g", G):
            p = pyro.sample("p", dist.Beta(ab[0], ab[1]))
            pyro.sample("y", dist.Binomial(10.0, probs=p), obs=Y01.sum(1))

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 2")
def negative_binomial() -> Model:
    def model() -> None:
        r = pyro.sample("r", dist.LogNormal(0.0, 1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        pyro.sample("y", dist.NegativeBinomial(r, logits=mu + b[GROUP] - r.log()).to_event(1), obs=COUNTS)

    return model


@case(lifted=None)
def dirichlet_latent() -> Model:
    def model() -> None:
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
        pyro.sample("y", dist.Multinomial(20, p), obs=torch.tensor([4.0, 9.0, 7.0]))

    return model


@case(structure="rows: 12 rows of 2 (p)")
def dirichlet_rows() -> Model:
    y = torch.poisson(torch.full((G, 3), 4.0))

    def model() -> None:
        with pyro.plate("g", G):
            p = pyro.sample("p", dist.Dirichlet(torch.full((3,), 1.5)))
            pyro.sample("y", dist.Multinomial(1, p, validate_args=False), obs=y)

    return model


@case(lifted=None)
def simplex_parameter() -> Model:
    def model() -> None:
        w = pyro.param("w", torch.tensor([0.2, 0.3, 0.5]), constraint=constraints.simplex)
        m = pyro.param("m", torch.tensor([-1.0, 0.0, 1.0]))
        mixture = dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(m, 1.0))
        with pyro.plate("n", G * N):
            pyro.sample("y", mixture, obs=Z)

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 3")
def mixture_likelihood() -> Model:
    def model() -> None:
        logits = pyro.sample("logits", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        gap = pyro.sample("gap", dist.LogNormal(0.0, 1.0))
        b = local("b", "g", G)
        means = torch.stack([b[GROUP], b[GROUP] + gap], -1)
        pyro.sample(
            "y", dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(means, 1.0)).to_event(1), obs=Z
        )

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 4")
def ordered_logistic() -> Model:
    y = (COUNTS.clamp(max=3)).long()

    def model() -> None:
        cut = pyro.param("cut", torch.tensor([-1.0, 0.0, 1.0]), constraint=dist.constraints.ordered_vector)
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        pyro.sample("y", dist.OrderedLogistic(beta * Z + b[GROUP], cut).to_event(1), obs=y)

    return model


@case(structure="rows: 12 rows of 3 (b)")
def categorical_rows() -> Model:
    y = (COUNTS.clamp(max=2)).long()

    def model() -> None:
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Categorical(logits=b[GROUP]).to_event(1), obs=y)

    return model


@case(structure="dense (9)")
def multinomial_logistic() -> Model:
    y = (COUNTS.clamp(max=2)).long()

    def model() -> None:
        b = normal("b", 3, 3)
        pyro.sample("y", dist.Categorical(logits=X3 @ b).to_event(1), obs=y)

    return model


@case(structure="dense (9)")
def multinomial_logistic_by_linear() -> Model:
    y = (COUNTS.clamp(max=2)).long()

    def model() -> None:
        w, c = normal("w", 2, 3), normal("c", 3)
        logits = torch.cat([torch.zeros(G * N, 1), F.linear(X3, w) + c[:2]], -1)
        pyro.sample("y", dist.Categorical(logits=logits).to_event(1), obs=y)

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 2")
def zero_inflated() -> Model:
    def model() -> None:
        gate = pyro.sample("gate", dist.Beta(1.0, 2.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        pyro.sample("y", dist.ZeroInflatedPoisson((mu + b[GROUP]).exp(), gate=gate).to_event(1), obs=COUNTS)

    return model


@case(structure="diagonal: 12 rows of 1 (theta)")
def interval_constrained() -> Model:
    def model() -> None:
        with pyro.plate("g", G):
            theta = pyro.sample("theta", dist.Uniform(-1.0, 3.0))
        gaussian(theta[GROUP])

    return model


@case(structure="dense (3)")
def constrained_parameters() -> Model:
    def model() -> None:
        sigma = pyro.param("sigma", torch.tensor(1.3), constraint=constraints.positive)
        p = pyro.param("p", torch.tensor(0.3), constraint=constraints.unit_interval)
        low = pyro.param("low", torch.tensor(0.3), constraint=constraints.interval(-1.0, 2.0))
        gaussian(low + p * Z**2, sigma)

    return model


# what entangles rows, or cannot be followed ---------------------------------------------------------------------------


@case(lifted=None, structure="dense (3)")
def gaussian_process() -> Model:
    d = (Z[:20, None] - Z[:20]) ** 2

    def model() -> None:
        sigma, length, noise = (pyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("sigma", "length", "noise"))
        k = sigma**2 * torch.exp(-d / (2 * length**2)) + (noise**2 + 1e-6) * torch.eye(20)
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(20), scale_tril=torch.linalg.cholesky(k)), obs=Z[:20])

    return model


@case(lifted=None, structure="dense (13)")
def random_walk_by_differences() -> Model:
    def model() -> None:
        s = pyro.sample("log_s", dist.Normal(0.0, 1.0)).exp()
        with pyro.plate("t", G):
            x = pyro.sample("x", dist.Normal(0.0, 10.0))
        pyro.factor("steps", dist.Normal(0.0, s).log_prob(x[1:] - x[:-1]).sum())
        gaussian(x[GROUP])

    return model


@case(lifted=None, structure="dense (12)")
def random_walk_by_cumsum() -> Model:
    def model() -> None:
        x = local("z", "t", G).cumsum(0)
        gaussian(x[GROUP].tanh())

    return model


@case(lifted=None, structure="dense (14)")
def autoregression() -> Model:
    def model() -> None:
        rho = pyro.sample("rho", dist.Uniform(-1.0, 1.0))
        s = pyro.sample("s", dist.HalfNormal(1.0))
        x = normal("x", G)
        pyro.factor("steps", dist.Normal(rho * x[:-1], s).log_prob(x[1:]).sum())
        gaussian(x[GROUP])

    return model


@case(lifted=None, structure="dense")
def neural_network() -> Model:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()

    def model() -> None:
        pyro.module("net", net)
        gaussian(net(X3).squeeze(-1))

    return model


@case(lifted=None, structure="dense (3)")
def loop_over_time() -> Model:
    def model() -> None:
        a, b, s = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "abs")
        state = torch.zeros(())
        for t in range(8):
            state = torch.tanh(a * state + b * Z[t])
            pyro.sample(f"y{t}", dist.Normal(state, s.exp()), obs=Z[t + 1])

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 1")
def factors() -> Model:
    def model() -> None:
        mu = pyro.param("mu", torch.tensor(0.1))
        b = local("b", "g", G)
        pyro.factor("f", -((mu + b[GROUP] - Z) ** 4).sum() - mu**2)

    return model


@case(structure="diagonal: 12 rows of 1 (b)")
def masked_and_scaled() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        with pyro.plate("o", G * N), poutine.scale(scale=2.5), poutine.mask(mask=X3[:, 0] > 0):
            pyro.sample("y", dist.Normal(b[GROUP] ** 2, 1.0), obs=Z)

    return model


@case(structure="diagonal: 12 rows of 1 (b)")
def masked_observations() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        with pyro.plate("o", G * N):
            pyro.sample("y", dist.Normal(b[GROUP].exp(), 1.0).mask(X3[:, 1] > 0), obs=Z)

    return model


@case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def written_into_a_tensor() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        mean = torch.zeros(G * N)
        mean[::2] = b[GROUP][::2] ** 2
        mean[1::2] = b[MIXED][1::2]
        gaussian(mean)

    return model


@case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def multiplied_in_place() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        mean = b[GROUP].sin()
        mean.mul_(2.0)
        mean += b[GROUP]
        gaussian(mean)

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 1")
def a_number_of_a_parameter() -> Model:
    def model() -> None:
        s = pyro.sample("s", dist.HalfNormal(1.0))
        b = local("b", "g", G)
        gaussian(b[GROUP] * s.item() + b[GROUP] * float(s.detach()) + s)

    return model


@case(structure="arrowhead: 12 rows of 1 (b); border of 1")
def without_gradients() -> Model:
    def model() -> None:
        s = pyro.sample("s", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        with torch.no_grad():
            centre = (2 * b + s).exp()
        gaussian((b - centre)[GROUP] * s + b.detach()[MIXED])

    return model


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * 3 * x**2


@case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def custom_function() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        gaussian(_Cube.apply(b[GROUP]))

    return model


@case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def custom_function_of_a_parameter() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        gaussian(_Cube.apply(b)[GROUP])

    return model


@case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def gradient_inside_the_model() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        x = b[GROUP] * 1.5
        if x.requires_grad:  # not at the first trace
            (slope,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        else:
            slope = 3 * x**2
        gaussian(slope)

    return model


@case(structure="diagonal: 12 rows of 1 (b)")
def casts_and_copies() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        c = b.double().to(torch.float64).contiguous().clone().type_as(Z)
        gaussian((+c)[GROUP].real)

    return model


@case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def through_single_precision() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        gaussian(b[GROUP].float().double())

    return model


# sizes ----------------------------------------------------------------------------------------------------------------


@case(structure="")
def plates_of_one() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("g", 1):
            b = pyro.sample("b", dist.Normal(mu, 1.0))
            with pyro.plate("o", 1, dim=-2):
                pyro.sample("y", dist.Normal(b, mu.exp()), obs=torch.ones(1, 1))

    return model


@case(structure="dense")
def empty_parameters() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        nothing, none = pyro.param("nothing", torch.zeros(0)), normal("none", 2, 0)
        with pyro.plate("o", 100):
            mean = mu.exp() + nothing.sum() + (torch.zeros(100, 0) @ nothing) + (none * 2).exp().sum()
            pyro.sample("y", dist.Normal(mean, 1.0), obs=Z[:100])

    return model


@case(lifted=None)
def no_observations() -> Model:
    def model() -> None:
        beta = normal("beta", 2)
        b = local("b", "g", G)
        none = torch.zeros(0, dtype=torch.long)
        pyro.sample("y", dist.Poisson((torch.zeros(0, 2) @ beta + b[none]).exp()).to_event(1), obs=torch.zeros(0))

    return model


@case(structure="arrowhead")
def idle_parameters() -> Model:
    def model() -> None:
        pyro.param("idle", torch.ones(3))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.param("straight", torch.ones(2))
        b = local("b", "g", G)
        pyro.factor("linear", 2 * pyro.param("straight").sum())
        gaussian(mu * b[GROUP])

    return model


@case(structure="diagonal: 40 rows of 1 (w)")
def many_without_a_plate() -> Model:
    def model() -> None:
        w = normal("w", 40)
        pyro.factor("f", -(w**4).sum())

    return model


@case(structure="")
def few_observations_and_both_in_one_node() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        b = local("b", "g", 4)
        mean = mu + b
        cov = 0.5 * torch.eye(4) + 0.1 + s
        pyro.sample("y", dist.MultivariateNormal(mean, cov), obs=Z[:4])

    return model


@case(structure="")
def two_independent_plates() -> Model:
    def model() -> None:
        a, b = local("a", "p", 15), local("b", "q", G)
        gaussian(a.exp())
        pyro.sample("z", dist.Normal(b[GROUP].sin(), 1.0).to_event(1), obs=Z)

    return model


@case(structure="rows: 12 rows of 1 (u); 9 rows of 4 (a, b, c)")
def several_sites_of_one_plate() -> Model:
    def model() -> None:
        with pyro.plate("p", 9):
            a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.LogNormal(0.0, 1.0))
            c = pyro.sample("c", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(a * c[..., 0], b + c[..., 1] ** 2), obs=Z[:9])
        u = local("u", "q", G)
        pyro.sample("z", dist.Normal(u.exp(), 1.0).to_event(1), obs=Z[:G])

    return model


# what shows only later ------------------------------------------------------------------------------------------------

ZERO_AT_FIRST = {
    "coupling_by_a_zero_coefficient",
    "square_of_a_sum_behind_a_zero",
    "cumsum_behind_a_zero",
    "total_that_is_read_twice",
    "index_behind_a_zero",
    "sorted_at_first",
    "product_of_rows_behind_a_zero",
    "function_of_a_cumsum_behind_a_zero",
    "branch_on_a_value",
    "softmax_behind_a_zero",
    "elementwise_and_transposed",
    "matrix_behind_a_zero",
}
"""Models whose rows are found independent at the first point: there every parameter is zero."""


@case(lifted=None, structure="dense")
def coupling_by_a_zero_coefficient() -> Model:
    def model() -> None:
        a, b = local("a", "p", 15), local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        pyro.factor("f", k**2 * a.sum() * (b**2).sum())

    return model


@case(lifted=None)
def square_of_a_sum_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        pyro.factor("f", k**2 * b.exp().sum() ** 2)

    return model


@case(lifted=None)
def total_that_is_read_twice() -> Model:
    def model() -> None:
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        total = local("b", "q", G).exp().sum()
        gaussian((total * X3[:, 0]).sin())
        pyro.factor("f", k**2 * total**2)

    return model


@case(lifted=None)
def cumsum_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        gaussian((b + k**2 * b.cumsum(0))[GROUP].exp())

    return model


@case(lifted=None)
def index_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        gaussian(b[GROUP] + k**2 * b[MIXED] * b[GROUP])

    return model


@case(lifted=None)
def sorted_at_first() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        pyro.factor("f", -(b.sort().values * b).sum() - (b**4).sum())

    return model


@case(lifted=None)
def product_of_rows_behind_a_zero() -> Model:
    def model() -> None:
        with pyro.plate("q", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.factor("f", 0.1 * (b[:, 0] * b[:, 1]).sum() * b.sin().sum())

    return model


@case(lifted=None)
def function_of_a_cumsum_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        gaussian((b + (b**2).cumsum(0)).cos()[MIXED] ** 2)

    return model


@case(lifted=None)
def branch_on_a_value() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        mean = b[GROUP] * b[GROUP].detach().sum() if k == 0 else b[GROUP] * b[GROUP].sum()
        gaussian(mean)

    return model


@case(lifted=None)
def softmax_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        pyro.factor("f", (k * b).logsumexp(0) - (b**2).sum())

    return model


@case(lifted=None)
def elementwise_and_transposed() -> Model:
    def model() -> None:
        b = normal("b", 9, 9)
        pyro.factor("f", -((b**2 * b.T).sin() * b.T).sum() - (b**4).sum())

    return model


@case(lifted=None)
def matrix_behind_a_zero() -> Model:
    def model() -> None:
        b = local("b", "q", G)
        pyro.factor("f", -(b**2).sum() - ((b**2) @ torch.ones(G, G) @ (b**2)))

    return model


# the tests ------------------------------------------------------------------------------------------------------------


@contextmanager
def objective(model: Model, type: str = "map") -> Iterator[DensityObjective]:
    program = Program(model, {})
    with program.scope():
        program.discover("median")
        yield DensityObjective(program, type)


def random_point(like: Params, seed: int, spread: float = 0.6) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: spread * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        for name, p in like.items()
    }


def true_hessian(at: DensityObjective, params: Params) -> Tensor:
    """Row by row from autograd, with nothing of hofit's curvature in between."""
    point = at.at(params)
    leaves = list(point.leaves.values())
    gradients = torch.autograd.grad(point.loss, leaves, create_graph=True, allow_unused=True)
    flat = torch.cat([(0 * x if g is None else g).reshape(-1) for g, x in zip(gradients, leaves, strict=True)])
    rows = []
    for entry in flat:
        if not entry.requires_grad:
            rows.append(torch.zeros_like(flat))
            continue
        row = torch.autograd.grad(entry, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([r.reshape(-1) for r in row]))
    return torch.stack(rows).detach() if rows else flat.new_zeros(0, 0)


def by_differences(at: DensityObjective, params: Params, direction: Params, h: float = 1e-5) -> Tensor:
    """H v by differences of gradients."""

    def gradient(sign: int) -> Tensor:
        moved = at.at({k: p + sign * h * direction[k] for k, p in params.items()})
        return Coordinates.of(params).flatten(moved.gradient())

    return (gradient(1) - gradient(-1)) / (2 * h)


def whole(operator: Any) -> Tensor:
    return operator.matvec(torch.eye(operator.size, dtype=operator.like.dtype))


def check(curvature: Curvature, at: DensityObjective, params: Params, tolerance: float = 1e-9) -> str:
    """Hold a Hessian against autograd's; what was found, in a phrase."""
    expected = true_hessian(at, params)
    point = at.at(params)
    operator = curvature.at(point, list(params))
    found = whole(operator)
    assert found.shape == expected.shape
    if expected.numel():
        off = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert off <= tolerance, curvature.describe(operator)
    return curvature.describe(operator)


@pytest.mark.parametrize("type", ["map", "map_unconstrained"])
@pytest.mark.parametrize("name", CASES)
def test_the_hessian_is_autograds_at_two_points(name: str, type: str) -> None:
    one = CASES[name]
    with objective(one.make(), type) as at:
        curvature = Curvature()
        like = at.start()
        first = random_point(like, 1, 0.0 if name in ZERO_AT_FIRST else 0.6)
        if name == "sorted_at_first":
            first = {"b": torch.linspace(-1.0, 1.0, G)}
        described = check(curvature, at, first)
        if one.lifted is not None:
            assert curvature.lifts is one.lifted, curvature.why_not_lifted
        if name not in ZERO_AT_FIRST:
            assert one.structure in described
        check(curvature, at, random_point(like, 2))
        check(curvature, at, random_point(like, 3, 1.2))


@pytest.mark.parametrize("name", ["hierarchical_indexed", "irt_nested", "lkj_random_effects", "poisson_matmul"])
def test_the_hessian_is_that_of_differences_of_gradients(name: str) -> None:
    with objective(CASES[name].make()) as at:
        params, direction = random_point(at.start(), 1), random_point(at.start(), 2)
        operator = Curvature().at(at.at(params), list(params))
        expected = by_differences(at, params, direction)
        assert torch.allclose(
            operator.matvec(Coordinates.of(params).flatten(direction)), expected, atol=1e-5, rtol=1e-6
        )


def lifted(at: DensityObjective, params: Params, prove: bool = True) -> LiftedLoss:
    """The loss at a point, taken apart."""
    point = at.at(params)
    found = LiftedLoss(point.leaves, lambda watch: at.evaluate(point, list(params), watch), IndexCache(), {})
    found.take_apart(prove)
    return found


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if one.lifted])
def test_the_gradient_through_the_maps_is_autograds(name: str) -> None:
    with objective(CASES[name].make()) as at:
        params = random_point(at.start(), 1)
        expected = at.at(params).gradient()
        for key, found in lifted(at, params).gradient.items():
            assert torch.allclose(found, expected[key], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    "name, separable",
    {
        "hierarchical_nested": True,
        "hierarchical_indexed": True,
        "centred_with_free_scales": True,
        "irt_nested": True,
        "irt_indexed": True,
        "crossed_effects_with_scales": True,
        "non_centred": True,
        "poisson_matmul": True,
        "student_t": True,
        "negative_binomial": True,
        "function_where_of_itself": True,
        "masked_and_scaled": True,
        "categorical_rows": False,
        "gaussian_process": False,
        "softmax_behind_a_zero": False,
        "square_of_a_sum_behind_a_zero": False,
        "sorted_at_first": False,
        "elementwise_and_transposed": True,  # the transposed is a node of its own
        "product_of_rows_behind_a_zero": False,
        "matrix_behind_a_zero": False,
    }.items(),
)
def test_what_a_trace_shows_separable_needs_no_proof(name: str, separable: bool) -> None:
    with objective(CASES[name].make()) as at:
        point = at.at(random_point(at.start(), 1))
        found = LiftedLoss(point.leaves, lambda watch: at.evaluate(point, list(point.params), watch), IndexCache(), {})
        assert found.separable is separable


@pytest.mark.parametrize("name", ["hierarchical_indexed", "crossed_effects", "poisson_matmul", "lkj_random_effects"])
def test_single_precision(name: str) -> None:
    with objective(CASES[name].make()) as at:
        params = random_point(at.start(), 1)
        expected = true_hessian(at, params)
    saved = {key: value for key, value in globals().items() if isinstance(value, Tensor) and value.is_floating_point()}
    torch.set_default_dtype(torch.float32)
    try:
        globals().update({key: value.float() for key, value in saved.items()})
        with objective(CASES[name].make()) as at:
            curvature = Curvature()
            operator = curvature.at(at.at({k: p.float() for k, p in params.items()}), list(params))
            assert operator.like.dtype == torch.float32
            assert float((whole(operator).double() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
            assert curvature.lifts
    finally:
        globals().update(saved)


# robustness -----------------------------------------------------------------------------------------------------------


def is_watched() -> bool:
    """Whether someone looks at what is computed."""
    return isinstance(torch.overrides._get_current_function_mode(), Watch)


def expect_no_trace(at: DensityObjective) -> None:
    assert torch._C._len_torch_function_stack() == 0
    assert torch.is_grad_enabled() and all(leaf.requires_grad for leaf in at.program.leaves.values())
    assert not pyro.poutine.runtime._PYRO_STACK


@pytest.mark.parametrize("error", [ValueError, RuntimeError, torch.linalg.LinAlgError, KeyError])
def test_a_model_that_raises_only_when_it_is_watched_is_probed(error: type[Exception]) -> None:
    def model() -> None:
        a, b = local("a", "p", G), local("b", "q", G)
        if is_watched():
            raise error("no")
        gaussian(a[GROUP].exp() + b[MIXED])

    with objective(model) as at:
        curvature, params = Curvature(), random_point(at.start(), 1)
        check(curvature, at, params)
        assert not curvature.lifts and "raises when it is watched" in curvature.why_not_lifted
        curvature = Curvature()
        curvature.at(at.at(params), ["a"])  # b is held
        expect_no_trace(at)


def test_an_interruption_passes_through_and_leaves_no_trace() -> None:
    def model() -> None:
        a, b = local("a", "p", G), local("b", "q", G)
        if is_watched():
            raise KeyboardInterrupt
        gaussian(a[GROUP].exp() + b[MIXED])

    with objective(model) as at:
        with pytest.raises(KeyboardInterrupt):
            Curvature().at(at.at(random_point(at.start(), 1)), ["a"])
        expect_no_trace(at)


def test_a_failure_that_the_model_swallows_is_not_lost() -> None:
    def model() -> None:
        b = local("b", "g", G)
        mean = b[GROUP] * 2
        try:
            mean.view(-1)[0].add_(1.0)
            mean.clamp_(-0.5, 0.5)
        except BaseException:
            mean = b[GROUP] * 3
        gaussian(mean.exp())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, random_point(at.start(), 1))
        assert not curvature.lifts and "in place" in curvature.why_not_lifted
        expect_no_trace(at)


def test_views_of_what_is_written_in_place_are_not_lost() -> None:
    def model() -> None:
        b = local("b", "g", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        mean = b[GROUP] * 2.0
        view = mean.view(G, N)
        mean += k
        gaussian(view.reshape(-1).exp())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, {name: torch.zeros_like(p) for name, p in at.start().items()})
        check(curvature, at, random_point(at.start(), 1))
        assert not curvature.lifts


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
            assert torch.isfinite(operator.diagonal()).all() == (params is not zero)
        check(curvature, at, random_point(zero, 3))
        fresh = Curvature()
        fresh.at(at.at(zero), list(zero))
        check(fresh, at, random_point(zero, 1))
        check(fresh, at, random_point(zero, 2))


def test_what_is_not_finite_only_in_the_maps_is_probed() -> None:
    def model() -> None:
        a, b = local("a", "p", G), local("b", "q", G)
        both = torch.cat([a, b])
        pyro.factor("f", -torch.where(both[:G] != 0, both.abs()[:G] ** 1.5, both[G:] ** 2).sum() - (a**2).sum())

    with objective(model) as at:
        curvature, like = Curvature(), at.start()
        check(curvature, at, random_point(like, 1))
        for params in (random_point(like, 2), {"a": torch.zeros(G), "b": torch.ones(G)}):
            point = at.at(params)
            expected = true_hessian(at, params)
            found = whole(curvature.at(point, list(params)))
            finite = torch.isfinite(expected)
            assert torch.allclose(found[finite], expected[finite]) or not finite.all()


def test_an_index_that_changes_between_traces_is_read_anew() -> None:
    index = {"torch": GROUP.clone(), "numpy": GROUP.numpy().copy(), "list": GROUP.tolist()}

    def model() -> None:
        b = local("b", "g", G)
        gaussian((b[index["torch"]] + b[index["numpy"]] + b[index["list"]]).exp())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, random_point(at.start(), 1))
        assert curvature.lifts
        index["torch"].copy_(MIXED)
        check(curvature, at, random_point(at.start(), 2))
        index["numpy"][-1] = 0
        check(curvature, at, random_point(at.start(), 3))
        index["list"][-2] = 1
        check(curvature, at, random_point(at.start(), 4))
        assert curvature.lifts


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


def test_a_bare_loss_is_probed() -> None:
    leaf = torch.linspace(-1.0, 1.0, 5).requires_grad_(True)
    point = TracedPoint({"x": leaf.detach().clone()}, (leaf**3).sum() + leaf[0] * leaf[1], {"x": leaf})
    operator = Curvature().at(point, ["x"])
    assert torch.allclose(whole(operator).diagonal(), 6 * leaf.detach())


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
