"""The whole Hessian as one matrix: for small models, where it is affordable."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from .operator import Factor, Operator, Spectrum
from .spectrum import dense_spectrum

BLOCK = 512
"""Columns of a product at a time: enough for a product's full speed."""

INVERTED = 192
"""Columns of an inverse at a time, from four times as many on: LAPACK takes 1.3 to 1.5 times as long for thousands."""


class Dense(Operator):
    """A matrix without structure. Shape of ``matrix``: (d, d), symmetric."""

    structure = "dense"

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.size = matrix.shape[0]
        self.like = matrix.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        return vectors @ self.matrix

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    def scaled(self, scale: Tensor) -> Dense:
        return Dense(self.matrix * scale[:, None] * scale)

    def held(self, places: Tensor) -> Dense:
        return Dense(held_matrices(self.matrix, places))

    def largest(self) -> float:
        return float(self.matrix.abs().max()) if self.size else 0.0

    def norm_bound(self) -> float:
        return float(self.matrix.abs().sum(0).max()) if self.size else 0.0

    def factor(self, shift: float = 0.0) -> DenseFactor:
        return DenseFactor(self.matrix, shift)

    def lowest(self, count: int = 1) -> Spectrum:
        return dense_spectrum(self.matrix, min(count, self.size))


class DenseFactor(Factor):
    """Cholesky's, of the whole matrix."""

    def __init__(self, matrix: Tensor, shift: float) -> None:
        shifted = matrix.clone()
        shifted.diagonal().add_(shift)
        self._lower, info = torch.linalg.cholesky_ex(shifted)
        self.positive = int(info) == 0 and bool(torch.isfinite(self._lower.diagonal()).all())
        if not self.positive and bool(torch.isfinite(shifted).all()):
            self.direction = dense_spectrum(shifted, 1).vectors[:, 0]

    def solve(self, vectors: Tensor) -> Tensor:
        flat = vectors.flatten(0, -2) if vectors.dim() > 1 else vectors[None]
        return torch.cholesky_solve(flat.T, self._lower).T.reshape(vectors.shape)

    @cached_property
    def inverse(self) -> Tensor:
        """(H + shift · I)⁻¹, kept; shape (d, d)."""
        return self.solve(torch.eye(len(self._lower), dtype=self._lower.dtype, device=self._lower.device))

    def log_determinant(self) -> Tensor:
        total: Tensor = self._lower.diagonal().log().sum()
        return 2.0 * total

    def inverse_diagonal(self) -> Tensor:
        return torch.cholesky_inverse(self._lower).diagonal()

    def draw(self, noise: Tensor) -> Tensor:
        flat = noise.flatten(0, -2) if noise.dim() > 1 else noise[None]
        drawn: Tensor = torch.linalg.solve_triangular(self._lower.T, flat.T, upper=True)
        return drawn.T.reshape(noise.shape)

    def half_solve(self, vectors: Tensor) -> Tensor:
        """L⁻¹ v, whose square is vᵀ (H + shift · I)⁻¹ v. Shapes: (k, d) → (k, d)."""
        half: Tensor = torch.linalg.solve_triangular(self._lower, vectors.T, upper=False).T
        return half


def held_matrices(matrices: Tensor, places: Tensor) -> Tensor:
    """Rows and columns of ``places`` become the identity's. Shapes: (…, L, L), (…, L) booleans → (…, L, L)."""
    free = torch.where(places[..., :, None] | places[..., None, :], 0.0, matrices)
    free.diagonal(dim1=-2, dim2=-1).add_(places.to(matrices))
    return free


def inverse_of(lower: Tensor, out: Tensor | None = None) -> Tensor:
    """(L Lᵀ)⁻¹, of which one may say where it is to stand; best column by column. Shape (d, d).

    A large one by blocks of columns, from the last: Z₂₁ = −Z₂₂ Y and Z₁₁ = L₁₁⁻ᵀ L₁₁⁻¹ − Yᵀ Z₂₁ with Y = L₂₁ L₁₁⁻¹,
    which is almost all products of matrices.
    """
    size = len(lower)
    found = torch.empty_like(lower.mT).mT if out is None else out
    if size < 4 * INVERTED:
        return found.copy_(torch.cholesky_inverse(lower))
    for start in reversed(range(0, size, INVERTED)):
        own, later = slice(start, start + INVERTED), slice(start + INVERTED, size)
        corner = lower[own, own]
        unit = torch.eye(len(corner), dtype=lower.dtype, device=lower.device)
        root: Tensor = torch.linalg.solve_triangular(corner, unit, upper=False)
        torch.mm(root.T, root, out=found[own, own])
        reduced, across = lower[later, own] @ root, found[later, own]
        torch.mm(found[later, later], reduced.neg(), out=across)
        found[own, own].addmm_(reduced.T, across, alpha=-1)
        found[own, later] = across.T
    return found


def times(inverse: Tensor, middle: Tensor) -> Tensor:
    """K M of symmetric matrices; a parameter of few effects moves few places of M beside its diagonal."""
    diagonal = middle.diagonal()
    beside = (middle != 0).sum(1) > (diagonal != 0)
    if int(beside.sum()) > len(middle) // 2:
        return inverse @ middle
    place, found = beside.nonzero()[:, 0], inverse * diagonal
    block = middle[place][:, place]
    block.diagonal().zero_()
    return found.index_add_(1, place, inverse.index_select(1, place) @ block)


def congruent(inverse: Tensor, middle: Tensor) -> Tensor:
    """K M K for a symmetric K, with M as in ``times``."""
    touched = (middle != 0).any(1) | (middle != 0).any(0)
    if int(touched.sum()) <= len(middle) // 2:
        place = touched.nonzero()[:, 0]
        columns = inverse.index_select(1, place)
        return columns @ middle[place][:, place] @ columns.T
    return _symmetric_product(times(inverse, middle), inverse)


def _symmetric_product(left: Tensor, right: Tensor) -> Tensor:
    """A product that is known to be symmetric: the blocks below the diagonal, and their mirror images. Shape (d, d)."""
    result = torch.empty_like(left)
    for start in range(0, len(left), BLOCK):
        part = slice(start, start + BLOCK)
        block = left[start:] @ right[:, part]
        result[start:, part] = block
        result[part, start:] = block.T
    return result
