"""An arrowhead matrix: rows that do not interact, and a border that they all may touch.

H = [[A, B], [Bᵀ, C]] with A block-diagonal. The rows are eliminated block by block; what is left is the Schur
complement S = C − Bᵀ A⁻¹ B of the border. Cost is linear in the rows.

Source: Golub & Van Loan (2013), "Matrix computations", section 4.2.10 on block elimination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .block_cholesky import WRITTEN_OUT, BlockCholesky
from .block_diagonal import BlockDiagonalFactor, Blocks, held_blocks
from .dense import Dense, held_matrices
from .operator import MEMORY_BUDGET, Factor, Operator


class Arrowhead(Operator):
    """Shapes: for each group of ``rows`` (R, L) a coupling (R, L, m); border (m,), flat places; corner (m, m).

    ``rows`` number the places of the flat vector like ``border`` does, so together they cover 0 … d − 1. Couplings are
    fastest where the rows are last in memory, as ``assemble`` makes them.
    """

    structure = "arrowhead"

    def __init__(self, rows: Sequence[Blocks], couplings: Sequence[Tensor], border: Tensor, corner: Tensor) -> None:
        self.rows, self.couplings, self.border, self.corner = list(rows), list(couplings), border, corner
        self.size = sum(group.index.numel() for group in self.rows) + border.numel()
        self.like = corner.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self.size)
        result = torch.empty_like(flat)
        outer = flat[:, self.border]
        total = outer @ self.corner
        for group, coupling in zip(self.rows, self.couplings, strict=True):
            rows = flat[:, group.index].permute(1, 2, 0)  # (R, L, k)
            result[:, group.index] = (group.matrices @ rows + _outward(coupling, outer)).permute(2, 0, 1)
            total = total + _inward(coupling, rows)
        result[:, self.border] = total
        return result.reshape(vectors.shape)

    def diagonal(self) -> Tensor:
        result = self.corner.new_empty(self.size)
        result[self.border] = self.corner.diagonal()
        for group in self.rows:
            result[group.index] = group.matrices.diagonal(dim1=-2, dim2=-1)
        return result

    def scaled(self, scale: Tensor) -> Arrowhead:
        outer = scale[self.border]
        rows, couplings = [], []
        for group, coupling in zip(self.rows, self.couplings, strict=True):
            s = scale[group.index]
            rows.append(Blocks(group.index, group.matrices * s[:, :, None] * s[:, None, :]))
            couplings.append(coupling * s[:, :, None] * outer)
        return Arrowhead(rows, couplings, self.border, self.corner * outer[:, None] * outer)

    def held(self, places: Tensor) -> Arrowhead:
        outer = places[self.border]
        couplings = [
            torch.where(places[group.index][:, :, None] | outer, 0.0, coupling)
            for group, coupling in zip(self.rows, self.couplings, strict=True)
        ]
        corner = held_matrices(self.corner, outer)
        return Arrowhead(held_blocks(self.rows, places), couplings, self.border, corner)

    def largest(self) -> float:
        # As they lie in memory: a maximum across it takes three times as long.
        couplings = [coupling.permute(1, 2, 0) for coupling in self.couplings]
        parts = [*(group.matrices for group in self.rows), *couplings, self.corner]
        sizes = [part.abs().max() for part in parts if part.numel()]
        return float(torch.stack(sizes).max()) if sizes else 0.0

    def norm_bound(self) -> float:
        """The largest absolute row sum."""
        outer = self.corner.abs().sum(1)
        sums = []
        for group, coupling in zip(self.rows, self.couplings, strict=True):
            sizes = coupling.abs()
            outer = outer + sizes.sum((0, 1))
            sums.append((group.matrices.abs().sum(-1) + sizes.sum(-1)).reshape(-1))
        sums.append(outer)
        return float(torch.cat(sums).max()) if self.size else 0.0

    def factor(self, shift: float = 0.0) -> Factor:
        return _ArrowheadFactor(self, shift)


class _ArrowheadFactor(Factor):
    def __init__(self, operator: Arrowhead, shift: float) -> None:
        self._operator = operator
        inner_size = operator.size  # flat vectors keep their places; the border's are left alone
        self._inner = BlockDiagonalFactor(operator.rows, shift, operator.like, inner_size)
        self.positive = self._inner.positive
        if not self.positive:
            self.direction = self._inner.direction
            return
        schur = operator.corner.clone()
        schur.diagonal().add_(shift)
        for number, coupling in enumerate(operator.couplings):
            for part, factor in self._parts(number, coupling):
                for tall in _tall(factor.half_solve(part)):
                    _subtract_square(schur, tall)
        self._schur = Dense(schur.tril() + schur.tril(-1).T).factor()
        self.positive = self._schur.positive
        if self._schur.direction is not None:
            self.direction = self._extended(self._schur.direction)

    def solve(self, vectors: Tensor) -> Tensor:
        operator = self._operator
        flat = vectors.reshape(-1, operator.size)
        result = torch.empty_like(flat)
        inner = []
        right = flat[:, operator.border]
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            rows = self._inner.solve_rows(number, flat[:, group.index].permute(1, 2, 0))  # (R, L, k)
            inner.append(rows)
            right = right - _inward(coupling, rows)
        outer = self._schur.solve(right)
        result[:, operator.border] = outer
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            back = self._inner.solve_rows(number, _outward(coupling, outer))
            result[:, group.index] = (inner[number] - back).permute(2, 0, 1)
        return result.reshape(vectors.shape)

    def log_determinant(self) -> Tensor:
        return self._inner.log_determinant() + self._schur.log_determinant()

    def inverse_diagonal(self) -> Tensor:
        """For the rows diag(A⁻¹) + diag(W S⁻¹ Wᵀ) with W = A⁻¹ B."""
        operator = self._operator
        result = self._inner.inverse_diagonal()
        result[operator.border] = self._schur.inverse_diagonal()
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            start = 0
            for part, factor in self._parts(number, coupling):
                solved = factor.solve(part)
                spread = self._schur.half_solve(solved.flatten(0, 1)).square().sum(-1).reshape(solved.shape[:2])
                index = group.index[start : start + len(spread)]
                result[index] += spread
                start += len(spread)
        return result

    def draw(self, noise: Tensor) -> Tensor:
        """L⁻ᵀ z with L = [[L_A, 0], [Bᵀ L_A⁻ᵀ, L_S]]."""
        operator = self._operator
        flat = noise.reshape(-1, operator.size)
        result = torch.empty_like(flat)
        outer = self._schur.draw(flat[:, operator.border])
        result[:, operator.border] = outer
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            rows = self._inner.draw_rows(number, flat[:, group.index].permute(1, 2, 0))
            back = self._inner.solve_rows(number, _outward(coupling, outer))
            result[:, group.index] = (rows - back).permute(2, 0, 1)
        return result.reshape(noise.shape)

    def _parts(self, number: int, coupling: Tensor) -> Iterator[tuple[Tensor, BlockCholesky]]:
        """B and the factors of A, of one group, in chunks of rows that keep to the memory budget."""
        each = max(1, MEMORY_BUDGET // max(1, 4 * coupling[0].numel() * coupling.element_size()))
        for start in range(0, len(coupling), each):
            yield coupling[start : start + each], self._inner.part(number, start, start + each)

    def _extended(self, outer: Tensor) -> Tensor:
        """(−A⁻¹ B s, s) of length one: its curvature is that of s under the Schur complement."""
        operator = self._operator
        direction = outer.new_zeros(operator.size)
        direction[operator.border] = outer
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            direction[group.index] = -self._inner.solve_rows(number, _outward(coupling, outer[None]))[..., 0]
        extended: Tensor = direction / direction.norm()
        return extended


def _tall(rows: Tensor) -> Sequence[Tensor]:
    """The entries of all rows, without a copy where rows are short and many. Shapes: (R, L, k) → (R, k) L times, or
    (RL, k) once.
    """
    return rows.unbind(1) if rows.shape[1] <= WRITTEN_OUT else [rows.flatten(0, 1)]


def _inward(coupling: Tensor, rows: Tensor) -> Tensor:
    """rowsᵀ B. Shapes: (R, L, m), (R, L, k) → (k, m)."""
    products = [row.T @ part for row, part in zip(_tall(rows), _tall(coupling), strict=True)]
    return torch.stack(products).sum(0)


def _outward(coupling: Tensor, outer: Tensor) -> Tensor:
    """B outerᵀ. Shapes: (R, L, m), (k, m) → (R, L, k)."""
    if coupling.shape[1] > WRITTEN_OUT:
        return coupling @ outer.T
    return torch.stack([part @ outer.T for part in coupling.unbind(1)], dim=1)


def _subtract_square(target: Tensor, factor: Tensor) -> None:
    """target −= factorᵀ factor, but for the upper right quarter: its mirror image has it. Shapes: (m, m), (R, m)."""
    half = len(target) // 2
    target[:half, :half].addmm_(factor[:, :half].T, factor[:, :half], alpha=-1)
    target[half:].addmm_(factor[:, half:].T, factor, alpha=-1)
