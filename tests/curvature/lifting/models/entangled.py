"""What entangles rows, at every point."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import GROUP, X3, Cases, G, Z, gaussian, local, normal

CASES = Cases()


@CASES.case(lifted=None, structure="dense (3)")
def gaussian_process() -> Model:
    d = (Z[:20, None] - Z[:20]) ** 2

    def model() -> None:
        sigma, length, noise = (pyro.sample(name, dist.LogNormal(0.0, 1.0)) for name in ("sigma", "length", "noise"))
        k = sigma**2 * torch.exp(-d / (2 * length**2)) + (noise**2 + 1e-6) * torch.eye(20)
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(20), scale_tril=torch.linalg.cholesky(k)), obs=Z[:20])

    return model


@CASES.case(lifted=None, structure="dense (13)")
def random_walk_by_differences() -> Model:
    def model() -> None:
        s = pyro.sample("log_s", dist.Normal(0.0, 1.0)).exp()
        with pyro.plate("t", G):
            x = pyro.sample("x", dist.Normal(0.0, 10.0))
        pyro.factor("steps", dist.Normal(0.0, s).log_prob(x[1:] - x[:-1]).sum())
        gaussian(x[GROUP])

    return model


@CASES.case(lifted=None, structure="dense (12)")
def random_walk_by_cumsum() -> Model:
    def model() -> None:
        x = local("z", "t", G).cumsum(0)
        gaussian(x[GROUP].tanh())

    return model


@CASES.case(lifted=None, structure="dense (14)")
def autoregression() -> Model:
    def model() -> None:
        rho = pyro.sample("rho", dist.Uniform(-1.0, 1.0))
        s = pyro.sample("s", dist.HalfNormal(1.0))
        x = normal("x", G)
        pyro.factor("steps", dist.Normal(rho * x[:-1], s).log_prob(x[1:]).sum())
        gaussian(x[GROUP])

    return model


@CASES.case(lifted=None, structure="dense")
def neural_network() -> Model:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()

    def model() -> None:
        pyro.module("net", net)
        gaussian(net(X3).squeeze(-1))

    return model


@CASES.case(lifted=None, structure="dense (3)")
def loop_over_time() -> Model:
    def model() -> None:
        a, b, s = (pyro.sample(name, dist.Normal(0.0, 1.0)) for name in "abs")
        state = torch.zeros(())
        for t in range(8):
            state = torch.tanh(a * state + b * Z[t])
            pyro.sample(f"y{t}", dist.Normal(state, s.exp()), obs=Z[t + 1])

    return model
