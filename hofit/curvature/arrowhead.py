"""An arrowhead matrix: rows that do not interact, and a border that they all may touch.

H = [[A, B], [Bᵀ, C]] with A block-diagonal. The rows are eliminated block by block; what is left is the Schur
complement S = C − Bᵀ A⁻¹ B of the border. Cost is linear in the rows.

Source: Golub & Van Loan (2013), "Matrix computations", section 4.2.10 on block elimination.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .block_diagonal import BlockDiagonalFactor, Blocks
from .dense import Dense
from .operator import MEMORY_BUDGET, Factor, Operator


class Arrowhead(Operator):
    """Shapes: for each group of ``rows`` (R, L) a coupling (R, L, m); border (m,), flat places; corner (m, m).

    ``rows`` number the places of the flat vector like ``border`` does, so together they cover 0 … d − 1.
    """

    structure = "arrowhead"

    def __init__(self, rows: Sequence[Blocks], couplings: Sequence[Tensor], border: Tensor, corner: Tensor) -> None:
        self.rows, self.couplings, self.border, self.corner = list(rows), list(couplings), border, corner
        self.size = sum(group.index.numel() for group in self.rows) + border.numel()
        self.like = corner.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        result = torch.empty_like(vectors)
        outer = vectors[..., self.border]
        total = outer @ self.corner
        for group, coupling in zip(self.rows, self.couplings, strict=True):
            rows = vectors[..., group.index]
            flat = coupling.flatten(0, 1)
            mixed = (outer @ flat.T).reshape(rows.shape)
            result[..., group.index] = (group.matrices @ rows[..., None])[..., 0] + mixed
            total = total + rows.flatten(-2) @ flat
        result[..., self.border] = total
        return result

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

    def largest(self) -> float:
        parts = [group.matrices for group in self.rows] + self.couplings + [self.corner]
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
            for part, solved in self._eliminated(number, coupling):
                schur -= part.flatten(0, 1).T @ solved.flatten(0, 1)
        self._schur = Dense((schur + schur.T) / 2).factor()
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
            right = right - rows.flatten(0, 1).T @ coupling.flatten(0, 1)
        outer = self._schur.solve(right)
        result[:, operator.border] = outer
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            back = self._inner.solve_rows(number, coupling @ outer.T)
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
            for _, solved in self._eliminated(number, coupling):
                spread = (self._schur.solve(solved) * solved).sum(-1)
                index = group.index[start : start + len(spread)]
                result[index] += spread
                start += len(spread)
        return result

    def _eliminated(self, number: int, coupling: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, A⁻¹ B) of one group, in chunks of rows that keep to the memory budget."""
        each = max(1, MEMORY_BUDGET // max(1, 4 * coupling[0].numel() * coupling.element_size()))
        if each >= len(coupling):
            yield coupling, self._inner.solve_rows(number, coupling)
            return
        for start in range(0, len(coupling), each):
            part = coupling[start : start + each]
            yield part, self._inner.part(number, start, start + each).solve(part)

    def _extended(self, outer: Tensor) -> Tensor:
        """(−A⁻¹ B s, s) of length one: its curvature is that of s under the Schur complement."""
        operator = self._operator
        direction = outer.new_zeros(operator.size)
        direction[operator.border] = outer
        for number, (group, coupling) in enumerate(zip(operator.rows, operator.couplings, strict=True)):
            direction[group.index] = -self._inner.solve_rows(number, (coupling @ outer)[..., None])[..., 0]
        extended: Tensor = direction / direction.norm()
        return extended
