"""What stands between the rows of an arrowhead matrix and its border: B in H = [[A, B], [Bᵀ, C]], A block-diagonal.

A row may touch all of the border. Where rows touch little of a wide one, as in crossed effects, the pattern of the
whole costs less: see ``sparse``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .block_cholesky import WRITTEN_OUT, BlockCholesky
from .dense import DenseFactor
from .operator import MEMORY_BUDGET


@dataclass(frozen=True)
class Coupling:
    """B of one group of rows. Shape of matrix: (R, L, m); fastest where the rows are last in memory, as ``assembled``
    makes them."""

    matrix: Tensor

    def inward(self, rows: Tensor) -> Tensor:
        """rowsᵀ B. Shapes: (R, L, k) → (k, m)."""
        products = [row.T @ part for row, part in zip(_tall(rows), _tall(self.matrix), strict=True)]
        return torch.stack(products).sum(0)

    def outward(self, outer: Tensor) -> Tensor:
        """B outerᵀ. Shapes: (k, m) → (R, L, k)."""
        if self.matrix.shape[1] > WRITTEN_OUT:
            return self.matrix @ outer.T
        return torch.stack([part @ outer.T for part in self.matrix.unbind(1)], dim=1)

    def scaled(self, rows: Tensor, outer: Tensor) -> Coupling:
        """diag(rows) B diag(outer). Shapes: rows (R, L), outer (m,)."""
        return Coupling(self.matrix * rows[:, :, None] * outer)

    def held(self, rows: Tensor, outer: Tensor) -> Coupling:
        """B with zeros where a place is held. Shapes: rows (R, L), outer (m,), booleans."""
        return Coupling(torch.where(rows[:, :, None] | outer, 0.0, self.matrix))

    def detach(self) -> Coupling:
        """B as numbers, without derivatives."""
        return Coupling(self.matrix.detach())

    def entries(self) -> Tensor:
        """All entries, in the order in which they lie in memory."""
        return self.matrix.permute(1, 2, 0)

    def row_sums(self, rows: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
        """|B| summed over the border, and over the rows, added to what is there. Shapes: rows (R, L), outer (m,)."""
        sizes = self.matrix.abs()
        return rows + sizes.sum(-1), outer + sizes.sum((0, 1))

    def eliminated(self, factor: BlockCholesky) -> Tensor:
        """Bᵀ A⁻¹ B by the factors of A, to be differentiated twice; shape (m, m)."""
        return self.matrix.flatten(0, 1).T @ factor.solve(self.matrix).flatten(0, 1)

    def subtract_from(self, schur: Tensor, factor: BlockCholesky) -> None:
        """schur −= Bᵀ A⁻¹ B, in place; the lower triangle at least. Shape of schur: (m, m)."""
        for part, own in self._parts(factor):
            for tall in _tall(own.half_solve(part)):
                _subtract_square(schur, tall)

    def inverse_diagonals(self, factor: BlockCholesky, schur: DenseFactor) -> tuple[Tensor, Tensor]:
        """diag(W S⁻¹ Wᵀ) with W = A⁻¹ B, by the factors of A and S, and diag(S⁻¹). Shapes: (R, L), (m,)."""
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
