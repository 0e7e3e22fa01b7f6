"""A sparse matrix beside sums that everything has part in: H = A + V T Vᵀ with few columns in V.

A soft constraint on the sum of a field, or the mean that a field is centred by, couples all of its numbers by one. The
inverse follows from that of A and a small matrix.

Source: Woodbury (1950); Hager (1989), "Updating the inverse of a matrix", SIAM Review 31.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .dense import Dense
from .operator import Factor, Operator, Spectrum
from .sparse import Sparse
from .spectrum import lowest_by_inverse_iteration


class LowRank(Operator):
    """Shapes: base (d, d); columns V (d, k); middle T (k, k), symmetric and regular."""

    structure = "sparse"

    def __init__(self, base: Sparse, columns: Tensor, middle: Tensor) -> None:
        self.base, self.columns, self.middle = base, columns, middle
        self.size, self.like = base.size, base.like

    def matvec(self, vectors: Tensor) -> Tensor:
        return self.base.matvec(vectors) + (vectors @ self.columns) @ self.middle @ self.columns.T

    def diagonal(self) -> Tensor:
        return self.base.diagonal() + ((self.columns @ self.middle) * self.columns).sum(1)

    def scaled(self, scale: Tensor) -> LowRank:
        return LowRank(self.base.scaled(scale), self.columns * scale[:, None], self.middle)

    def held(self, places: Tensor) -> LowRank:
        return LowRank(self.base.held(places), torch.where(places[:, None], 0.0, self.columns), self.middle)

    def largest(self) -> float:
        """At most so much is the largest absolute entry."""
        sizes = self.columns.abs()
        return self.base.largest() + float((sizes @ self.middle.abs() @ sizes.max(0).values).max())

    def norm_bound(self) -> float:
        sizes = self.columns.abs()
        return self.base.norm_bound() + float((sizes @ self.middle.abs() @ sizes.sum(0)).max())

    def factor(self, shift: float = 0.0) -> LowRankFactor:
        return LowRankFactor(self, shift)

    def lowest(self, count: int = 1) -> Spectrum:
        return lowest_by_inverse_iteration(self, min(count, self.size))


class LowRankFactor(Factor):
    """Of A = L Lᵀ and, with L⁻¹ V = Q R, of the small matrix I + R T Rᵀ.

    A may lack curvature that V has: a field of differences says nothing of its level. Then A is taken with something
    more on the diagonal at ``raised`` places, and V with as many columns that take it away again.
    """

    def __init__(self, operator: LowRank, shift: float = 0.0) -> None:
        base, self.columns, self.middle = operator.base, operator.columns, operator.middle
        self.raised: list[int] = []
        self.height = float(base.diagonal().abs().mean())
        self.base = base.factor(shift)
        while (
            not self.base.positive and self.base.direction is not None and len(self.raised) < operator.columns.shape[1]
        ):
            self.raised.append(int(self.base.direction.abs().argmax()))
            self.base = Sparse(base.sparsity, self.on_raised(base.values)).factor(shift)
        self.positive = self.base.positive
        self.direction = self.base.direction
        if not self.positive:
            return
        self.columns, self.middle = self.with_raised(self.columns, self.middle)
        orthonormal, triangle = torch.linalg.qr(self.base.half_solve(self.columns.T).T)
        small = triangle @ self.middle @ triangle.T
        small.diagonal().add_(1.0)
        self._orthonormal = orthonormal
        factor = Dense((small + small.T) / 2).factor()
        self.positive, self._small = factor.positive, small
        if factor.direction is not None:
            direction = self.base.draw(orthonormal @ factor.direction)
            self.direction = direction / direction.norm()

    def on_raised(self, values: Tensor) -> Tensor:
        """The values of A with what is more at the places that were raised. Shape (S,)."""
        sparsity = self.base.sparsity
        slots = sparsity.diagonal[torch.tensor(self.raised, dtype=torch.long)]
        return values.index_add(0, slots, values.new_full(slots.shape, self.height))

    def with_raised(self, columns: Tensor, middle: Tensor) -> tuple[Tensor, Tensor]:
        """V and T with what takes it away. Shapes: (d, k), (k, k) → (d, k + places), (…, …)."""
        if not self.raised:
            return columns, middle
        unit = columns.new_zeros(len(columns), len(self.raised))
        unit[self.raised, range(len(self.raised))] = 1.0
        less = torch.diag(middle.new_full((len(self.raised),), -self.height))
        return torch.cat([columns, unit], 1), torch.block_diag(middle, less)

    @cached_property
    def _across(self) -> tuple[Tensor, Tensor]:
        """W = A⁻¹ V (d, k) and M = T (I + Vᵀ W T)⁻¹ (k, k), with H⁻¹ = A⁻¹ − W M Wᵀ."""
        solved = self.base.solve(self.columns.T).T
        inner = self.columns.T @ solved @ self.middle
        inner.diagonal().add_(1.0)
        return solved, torch.linalg.solve(inner.T, self.middle.T).T

    def solve(self, vectors: Tensor) -> Tensor:
        solved, middle = self._across
        found = self.base.solve(vectors)
        return found - (vectors @ solved) @ middle.T @ solved.T

    def log_determinant(self) -> Tensor:
        small: Tensor = torch.linalg.slogdet(self._small).logabsdet
        return self.base.log_determinant() + small

    def inverse_diagonal(self) -> Tensor:
        solved, middle = self._across
        return self.base.inverse_diagonal() - ((solved @ middle) * solved).sum(1)

    def draw(self, noise: Tensor) -> Tensor:
        """L⁻ᵀ (I + Q (S^(−1/2) − I) Qᵀ) z with S the small matrix."""
        values, vectors = torch.linalg.eigh((self._small + self._small.T) / 2)
        root = (vectors * (values.rsqrt() - 1.0)) @ vectors.T
        inside = noise @ self._orthonormal
        return self.base.draw(noise + inside @ root @ self._orthonormal.T)
