"""What a marginal is differentiated by: f at the mode of one point, its Hessian H over u with its factor, and Φ.

See ``marginal`` for the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import log, pi, sqrt

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.expansion import Expansion
from ..linear.operator import Factor
from ..linear.sparse_log_determinant import Bends
from ..point import Params

TOGETHER = 2**13
"""Numbers of dû/dθ up to which its rows are computed as one batch."""

SOLVES = 64
"""Vectors that are solved for at once."""

Approximation = Callable[[Expansion], Tensor]
"""Φ of an expansion: minus the log of the integral; shape ()."""


def laplace(expansion: Expansion) -> Tensor:
    """f + ½ log det H − (d/2) log 2π. nan where H is not positive definite."""
    return expansion.loss + 0.5 * expansion.log_determinant() - 0.5 * expansion.layout.size * log(2 * pi)


@dataclass(eq=False)
class AtMode:
    """``u`` orders (d,). Φ is computed where it is asked for: a place on the way to a mode needs none."""

    u: Coordinates
    expansion: Expansion
    factor: Factor
    approximate: Approximation

    @cached_property
    def approximation(self) -> Tensor:
        """Φ, shape ()."""
        return self.approximate(self.expansion)

    @cached_property
    def slope(self) -> Tensor:
        """∂f/∂u, with its graph; shape (d,)."""
        return self.u.flatten(self.expansion.slope)

    @cached_property
    def change(self) -> Params:
        """∂Φ, over all parameters."""
        return self.expansion.gradient(self.approximation)

    @cached_property
    def step(self) -> Tensor:
        """H⁻¹ ∂f/∂u, which the mode is away by; shape (d,)."""
        return self.factor.solve(self.slope.detach())

    @cached_property
    def scale(self) -> Tensor:
        """The square roots of H's diagonal, shape (d,)."""
        return self.expansion.operator.diagonal().abs().sqrt()

    @property
    def stays(self) -> bool:
        """Whether H stays as u moves: then the one at the next point leads to the mode in a step, and is its."""
        return float((self.pull * self.scale).abs().max()) <= sqrt(torch.finfo(self.scale.dtype).eps)

    @cached_property
    def pull(self) -> Tensor:
        """w = H⁻¹ ∂Φ/∂u, shape (d,): where H does not change with u, it is no more than û is off."""
        return self.factor.solve(self.u.flatten(self.change))

    @cached_property
    def lag(self) -> Tensor:
        """wᵀ ∂f/∂u, shape ()."""
        return (self.slope * self.pull).sum()

    @cached_property
    def slopes(self) -> Params:
        """∇Ψ over all parameters, differentiable."""
        return self.expansion.gradient(self.approximation - self.lag, create_graph=True)

    def gradient(self, names: list[str]) -> Params:
        """∂Ψ by some parameters, as numbers."""
        back = self.expansion.gradient(self.lag)
        return {name: (self.change[name] - back[name]).detach() for name in names}

    def change_along(self, vector: Params) -> Params:
        """How ∂f changes along a direction of θ, over all parameters."""
        return self.expansion.gradient(_along(self.expansion.slope, vector))

    def second(self, vector: Params, change: Params) -> tuple[float, Tensor]:
        """A length along a direction of θ in which f curves by one, and how û moves along it, shape (d,).

        ``change`` is ``change_along`` that direction.
        """
        curvature = float(torch.stack([(change[name] * v).sum() for name, v in vector.items()]).sum().abs())
        return (curvature or 1.0) ** -0.5, -self.factor.solve(self.u.flatten(change)).detach()

    def hessian(self, theta: Coordinates, estimate: bool) -> tuple[Tensor, Tensor]:
        """That of Ψ over all of θ (p, p), and dû/dθ (p, d): the form along (dû/dθ, 1), from either side."""
        expansion, u = self.expansion, self.u
        units = torch.eye(theta.size).to(self.slope)
        bends = Bends(self.factor)
        if theta.size * u.size <= TOGETHER and not bends.any:
            with suppress(RuntimeError):  # an operation in the model that cannot be batched
                return self._hessian_at_once(theta, units)
        mixed = [u.flatten(expansion.gradient(_along(expansion.slope, theta.unflatten(unit)))) for unit in units]
        moves = -torch.cat([self.factor.solve(some) for some in torch.stack(mixed).split(SOLVES)])
        rows = []
        with bends:
            for unit, move in zip(units, moves, strict=True):
                second = expansion.gradient(_along(self.slopes, {**theta.unflatten(unit), **u.unflatten(move)}))
                rows.append((theta.flatten(second) + moves @ u.flatten(second)).detach())
                bends.take()
        return torch.stack(rows) + bends.matrix(estimate), moves

    def _hessian_at_once(self, theta: Coordinates, units: Tensor) -> tuple[Tensor, Tensor]:
        """As `hessian`, all directions in one batch: small models wait for the calls, not for the arithmetic."""
        expansion, u = self.expansion, self.u
        moves = -self.factor.solve(u.flatten(expansion.along(expansion.slope, theta.unflatten(units))))
        second = expansion.along(self.slopes, {**theta.unflatten(units), **u.unflatten(moves)})
        return (theta.flatten(second) + u.flatten(second) @ moves.T).detach(), moves.detach()

    def product(self, vector: Params) -> tuple[Params, Tensor]:
        """The Hessian of Ψ along a direction of θ, over its names, and how û moves along it, shape (d,)."""
        expansion, factor = self.expansion, self.factor
        move = -factor.solve(self.u.flatten(expansion.gradient(_along(expansion.slope, vector))))
        second = expansion.gradient(_along(self.slopes, {**vector, **self.u.unflatten(move)}))
        back = factor.solve(self.u.flatten(second))
        rest = expansion.gradient((self.slope * back).sum())
        return {name: (second[name] - rest[name]).detach() for name in vector}, move


@dataclass(frozen=True)
class Curved:
    """The Hessian at the last point where it was asked for: name → (p, *shape), and dû/dθ (p, d)."""

    params: Params
    inner: Params
    exact: bool
    hessian: Params
    sensitivity: Tensor


def by_rows(vectors: Params, product: Callable[[Params], tuple[Params, Tensor]]) -> tuple[Params, Tensor]:
    """Products with one vector after another, and how û moves along each: shapes (probes, *shape), (probes, d)."""
    names = list(vectors)
    rows = [product({name: vectors[name][k] for name in names}) for k in range(len(vectors[names[0]]))]
    return {name: torch.stack([row[name] for row, _ in rows]) for name in names}, torch.stack([m for _, m in rows])


def _along(slopes: Params, vector: Params) -> Tensor:
    """The slope along a direction over some of the parameters; shape ()."""
    along = Coordinates.of(vector)
    return (along.flatten(slopes) * along.flatten(vector)).sum()
