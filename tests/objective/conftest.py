"""A marginal objective over a model, ready to be asked for points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hofit.coordinates import Coordinates
from hofit.curvature import structure
from hofit.model.program import Program
from hofit.objective.at_mode import Approximation, laplace
from hofit.objective.leaves import Leaves
from hofit.objective.marginal import MarginalObjective, MarginalPoint
from hofit.objective.quadrature import Quadrature
from hofit.point import Params


@dataclass
class Evidence:
    """Minus the log evidence as a function of the flat outer parameters (p,)."""

    objective: MarginalObjective

    @property
    def coordinates(self) -> Coordinates:
        return Coordinates.of(self.objective.start())

    @property
    def start(self) -> Tensor:
        return self.flat(self.objective.start())

    def flat(self, params: Params) -> Tensor:
        """Outer parameters as one vector (p,)."""
        return self.coordinates.flatten(params)

    def near_start(self, distance: float = 0.3) -> Tensor:
        noise = torch.randn(self.start.shape, generator=torch.Generator().manual_seed(1))
        return self.start + distance * noise

    def at(self, x: Tensor) -> MarginalPoint:
        point = self.objective.at(self.coordinates.unflatten(x))
        assert isinstance(point, MarginalPoint)
        return point

    def loss(self, x: Tensor) -> Tensor:
        point = self.at(x)
        assert point.failure is None, point.failure
        return point.loss

    def gradient(self, x: Tensor) -> Tensor:
        return self.flat(self.at(x).gradient())

    def hessian(self, point: MarginalPoint) -> Tensor:
        return self.flat(point.hvp(self.coordinates.unflatten(torch.eye(len(self.start)))))


def slopes_along(own: Evidence, x: Tensor, direction: Tensor, h: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Central differences of loss and gradient, extrapolated (Richardson): they err by h⁴, and 1e-11 of rounding."""

    def difference(h: float) -> tuple[Tensor, Tensor]:
        here, there = own.at(x + h * direction), own.at(x - h * direction)
        assert here.failure is None and there.failure is None
        ahead, behind = (own.flat(point.gradient()) for point in (here, there))
        return (here.loss - there.loss) / (2 * h), (ahead - behind) / (2 * h)

    wide, narrow = difference(2 * h), difference(h)
    slope, change = ((4 * fine - coarse) / 3 for fine, coarse in zip(narrow, wide, strict=True))
    return slope, change


Make = Callable[..., Evidence]


@pytest.fixture
def evidence() -> Iterator[Make]:
    """evidence(model, integrated, y=…): its marginal; ``nodes`` and ``methods`` ask for quadrature. One at a time."""
    with ExitStack() as stack:

        def make(
            model: Callable[..., Any],
            integrated: list[str],
            nodes: int | None = None,
            methods: dict[str, str] | None = None,
            jacobian: bool = False,
            **arguments: Any,
        ) -> Evidence:
            stack.close()
            program = Program(model, arguments)
            stack.enter_context(program.scope())
            program.discover()
            program.integrate(integrated)
            approximation: Approximation = laplace
            leaves, counted = Leaves(program.leaves), program.latents if jacobian else None
            if nodes is not None:
                names = counted or integrated
                approximation = Quadrature(program, leaves, methods or dict.fromkeys(integrated, "aghq"), nodes, names)
            return Evidence(MarginalObjective(program, integrated, counted, approximation, leaves))

        yield make


@pytest.fixture(params=["lifted", "by products"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the Hessian over the integrated latents comes about."""
    monkeypatch.setattr(structure, "FEW_UNKNOWNS", 0 if request.param == "lifted" else 10**6)
    found: str = request.param
    return found
