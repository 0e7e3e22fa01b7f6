"""A matrix most of whose entries are zero, without any further shape: chains, grids, trees, networks, nested rows."""

from __future__ import annotations

from copy import copy
from functools import cached_property
from math import inf, isfinite

import torch
from torch import Tensor

from .multifrontal import assembled, backward, factorise, forward, refused_direction, selected_inverse
from .operator import MEMORY_BUDGET, Factor, Operator, Spectrum
from .sparsity import Sparsity
from .spectrum import lowest_by_inverse_iteration

PROBES = 16
"""Random signs of an estimate: of a root of m pivots it errs by about √(2 / 16 m) of itself, a hundredth or so."""


SAME = 16.0
"""Units of eps that an entry may differ by, relative, in a matrix that is the same: it is summed in another order."""


class Sparse(Operator):
    """Shape of values: (S,), as the places of the pattern. ``whence``: what it is a scaled one of, and the scale (d,).

    The factor without a shift is kept; that of a scaled matrix is a scaled one.
    """

    structure = "sparse"

    def __init__(self, sparsity: Sparsity, values: Tensor, whence: tuple[Sparse, Tensor] | None = None) -> None:
        self.sparsity, self.values, self._whence = sparsity, values, whence
        self._factor: SparseFactor | None = None
        self.size = sparsity.size
        self.like = values.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self.size)
        each = max(1, MEMORY_BUDGET // (8 * self.values.element_size() * len(self.values)))
        return torch.cat([self._product(part.T).T for part in flat.split(each)]).reshape(vectors.shape)

    def _product(self, vectors: Tensor) -> Tensor:
        """Shapes: (d, k) → (d, k)."""
        start, column, taken = self.sparsity.whole
        shape = (self.size, self.size)
        whole = torch.sparse_csr_tensor(start, column, self.values[taken], shape, check_invariants=False)
        found: Tensor = whole @ vectors
        return found

    def diagonal(self) -> Tensor:
        return self.values[self.sparsity.diagonal]

    def scaled(self, scale: Tensor) -> Sparse:
        rows, columns = self.sparsity.rows, self.sparsity.columns
        base, before = self._whence or (self, None)
        whence = base, scale if before is None else before * scale
        return Sparse(self.sparsity, self.values * scale[rows] * scale[columns], whence)

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
        if shift:
            return SparseFactor(self.sparsity, self.values, shift)
        if self._factor is None:
            base, scale = self._whence or (self, self.values)
            if base is not self and bool(((scale > 0) & (scale < inf)).all()):
                self._factor = base.factor().scaled(scale)
            else:
                self._factor = SparseFactor(self.sparsity, self.values)
        return self._factor

    def factor_as(self, other: Operator) -> SparseFactor:
        if isinstance(other, Sparse) and other.sparsity is self.sparsity and other._factor is not None:
            off = SAME * torch.finfo(self.values.dtype).eps * self.values.abs()
            if bool(((other.values - self.values).abs() <= off).all()):
                self._factor = other._factor
        return self.factor()

    def lowest(self, count: int = 1) -> Spectrum:
        return lowest_by_inverse_iteration(self, min(count, self.size))


class SparseFactor(Factor):
    """L of H + shift · I = Pᵀ L Lᵀ P, with P the order of elimination; of diag(s) H diag(s) if it is ``scaled``.

    ``values`` (S,), with the shift, ``panel``, ``probes`` and ``inverse_panel`` are those of H itself.
    """

    _scale: Tensor | None = None

    def __init__(self, sparsity: Sparsity, values: Tensor, shift: float = 0.0) -> None:
        self.sparsity = sparsity
        self.bends: list[tuple[Tensor, float]] | None = None
        """Where second derivatives of the determinant wait to be taken together: see ``Bends``."""
        elimination, values = sparsity.elimination, values.detach()
        if shift:
            values = values.index_add(0, sparsity.diagonal, values.new_full((sparsity.size,), shift))
        self.values = values
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

    def scaled(self, scale: Tensor) -> SparseFactor:
        """That of diag(s) H diag(s), by the same numbers. Shape (d,)."""
        found = copy(self)
        found._scale = scale
        if self.direction is not None:
            direction = self.direction / scale
            found.direction = direction / direction.norm()
        return found

    def alone(self) -> SparseFactor:
        """The same without the inverse and what else was made of it."""
        found = copy(self)
        for name in ("inverse_panel", "probes"):
            vars(found).pop(name, None)
        return found

    def solve(self, vectors: Tensor) -> Tensor:
        placed = self._placed(self._unscaled(vectors))
        forward(self.sparsity.elimination, self.panel, placed)
        backward(self.sparsity.elimination, self.panel, placed)
        return self._unscaled(self._taken(placed, vectors))

    def log_determinant(self) -> Tensor:
        own = 2.0 * self._pivots.log().sum()
        return own if self._scale is None else own + 2.0 * self._scale.log().sum()

    def inverse_diagonal(self) -> Tensor:
        return self.inverse()[self.sparsity.diagonal]

    def draw(self, noise: Tensor) -> Tensor:
        """Pᵀ L⁻ᵀ P z."""
        placed = self._placed(noise)
        backward(self.sparsity.elimination, self.panel, placed)
        return self._unscaled(self._taken(placed, noise))

    def half_solve(self, vectors: Tensor) -> Tensor:
        """Pᵀ L⁻¹ P v, whose square is vᵀ (H + shift · I)⁻¹ v. Shapes: (…, d) → (…, d)."""
        placed = self._placed(self._unscaled(vectors))
        forward(self.sparsity.elimination, self.panel, placed)
        return self._taken(placed, vectors)

    def inverse(self) -> Tensor:
        """(H + shift · I)⁻¹ on the pattern, off it there is nothing of it; shape (S,)."""
        found = self.inverse_panel.index_select(0, self.sparsity.elimination.address)
        if self._scale is None:
            return found
        return found / (self._scale[self.sparsity.rows] * self._scale[self.sparsity.columns])

    @cached_property
    def probes(self) -> Tensor:
        """What random signs, the same for all factors, become under the inverse: of estimates. Shape (PROBES, d)."""
        assert self._scale is None
        signs = 2 * torch.randint(0, 2, (PROBES, self.sparsity.size), generator=torch.Generator().manual_seed(17)) - 1
        return self.draw(signs.to(self.panel))

    @cached_property
    def inverse_panel(self) -> Tensor:
        """The inverse where L may have entries, kept."""
        return selected_inverse(self.sparsity.elimination, self.panel)

    def _unscaled(self, vectors: Tensor) -> Tensor:
        return vectors if self._scale is None else vectors / self._scale

    def _placed(self, vectors: Tensor) -> Tensor:
        """Shapes: (…, d) → (places, k)."""
        elimination = self.sparsity.elimination
        flat = vectors.reshape(-1, self.sparsity.size)
        placed = flat.new_zeros(elimination.places, len(flat))
        placed[elimination.place] = flat.T
        return placed

    def _taken(self, placed: Tensor, like: Tensor) -> Tensor:
        return placed[self.sparsity.elimination.place].T.reshape(like.shape)
