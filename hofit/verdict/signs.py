"""Which signs the curvature has: the spectrum of the Hessian, in units that no parameter's own scale can change."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear.operator import Operator
from ..linear.spectrum import inertia
from .checks import Check

DENSE_LIMIT = 500
"""Unknowns up to which the whole spectrum is computed; beyond, the lowest eigenvalues, by the structure."""

NOISE = 64.0
"""Eigenvalues within NOISE · min(d, DENSE_LIMIT) · eps of the largest, after scaling, count as zero: rounding."""


def curvature_scale(hessian: Operator) -> Tensor:
    """A unit of each parameter in which its own curvature is one; one where there is no curvature. Shape (d,)."""
    diagonal = hessian.diagonal().abs()
    return torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()


class Signs:
    """The signs of the Hessian scaled to unit diagonal, so that units of the parameters do not matter.

    S H S with S = diag(|h_ii|^-1/2); a zero of one is a zero of the other, and signs agree (Sylvester).
    Shapes: negative, zero (d, k), directions in the parameters' own units.
    """

    def __init__(self, hessian: Operator) -> None:
        like = hessian.like
        self.scale = curvature_scale(hessian)
        self._scaled = hessian.scaled(self.scale)
        self._noise = NOISE * min(hessian.size, DENSE_LIMIT) * torch.finfo(like.dtype).eps
        self._spectrum: tuple[Tensor, Tensor] | None = None
        if hessian.size <= DENSE_LIMIT:
            dense = self._scaled.matvec(torch.eye(hessian.size, dtype=like.dtype, device=like.device))
            eigenvalues, basis = torch.linalg.eigh((dense + dense.T) / 2)
            self._noise *= max(float(eigenvalues.abs().max()), 1e-300)
            self._spectrum = eigenvalues, basis
            self.lowest = float(eigenvalues[0])
            negative, self._null = basis[:, eigenvalues < -self._noise], basis[:, eigenvalues.abs() <= self._noise]
            self._message = f"lowest eigenvalue {self.lowest:.3g} of the scaled Hessian"
        else:
            self._noise *= max(self._scaled.norm_bound(), 1e-300)
            signs = inertia(self._scaled, self._noise)
            self.lowest, negative, self._null = signs.lowest, signs.negative, signs.zero
            above = "above" if signs.positive_definite else "at"
            self._message = f"lowest eigenvalue {above} {self.lowest:.3g} of the scaled Hessian ({hessian.structure})"
        self.negative: Tensor = self.scale[:, None] * negative
        self.zero: Tensor = self.scale[:, None] * self._null

    def check(self) -> Check:
        definite = not self.negative.shape[1] and not self.zero.shape[1]
        return Check("curvature", definite, self.lowest, self._message)

    def faint(self, here: Tensor, rounding: float) -> Tensor:
        """Directions whose curvature could not be seen in the loss at the parameters' own distance.

        Shapes: here (d,) → (d, k). ``rounding`` is that of the loss. None are known beyond DENSE_LIMIT.
        """
        if self._spectrum is None:
            return self.zero[:, :0]
        eigenvalues, basis = self._spectrum
        directions = self.scale[:, None] * basis
        length = (directions.abs() / torch.clamp(here.abs(), min=1.0)[:, None]).amax(dim=0)
        unseen = 0.5 * eigenvalues / length.square() <= rounding
        chosen: Tensor = directions[:, unseen]
        return chosen

    def newton_step(self, gradient: Tensor) -> Tensor:
        """−H⁺ g: along directions of no curvature the step is zero."""
        scaled = self.scale * gradient
        if self._spectrum is not None:
            eigenvalues, basis = self._spectrum
            zero = eigenvalues.abs() <= self._noise
            along = torch.where(zero, 0.0, -(basis.T @ scaled) / torch.where(zero, 1.0, eigenvalues))
            return self.scale * (basis @ along)
        # Without the directions of no curvature; a negative one has no step that could be told of.
        scaled = scaled - self._null @ (self._null.T @ scaled)
        factor = self._scaled.factor(2 * self._noise if self._null.shape[1] else 0.0)
        if not factor.positive:
            return torch.full_like(gradient, torch.nan)
        along = -factor.solve(scaled)
        deflated: Tensor = self.scale * (along - self._null @ (self._null.T @ along))
        return deflated
