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
        apart = layout if layout is not None and layout.sparsity is None else None
        self.rows = () if apart is None else tuple(group.index for group in apart.rows)
        self.border = torch.arange(self.inner.size) if apart is None else apart.border
        """Groups of rows (R, L) of the inner Hessian that stay apart, and the numbers (m,) that are coupled to all."""
        self._width = max((index.shape[1] for index in self.rows), default=0)
        self._colour = torch.empty(self.inner.size, dtype=torch.long)
        for index in self.rows:
            self._colour[index] = torch.arange(index.shape[1]).expand(index.shape)
        self._colour[self.border] = self._width + torch.arange(len(self.border))

    @property
    def colours(self) -> int:
        """Products that show an inner Hessian."""
        return self._width + len(self.border)

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

    def inner_hessian(self, slope: Tensor, places: Tensor, graph: bool) -> InnerHessian:
        """Of the losses, whose slope is (B, p + d)."""
        p = self.outer.size
        columns = slope.new_zeros(len(slope), self.inner.size, self.colours)
        if self.colours:
            answers = []
            for colour in range(self.colours):
                along = (slope[:, p:] * (self._colour == colour).to(slope)).sum()
                (found,) = torch.autograd.grad(along, places, create_graph=graph, retain_graph=True)
                answers.append(found[:, p:])
            columns = torch.stack(answers, -1)
        blocks = [columns[:, index, : index.shape[1]] for index in self.rows]
        couplings = [columns[:, index, self._width :] for index in self.rows]
        corner = columns[:, self.border, self._width :]
        return InnerHessian(self, [(one + one.mT) / 2 for one in blocks], couplings, (corner + corner.mT) / 2)


@dataclass(eq=False)
class InnerHessian:
    """An arrowhead of each data set: ``blocks`` (B, R, L, L) and their ``couplings`` (B, R, L, m) with the border,
    group by group, and its ``corner`` (B, m, m)."""

    source: Stacked
    blocks: list[Tensor]
    couplings: list[Tensor]
    corner: Tensor

    def dense(self) -> Tensor:
        """Shape (B, d, d)."""
        size, border = self.source.inner.size, self.source.border
        whole = self.corner.new_zeros(len(self.corner), size, size)
        for index, blocks, coupling in zip(self.source.rows, self.blocks, self.couplings, strict=True):
            whole[:, index[:, :, None], index[:, None, :]] = blocks
            whole[:, index[:, :, None], border] = coupling
            whole[:, border[:, None], index.reshape(-1)] = coupling.flatten(1, 2).mT
        whole[:, border[:, None], border] = self.corner
        return whole

    def factor(self) -> InnerFactor:
        """Cholesky's, of the blocks and of the border's Schur complement."""
        roots, reduced, schur = [], [], self.corner
        failed = torch.zeros(len(self.corner), dtype=torch.bool)
        for blocks, coupling in zip(self.blocks, self.couplings, strict=True):
            root, wrong = torch.linalg.cholesky_ex(blocks)
            roots.append(root)
            failed |= (wrong > 0).any(1)
            reduced.append(torch.linalg.solve_triangular(root, coupling, upper=False))
            schur = schur - torch.einsum("brli,brlj->bij", reduced[-1], reduced[-1])
        corner, wrong = torch.linalg.cholesky_ex(schur)
        failed |= wrong > 0
        return InnerFactor(self.source, roots, reduced, corner, failed)


@dataclass(eq=False)
class InnerFactor:
    """``roots`` of the blocks, ``reduced`` couplings and the border's root ``corner``; ``failed`` (B,) have none, and
    all that is asked of them is nan."""

    source: Stacked
    roots: list[Tensor]
    reduced: list[Tensor]
    corner: Tensor
    failed: Tensor

    def half_log_determinant(self) -> Tensor:
        """Shape (B,), with its graph."""
        diagonals = [root.diagonal(dim1=-2, dim2=-1).flatten(1) for root in (*self.roots, self.corner)]
        return torch.where(self.failed, torch.nan, torch.cat(diagonals, 1).log().sum(1))

    @torch.no_grad()
    def solve(self, right: Tensor) -> Tensor:
        """Shape (B, d, k), without a graph."""
        border, below = self.source.border, []
        at_border = right[:, border]
        for index, root, reduced in zip(self.source.rows, self.roots, self.reduced, strict=True):
            below.append(torch.linalg.solve_triangular(root, right[:, index], upper=False))
            at_border = at_border - torch.einsum("brli,brlk->bik", reduced, below[-1])
        found = torch.empty_like(right)
        found[:, border] = at_border = torch.cholesky_solve(at_border, self.corner)
        for index, root, reduced, own in zip(self.source.rows, self.roots, self.reduced, below, strict=True):
            left = own - torch.einsum("brli,bik->brlk", reduced, at_border)
            found[:, index] = torch.linalg.solve_triangular(root.mT, left, upper=True)
        return torch.where(self.failed[:, None, None], torch.nan, found)


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
        factor = self.source.inner_hessian(self.slope, self.places, graph=False).factor()
        step = -factor.solve(self.inner_slope[:, :, None])[:, :, 0]
        return step, -0.5 * (step * self.inner_slope).sum(1)


@dataclass(eq=False)
class StackedEvidence:
    """Φ of a point whose u is the mode, its gradient in θ and its Hessian; nan where H_uu is not positive."""

    point: StackedPoint

    @cached_property
    def _matrix(self) -> InnerHessian:
        return self.point.source.inner_hessian(self.point.slope, self.point.places, graph=True)

    @cached_property
    def _factor(self) -> InnerFactor:
        """That of H_uu, with its graph."""
        return self._matrix.factor()

    @property
    def inner_hessian(self) -> Tensor:
        """Shape (B, d, d)."""
        return self._matrix.dense().detach()

    @cached_property
    def _phi(self) -> Tensor:
        size = self.point.source.inner.size
        if not size:
            return self.point.loss
        return self.point.loss + self._factor.half_log_determinant() - 0.5 * size * log(2 * pi)

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
            moves = -self._factor.solve(mixed).mT
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
        return self._factor.solve(right.detach()[:, :, None])[:, :, 0]


def _gradient(output: Tensor, places: Tensor) -> Tensor:
    if not output.requires_grad:
        return torch.zeros_like(places)
    found: Tensor = torch.autograd.grad(output, places, retain_graph=True, materialize_grads=True)[0].detach()
    return found


def chunks(source: Stacked, terms: int, count: int) -> list[Tensor]:
    """The data sets in parts that are computed at once, each with about ``terms`` terms of its loss."""
    each = max(1, CHUNK // max(1, terms * (source.colours + 4)))
    return list(torch.arange(count).split(each))
