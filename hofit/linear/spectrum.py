"""The lower end of a structured matrix's spectrum: which signs it has, and along which directions."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from .operator import Factor, Operator, Spectrum

INERTIA_VECTORS = 8
"""Directions that are reported at most: more would not be read."""

DENSE_SPECTRUM = 256
"""Sizes up to which the lowest eigenpairs are read off the whole matrix: exact, and no slower than iterating."""

KRYLOV_STEPS = 6
"""Blocks of vectors to a basis, each the shifted inverse of the one before."""

SPARE_VECTORS = 4
"""Vectors of a block beyond those that are asked for: the next eigenvalues may lie close to the last of them."""

KRYLOV_RESTARTS = 12
"""How often, at most, a basis is condensed to its lowest Ritz vectors; one or two settle all but clusters."""

SHIFT_ABOVE = 0.05
"""How far above −λ₁ the shift may lie, relative to it: close enough for λ₁ to grow twenty times as fast as zero."""


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


def inertia(operator: Operator, noise: float) -> Inertia:
    """Which directions have negative curvature (below −noise) and which none (within noise).

    One factorisation settles the usual case; eigenvectors are looked for only where there is something to report.
    Where H is positive definite ``lowest`` is ``noise``, a lower bound. Entries that are not finite leave ``lowest``
    nan, and one direction in ``zero`` that means nothing.
    """
    empty = operator.like.new_zeros(operator.size, 0)
    if operator.size == 0 or operator.factor(-noise).positive:
        return Inertia(noise, empty, empty)
    spectrum = operator.lowest(INERTIA_VECTORS)
    negative = spectrum.values < -noise
    zero = spectrum.values.abs() <= noise
    vectors = spectrum.vectors
    if not bool(negative.any() | zero.any()):  # the factorisation failed by rounding alone, or on nan
        zero = torch.arange(len(zero), device=zero.device) == 0
    if not bool(negative.any()):
        refused = operator.factor(noise)
        if not refused.positive and refused.direction is not None:
            return Inertia(-noise, refused.direction[:, None], vectors[:, zero])
    return Inertia(float(spectrum.values[0]), vectors[:, negative], vectors[:, zero])


def dense_spectrum(matrix: Tensor, count: int) -> Spectrum:
    """The lowest eigenpairs of a matrix (d, d); it is divided by its largest entry, so that nothing overflows."""
    largest = float(matrix.abs().max()) if matrix.numel() else 1.0
    if not isfinite(largest):
        return unknown_spectrum(matrix, count)
    scale = largest if largest > 0 else 1.0
    values, vectors = torch.linalg.eigh(matrix / scale)
    return Spectrum(values[:count] * scale, vectors[:, :count])


def unknown_spectrum(matrix: Tensor, count: int) -> Spectrum:
    """Of a matrix (d, …) with entries that are not finite: values nan, vectors of the unit basis."""
    size = matrix.shape[0]
    vectors = matrix.new_zeros(size, count)
    vectors.diagonal().fill_(1.0)
    return Spectrum(matrix.new_full((count,), torch.nan), vectors)


def lowest_by_inverse_iteration(operator: Operator, count: int) -> Spectrum:
    """The lowest eigenpairs by a restarted block Krylov method on (H + shift)⁻¹, the shift just above −λ₁.

    Shapes: values (count,); vectors (d, count).
    Cost: up to 30 factorisations where H is not positive definite, else one; KRYLOV_STEPS solves of a block of
    count + SPARE_VECTORS vectors a restart; a basis of as many blocks. Sizes up to DENSE_SPECTRUM are one dense
    decomposition.
    Source: Golub & Van Loan (2013), sections 8.2.4 and 10.3.6; Stewart (2001), "Eigensystems", section 5.2.
    """
    size, like = operator.size, operator.like
    if size <= DENSE_SPECTRUM:
        whole = operator.matvec(torch.eye(size, dtype=like.dtype, device=like.device))
        return dense_spectrum((whole + whole.T) / 2, count)
    largest = operator.largest()
    if not isfinite(largest):
        return unknown_spectrum(like.new_empty(size, 0), count)
    scale = largest if largest > 0 else 1.0
    unit = operator.scaled(like.new_full((size,), scale**-0.5))
    norm = unit.norm_bound()
    eps = torch.finfo(like.dtype).eps
    factor = _lowest_definite(unit, norm, 32 * eps * max(norm, 1.0))
    wide = min(size, count + SPARE_VECTORS)
    generator = torch.Generator().manual_seed(7)
    block = torch.randn(size, wide, generator=generator, dtype=torch.float64).to(like)
    basis = like.new_empty(size, wide * min(KRYLOV_STEPS, size // wide))
    dust = block / size**0.5
    for _ in range(KRYLOV_RESTARTS):
        basis[:, :wide] = torch.linalg.qr(block)[0]
        for end in range(wide, basis.shape[1], wide):
            grown, before = factor.solve(basis[:, end - wide : end].T).T, basis[:, :end]
            # Where nothing new has grown rounding is left: in few places it would lie in the basis. So dust is added.
            grown = grown / grown.norm(dim=0).clamp_min(torch.finfo(like.dtype).tiny) + 8 * eps * dust
            for _ in range(3):
                grown = torch.linalg.qr(grown - before @ (before.T @ grown))[0]
            basis[:, end : end + wide] = grown
        image = unit.matvec(basis.T).T
        projected = basis.T @ image
        values, rotation = torch.linalg.eigh((projected + projected.T) / 2)
        block = basis @ rotation[:, :wide]
        residual = image @ rotation[:, :count] - block[:, :count] * values[:count]
        if float(residual.norm(dim=0).max()) <= eps ** (2 / 3) * norm:  # the values err by its square
            break
    return Spectrum(values[:count] * scale, block[:, :count])


def _lowest_definite(operator: Operator, norm: float, tolerance: float) -> Factor:
    """The factorisation at a shift little above −λ₁, or at next to none where H is positive definite."""
    low, shift, grow = 0.0, tolerance, 1.01
    factor = operator.factor(shift)
    while not factor.positive and shift <= 4 * norm:
        low = max(low, shift)
        if factor.direction is not None:  # a lower bound: −dᵀHd ≤ −λ₁, and often next to it
            low = max(low, -float(factor.direction @ operator.matvec(factor.direction)))
        shift, grow = grow * low + 2 * tolerance, 4.0
        factor = operator.factor(shift)
    while shift - low > SHIFT_ABOVE * shift + 4 * tolerance:
        middle = max((low * shift) ** 0.5, 0.1 * shift)
        trial = operator.factor(middle)
        if trial.positive:
            factor, shift = trial, middle
        else:
            low = middle
    return factor
