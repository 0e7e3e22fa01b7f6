"""An arrowhead matrix whose rows touch few places of the border each: crossed effects, as pupils and teachers are.

H = [[A, B], [Bᵀ, C]] with A block-diagonal and B sparse: a row (L numbers) of the one effect meets at most q levels of
the other, of m. Nothing of rows × border is ever formed; eliminating the rows costs L q²/2 a row, the border m³/3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .block_cholesky import BlockCholesky
from .block_diagonal import BlockDiagonalFactor, Blocks, held_blocks
from .dense import Dense, held_matrices
from .operator import MEMORY_BUDGET, Factor, Operator


class Pattern:
    """Which places of the border the rows of a group touch. Shapes: rows, places (n,), a pair each, sorted by row."""

    def __init__(self, rows: Tensor, places: Tensor, count: int, m: int) -> None:
        self.rows, self.places, self.count, self.m = rows, places, count, m
        self._pairs: list[Pairs] | None = None

    def pairs(self) -> Iterable[Pairs]:
        """Every two of the n that are of one row, each once; in chunks of rows."""
        if self._pairs is not None:
            return self._pairs
        each = torch.bincount(self.rows, minlength=self.count)
        last = each.cumsum(0)
        total = (each * (each - 1) // 2).cumsum(0)
        limit = MEMORY_BUDGET // 64
        if int(total[-1]) <= limit:
            self._pairs = [self._of(0, len(self.rows), last)]
            return self._pairs
        ends = torch.searchsorted(total, torch.arange(limit, int(total[-1]) + limit, limit)).clamp(max=self.count - 1)
        stops = last[ends.unique()].tolist()
        return (self._of(start, stop, last) for start, stop in zip([0, *stops[:-1]], stops, strict=True))

    def _of(self, start: int, stop: int, last: Tensor) -> Pairs:
        each = torch.arange(start, stop)
        partners = last[self.rows[each]] - each - 1  # those after it in its row
        one = each.repeat_interleave(partners)
        begin = (partners.cumsum(0) - partners).repeat_interleave(partners)
        other = one + 1 + torch.arange(len(one)) - begin
        return Pairs(one, other, self.places[one] * self.m + self.places[other])


@dataclass(frozen=True)
class Pairs:
    """Shapes (k,): two of the n that are of one row, and where they meet in an (m, m) matrix."""

    one: Tensor
    other: Tensor
    meeting: Tensor


@dataclass(frozen=True)
class Crossing:
    """What stands between the rows of a group and the border. Shape of values: (n, L), as the pattern's pairs."""

    pattern: Pattern
    values: Tensor

    def inward(self, rows: Tensor) -> Tensor:
        """rowsᵀ B. Shapes: (R, L, k) → (k, m)."""
        pattern = self.pattern
        each = (self.values[:, :, None] * rows.index_select(0, pattern.rows)).sum(1)  # (n, k)
        return rows.new_zeros(pattern.m, rows.shape[2]).index_add(0, pattern.places, each).T

    def outward(self, outer: Tensor) -> Tensor:
        """B outerᵀ. Shapes: (k, m) → (R, L, k)."""
        pattern, length = self.pattern, self.values.shape[1]
        each = self.values[:, :, None] * outer.T[pattern.places][:, None, :]  # (n, L, k)
        return outer.new_zeros(pattern.count, length, len(outer)).index_add(0, pattern.rows, each)

    def solved(self, factor: BlockCholesky) -> Tensor:
        """A⁻¹ B, by the rows' factors; shape (n, L)."""
        return factor.picked(self.pattern.rows).solve(self.values[:, :, None])[..., 0]

    def between(self, solved: Tensor) -> Tensor:
        """Bᵀ A⁻¹ B from A⁻¹ B (n, L); shape (m, m)."""
        pattern = self.pattern
        m = pattern.m
        total = self.values.new_zeros(m * m)
        for pairs in pattern.pairs():
            for values, others in zip(self.values.unbind(1), solved.unbind(1), strict=True):
                products = values.index_select(0, pairs.one) * others.index_select(0, pairs.other)
                total = total.index_add(0, pairs.meeting, products)
        half = total.view(m, m)
        own = (self.values * solved).sum(1)
        return half + half.T + own.new_zeros(m).index_add(0, pattern.places, own).diag()


class Crossed(Operator):
    """Shapes: for each group of ``rows`` (R, L) a crossing; border (m,), flat places; corner (m, m).

    ``rows`` number the places of the flat vector like ``border`` does, so together they cover 0 … d − 1.
    """

    structure = "arrowhead"

    def __init__(self, rows: Sequence[Blocks], crossings: Sequence[Crossing], border: Tensor, corner: Tensor) -> None:
        self.rows, self.crossings, self.border, self.corner = list(rows), list(crossings), border, corner
        self.size = sum(group.index.numel() for group in self.rows) + border.numel()
        self.like = corner.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self.size)
        result = torch.empty_like(flat)
        outer = flat[:, self.border]
        total = outer @ self.corner
        for group, crossing in zip(self.rows, self.crossings, strict=True):
            rows = flat[:, group.index].permute(1, 2, 0)  # (R, L, k)
            result[:, group.index] = (group.matrices @ rows + crossing.outward(outer)).permute(2, 0, 1)
            total = total + crossing.inward(rows)
        result[:, self.border] = total
        return result.reshape(vectors.shape)

    def diagonal(self) -> Tensor:
        result = self.corner.new_empty(self.size)
        result[self.border] = self.corner.diagonal()
        for group in self.rows:
            result[group.index] = group.matrices.diagonal(dim1=-2, dim2=-1)
        return result

    def scaled(self, scale: Tensor) -> Crossed:
        outer = scale[self.border]
        rows, crossings = [], []
        for group, crossing in zip(self.rows, self.crossings, strict=True):
            s = scale[group.index]
            rows.append(Blocks(group.index, group.matrices * s[:, :, None] * s[:, None, :]))
            values = crossing.values * s[crossing.pattern.rows] * outer[crossing.pattern.places][:, None]
            crossings.append(Crossing(crossing.pattern, values))
        return Crossed(rows, crossings, self.border, self.corner * outer[:, None] * outer)

    def largest(self) -> float:
        parts = [group.matrices for group in self.rows] + [one.values for one in self.crossings] + [self.corner]
        return float(torch.stack([part.abs().max() for part in parts if part.numel()]).max())

    def norm_bound(self) -> float:
        """The largest absolute row sum."""
        outer = self.corner.abs().sum(1)
        sums = []
        for group, crossing in zip(self.rows, self.crossings, strict=True):
            sizes = crossing.values.abs()
            outer = outer.index_add(0, crossing.pattern.places, sizes.sum(1))
            sums.append(group.matrices.abs().sum(-1).index_add(0, crossing.pattern.rows, sizes).reshape(-1))
        return float(torch.cat([*sums, outer]).max())

    def held(self, places: Tensor) -> Crossed:
        outer = places[self.border]
        crossings = []
        for group, one in zip(self.rows, self.crossings, strict=True):
            touched = places[group.index][one.pattern.rows] | outer[one.pattern.places][:, None]
            crossings.append(Crossing(one.pattern, torch.where(touched, 0.0, one.values)))
        return Crossed(held_blocks(self.rows, places), crossings, self.border, held_matrices(self.corner, outer))

    def factor(self, shift: float = 0.0) -> Factor:
        return _CrossedFactor(self, shift)


class _CrossedFactor(Factor):
    def __init__(self, operator: Crossed, shift: float) -> None:
        self._operator = operator
        self._inner = BlockDiagonalFactor(operator.rows, shift, operator.like, operator.size)
        self.positive = self._inner.positive
        if not self.positive:
            self.direction = self._inner.direction
            return
        schur = operator.corner.clone()
        schur.diagonal().add_(shift)
        for number, crossing in enumerate(operator.crossings):
            schur -= crossing.between(crossing.solved(self._inner.rows_factor(number)))
        self._schur = Dense(schur).factor()
        self.positive = self._schur.positive
        if self._schur.direction is not None:
            self.direction = self._extended(self._schur.direction)

    def solve(self, vectors: Tensor) -> Tensor:
        operator = self._operator
        flat = vectors.reshape(-1, operator.size)
        result = torch.empty_like(flat)
        inner = []
        right = flat[:, operator.border]
        for number, (group, crossing) in enumerate(zip(operator.rows, operator.crossings, strict=True)):
            rows = self._inner.solve_rows(number, flat[:, group.index].permute(1, 2, 0))  # (R, L, k)
            inner.append(rows)
            right = right - crossing.inward(rows)
        outer = self._schur.solve(right)
        result[:, operator.border] = outer
        for number, (group, crossing) in enumerate(zip(operator.rows, operator.crossings, strict=True)):
            back = self._inner.solve_rows(number, crossing.outward(outer))
            result[:, group.index] = (inner[number] - back).permute(2, 0, 1)
        return result.reshape(vectors.shape)

    def draw(self, noise: Tensor) -> Tensor:
        """L⁻ᵀ z with L = [[L_A, 0], [Bᵀ L_A⁻ᵀ, L_S]]."""
        operator = self._operator
        flat = noise.reshape(-1, operator.size)
        result = torch.empty_like(flat)
        outer = self._schur.draw(flat[:, operator.border])
        result[:, operator.border] = outer
        for number, (group, crossing) in enumerate(zip(operator.rows, operator.crossings, strict=True)):
            rows = self._inner.draw_rows(number, flat[:, group.index].permute(1, 2, 0))
            back = self._inner.solve_rows(number, crossing.outward(outer))
            result[:, group.index] = (rows - back).permute(2, 0, 1)
        return result.reshape(noise.shape)

    def log_determinant(self) -> Tensor:
        return self._inner.log_determinant() + self._schur.log_determinant()

    def inverse_diagonal(self) -> Tensor:
        """For the rows diag(A⁻¹) + diag(W S⁻¹ Wᵀ) with W = A⁻¹ B."""
        operator = self._operator
        m = len(operator.border)
        result = self._inner.inverse_diagonal()
        inverse = self._schur.solve(torch.eye(m, dtype=operator.like.dtype, device=operator.like.device))
        result[operator.border] = inverse.diagonal()
        for number, (group, crossing) in enumerate(zip(operator.rows, operator.crossings, strict=True)):
            pattern, solved = crossing.pattern, crossing.solved(self._inner.rows_factor(number))
            own = inverse.diagonal()[pattern.places][:, None] * solved.square()
            spread = torch.zeros_like(group.index, dtype=solved.dtype).index_add_(0, pattern.rows, own)
            for pairs in pattern.pairs():
                twice = 2.0 * inverse.reshape(-1)[pairs.meeting]
                spread.index_add_(0, pattern.rows[pairs.one], twice[:, None] * solved[pairs.one] * solved[pairs.other])
            result[group.index] += spread
        return result

    def _extended(self, outer: Tensor) -> Tensor:
        """(−A⁻¹ B s, s) of length one: its curvature is that of s under the Schur complement."""
        operator = self._operator
        direction = outer.new_zeros(operator.size)
        direction[operator.border] = outer
        for number, (group, crossing) in enumerate(zip(operator.rows, operator.crossings, strict=True)):
            direction[group.index] = -self._inner.solve_rows(number, crossing.outward(outer[None]))[..., 0]
        extended: Tensor = direction / direction.norm()
        return extended


def log_determinant(matrices: Sequence[Tensor], crossings: Sequence[Crossing | Tensor], corner: Tensor) -> Tensor:
    """log det of an arrowhead, to be differentiated twice; shape (). nan where it is not positive definite.

    log det A + log det (C − Bᵀ A⁻¹ B). Shapes: matrices (R, L, L); crossings (R, L, m) or sparse; corner (m, m).
    """
    total, m = corner.new_zeros(()), len(corner)
    schur = corner
    for blocks, crossing in zip(matrices, crossings, strict=True):
        factor = BlockCholesky(blocks)
        if not bool(factor.positive.all()):
            return total * torch.nan
        total = total + factor.log_determinant()
        if not m:
            continue
        if isinstance(crossing, Tensor):
            schur = schur - crossing.flatten(0, 1).T @ factor.solve(crossing).flatten(0, 1)
            continue
        schur = schur - crossing.between(crossing.solved(factor))
    if m:
        schur_part: Tensor = _LogDeterminant.apply(schur)  # type: ignore[no-untyped-call]
        total = total + schur_part
    return total


class _LogDeterminant(torch.autograd.Function):
    """Of a positive definite matrix, by Cholesky; its derivative is the inverse. nan where there is no factor."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        lower, info = torch.linalg.cholesky_ex(matrix)
        ctx.save_for_backward(matrix, lower)
        logarithms: Tensor = 2.0 * lower.diagonal().log().sum()
        return logarithms * torch.nan if int(info) else logarithms

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Tensor:
        inverse: Tensor = _Inverse.apply(*ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return adjoint * inverse


class _Inverse(torch.autograd.Function):
    """Of a positive definite matrix whose factor is known: two products backward."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, lower: Tensor) -> Tensor:
        inverse = torch.cholesky_inverse(lower)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        return -_congruent(inverse, adjoint), None


def _congruent(inverse: Tensor, middle: Tensor) -> Tensor:
    """K M K for a symmetric K. A parameter of few effects moves few places of the curvature, or its diagonal alone."""
    touched = (middle != 0).any(1) | (middle != 0).any(0)
    if int(touched.sum()) <= len(middle) // 2:
        place = touched.nonzero()[:, 0]
        columns = inverse.index_select(1, place)
        return columns @ middle[place][:, place] @ columns.T
    diagonal = middle.diagonal()
    if bool((middle == diagonal.diag()).all()):
        return (inverse * diagonal) @ inverse
    return inverse @ middle @ inverse
