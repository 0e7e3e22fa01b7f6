"""Which signs the curvature has: the spectrum of the Hessian, in units that no parameter's own scale can change."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear.operator import Operator
from ..linear.spectrum import inertia
from .checks import Check

DENSE_LIMIT = 500
"""Unknowns up to which the whole spectrum is computed; beyond, the lowest eigenvalues, by the structure."""

EXPLAINED = 10.0
"""A curvature of no more than this times the gradient, both scaled, may be that of the path along a flat valley: where
the valley bends, what is left of the gradient shows in it."""

EXPLAINS_AT_MOST = 1e-3
"""Of the largest curvature, what a gradient may explain at most."""

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

    def __init__(self, hessian: Operator, gradient: Tensor | None = None) -> None:
        """``gradient`` (d,): curvature that it explains counts as zero too."""
        like = hessian.like
        self.scale = curvature_scale(hessian)
        self._scaled = hessian.scaled(self.scale)
        self._noise = NOISE * min(hessian.size, DENSE_LIMIT) * torch.finfo(like.dtype).eps
        self._spectrum: tuple[Tensor, Tensor] | None = None
        if hessian.size <= DENSE_LIMIT:
            dense = self._scaled.matvec(torch.eye(hessian.size, dtype=like.dtype, device=like.device))
            eigenvalues, basis = torch.linalg.eigh((dense + dense.T) / 2)
            self._noise = self._tolerance(float(eigenvalues.abs().max()), gradient)
            self._spectrum = eigenvalues, basis
            self.lowest = float(eigenvalues[0])
            negative, self._null = basis[:, eigenvalues < -self._noise], basis[:, eigenvalues.abs() <= self._noise]
            self._message = f"lowest eigenvalue {self.lowest:.3g} of the scaled Hessian"
        else:
            self._noise = self._tolerance(self._scaled.norm_bound(), gradient)
            signs = inertia(self._scaled, self._noise)
            self.lowest, negative, self._null = signs.lowest, signs.negative, signs.zero
            above = "above" if signs.positive_definite else "at"
            self._message = f"lowest eigenvalue {above} {self.lowest:.3g} of the scaled Hessian ({hessian.structure})"
        self.negative: Tensor = self.scale[:, None] * negative
        self.zero: Tensor = self.scale[:, None] * self._null

    def _tolerance(self, largest: float, gradient: Tensor | None) -> float:
        rounding = self._noise * max(largest, 1e-300)
        left = 0.0 if gradient is None else float((self.scale * gradient).abs().max())
        # Only a gradient that is small beside the curvature is what is left; a larger one is on its way.
        return max(rounding, EXPLAINED * left) if EXPLAINED * left < EXPLAINS_AT_MOST * largest else rounding

    @staticmethod
    def step_beside(hessian: Operator, gradient: Tensor, unit: Tensor, along: Tensor) -> Tensor:
        """Newton's step, in units, that goes nowhere along a direction of length one. Shapes (d,); d² numbers.

        Where the curvature is negative or none it goes downhill by its size.
        """
        scaled = hessian.scaled(unit).matvec(torch.eye(len(unit), dtype=unit.dtype, device=unit.device))
        project = torch.eye(len(unit), dtype=unit.dtype, device=unit.device) - along[:, None] * along
        eigenvalues, basis = torch.linalg.eigh(project @ ((scaled + scaled.T) / 2) @ project)
        coefficients = basis.T @ (project @ (unit * gradient))
        floor = 1e-10 * float(eigenvalues.abs().max())
        known = eigenvalues.abs() > floor
        step: Tensor = -basis @ torch.where(known, coefficients / torch.where(known, eigenvalues.abs(), 1.0), 0.0)
        return project @ step

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
