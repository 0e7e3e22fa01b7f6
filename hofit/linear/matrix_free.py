"""A Hessian of which only products with vectors are known.

What is exact and what is an estimate:

- ``matvec`` and ``diagonal`` are exact (the diagonal costs d products, once).
- ``log_determinant``, ``inverse_diagonal`` and ``draw`` are exact, from the whole matrix; beyond DENSE_LIMIT they are
  refused.
- ``largest`` and ``norm_bound`` are both the largest Ritz value plus what Lanczos left over: a bound of the norm, and
  so of every entry, except for starts of bad luck.
- that a factor is not ``positive`` is proved by its direction; that it is positive is an estimate: neither
  LANCZOS_STEPS of Lanczos nor a run of conjugate gradients met a direction of negative curvature. Up to LANCZOS_STEPS
  unknowns Lanczos sees the whole spectrum.
- ``solve`` ends at a relative residual of SOLVE_TOLERANCE or after its last iteration, whichever comes first: where the
  condition number is beyond about 1e5 that is an approximation. It is nan where it meets negative curvature after all.
- ``lowest`` gives Ritz values, above the eigenvalues; of equal eigenvalues it may see one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from .dense import Dense
from .operator import Factor, Operator, Spectrum, unknown_spectrum

Multiply = Callable[[Tensor], Tensor]
"""Hessian-vector products. Shapes: (k, d) → (k, d)."""

DENSE_LIMIT = 2000
"""Unknowns up to which the whole matrix is formed for what cannot be had without: 32 MB and 2000 products."""

LANCZOS_STEPS = 100
"""Products of one Lanczos run; its basis is orthogonalised in full, so it costs steps² · d besides."""

SOLVE_TOLERANCE = 100.0
"""Relative residual of a solution, in units of eps."""

PROBE_TOLERANCE = 1e-3
"""Relative residual at which the run of conjugate gradients that looks for negative curvature ends."""

PROBES = 64
"""Columns of the matrix that are formed at once."""


class NotAffordable(Exception):
    """What was asked needs the whole matrix, and that is too large."""


class MatrixFree(Operator):
    """A symmetric matrix known by its products.

    Args:
        product: (k, d) → (k, d), one Hessian-vector product a row.
        size: d.
        like: any tensor of the dtype and device.
        preconditioner: a structured approximation of the matrix, or None. It is factored at the same shifts; where it
            is not positive definite there, it is not used.
        diagonal: the diagonal, if it is known already.
    Cost: LANCZOS_STEPS products once, when positivity or a norm is first asked for; each factor up to 2d more, each
        solve up to 4d.
    Raises: NotAffordable from ``log_determinant``, ``inverse_diagonal`` and ``draw`` beyond DENSE_LIMIT.
    Source: Golub & Van Loan (2013), sections 10.1 to 10.3 and 11.3, 11.5; Zhou & Li (2011) for the norm.
    """

    structure = "matrix_free"

    def __init__(
        self,
        product: Multiply,
        size: int,
        like: Tensor,
        preconditioner: Operator | None = None,
        diagonal: Tensor | None = None,
    ) -> None:
        self.size, self.like, self.preconditioner = size, like.new_empty(0), preconditioner
        self._product, self._diagonal = product, diagonal
        self._whole: Tensor | None = None
        self._ritz: Ritz | None = None

    def matvec(self, vectors: Tensor) -> Tensor:
        flat = vectors.flatten(0, -2) if vectors.dim() > 1 else vectors[None]
        return self._product(flat).reshape(vectors.shape)

    def diagonal(self) -> Tensor:
        if self._diagonal is None:
            if self._whole is not None:
                self._diagonal = self._whole.diagonal()
            else:
                parts = [unit @ self._product(unit).T for unit in self._units()]
                self._diagonal = torch.cat([part.diagonal() for part in parts])
        return self._diagonal

    def scaled(self, scale: Tensor) -> MatrixFree:
        product = self._product
        return MatrixFree(
            lambda vectors: scale * product(scale * vectors),
            self.size,
            self.like,
            None if self.preconditioner is None else self.preconditioner.scaled(scale),
            None if self._diagonal is None else scale * self._diagonal * scale,
        )

    def held(self, places: Tensor) -> MatrixFree:
        product = self._product

        def held_product(vectors: Tensor) -> Tensor:
            return torch.where(places, vectors, product(torch.where(places, 0.0, vectors)))

        inner = None if self.preconditioner is None else self.preconditioner.held(places)
        diagonal = None if self._diagonal is None else torch.where(places, 1.0, self._diagonal)
        return MatrixFree(held_product, self.size, self.like, inner, diagonal)

    def largest(self) -> float:
        return self.ritz().norm

    def norm_bound(self) -> float:
        return self.ritz().norm

    def factor(self, shift: float = 0.0) -> MatrixFreeFactor:
        return MatrixFreeFactor(self, shift)

    def lowest(self, count: int = 1) -> Spectrum:
        ritz, count = self.ritz(), min(count, self.size)
        if not ritz.finite:
            return unknown_spectrum(self.like.new_empty(self.size, 0), count)
        return Spectrum(ritz.values[:count], ritz.basis @ ritz.rotation[:, :count])

    def whole(self) -> Tensor:
        """The matrix (d, d), kept. Raises: NotAffordable."""
        if self._whole is None:
            if self.size > DENSE_LIMIT:
                raise NotAffordable(
                    f"this needs the whole Hessian, and {self.size} unknowns are too many for that ({DENSE_LIMIT})"
                )
            columns = torch.cat([self._product(unit) for unit in self._units()])
            self._whole = (columns + columns.T) / 2
        return self._whole

    def ritz(self) -> Ritz:
        """The Lanczos run, made when it is first asked for."""
        if self._ritz is None:
            self._ritz = lanczos(self._product, self.size, self.like)
        return self._ritz

    def _units(self) -> tuple[Tensor, ...]:
        units: tuple[Tensor, ...] = torch.eye(self.size, dtype=self.like.dtype, device=self.like.device).split(PROBES)
        return units


@dataclass(frozen=True)
class Ritz:
    """What a Lanczos run saw. Shapes: values (s,), ascending; basis (d, s); rotation (s, s)."""

    values: Tensor
    basis: Tensor
    rotation: Tensor
    norm: float
    finite: bool


def lanczos(product: Multiply, size: int, like: Tensor) -> Ritz:
    """Lanczos from a random vector with full orthogonalisation; goes on from a new one where a space is exhausted."""
    steps = min(size, LANCZOS_STEPS)
    eps = torch.finfo(like.dtype).eps
    generator = torch.Generator().manual_seed(13)
    basis = like.new_zeros(size, steps)
    projected = like.new_zeros(steps, steps)
    vector = torch.randn(size, generator=generator, dtype=torch.float64).to(like)
    vector = vector / vector.norm()
    scale = float(product(vector[None]).abs().max())  # everything is divided by it, so that no square overflows
    if not isfinite(scale):
        return Ritz(projected.diagonal(), basis, projected, scale, False)
    scale = scale if scale > 0 else 1.0
    seen, rest = 0.0, 0.0
    for k in range(steps):
        basis[:, k] = vector / vector.norm()
        image = product(basis[None, :, k])[0] / scale
        known = basis[:, : k + 1]
        projected[: k + 1, k] = known.T @ image
        length = float(image.norm())
        if not isfinite(length):
            return Ritz(projected.diagonal(), basis, projected, length, False)
        seen = max(seen, length)
        vector = image - known @ projected[: k + 1, k]
        vector = vector - known @ (known.T @ vector)
        rest = float(vector.norm())
        if rest <= 64 * eps * seen and k + 1 < steps:
            vector = torch.randn(size, generator=generator, dtype=torch.float64).to(like)
            for _ in range(2):
                vector = vector - known @ (known.T @ vector)
            rest = 0.0
    upper = projected.triu()
    values, rotation = torch.linalg.eigh(upper + upper.triu(1).T)
    norm = float(values.abs().max()) * (1 + 64 * eps) + (rest if steps < size else 0.0)
    return Ritz(values * scale, basis, rotation, norm * scale, True)


class MatrixFreeFactor(Factor):
    """Solves by preconditioned conjugate gradients; see the module for what is proved."""

    def __init__(self, operator: MatrixFree, shift: float) -> None:
        self._operator, self._shift = operator, shift
        self._inner: Factor | None = None
        ritz = operator.ritz()
        if not ritz.finite:
            self.positive = False
            return
        if float(ritz.values[0]) + shift <= 0:
            self.positive = False
            self.direction = ritz.basis @ ritz.rotation[:, 0]
            return
        if operator.preconditioner is not None:
            inner = operator.preconditioner.factor(shift)
            self._inner = inner if inner.positive else None
        self.positive = True
        if operator.size > ritz.basis.shape[1]:
            generator = torch.Generator().manual_seed(17)
            probe = torch.randn(1, operator.size, generator=generator, dtype=torch.float64).to(operator.like)
            _, direction = self._conjugate_gradients(probe, PROBE_TOLERANCE, 2 * operator.size)
            self.positive, self.direction = direction is None, direction

    def solve(self, vectors: Tensor) -> Tensor:
        flat = vectors.flatten(0, -2) if vectors.dim() > 1 else vectors[None]
        tolerance = SOLVE_TOLERANCE * torch.finfo(flat.dtype).eps
        solution, direction = self._conjugate_gradients(flat, tolerance, 4 * self._operator.size)
        if direction is not None:
            solution = torch.full_like(solution, torch.nan)
        return solution.reshape(vectors.shape)

    def log_determinant(self) -> Tensor:
        return Dense(self._operator.whole()).factor(self._shift).log_determinant()

    def inverse_diagonal(self) -> Tensor:
        return Dense(self._operator.whole()).factor(self._shift).inverse_diagonal()

    def draw(self, noise: Tensor) -> Tensor:
        return Dense(self._operator.whole()).factor(self._shift).draw(noise)

    def _conjugate_gradients(self, right: Tensor, tolerance: float, iterations: int) -> tuple[Tensor, Tensor | None]:
        """All right sides (k, d) at once → solutions (k, d), and a direction that proves indefiniteness, if met."""
        x, r = torch.zeros_like(right), right.clone()
        target = tolerance * right.norm(dim=1)
        z = self._precondition(r)
        p, rz = z, (r * z).sum(1)
        for _ in range(iterations):
            live = r.norm(dim=1) > target
            if not bool(live.any()):
                break
            image = self._operator.matvec(p) + self._shift * p
            curvature = (p * image).sum(1)
            bent = live & ~(curvature > 0)
            if bool(bent.any()):
                direction = p[bent.nonzero()[0, 0]]
                return x, direction / direction.norm()
            length = torch.where(live, rz / torch.where(live, curvature, torch.ones_like(curvature)), 0.0)[:, None]
            x = x + length * p
            r = r - length * image
            z = self._precondition(r)
            after = (r * z).sum(1)
            p = z + torch.where(live, after / rz, 0.0)[:, None] * p
            rz = after
        return x, None

    def _precondition(self, r: Tensor) -> Tensor:
        return r if self._inner is None else self._inner.solve(r)
