"""What every structured symmetric matrix of hofit can do; one file each holds a structure.

Vectors are flat, (…, d). Nothing here ever forms d × d numbers unless the structure is dense.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

MEMORY_BUDGET = 256 * 2**20
"""Bytes that a temporary of a chunked operation may take."""

ROUNDING = 64.0
"""Units of eps, relative to the largest |h_ii|, below which a diagonal entry is rounding and no size."""


class Factor(ABC):
    """A Cholesky factorisation of H + shift · I, or the proof that there is none.

    Where ``positive`` is False, ``direction`` (d,) has length one and dᵀ(H + shift · I)d ≤ 0 up to rounding, and
    nothing else may be asked. Entries that are not finite are never positive, and ``direction`` may then be None.
    """

    positive: bool
    direction: Tensor | None = None

    @abstractmethod
    def solve(self, vectors: Tensor) -> Tensor:
        """(H + shift · I)⁻¹ v. Shapes: (…, d) → (…, d)."""

    @abstractmethod
    def log_determinant(self) -> Tensor:
        """log det(H + shift · I); shape ()."""

    @abstractmethod
    def inverse_diagonal(self) -> Tensor:
        """The diagonal of (H + shift · I)⁻¹; shape (d,)."""

    @abstractmethod
    def draw(self, noise: Tensor) -> Tensor:
        """What standard normal noise becomes under the covariance (H + shift · I)⁻¹. Shapes: (…, d) → (…, d)."""


class Operator(ABC):
    """A symmetric matrix H (d, d) with structure; not necessarily definite."""

    structure: str
    size: int
    like: Tensor
    """An empty tensor of the dtype and on the device of the entries."""

    @abstractmethod
    def matvec(self, vectors: Tensor) -> Tensor:
        """H v. Shapes: (…, d) → (…, d)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Shape (d,)."""

    @abstractmethod
    def scaled(self, scale: Tensor) -> Operator:
        """diag(s) H diag(s), of the same structure. Shape of ``scale``: (d,)."""

    @abstractmethod
    def held(self, places: Tensor) -> Operator:
        """H with the rows and columns of some places those of the identity. Shape of ``places``: (d,), booleans."""

    @abstractmethod
    def largest(self) -> float:
        """The largest absolute entry; nan if any entry is."""

    @abstractmethod
    def norm_bound(self) -> float:
        """An upper bound of the spectral norm."""

    @abstractmethod
    def factor(self, shift: float = 0.0) -> Factor:
        """Factorise H + shift · I."""

    def factor_as(self, other: Operator) -> Factor:
        """Factorise H; where ``other`` is the same matrix up to rounding, its factor may be taken."""
        return self.factor()

    @abstractmethod
    def lowest(self, count: int = 1) -> Spectrum:
        """The ``count`` lowest eigenvalues with their eigenvectors; fewer where the matrix is smaller.

        What has not settled is the Ritz values, which lie above the eigenvalues. Entries that are not finite give
        eigenvalues that are nan.
        """

    def sizes(self) -> Tensor | None:
        """|h_ii|; where that is rounding, what an unknown's coupling to the others says of its unit. Shape (d,).

        An unknown without curvature of its own, coupled to others by h_ij, is sized so that h_ij / D_i D_j is one, as
        equilibration does it (Ruiz 2001): the sum over j with random signs stands for the largest of them. None where
        an entry is not finite.
        """
        if not isfinite(self.largest()):
            return None
        diagonal = self.diagonal().abs()
        positive = above_rounding(diagonal)
        empty = diagonal < positive
        if not bool(empty.any()):
            return diagonal
        signs = torch.randint(0, 2, diagonal.shape, generator=torch.Generator().manual_seed(5))
        others = torch.where(empty, torch.zeros_like(diagonal), (2 * signs - 1).to(diagonal) / positive.sqrt())
        coupling = torch.where(empty, self.matvec(others).square(), diagonal)
        return torch.where(torch.isfinite(coupling), coupling, diagonal)

    def memory(self) -> int:
        """Bytes that the entries take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(vars(self)))


@dataclass(frozen=True)
class Spectrum:
    """Part of a spectrum. Shapes: values (k,), ascending; vectors (d, k), orthonormal columns."""

    values: Tensor
    vectors: Tensor


def above_rounding(sizes: Tensor) -> Tensor:
    """|h_ii|, or where that is rounding of the largest, the rounding; one where all are zero. Shapes: (d,) → (d,)."""
    largest = float(sizes.max()) if sizes.numel() else 0.0
    floor = ROUNDING * torch.finfo(sizes.dtype).eps * largest
    return torch.clamp(sizes, min=floor) if floor > 0 else torch.ones_like(sizes)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)
    elif is_dataclass(value):
        yield from _tensors(vars(value))
