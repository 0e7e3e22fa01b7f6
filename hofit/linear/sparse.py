"""A matrix most of whose entries are zero, without any further shape: chains, grids, trees, networks, nested rows."""

from __future__ import annotations

from functools import cached_property
from math import isfinite

import torch
from torch import Tensor

from .multifrontal import assembled, backward, factorise, forward, refused_direction, selected_inverse
from .operator import MEMORY_BUDGET, Factor, Operator, Spectrum
from .sparsity import Sparsity
from .spectrum import lowest_by_inverse_iteration

PROBES = 16
"""Random signs of an estimate: of a root of m pivots it errs by about √(2 / 16 m) of itself, a hundredth or so."""


class Sparse(Operator):
    """Shape of values: (S,), as the places of the pattern."""

    structure = "sparse"

    def __init__(self, sparsity: Sparsity, values: Tensor) -> None:
        self.sparsity, self.values = sparsity, values
        self.size = sparsity.size
        self.like = values.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self.size)
        each = max(1, MEMORY_BUDGET // (8 * self.values.element_size() * len(self.values)))
        return torch.cat([self._product(part.T).T for part in flat.split(each)]).reshape(vectors.shape)

    def _product(self, vectors: Tensor) -> Tensor:
        """Shapes: (d, k) → (d, k)."""
        off = self.sparsity.off
        rows, columns = self.sparsity.rows[off], self.sparsity.columns[off]
        values = self.values[off, None]
        result = self.diagonal()[:, None] * vectors
        result.index_add_(0, rows, values * vectors.index_select(0, columns))
        return result.index_add_(0, columns, values * vectors.index_select(0, rows))

    def diagonal(self) -> Tensor:
        return self.values[self.sparsity.diagonal]

    def scaled(self, scale: Tensor) -> Sparse:
        rows, columns = self.sparsity.rows, self.sparsity.columns
        return Sparse(self.sparsity, self.values * scale[rows] * scale[columns])

    def held(self, places: Tensor) -> Sparse:
        rows, columns = self.sparsity.rows, self.sparsity.columns
        free = torch.where(places[rows] | places[columns], 0.0, self.values)
        return Sparse(self.sparsity, free.index_add(0, self.sparsity.diagonal, places.to(free)))

    def largest(self) -> float:
        return float(self.values.abs().max()) if self.size else 0.0

    def norm_bound(self) -> float:
        """The largest absolute row sum."""
        if not self.size:
            return 0.0
        magnitudes = Sparse(self.sparsity, self.values.abs())
        return float(magnitudes.matvec(self.values.new_ones(self.size)).max())

    def factor(self, shift: float = 0.0) -> SparseFactor:
        return SparseFactor(self.sparsity, self.values, shift)

    def lowest(self, count: int = 1) -> Spectrum:
        return lowest_by_inverse_iteration(self, min(count, self.size))


class SparseFactor(Factor):
    """L of H + shift · I = Pᵀ L Lᵀ P, with P the order of elimination. Shape of values: (S,)."""

    def __init__(self, sparsity: Sparsity, values: Tensor, shift: float = 0.0) -> None:
        self.sparsity = sparsity
        self.bends: list[tuple[Tensor, float]] | None = None
        """Where second derivatives of the determinant wait to be taken together: see ``Bends``."""
        elimination, values = sparsity.elimination, values.detach()
        if shift:
            values = values.index_add(0, sparsity.diagonal, values.new_full((sparsity.size,), shift))
        self.panel = assembled(elimination, values)
        failure = factorise(elimination, self.panel)
        if failure is None:
            self._pivots = self.panel.index_select(0, elimination.pivots)
            # An entry that is not finite may come through all tests of a sign, but never as a finite pivot.
            self.positive = bool(torch.isfinite(self._pivots).all())
            return
        self.positive = False
        if bool(torch.isfinite(values).all()):
            direction = refused_direction(elimination, values, failure)[elimination.place]
            norm = float(direction.norm())
            self.direction = direction / norm if isfinite(norm) and norm > 0 else None

    def solve(self, vectors: Tensor) -> Tensor:
        placed = self._placed(vectors)
        forward(self.sparsity.elimination, self.panel, placed)
        backward(self.sparsity.elimination, self.panel, placed)
        return self._taken(placed, vectors)

    def log_determinant(self) -> Tensor:
        return 2.0 * self._pivots.log().sum()

    def inverse_diagonal(self) -> Tensor:
        return self.inverse()[self.sparsity.diagonal]

    def draw(self, noise: Tensor) -> Tensor:
        """Pᵀ L⁻ᵀ P z."""
        placed = self._placed(noise)
        backward(self.sparsity.elimination, self.panel, placed)
        return self._taken(placed, noise)

    def half_solve(self, vectors: Tensor) -> Tensor:
        """Pᵀ L⁻¹ P v, whose square is vᵀ (H + shift · I)⁻¹ v. Shapes: (…, d) → (…, d)."""
        placed = self._placed(vectors)
        forward(self.sparsity.elimination, self.panel, placed)
        return self._taken(placed, vectors)

    def inverse(self) -> Tensor:
        """(H + shift · I)⁻¹ on the pattern, off it there is nothing of it; shape (S,)."""
        return self.inverse_panel.index_select(0, self.sparsity.elimination.address)

    @cached_property
    def probes(self) -> Tensor:
        """What random signs, the same for all factors, become under the inverse: of estimates. Shape (PROBES, d)."""
        signs = 2 * torch.randint(0, 2, (PROBES, self.sparsity.size), generator=torch.Generator().manual_seed(17)) - 1
        return self.draw(signs.to(self.panel))

    @cached_property
    def inverse_panel(self) -> Tensor:
        """The inverse where L may have entries, kept."""
        return selected_inverse(self.sparsity.elimination, self.panel)

    def _placed(self, vectors: Tensor) -> Tensor:
        """Shapes: (…, d) → (places, k)."""
        elimination = self.sparsity.elimination
        flat = vectors.reshape(-1, self.sparsity.size)
        placed = flat.new_zeros(elimination.places, len(flat))
        placed[elimination.place] = flat.T
        return placed

    def _taken(self, placed: Tensor, like: Tensor) -> Tensor:
        return placed[self.sparsity.elimination.place].T.reshape(like.shape)
