"""What stands between the rows of an arrowhead matrix and its border: B in H = [[A, B], [Bᵀ, C]], A block-diagonal.

Dense where a row may touch all of the border. Sparse where it touches few places of it, as in crossed effects, pupils
and teachers, say: a row (L numbers) of the one effect meets at most q levels of the other, of m. Nothing of rows ×
border is then ever formed; eliminating the rows costs L q²/2 a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .block_cholesky import WRITTEN_OUT, BlockCholesky
from .dense import DenseFactor
from .operator import MEMORY_BUDGET


class Coupling(ABC):
    """B of one group of rows, of shape (R, L, m). Each kind sums in an order of its own."""

    @abstractmethod
    def inward(self, rows: Tensor) -> Tensor:
        """rowsᵀ B. Shapes: (R, L, k) → (k, m)."""

    @abstractmethod
    def outward(self, outer: Tensor) -> Tensor:
        """B outerᵀ. Shapes: (k, m) → (R, L, k)."""

    @abstractmethod
    def scaled(self, rows: Tensor, outer: Tensor) -> Coupling:
        """diag(rows) B diag(outer). Shapes: rows (R, L), outer (m,)."""

    @abstractmethod
    def held(self, rows: Tensor, outer: Tensor) -> Coupling:
        """B with zeros where a place is held. Shapes: rows (R, L), outer (m,), booleans."""

    @abstractmethod
    def detach(self) -> Coupling:
        """B as numbers, without derivatives."""

    @abstractmethod
    def entries(self) -> Tensor:
        """All entries that need not be zero, in the order in which they lie in memory."""

    @abstractmethod
    def row_sums(self, rows: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
        """|B| summed over the border, and over the rows, added to what is there. Shapes: rows (R, L), outer (m,)."""

    @abstractmethod
    def eliminated(self, factor: BlockCholesky) -> Tensor:
        """Bᵀ A⁻¹ B by the factors of A, to be differentiated twice; shape (m, m)."""

    def subtract_from(self, schur: Tensor, factor: BlockCholesky) -> None:
        """schur −= Bᵀ A⁻¹ B, in place; the lower triangle at least. Shape of schur: (m, m)."""
        schur -= self.eliminated(factor)

    @abstractmethod
    def inverse_diagonals(self, factor: BlockCholesky, schur: DenseFactor) -> tuple[Tensor, Tensor]:
        """diag(W S⁻¹ Wᵀ) with W = A⁻¹ B, by the factors of A and S, and diag(S⁻¹). Shapes: (R, L), (m,)."""


@dataclass(frozen=True)
class DenseCoupling(Coupling):
    """Shape of matrix: (R, L, m); fastest where the rows are last in memory, as ``assemble`` makes them."""

    matrix: Tensor

    def inward(self, rows: Tensor) -> Tensor:
        products = [row.T @ part for row, part in zip(_tall(rows), _tall(self.matrix), strict=True)]
        return torch.stack(products).sum(0)

    def outward(self, outer: Tensor) -> Tensor:
        if self.matrix.shape[1] > WRITTEN_OUT:
            return self.matrix @ outer.T
        return torch.stack([part @ outer.T for part in self.matrix.unbind(1)], dim=1)

    def scaled(self, rows: Tensor, outer: Tensor) -> DenseCoupling:
        return DenseCoupling(self.matrix * rows[:, :, None] * outer)

    def held(self, rows: Tensor, outer: Tensor) -> DenseCoupling:
        return DenseCoupling(torch.where(rows[:, :, None] | outer, 0.0, self.matrix))

    def detach(self) -> DenseCoupling:
        return DenseCoupling(self.matrix.detach())

    def entries(self) -> Tensor:
        return self.matrix.permute(1, 2, 0)

    def row_sums(self, rows: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
        sizes = self.matrix.abs()
        return rows + sizes.sum(-1), outer + sizes.sum((0, 1))

    def eliminated(self, factor: BlockCholesky) -> Tensor:
        return self.matrix.flatten(0, 1).T @ factor.solve(self.matrix).flatten(0, 1)

    def subtract_from(self, schur: Tensor, factor: BlockCholesky) -> None:
        for part, own in self._parts(factor):
            for tall in _tall(own.half_solve(part)):
                _subtract_square(schur, tall)

    def inverse_diagonals(self, factor: BlockCholesky, schur: DenseFactor) -> tuple[Tensor, Tensor]:
        spread = []
        for part, own in self._parts(factor):
            solved = own.solve(part)
            spread.append(schur.half_solve(solved.flatten(0, 1)).square().sum(-1).reshape(solved.shape[:2]))
        return torch.cat(spread), schur.inverse_diagonal()

    def _parts(self, factor: BlockCholesky) -> Iterator[tuple[Tensor, BlockCholesky]]:
        """B and the factors of A in chunks of rows that keep to the memory budget."""
        each = max(1, MEMORY_BUDGET // max(1, 4 * self.matrix[0].numel() * self.matrix.element_size()))
        for start in range(0, len(self.matrix), each):
            part = slice(start, start + each)
            yield self.matrix[part], factor.picked(part)


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
        limit = max(1, MEMORY_BUDGET // 64)
        if int(total[-1]) <= limit:
            self._pairs = [self._of(0, len(self.rows), last)]
            return self._pairs
        ends = torch.searchsorted(total, torch.arange(limit, int(total[-1]) + limit, limit)).clamp(max=self.count - 1)
        stops = last[ends.unique()].tolist()
        return (self._of(start, stop, last) for start, stop in zip([0, *stops[:-1]], stops, strict=True))

    def _of(self, start: int, stop: int, last: Tensor) -> Pairs:
        each = torch.arange(start, stop)
        partners = last[self.rows[each]] - each - 1  # how many come after each in its row
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
class SparseCoupling(Coupling):
    """Only what the rows touch. Shape of values: (n, L), as the pattern's pairs of row and place."""

    pattern: Pattern
    values: Tensor

    def inward(self, rows: Tensor) -> Tensor:
        pattern = self.pattern
        each = (self.values[:, :, None] * rows.index_select(0, pattern.rows)).sum(1)  # (n, k)
        return rows.new_zeros(pattern.m, rows.shape[2]).index_add(0, pattern.places, each).T

    def outward(self, outer: Tensor) -> Tensor:
        pattern, length = self.pattern, self.values.shape[1]
        each = self.values[:, :, None] * outer.T[pattern.places][:, None, :]  # (n, L, k)
        return outer.new_zeros(pattern.count, length, len(outer)).index_add(0, pattern.rows, each)

    def scaled(self, rows: Tensor, outer: Tensor) -> SparseCoupling:
        pattern = self.pattern
        return SparseCoupling(pattern, self.values * rows[pattern.rows] * outer[pattern.places][:, None])

    def held(self, rows: Tensor, outer: Tensor) -> SparseCoupling:
        touched = rows[self.pattern.rows] | outer[self.pattern.places][:, None]
        return SparseCoupling(self.pattern, torch.where(touched, 0.0, self.values))

    def detach(self) -> SparseCoupling:
        return SparseCoupling(self.pattern, self.values.detach())

    def entries(self) -> Tensor:
        return self.values

    def row_sums(self, rows: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
        sizes = self.values.abs()
        return rows.index_add(0, self.pattern.rows, sizes), outer.index_add(0, self.pattern.places, sizes.sum(1))

    def eliminated(self, factor: BlockCholesky) -> Tensor:
        pattern, solved = self.pattern, self._solved(factor)
        m = pattern.m
        total = self.values.new_zeros(m * m)
        for pairs in pattern.pairs():
            for values, others in zip(self.values.unbind(1), solved.unbind(1), strict=True):
                products = values.index_select(0, pairs.one) * others.index_select(0, pairs.other)
                total = total.index_add(0, pairs.meeting, products)
        half = total.view(m, m)
        own = (self.values * solved).sum(1)
        return half + half.T + own.new_zeros(m).index_add(0, pattern.places, own).diag()

    def inverse_diagonals(self, factor: BlockCholesky, schur: DenseFactor) -> tuple[Tensor, Tensor]:
        pattern, solved, inverse = self.pattern, self._solved(factor), schur.inverse
        outer = inverse.diagonal()
        own = outer[pattern.places][:, None] * solved.square()
        spread = solved.new_zeros(pattern.count, solved.shape[1]).index_add_(0, pattern.rows, own)
        for pairs in pattern.pairs():
            twice = 2.0 * inverse.reshape(-1)[pairs.meeting]
            spread.index_add_(0, pattern.rows[pairs.one], twice[:, None] * solved[pairs.one] * solved[pairs.other])
        return spread, outer

    def _solved(self, factor: BlockCholesky) -> Tensor:
        """A⁻¹ B where B is, by the factors of A; shape (n, L)."""
        return factor.picked(self.pattern.rows).solve(self.values[:, :, None])[..., 0]


def _tall(rows: Tensor) -> Sequence[Tensor]:
    """The entries of all rows, without a copy where rows are short and many. Shapes: (R, L, k) → (R, k) L times, or
    (RL, k) once.
    """
    return rows.unbind(1) if rows.shape[1] <= WRITTEN_OUT else [rows.flatten(0, 1)]


def _subtract_square(target: Tensor, factor: Tensor) -> None:
    """target −= factorᵀ factor, but for the upper right quarter: its mirror image has it. Shapes: (m, m), (R, m)."""
    half = len(target) // 2
    target[:half, :half].addmm_(factor[:, :half].T, factor[:, :half], alpha=-1)
    target[half:].addmm_(factor[:, half:].T, factor, alpha=-1)
