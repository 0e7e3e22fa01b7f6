"""Small models with a loss that is known, and what is asked of the verdict on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.curvature.structure import Curvature
from hofit.linear.operator import Operator
from hofit.model.program import Program
from hofit.objective.density import DensityObjective
from hofit.point import Params
from hofit.verdict.place import Place

NEWTON = [{"params": "*", "optimizer": "newton"}]
ADAM = [{"params": "*", "optimizer": "adam", "lr": 0.1, "schedule": {"name": "exponential", "gamma": 0.99}}]


def of(*starts: float, loss: Callable[..., Tensor], **constraint: Any) -> Callable[[], None]:
    """A model whose loss is ``loss`` of scalar parameters p0, p1, …"""

    def model() -> None:
        values = [
            pyro.param(f"p{i}", torch.tensor(start), constraint=constraint.get(f"p{i}", constraints.real))
            for i, start in enumerate(starts)
        ]
        pyro.factor("loss", -loss(*values))

    return model


@contextmanager
def judged(model: Callable[[], None], params: Params) -> Iterator[Place]:
    """A place that the verdict looks at, at unconstrained numbers."""
    program = Program(model, {})
    with program.scope():
        program.discover()
        objective, curvature = DensityObjective(program, "map"), Curvature()
        point = objective.at_full(params)
        hessian = curvature.at(point, list(params))
        assert isinstance(hessian, Operator)
        held = torch.zeros(sum(value.numel() for value in params.values()), dtype=torch.bool)
        yield Place.of(objective, curvature, point, hessian, held)


def check(result: hofit.FitResult, name: str) -> bool | None:
    return next((check.ok for check in result.checks if check.name == name), None)


def parameter(start: float, **options: object) -> Tensor:
    value: Tensor = pyro.param("a", torch.tensor(start), **options)
    return value


def loss(value: Tensor) -> None:
    pyro.factor("loss", -value)


def fit(model: Callable[[], None], optimizer: str = "trust_region", **stop: float) -> hofit.FitResult:
    entry = {"params": "*", "optimizer": optimizer}
    return hofit.fit(model, {"optimizers": [entry], "stop": {"max_iterations": 300, **stop}})
