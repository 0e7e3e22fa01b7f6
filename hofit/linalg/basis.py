"""The parts of a sum of matrices: one on the common pattern, and what it is times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..linear.sparsity import Sparsity
from .determinant import log_determinant_of_values
from .kept import KEPT, places_in
from .null_space import NullSpace

Number = Tensor | float | int


@dataclass(frozen=True, eq=False)
class Basis:
    """A matrix on a pattern, or, where ``order`` says so, DᵀD of differences of that order. Shape of values: (…, S)."""

    sparsity: Sparsity
    values: Tensor
    order: int | None = None

    @property
    def is_constant(self) -> bool:
        return not self.values.requires_grad

    @cached_property
    def off_values(self) -> Tensor:
        """Below the diagonal."""
        return self.values.index_select(-1, self.sparsity.off)

    @cached_property
    def row_sums(self) -> Tensor:
        """Of a constant; zero where rounding explains them. Shape (…, size)."""
        sparsity, off = self.sparsity, self.off_values
        rows, columns = sparsity.rows[sparsity.off], sparsity.columns[sparsity.off]

        def summed(diagonal: Tensor, off: Tensor) -> Tensor:
            return diagonal.index_add(-1, rows, off).index_add(-1, columns, off)

        diagonal = self.values.index_select(-1, sparsity.diagonal)
        total, size = summed(diagonal, off), summed(diagonal.abs(), off.abs())
        return torch.where(total.abs() <= 8 * torch.finfo(total.dtype).eps * size, 0.0, total)

    @cached_property
    def _logarithms(self) -> dict[NullSpace | None, Tensor]:
        return {}

    def squares(self, vectors: Tensor) -> Iterator[Tensor]:
        """Of a constant: tensors whose sums over the last dimension make the quadratic form.

        Σ aᵢⱼ xᵢ xⱼ as Σ sᵢ xᵢ² − Σ aᵢⱼ (xᵢ − xⱼ)² with s the row sums.
        """
        if self.order is not None:
            yield vectors.diff(n=self.order).square()
            return
        sparsity = self.sparsity
        if bool(self.off_values.any()):
            rows, columns = sparsity.rows[sparsity.off], sparsity.columns[sparsity.off]
            apart = vectors.index_select(-1, rows) - vectors.index_select(-1, columns)
            yield -self.off_values * apart.square()
        if bool(self.row_sums.any()):
            yield self.row_sums * vectors.square()

    def hear_log_determinant(self, null: NullSpace | None, value: float) -> None:
        """Hear what it is, where that is known in closed form."""
        self._logarithms[null] = self.values.new_tensor(value)

    def log_determinant(self, null: NullSpace | None) -> Tensor:
        """Of a constant, kept."""
        if null not in self._logarithms:
            self._logarithms[null] = log_determinant_of_values(self.values, self.sparsity, null)
        return self._logarithms[null]


@dataclass(frozen=True, eq=False)
class Part:
    factor: Number
    basis: Basis

    def times(self, tensor: Tensor) -> Tensor:
        if isinstance(self.factor, Tensor):
            return self.factor.unsqueeze(-1) * tensor
        return tensor if self.factor == 1 else self.factor * tensor


def on_pattern(basis: Basis, sparsity: Sparsity) -> Basis:
    """A matrix on a wider pattern."""
    if basis.sparsity is sparsity:
        return basis
    return _kept_on(basis, sparsity) if basis.is_constant else _moved(basis, sparsity)


@lru_cache(maxsize=KEPT)
def _kept_on(basis: Basis, sparsity: Sparsity) -> Basis:
    return _moved(basis, sparsity)


def _moved(basis: Basis, sparsity: Sparsity) -> Basis:
    taken = places_in(basis.sparsity, sparsity)
    padded = torch.cat([basis.values, basis.values.new_zeros(*basis.values.shape[:-1], 1)], -1)
    return Basis(sparsity, padded.index_select(-1, taken), basis.order)
