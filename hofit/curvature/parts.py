"""The parts of a Hessian in a layout: numbers, or functions that can be differentiated, and the operator they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear.arrowhead import Arrowhead
from ..linear.block_diagonal import BlockDiagonal, Blocks
from ..linear.coloured import Coloured
from ..linear.coupling import Coupling
from ..linear.dense import Dense
from ..linear.diagonal import Diagonal
from ..linear.log_determinant import log_determinant
from ..linear.low_rank import LowRank, LowRankFactor
from ..linear.operator import Factor, Operator
from ..linear.sparse import Sparse, SparseFactor
from ..linear.sparse_log_determinant import sparse_log_determinant
from ..linear.sparse_solve import sparse_solve
from ..linear.sparsity import Sparsity
from ..linear.stochastic import Stochastic, StochasticFactor
from ..linear.stochastic_log_determinant import stochastic_log_determinant
from .layout import Layout


class Parts(ABC):
    """A Hessian as it was computed."""

    @abstractmethod
    def operator(self) -> Operator:
        """The Hessian as numbers, without derivatives."""

    @abstractmethod
    def log_determinant(self, factor: Factor, estimate: bool) -> Tensor:
        """log det, to be differentiated twice; shape (). nan where the Hessian is not positive definite.

        ``factor`` is that of ``operator()``; ``estimate``: see ``sparse_log_determinant``.
        """

    @abstractmethod
    def quadratic(self, vector: Tensor) -> Tensor:
        """vᵀHv of a vector that is zero on all rows; shapes (d,) → ()."""


@dataclass(frozen=True, eq=False)
class ArrowheadParts(Parts):
    """Of rows and their border.

    Shapes: for each group of the layout's rows a matrix (R, L, L) and a coupling (R, L, m); corner (m, m).
    """

    layout: Layout
    matrices: list[Tensor]
    couplings: list[Coupling]
    corner: Tensor

    def operator(self) -> Operator:
        """Dense, diagonal, rows or arrowhead."""
        layout, corner = self.layout, self.corner.detach()
        if not layout.rows:
            return Dense(corner)
        groups = [Blocks(one.index, matrix.detach()) for one, matrix in zip(layout.rows, self.matrices, strict=True)]
        if len(layout.border):
            return Arrowhead(groups, [one.detach() for one in self.couplings], layout.border, corner)
        if all(one.length == 1 for one in layout.rows):
            entries = corner.new_empty(layout.size)
            for group in groups:
                entries[group.index[:, 0]] = group.matrices[:, 0, 0]
            return Diagonal(entries)
        return BlockDiagonal(groups)

    def log_determinant(self, factor: Factor, estimate: bool) -> Tensor:
        return log_determinant(self.matrices, self.couplings, self.corner)

    def quadratic(self, vector: Tensor) -> Tensor:
        outer = vector[self.layout.border]
        return outer @ self.corner @ outer


@dataclass(frozen=True, eq=False)
class SparseParts(Parts):
    """Of a pattern: one value for each of its places; and of sums that many numbers have part in.

    With s = U z those sums and G the Hessian over (z, s), H = (I, Uᵀ) G (I, U)ᵀ. Shapes: values (S,) of G's part over z
    alone; ``beside`` (r, d + r), its last rows, the lower triangle; ``sums`` U (r, d).
    """

    sparsity: Sparsity
    values: Tensor
    beside: Tensor
    sums: Tensor

    def operator(self) -> Operator:
        if isinstance(self.sparsity, Coloured):
            return Stochastic(self.sparsity, self.values.detach())
        base = Sparse(self.sparsity, self.values.detach())
        return LowRank(base, *(one.detach() for one in self._columns())) if len(self.sums) else base

    def log_determinant(self, factor: Factor, estimate: bool) -> Tensor:
        """det H = det A det(I + Vᵀ A⁻¹ V T), of H = A + V T Vᵀ."""
        if isinstance(factor, StochasticFactor):
            return stochastic_log_determinant(self.values, factor)
        if isinstance(factor, SparseFactor):
            return sparse_log_determinant(self.sparsity, self.values, factor, estimate)
        assert isinstance(factor, LowRankFactor)
        if not factor.positive:
            return self.values.sum() * torch.nan
        values = factor.on_raised(self.values)
        columns, middle = factor.with_raised(*self._columns())
        inner = columns.T @ sparse_solve(values, columns, factor.base) @ middle
        whole = sparse_log_determinant(self.sparsity, values, factor.base, estimate)
        small: Tensor = torch.linalg.slogdet(inner + torch.eye(len(middle)).to(middle)).logabsdet
        return whole + small

    def quadratic(self, vector: Tensor) -> Tensor:
        rows, columns = self.sparsity.rows, self.sparsity.columns
        total = (self.values * vector[rows] * vector[columns]).sum()
        found: Tensor = 2.0 * total - (self.values[self.sparsity.diagonal] * vector.square()).sum()
        if not len(self.sums):
            return found
        outer, middle = self._columns()
        along = vector @ outer
        return found + along @ middle @ along

    def _columns(self) -> tuple[Tensor, Tensor]:
        """V = (B, Uᵀ) and T = ((0, I), (I, D)), with B and D what G has beside the sums."""
        r, d = self.sums.shape
        corner = self.beside[:, d:].tril()
        corner = corner + corner.tril(-1).T
        unit = torch.eye(r).to(corner)
        middle = torch.cat([torch.cat([torch.zeros_like(unit), unit], 1), torch.cat([unit, corner], 1)])
        return torch.cat([self.beside[:, :d].T, self.sums.T], 1), middle
