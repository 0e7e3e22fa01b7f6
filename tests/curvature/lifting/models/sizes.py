"""Few entries, none, or many: of plates, of parameters, of observations."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import GROUP, Cases, G, Z, gaussian, local, normal

CASES = Cases()


@CASES.case(structure="")
def plates_of_one() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("g", 1):
            b = pyro.sample("b", dist.Normal(mu, 1.0))
            with pyro.plate("o", 1, dim=-2):
                pyro.sample("y", dist.Normal(b, mu.exp()), obs=torch.ones(1, 1))

    return model


@CASES.case(structure="dense")
def empty_parameters() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        nothing, none = pyro.param("nothing", torch.zeros(0)), normal("none", 2, 0)
        with pyro.plate("o", 100):
            mean = mu.exp() + nothing.sum() + (torch.zeros(100, 0) @ nothing) + (none * 2).exp().sum()
            pyro.sample("y", dist.Normal(mean, 1.0), obs=Z[:100])

    return model


@CASES.case(lifted=None)
def no_observations() -> Model:
    def model() -> None:
        beta = normal("beta", 2)
        b = local("b", "g", G)
        none = torch.zeros(0, dtype=torch.long)
        pyro.sample("y", dist.Poisson((torch.zeros(0, 2) @ beta + b[none]).exp()).to_event(1), obs=torch.zeros(0))

    return model


@CASES.case(structure="arrowhead")
def idle_parameters() -> Model:
    def model() -> None:
        pyro.param("idle", torch.ones(3))
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        pyro.param("straight", torch.ones(2))
        b = local("b", "g", G)
        pyro.factor("linear", 2 * pyro.param("straight").sum())
        gaussian(mu * b[GROUP])

    return model


@CASES.case(structure="diagonal: 40 rows of 1 (w)")
def many_without_a_plate() -> Model:
    def model() -> None:
        w = normal("w", 40)
        pyro.factor("f", -(w**4).sum())

    return model


@CASES.case(structure="")
def few_observations_and_both_in_one_node() -> Model:
    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        s = pyro.sample("s", dist.LogNormal(0.0, 1.0))
        b = local("b", "g", 4)
        mean = mu + b
        cov = 0.5 * torch.eye(4) + 0.1 + s
        pyro.sample("y", dist.MultivariateNormal(mean, cov), obs=Z[:4])

    return model


@CASES.case(structure="")
def two_independent_plates() -> Model:
    def model() -> None:
        a, b = local("a", "p", 15), local("b", "q", G)
        gaussian(a.exp())
        pyro.sample("z", dist.Normal(b[GROUP].sin(), 1.0).to_event(1), obs=Z)

    return model


@CASES.case(structure="rows: 12 rows of 1 (u); 9 rows of 4 (a, b, c)")
def several_sites_of_one_plate() -> Model:
    def model() -> None:
        with pyro.plate("p", 9):
            a, b = pyro.sample("a", dist.Normal(0.0, 1.0)), pyro.sample("b", dist.LogNormal(0.0, 1.0))
            c = pyro.sample("c", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", dist.Normal(a * c[..., 0], b + c[..., 1] ** 2), obs=Z[:9])
        u = local("u", "q", G)
        pyro.sample("z", dist.Normal(u.exp(), 1.0).to_event(1), obs=Z[:G])

    return model
