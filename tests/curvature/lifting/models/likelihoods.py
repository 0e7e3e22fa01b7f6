"""Distributions of what is observed, and of latents that are constrained."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch.distributions import constraints

from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import COUNTS, GROUP, X3, Y01, Cases, G, N, Z, gaussian, local, normal, poisson

CASES = Cases()


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 3")
def student_t() -> Model:
    def model() -> None:
        mu, s, df = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in ("mu", "log_s", "log_df"))
        b = local("b", "g", G)
        pyro.sample("y", dist.StudentT(2 + df.exp(), mu + b[GROUP], s.exp()).to_event(1), obs=Z)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (rate); border of 2 (shape, scale)")
def gamma_latents() -> Model:
    def model() -> None:
        shape = pyro.sample("shape", dist.Gamma(2.0, 1.0))
        scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
        with pyro.plate("g", G):
            rate = pyro.sample("rate", dist.Gamma(shape, scale))
        poisson(rate[GROUP])

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (p); border of 2 (ab)")
def beta_binomial() -> Model:
    def model() -> None:
        ab = pyro.param("ab", torch.tensor([1.5, 2.5]), constraint=constraints.positive)
        with pyro.plate("g", G):
            p = pyro.sample("p", dist.Beta(ab[0], ab[1]))
            pyro.sample("y", dist.Binomial(10.0, probs=p), obs=Y01.sum(1))

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 2")
def negative_binomial() -> Model:
    def model() -> None:
        r = pyro.sample("r", dist.LogNormal(0.0, 1.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        pyro.sample("y", dist.NegativeBinomial(r, logits=mu + b[GROUP] - r.log()).to_event(1), obs=COUNTS)

    return model


@CASES.case(lifted=None)
def dirichlet_latent() -> Model:
    def model() -> None:
        p = pyro.sample("p", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
        pyro.sample("y", dist.Multinomial(20, p), obs=torch.tensor([4.0, 9.0, 7.0]))

    return model


@CASES.case(structure="rows: 12 rows of 2 (p)")
def dirichlet_rows() -> Model:
    y = torch.poisson(torch.full((G, 3), 4.0))

    def model() -> None:
        with pyro.plate("g", G):
            p = pyro.sample("p", dist.Dirichlet(torch.full((3,), 1.5)))
            pyro.sample("y", dist.Multinomial(1, p, validate_args=False), obs=y)

    return model


@CASES.case(lifted=None)
def simplex_parameter() -> Model:
    def model() -> None:
        w = pyro.param("w", torch.tensor([0.2, 0.3, 0.5]), constraint=constraints.simplex)
        m = pyro.param("m", torch.tensor([-1.0, 0.0, 1.0]))
        mixture = dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(m, 1.0))
        with pyro.plate("n", G * N):
            pyro.sample("y", mixture, obs=Z)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 3")
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


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 4")
def ordered_logistic() -> Model:
    y = (COUNTS.clamp(max=3)).long()

    def model() -> None:
        cut = pyro.param("cut", torch.tensor([-1.0, 0.0, 1.0]), constraint=dist.constraints.ordered_vector)
        beta = pyro.sample("beta", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        pyro.sample("y", dist.OrderedLogistic(beta * Z + b[GROUP], cut).to_event(1), obs=y)

    return model


@CASES.case(structure="rows: 12 rows of 3 (b)")
def categorical_rows() -> Model:
    y = (COUNTS.clamp(max=2)).long()

    def model() -> None:
        with pyro.plate("g", G):
            b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Categorical(logits=b[GROUP]).to_event(1), obs=y)

    return model


@CASES.case(structure="dense (9)")
def multinomial_logistic() -> Model:
    y = (COUNTS.clamp(max=2)).long()

    def model() -> None:
        b = normal("b", 3, 3)
        pyro.sample("y", dist.Categorical(logits=X3 @ b).to_event(1), obs=y)

    return model


@CASES.case(structure="dense (9)")
def multinomial_logistic_by_linear() -> Model:
    y = (COUNTS.clamp(max=2)).long()

    def model() -> None:
        w, c = normal("w", 2, 3), normal("c", 3)
        logits = torch.cat([torch.zeros(G * N, 1), F.linear(X3, w) + c[:2]], -1)
        pyro.sample("y", dist.Categorical(logits=logits).to_event(1), obs=y)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 2")
def zero_inflated() -> Model:
    def model() -> None:
        gate = pyro.sample("gate", dist.Beta(1.0, 2.0))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        b = local("b", "g", G)
        pyro.sample("y", dist.ZeroInflatedPoisson((mu + b[GROUP]).exp(), gate=gate).to_event(1), obs=COUNTS)

    return model


@CASES.case(structure="diagonal: 12 rows of 1 (theta)")
def interval_constrained() -> Model:
    def model() -> None:
        with pyro.plate("g", G):
            theta = pyro.sample("theta", dist.Uniform(-1.0, 3.0))
        gaussian(theta[GROUP])

    return model


@CASES.case(structure="dense (3)")
def constrained_parameters() -> Model:
    def model() -> None:
        sigma = pyro.param("sigma", torch.tensor(1.3), constraint=constraints.positive)
        p = pyro.param("p", torch.tensor(0.3), constraint=constraints.unit_interval)
        low = pyro.param("low", torch.tensor(0.3), constraint=constraints.interval(-1.0, 2.0))
        gaussian(low + p * Z**2, sigma)

    return model
