"""An arrowhead matrix: rows that do not interact, and a border that they all may touch.

H = [[A, B], [Bᵀ, C]] with A block-diagonal. The rows are eliminated block by block; what is left is the Schur
complement S = C − Bᵀ A⁻¹ B of the border. Cost is linear in the rows, m³/3 in the border.

Source: Golub & Van Loan (2013), "Matrix computations", section 4.2.10 on block elimination.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from .block_cholesky import BlockCholesky
from .block_diagonal import BlockDiagonalFactor, Blocks
from .coupling import Coupling
from .dense import Dense, held_matrices
from .operator import Factor, Operator, Spectrum
from .spectrum import lowest_by_inverse_iteration


class Arrowhead(Operator):
    """Shapes: for each group of ``rows`` (R, L), one at least, a coupling (R, L, m); border (m,), flat places; corner
    (m, m).

    ``rows`` number the places of the flat vector like ``border`` does, so together they cover 0 … d − 1.
    """

    structure = "arrowhead"

    def __init__(self, rows: Sequence[Blocks], couplings: Sequence[Coupling], border: Tensor, corner: Tensor) -> None:
        self.rows, self.couplings, self.border, self.corner = list(rows), list(couplings), border, corner
        self.size = sum(group.index.numel() for group in self.rows) + border.numel()
        self.like = corner.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self.size)
        result = torch.empty_like(flat)
        outer = flat[:, self.border]
        total = outer @ self.corner
        for group, coupling in self._groups():
            rows = flat[:, group.index].permute(1, 2, 0)  # (R, L, k)
            result[:, group.index] = (group.matrices @ rows + coupling.outward(outer)).permute(2, 0, 1)
            total = total + coupling.inward(rows)
        result[:, self.border] = total
        return result.reshape(vectors.shape)

    def diagonal(self) -> Tensor:
        result = self.corner.new_empty(self.size)
        result[self.border] = self.corner.diagonal()
        for group in self.rows:
            result[group.index] = group.diagonal()
        return result

    def scaled(self, scale: Tensor) -> Arrowhead:
        outer = scale[self.border]
        rows = [group.scaled(scale) for group in self.rows]
        couplings = [coupling.scaled(scale[group.index], outer) for group, coupling in self._groups()]
        return Arrowhead(rows, couplings, self.border, self.corner * outer[:, None] * outer)

    def held(self, places: Tensor) -> Arrowhead:
        outer = places[self.border]
        rows = [group.held(places) for group in self.rows]
        couplings = [coupling.held(places[group.index], outer) for group, coupling in self._groups()]
        return Arrowhead(rows, couplings, self.border, held_matrices(self.corner, outer))

    def largest(self) -> float:
        entries = [coupling.entries() for coupling in self.couplings]
        parts = [*(group.matrices for group in self.rows), *entries, self.corner]
        return float(torch.stack([part.abs().max() for part in parts if part.numel()]).max())

    def norm_bound(self) -> float:
        """The largest absolute row sum."""
        outer = self.corner.abs().sum(1)
        sums = []
        for group, coupling in self._groups():
            rows, outer = coupling.row_sums(group.matrices.abs().sum(-1), outer)
            sums.append(rows.reshape(-1))
        return float(torch.cat([*sums, outer]).max())

    def factor(self, shift: float = 0.0) -> Factor:
        return _ArrowheadFactor(self, shift)

    def lowest(self, count: int = 1) -> Spectrum:
        return lowest_by_inverse_iteration(self, min(count, self.size))

    def _groups(self) -> Iterator[tuple[Blocks, Coupling]]:
        return zip(self.rows, self.couplings, strict=True)


class _ArrowheadFactor(Factor):
    def __init__(self, operator: Arrowhead, shift: float) -> None:
        self._operator = operator
        # It works on the same flat vectors as this one, and leaves the border's places in them alone.
        self._inner = BlockDiagonalFactor(operator.rows, shift, operator.like, operator.size)
        self.positive = self._inner.positive
        if not self.positive:
            self.direction = self._inner.direction
            return
        schur = operator.corner.clone()
        schur.diagonal().add_(shift)
        for _, coupling, factor in self._groups():
            coupling.subtract_from(schur, factor)
        self._schur = Dense(schur.tril() + schur.tril(-1).T).factor()
        self.positive = self._schur.positive
        if self._schur.direction is not None:
            # The direction (−A⁻¹ B s, s) has the curvature that s has under the Schur complement.
            nothing = [operator.like.new_zeros(()) for _ in operator.rows]
            direction = self._extended(nothing, self._schur.direction[None], operator.like.new_empty(1, operator.size))
            self.direction = direction[0] / direction.norm()

    def solve(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self._operator.size)
        inner = []
        right = flat[:, self._operator.border]
        for group, coupling, factor in self._groups():
            rows = factor.solve(flat[:, group.index].permute(1, 2, 0))  # (R, L, k)
            inner.append(rows)
            right = right - coupling.inward(rows)
        return self._extended(inner, self._schur.solve(right), torch.empty_like(flat)).reshape(vectors.shape)

    def log_determinant(self) -> Tensor:
        return self._inner.log_determinant() + self._schur.log_determinant()

    def inverse_diagonal(self) -> Tensor:
        """For the rows diag(A⁻¹) + diag(W S⁻¹ Wᵀ) with W = A⁻¹ B."""
        result = self._inner.inverse_diagonal()
        for group, coupling, factor in self._groups():
            spread, outer = coupling.inverse_diagonals(factor, self._schur)
            result[group.index] += spread
            result[self._operator.border] = outer
        return result

    def draw(self, noise: Tensor) -> Tensor:
        """L⁻ᵀ z with L = [[L_A, 0], [Bᵀ L_A⁻ᵀ, L_S]]."""
        flat = noise.reshape(-1, self._operator.size)
        inner = (factor.back_solve(flat[:, group.index].permute(1, 2, 0)) for group, _, factor in self._groups())
        outer = self._schur.draw(flat[:, self._operator.border])
        return self._extended(inner, outer, torch.empty_like(flat)).reshape(noise.shape)

    def _groups(self) -> Iterator[tuple[Blocks, Coupling, BlockCholesky]]:
        return zip(self._operator.rows, self._operator.couplings, self._inner.factors, strict=True)

    def _extended(self, inner: Iterable[Tensor], outer: Tensor, result: Tensor) -> Tensor:
        """inner − A⁻¹ B outer beside outer, put into ``result``. Shapes: (R, L, k) a group, (k, m) → (k, d)."""
        result[:, self._operator.border] = outer
        for rows, (group, coupling, factor) in zip(inner, self._groups(), strict=True):
            result[:, group.index] = (rows - factor.solve(coupling.outward(outer))).permute(2, 0, 1)
        return result
