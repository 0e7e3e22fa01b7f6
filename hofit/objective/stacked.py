"""One objective of many data sets at once: every number is a batch of them, every operation is done to the batch.

The model is traced under `torch.vmap`, each data set with parameters of its own. What is integrated out goes by
Laplace's method, and the derivatives are those of `marginal.py`, with a leading dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log, pi
from typing import Any

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.layout import Layout
from ..model.program import Program

CHUNK = 2**20
"""Terms of losses and second derivatives that are computed at once: their graph holds some hundred each."""


class NotStacked(Exception):
    """The data sets cannot be computed together; the message says why."""


@dataclass(frozen=True)
class Arguments:
    """The model's arguments: those that all data sets share, and name → (B, …) of those that differ."""

    shared: Mapping[str, Any]
    stacked: Mapping[str, Tensor]

    @classmethod
    def of(cls, given: Sequence[Mapping[str, Any]]) -> Arguments:
        """Of data sets whose arguments differ in the values of tensors alone. Raises: NotStacked."""
        first, shared, stacked = given[0], {}, {}
        for name, value in first.items():
            others = [one[name] for one in given]
            if isinstance(value, Tensor):
                if any(one.shape != value.shape or one.dtype != value.dtype for one in others):
                    raise NotStacked(f"{name!r} has not one shape")
                if all(torch.equal(one, value) for one in others):
                    shared[name] = value
                else:
                    stacked[name] = torch.stack(others)
            elif any(one != value for one in others):
                raise NotStacked(f"{name!r} differs, and is no tensor")
            else:
                shared[name] = value
        return cls(shared, stacked)

    def some(self, places: Tensor) -> Arguments:
        return Arguments(self.shared, {name: value[places] for name, value in self.stacked.items()})

    def one(self, place: int) -> dict[str, Any]:
        """Those of one data set."""
        return {**self.shared, **{name: value[place] for name, value in self.stacked.items()}}


class Stacked:
    """−log density of many data sets. Use inside ``program.scope()``.

    Args:
        outer, inner: names of what is optimised, and of what is integrated out.
        jacobian: the latents whose transforms count.
        layout: of the inner Hessian; None where it is dense.
    """

    def __init__(
        self,
        program: Program,
        outer: Sequence[str],
        inner: Sequence[str],
        jacobian: frozenset[str],
        layout: Layout | None,
    ) -> None:
        self.program, self.jacobian = program, jacobian
        leaves = program.leaves
        self.outer, self.inner = (Coordinates.of(leaves, names) for names in (outer, inner))
        self.all = Coordinates.of(leaves, [*outer, *inner])
        own = torch.arange(self.inner.size)
        if layout is None or layout.sparsity is not None or not layout.rows:
            self._colour, self._together = own, torch.ones(len(own), len(own), dtype=torch.bool)
            return
        row, colour = own.clone(), own.clone()
        for number, group in enumerate(layout.rows):
            row[group.index] = (torch.arange(group.count) + len(own) * (number + 1))[:, None]
            colour[group.index] = torch.arange(group.length)[None, :].expand(group.count, -1)
        width = max(group.length for group in layout.rows)
        row[layout.border] = -1
        colour[layout.border] = width + torch.arange(len(layout.border))
        border = row == -1
        self._colour = colour
        self._together = (row[:, None] == row[None, :]) | border[:, None] | border[None, :]

    @property
    def colours(self) -> int:
        """Products that show an inner Hessian."""
        return int(self._colour.max()) + 1 if len(self._colour) else 0

    def losses(self, places: Tensor, arguments: Arguments) -> Tensor:
        """Shapes: (B, p + d) → (B,). Raises: NotStacked."""
        names = list(arguments.stacked)

        def one(place: Tensor, *given: Tensor) -> Tensor:
            own = {**arguments.shared, **dict(zip(names, given, strict=True))}
            with self.program.arguments_replaced(own), self.program.substituted(self.all.unflatten(place)):
                return -self.program.log_density(self.jacobian)

        try:
            found: Tensor = torch.vmap(one)(places, *arguments.stacked.values())
        except Exception as error:
            raise NotStacked(str(error).strip().splitlines()[0]) from error
        return found

    def at(self, theta: Tensor, u: Tensor, arguments: Arguments) -> StackedPoint:
        """Shapes: (B, p), (B, d)."""
        places = torch.cat([theta, u], 1).requires_grad_()
        loss = self.losses(places, arguments)
        (slope,) = torch.autograd.grad(loss.sum(), places, create_graph=True)
        return StackedPoint(self, places, loss, slope)

    def inner_hessian(self, slope: Tensor, places: Tensor, graph: bool) -> Tensor:
        """Of the losses, whose slope is (B, p + d): (B, d, d)."""
        p, d = self.outer.size, self.inner.size
        if not d:
            return slope.new_zeros(len(slope), 0, 0)
        answers = []
        for colour in range(self.colours):
            along = (slope[:, p:] * (self._colour == colour).to(slope)).sum()
            (found,) = torch.autograd.grad(along, places, create_graph=graph, retain_graph=True)
            answers.append(found[:, p:])
        whole = torch.stack(answers, -1)[:, :, self._colour]  # (B, i, j): row i of the column's colour
        matrix = torch.where(self._together, whole, 0.0)
        return (matrix + matrix.mT) / 2


@dataclass(eq=False)
class StackedPoint:
    """The losses at places (B, p + d), with their slopes and a graph."""

    source: Stacked
    places: Tensor
    loss: Tensor
    slope: Tensor

    @property
    def inner_slope(self) -> Tensor:
        return self.slope[:, self.source.outer.size :].detach()

    def newton(self) -> tuple[Tensor, Tensor]:
        """Newton's step in u, (B, d), and what it promises to lower the loss by, (B,); nan where H is not positive."""
        hessian = self.source.inner_hessian(self.slope, self.places, graph=False)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        step = -torch.cholesky_solve(self.inner_slope[:, :, None], factor)[:, :, 0]
        step = torch.where((failed > 0)[:, None], torch.nan, step)
        return step, -0.5 * (step * self.inner_slope).sum(1)


@dataclass(eq=False)
class StackedEvidence:
    """Φ of a point whose u is the mode, its gradient in θ and its Hessian; nan where H_uu is not positive."""

    point: StackedPoint

    @cached_property
    def _matrix(self) -> Tensor:
        return self.point.source.inner_hessian(self.point.slope, self.point.places, graph=True)

    @cached_property
    def _factor(self) -> Tensor:
        """The Cholesky factors of H_uu, (B, d, d), with their graph; nan where there is none."""
        factor, failed = torch.linalg.cholesky_ex(self._matrix)
        return torch.where((failed > 0)[:, None, None], torch.nan, factor)

    @property
    def inner_hessian(self) -> Tensor:
        return self._matrix.detach()

    @cached_property
    def _phi(self) -> Tensor:
        size = self.point.source.inner.size
        if not size:
            return self.point.loss
        half: Tensor = self._factor.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.point.loss + half - 0.5 * size * log(2 * pi)

    @cached_property
    def loss(self) -> Tensor:
        """Shape (B,)."""
        return (self._phi - self._lag).detach() if self.point.source.inner.size else self._phi.detach()

    @cached_property
    def _lag(self) -> Tensor:
        p = self.point.source.outer.size
        (change,) = torch.autograd.grad(self._phi.sum(), self.point.places, retain_graph=True)
        return (self.point.slope[:, p:] * self._solved(change[:, p:])).sum(1)

    @cached_property
    def _slopes(self) -> Tensor:
        """∇Ψ by θ and u, (B, p + d), with its graph."""
        psi = self._phi - self._lag if self.point.source.inner.size else self._phi
        found: Tensor = torch.autograd.grad(psi.sum(), self.point.places, create_graph=True)[0]
        return found

    @property
    def gradient(self) -> Tensor:
        """Shape (B, p)."""
        return self._slopes[:, : self.point.source.outer.size].detach()

    def hessian(self) -> tuple[Tensor, Tensor]:
        """That in θ, (B, p, p), and dû/dθ, (B, p, d): the form along (dû/dθ, 1), from either side."""
        slope, p = self.point.slope, self.point.source.outer.size
        units = torch.eye(p).to(slope).expand(len(slope), p, p)
        if self.point.source.inner.size:
            mixed = torch.stack([self._along(slope[:, k])[:, p:] for k in range(p)], 2)
            moves = -torch.cholesky_solve(mixed, self._factor.detach()).mT
        else:
            moves = slope.new_zeros(len(slope), p, 0)
        ways = torch.cat([units, moves], 2)
        second = torch.stack([self._along((self._slopes * way).sum(1)) for way in ways.unbind(1)], 1)
        matrix = second[:, :, :p] + second[:, :, p:] @ moves.mT
        return (matrix + matrix.mT) / 2, moves

    def _along(self, output: Tensor) -> Tensor:
        """The slopes of numbers (B,), each a function of its own place: (B, p + d)."""
        return _gradient(output.sum(), self.point.places)

    def _solved(self, right: Tensor) -> Tensor:
        """H_uu⁻¹ of right sides (B, d)."""
        return torch.cholesky_solve(right.detach()[:, :, None], self._factor.detach())[:, :, 0]


def _gradient(output: Tensor, places: Tensor) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(places)
    found: Tensor = torch.autograd.grad(output, places, retain_graph=True, materialize_grads=True)[0].detach()
    return found


def chunks(source: Stacked, terms: int, count: int) -> list[Tensor]:
    """The data sets in parts that are computed at once, each with about ``terms`` terms of its loss."""
    each = max(1, CHUNK // max(1, terms * (source.colours + 4)))
    return list(torch.arange(count).split(each))
