"""Hierarchical models: groups nested, crossed and indexed, centred or not, with free and correlated scales."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints

from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import (
    GROUP,
    ITEM,
    MIXED,
    X3,
    Y01,
    Cases,
    G,
    N,
    X,
    Z,
    bernoulli,
    gaussian,
    local,
    normal,
)

CASES = Cases()


@CASES.case(structure="arrowhead: 12 rows of 2 (b); border of 2 (beta)")
def hierarchical_nested() -> Model:
    def model() -> None:
        beta = normal("beta", 2)
        with pyro.plate("g", G, dim=-2):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), torch.tensor([0.8, 0.5])).to_event(1))
            with pyro.plate("o", N, dim=-1):
                pyro.sample("y", dist.Bernoulli(logits=beta[0] + b[..., 0] + (beta[1] + b[..., 1]) * X), obs=Y01)

    return model


@CASES.case(structure="arrowhead: 12 rows of 2 (b); border of 2 (beta)")
def hierarchical_indexed() -> Model:
    def model() -> None:
        beta = normal("beta", 2)
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        bernoulli(beta[0] + b[MIXED, 0] + (beta[1] + b[MIXED, 1]) * X.reshape(-1))

    return model


@CASES.case(structure="arrowhead: 12 rows of 2 (b0, b1); border of 4 (log_tau, mu)")
def centred_with_free_scales() -> Model:
    def model() -> None:
        tau = normal("log_tau", 2).exp()
        mu = normal("mu", 2)
        with pyro.plate("g", G):
            b0 = pyro.sample("b0", dist.Normal(mu[0], tau[0]))
            b1 = pyro.sample("b1", dist.Normal(mu[1], tau[1]))
        bernoulli(b0[GROUP] + b1[GROUP] * X.reshape(-1))

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (z); border of 3 (mu, tau, sigma)")
def non_centred() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 1.0))
        with pyro.plate("g", G):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        gaussian((mu + tau * z)[GROUP], sigma)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (z); border of 2 (mu, tau)")
def non_centred_nested() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfNormal(1.0))
        with pyro.plate("g", G, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("o", N, dim=-1):
                pyro.sample("y", dist.Normal(mu + tau * z, 1.0), obs=Z.view(G, N))

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (z); border of 2 (mu, log_tau)")
def non_centred_reparameterised() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("log_tau", dist.Normal(0.0, 1.0)).exp()
        with pyro.plate("g", G):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        b = mu + tau * z
        bernoulli(b.index_select(0, GROUP))

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (school); border of 5")
def nested_effects() -> Model:
    district = torch.arange(G) % 4

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        u = local("district", "d", 4)
        with pyro.plate("s", G):
            v = pyro.sample("school", dist.Normal(u[district], 0.5))
        bernoulli(mu + v[GROUP])

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (school); border of 5")
def nested_effects_through_two_indices() -> Model:
    district = torch.arange(G) % 4

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        u, v = local("district", "d", 4), local("school", "s", G)
        bernoulli(mu + u[district][MIXED] + v[MIXED])

    return model


@CASES.case(structure="arrowhead: 15 rows of 1 (item); border of 12 (subject)")
def crossed_effects() -> Model:
    def model() -> None:
        b, c = local("subject", "subjects", G), local("item", "items", 15)
        bernoulli(b[MIXED] + c[ITEM])

    return model


@CASES.case(structure="arrowhead: 15 rows of 1 (item); border of 15 (subject, tau)")
def crossed_effects_with_scales() -> Model:
    def model() -> None:
        tau = normal("tau", 3).exp()
        with pyro.plate("subjects", G):
            b = pyro.sample("subject", dist.Normal(0.0, tau[0]))
        with pyro.plate("items", 15):
            c = pyro.sample("item", dist.Normal(0.0, tau[1]))
        gaussian(b[MIXED] + c[ITEM], tau[2])

    return model


@CASES.case(structure="arrowhead: 30 rows of 1 (th); border of 16 (la, b)")
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


@CASES.case(structure="arrowhead: 30 rows of 1 (th); border of 24 (la, b)")
def irt_indexed() -> Model:
    person, item = torch.arange(360) // 12, torch.arange(360) % 12
    y = (torch.rand(360, generator=torch.Generator().manual_seed(1)) < 0.5).double()

    def model() -> None:
        with pyro.plate("items", 12):
            la, b = pyro.sample("la", dist.Normal(0.0, 0.5)), pyro.sample("b", dist.Normal(0.0, 1.0))
        th = local("th", "persons", 30)
        bernoulli(la.exp()[item] * (th[person] - b[item]), y)

    return model


@CASES.case(structure="arrowhead: 30 rows of 1 (th); border of 12 (b)")
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


@CASES.case(structure="arrowhead: 12 rows of 2 (b)")
def lkj_random_effects() -> Model:
    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([2]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(2, 2.0))
        mu = normal("mu", 2)
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.MultivariateNormal(mu, scale_tril=tau[:, None] * corr))
        bernoulli(b[GROUP, 0] + b[GROUP, 1] * X.reshape(-1))

    return model


@CASES.case(structure="arrowhead: 12 rows of 3 (b)")
def lkj_random_effects_of_three() -> Model:
    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([3]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(3, 1.0))
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(3), scale_tril=tau.diag() @ corr))
        bernoulli((b[GROUP] * X3).sum(-1))

    return model


@CASES.case(structure="arrowhead: 12 rows of 3 (z)")
def lkj_non_centred() -> Model:
    def model() -> None:
        tau = pyro.sample("tau", dist.HalfNormal(1.0).expand([3]).to_event(1))
        corr = pyro.sample("corr", dist.LKJCholesky(3, 1.0))
        with pyro.plate("g", G):
            z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
        b = z @ (tau[:, None] * corr).T
        bernoulli((b[GROUP] * X3).sum(-1))

    return model


@CASES.case(lifted=None)
def free_scale_tril() -> Model:
    def model() -> None:
        tril = pyro.param("tril", torch.eye(2), constraint=constraints.lower_cholesky)
        mu = pyro.param("mu", torch.zeros(2))
        with pyro.plate("n", 60):
            pyro.sample("y", dist.MultivariateNormal(mu, scale_tril=tril), obs=Z.view(60, 2))

    return model
