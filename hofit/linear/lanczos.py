"""Functions of a symmetric positive definite matrix applied to many vectors at once, by Lanczos' method.

M V = V T on the Krylov space of z, so that f(M) z ≈ ‖z‖ V f(T) e₁ and zᵀ f(M) z ≈ ‖z‖² e₁ᵀ f(T) e₁. The derivative of
zᵀ log(M) z along dM is tr(X dM), X = V C Vᵀ, with C the divided differences of the logarithm at the Ritz values
(Daleckii & Krein): positive definite, and of low rank. Once the space is exhausted to rounding it is exact, so that
value and derivative belong together.

Source: Golub & Meurant (2010), "Matrices, Moments and Quadrature"; Ubaru, Chen & Saad (2017), "Fast estimation of
tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix Anal. Appl. 38; Higham (2008), "Functions of Matrices",
section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""V → MV. Shapes: (m, n) → (m, n)."""

EXHAUSTED = 1e-12
"""What a product adds to a basis, relative to the largest Ritz value, below which it is rounding."""

CHECKED = 3
"""Steps from one look at how far it has settled to the next."""

CUT = 1e-9
"""Part of the largest eigenvalue of C below which the others are left out."""


@dataclass(frozen=True, eq=False)
class Krylov:
    """The spaces of n vectors. Shapes: basis (k, m, n); tridiagonal T (n, k, k); norms (n,).

    ``residual`` is the largest relative one of M x = z in these spaces.
    """

    basis: Tensor
    tridiagonal: Tensor
    norms: Tensor
    residual: float

    @cached_property
    def ritz(self) -> tuple[Tensor, Tensor]:
        """Ritz values (n, k), ascending, and the eigenvectors of T (n, k, k)."""
        values, vectors = torch.linalg.eigh(self.tridiagonal)
        return values, vectors

    @property
    def lowest(self) -> float:
        """The lowest Ritz value; above the lowest eigenvalue."""
        return float(self.ritz[0].min())

    def direction(self) -> Tensor:
        """The Ritz vector of the lowest Ritz value; shape (m,)."""
        values, vectors = self.ritz
        which = int(values[:, 0].argmin())
        found: Tensor = torch.einsum("km,k->m", self.basis[:, :, which], vectors[which, :, 0])
        return found

    def logarithms(self) -> Tensor:
        """zᵀ log(M) z; shape (n,)."""
        values, vectors = self.ritz
        return self.norms.square() * (vectors[:, 0].square() * values.log()).sum(1)

    def inverse_roots(self) -> Tensor:
        """M^(−½) z; shape (m, n)."""
        values, vectors = self.ritz
        weights = torch.einsum("nka,na->nk", vectors, vectors[:, 0] * values.rsqrt()) * self.norms[:, None]
        found: Tensor = torch.einsum("kmn,nk->mn", self.basis, weights)
        return found

    def slopes(self) -> tuple[Tensor, Tensor]:
        """x and M x with d zᵀ log(M) z = Σ xᵀ dM x; shapes (m, n, r) each."""
        values, vectors = self.ritz
        one, other = values[:, :, None], values[:, None, :]
        ratio = (one - other) / (one + other)
        small = ratio.abs() < 1e-4  # the series errs by its fourth power
        safe = torch.where(small, 0.5, ratio)
        differences = 2 / (one + other) * torch.where(small, 1 + ratio.square() / 3, torch.atanh(safe) / safe)
        start = vectors[:, 0] * self.norms[:, None]
        middle = vectors @ (differences * start[:, :, None] * start[:, None, :]) @ vectors.mT
        sizes, directions = torch.linalg.eigh((middle + middle.mT) / 2)
        rank = int((sizes > CUT * sizes[:, -1:]).sum(1).max())
        weights = directions[:, :, -rank:] * sizes[:, None, -rank:].clamp_min(0.0).sqrt()  # (n, k, r)
        both = torch.cat([weights, self.tridiagonal @ weights], 2)
        found = torch.einsum("kmn,nkr->mnr", self.basis, both)
        return found[..., :rank], found[..., rank:]


def krylov(product: Product, start: Tensor, tolerance: float, steps: int) -> Krylov:
    """The spaces of the columns of ``start`` (m, n), until M x = z is solved in them to ``tolerance``, relative.

    It ends early where a Ritz value is not positive. Cost: a product of all columns a step, at most ``steps``, and
    that many vectors of each.
    """
    m, n = start.shape
    steps = min(steps, m)
    norms = start.norm(dim=0)
    basis = [start / norms.clamp_min(torch.finfo(start.dtype).tiny)]
    tridiagonal, done = start.new_zeros(n, steps, steps), norms == 0
    for k in range(steps):
        vector = product(basis[k])
        # What is exhausted goes on as nothing: T has a one beside it that no start reaches.
        tridiagonal[:, k, k] = torch.where(done, 1.0, (basis[k] * vector).sum(0))
        for other in basis:
            vector = vector - (other * vector).sum(0) * other
        size = vector.norm(dim=0)
        whole = tridiagonal[:, : k + 1, : k + 1]
        last = k + 1 == steps
        if last or k % CHECKED == CHECKED - 1:
            found = Krylov(torch.stack(basis), whole, norms, _residual(whole, size))
            if last or not found.lowest > 0 or found.residual <= tolerance:
                return found
        done = done | (size <= EXHAUSTED * whole.abs().amax((1, 2)))
        size = torch.where(done, 0.0, size)
        basis.append(torch.where(done, 0.0, vector / torch.where(done, 1.0, size)))
        tridiagonal[:, k, k + 1] = tridiagonal[:, k + 1, k] = size
    raise AssertionError("no steps")


def _residual(tridiagonal: Tensor, size: Tensor) -> float:
    """β_k |e_kᵀ T⁻¹ e₁|, the largest. Shapes: (n, k, k), (n,)."""
    values, vectors = torch.linalg.eigh(tridiagonal)
    along = (vectors[:, -1] * vectors[:, 0] / torch.where(values == 0, torch.nan, values)).sum(1)
    return float(torch.nan_to_num(size * along, nan=0.0).abs().max())
