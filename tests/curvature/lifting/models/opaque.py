"""What a watcher sees that is no function of tensors alone, or cannot follow: masks, casts, memory, backwards."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from tests.curvature.hessians import Model
from tests.curvature.lifting.models.base import GROUP, MIXED, X3, Cases, G, N, Z, gaussian, local

CASES = Cases()


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 1")
def factors() -> Model:
    def model() -> None:
        mu = pyro.param("mu", torch.tensor(0.1))
        b = local("b", "g", G)
        pyro.factor("f", -((mu + b[GROUP] - Z) ** 4).sum() - mu**2)

    return model


@CASES.case(structure="diagonal: 12 rows of 1 (b)")
def masked_and_scaled() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        with pyro.plate("o", G * N), poutine.scale(scale=2.5), poutine.mask(mask=X3[:, 0] > 0):
            pyro.sample("y", dist.Normal(b[GROUP] ** 2, 1.0), obs=Z)

    return model


@CASES.case(structure="diagonal: 12 rows of 1 (b)")
def masked_observations() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        with pyro.plate("o", G * N):
            pyro.sample("y", dist.Normal(b[GROUP].exp(), 1.0).mask(X3[:, 1] > 0), obs=Z)

    return model


@CASES.case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def written_into_a_tensor() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        mean = torch.zeros(G * N)
        mean[::2] = b[GROUP][::2] ** 2
        mean[1::2] = b[MIXED][1::2]
        gaussian(mean)

    return model


@CASES.case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def multiplied_in_place() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        mean = b[GROUP].sin()
        mean.mul_(2.0)
        mean += b[GROUP]
        gaussian(mean)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 1")
def a_number_of_a_parameter() -> Model:
    def model() -> None:
        s = pyro.sample("s", dist.HalfNormal(1.0))
        b = local("b", "g", G)
        gaussian(b[GROUP] * s.item() + b[GROUP] * float(s.detach()) + s)

    return model


@CASES.case(structure="arrowhead: 12 rows of 1 (b); border of 1")
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
        slope: Tensor = gradients[0] * 3 * x**2
        return slope


def _cube(x: Tensor) -> Tensor:
    cube: Tensor = _Cube.apply(x)  # type: ignore[no-untyped-call]
    return cube


@CASES.case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def custom_function() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        gaussian(_cube(b[GROUP]))

    return model


@CASES.case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def custom_function_of_a_parameter() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        gaussian(_cube(b)[GROUP])

    return model


@CASES.case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
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


@CASES.case(structure="diagonal: 12 rows of 1 (b)")
def casts_and_copies() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        c = b.double().to(torch.float64).contiguous().clone().type_as(Z)
        gaussian((+c)[GROUP].real)

    return model


@CASES.case(lifted=None, structure="diagonal: 12 rows of 1 (b)")
def through_single_precision() -> Model:
    def model() -> None:
        b = local("b", "g", G)
        gaussian(b[GROUP].float().double())

    return model
