"""What every structured symmetric matrix of hofit can do; one file each holds a structure.

Vectors are flat, (…, d), in the order of ``dense.flatten``. Nothing here ever forms d × d numbers unless the structure
is dense.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY_BUDGET = 256 * 2**20
"""Bytes that a temporary of a chunked operation may take."""


class Factor(ABC):
    """A Cholesky factorisation of H + shift · I, or the proof that there is none.

    Where ``positive`` is False, ``direction`` (d,) has length one and dᵀ(H + shift · I)d ≤ 0, and nothing else may be
    asked.
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


class Operator(ABC):
    """A symmetric matrix H (d, d) with structure; not necessarily definite."""

    structure: str
    size: int

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
    def largest(self) -> float:
        """The largest absolute entry; nan if any entry is."""

    @abstractmethod
    def norm_bound(self) -> float:
        """An upper bound of the spectral norm."""

    @abstractmethod
    def factor(self, shift: float = 0.0) -> Factor:
        """Factorise H + shift · I."""

    def lowest(self, count: int = 1) -> Spectrum:
        """The lowest eigenvalues with their eigenvectors, by subspace iteration on a shifted inverse.

        Raises: nothing; what has not settled is the Ritz values, which lie above the eigenvalues.
        """
        return lowest_by_inverse_iteration(self, min(count, self.size))


@dataclass(frozen=True)
class Spectrum:
    """Part of a spectrum. Shapes: values (k,), ascending; vectors (d, k), orthonormal columns."""

    values: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class Inertia:
    """The signs of a spectrum, up to rounding, and the directions that are not of positive curvature.

    ``negative`` and ``zero`` have one column (d, k) a direction: all of them where there are at most INERTIA_VECTORS.
    """

    lowest: float
    negative: Tensor
    zero: Tensor

    @property
    def positive_definite(self) -> bool:
        return self.negative.shape[1] == 0 and self.zero.shape[1] == 0


INERTIA_VECTORS = 8
"""Directions that are reported at most: more would not be read."""

SUBSPACE_ITERATIONS = 12
"""Each divides the error by (λₖ₊₁ + shift) / (λ₁ + shift), and the shift is next to λ₁."""


def inertia(operator: Operator, noise: float) -> Inertia:
    """Which directions have negative curvature (below −noise) and which none (within noise).

    Two factorisations settle the usual case; eigenvectors are looked for only where there is something to report.
    """
    empty = operator.diagonal().new_zeros(operator.size, 0)
    if operator.size == 0 or operator.factor(-noise).positive:
        return Inertia(noise, empty, empty)
    spectrum = operator.lowest(INERTIA_VECTORS)
    negative = spectrum.values < -noise
    zero = spectrum.values.abs() <= noise
    vectors = spectrum.vectors
    if not bool(negative.any() | zero.any()):  # the factorisation failed by rounding alone
        zero = spectrum.values <= spectrum.values[0]
    if not bool(negative.any()):
        refused = operator.factor(noise)
        if not refused.positive and refused.direction is not None:
            return Inertia(-noise, refused.direction[:, None], vectors[:, zero])
    return Inertia(float(spectrum.values[0]), vectors[:, negative], vectors[:, zero])


def lowest_by_inverse_iteration(operator: Operator, count: int) -> Spectrum:
    """The lowest eigenpairs by subspace iteration on (H + shift)⁻¹, the shift just above −λ₁ (found by bisection)."""
    eps = torch.finfo(operator.diagonal().dtype).eps
    norm = max(operator.norm_bound(), 1e-300)
    low, high = max(0.0, -float(operator.diagonal().min())), norm
    factor = operator.factor(1e2 * eps * norm)
    if not factor.positive:
        while high - low > 1e-3 * high + 1e2 * eps * norm:
            middle = (low * high) ** 0.5 if low > 1e-6 * high else high / 8
            middle = max(middle, low + (high - low) * 1e-2)
            trial = operator.factor(middle)
            if trial.positive:
                factor, high = trial, middle
            else:
                low = middle
        if not factor.positive:
            factor = operator.factor(high * (1 + 1e-6) + 1e2 * eps * norm)
    generator = torch.Generator().manual_seed(7)
    wide = min(operator.size, count + 4)
    like = operator.diagonal()
    basis = torch.randn(operator.size, wide, generator=generator, dtype=torch.float64).to(like)
    basis = torch.linalg.qr(basis)[0]
    for _ in range(SUBSPACE_ITERATIONS):
        basis = torch.linalg.qr(factor.solve(basis.T).T)[0]
    projected = basis.T @ operator.matvec(basis.T).T
    values, rotation = torch.linalg.eigh((projected + projected.T) / 2)
    return Spectrum(values[:count], (basis @ rotation)[:, :count])
