"""What a few products with a symmetric matrix tell of it: the ends of its spectrum, and an approximate solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""v → Hv. Shapes: (d,) → (d,)."""

EXHAUSTED = 1e-12
"""Relative length of what a product adds to the basis, below which it is rounding: the space is used up."""


def extreme_ritz_values(product: Product, start: Tensor, steps: int) -> tuple[float, float]:
    """The lowest Ritz value, and the largest absolute one, by Lanczos with full orthogonalisation.

    The lowest lies above the lowest eigenvalue, and where ``start`` (d,) is random it is seldom far from it.
    Cost: at most ``steps`` products, and as many vectors.
    Source: Golub & Van Loan (2013), sections 10.1 and 10.3.
    """
    basis = [start / start.norm()]
    diagonal, off = [], []
    for _ in range(steps):
        vector = product(basis[-1])
        diagonal.append(float(basis[-1] @ vector))
        for other in basis:
            vector = vector - (other @ vector) * other
        size = float(vector.norm())
        if not size > EXHAUSTED * max(1e-300, abs(diagonal[0])) or len(basis) == start.numel():
            break
        off.append(size)
        basis.append(vector / size)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, value in enumerate(off[: len(diagonal) - 1]):
        matrix[i, i + 1] = matrix[i + 1, i] = value
    ritz = torch.linalg.eigvalsh(matrix)
    return float(ritz[0]), float(ritz.abs().max())


@dataclass(frozen=True)
class Iterate:
    """Where conjugate gradients stand: x and the residual b − Hx, (d,) each; ``indefinite`` if pᵀHp < 0 was met."""

    solution: Tensor
    residual: Tensor
    indefinite: bool = False


def conjugate_gradients(product: Product, right: Tensor, norm: float, steps: int) -> Iterate:
    """Go at most so many steps towards Hx = b; no further where pᵀHp is rounding of ‖H‖ pᵀp, or not positive.

    ``right`` is b (d,), ``norm`` an estimate of the spectral norm of H.
    Cost: one product a step, at most ``steps``.
    Source: Golub & Van Loan (2013), algorithm 11.3.2.
    """
    rounding = torch.finfo(right.dtype).eps
    solution, residual, direction = torch.zeros_like(right), right, right
    for _ in range(steps):
        image = product(direction)
        curvature = float(direction @ image)
        square = float(residual @ residual)
        if square == 0.0 or curvature <= rounding * float(direction @ direction) * max(norm, 1e-300):
            return Iterate(solution, residual, square > 0.0 and curvature < 0.0)
        solution = solution + (square / curvature) * direction
        residual = residual - (square / curvature) * image
        direction = residual + (float(residual @ residual) / square) * direction
    return Iterate(solution, residual)
