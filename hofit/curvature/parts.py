"""The parts of a Hessian in a layout: numbers, or functions that can be differentiated, and the operator they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from ..linear.arrowhead import Arrowhead
from ..linear.block_diagonal import BlockDiagonal, Blocks
from ..linear.coupling import Coupling
from ..linear.dense import Dense
from ..linear.diagonal import Diagonal
from ..linear.log_determinant import log_determinant
from ..linear.operator import Factor, Operator
from ..linear.sparse import Sparse, SparseFactor
from ..linear.sparse_log_determinant import sparse_log_determinant
from ..linear.sparsity import Sparsity
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
    """Of a pattern: one value for each of its places. Shape of values: (S,)."""

    sparsity: Sparsity
    values: Tensor

    def operator(self) -> Operator:
        return Sparse(self.sparsity, self.values.detach())

    def log_determinant(self, factor: Factor, estimate: bool) -> Tensor:
        assert isinstance(factor, SparseFactor)
        return sparse_log_determinant(self.sparsity, self.values, factor, estimate)

    def quadratic(self, vector: Tensor) -> Tensor:
        rows, columns = self.sparsity.rows, self.sparsity.columns
        total = (self.values * vector[rows] * vector[columns]).sum()
        return 2.0 * total - (self.values[rows == columns] * vector.square()).sum()
