"""The log determinant of an arrowhead matrix as a function to be differentiated twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .block_cholesky import BlockCholesky
from .coupling import Coupling
from .dense import congruent, inverse_of


def log_determinant(matrices: Sequence[Tensor], couplings: Sequence[Coupling], corner: Tensor) -> Tensor:
    """log det of an arrowhead, to be differentiated twice; shape (). nan where it is not positive definite.

    log det A + log det (C − Bᵀ A⁻¹ B). Shapes: matrices (R, L, L); couplings (R, L, m); corner (m, m).
    """
    total, m = corner.new_zeros(()), len(corner)
    schur = corner
    for blocks, coupling in zip(matrices, couplings, strict=True):
        factor = BlockCholesky(blocks)
        if not bool(factor.positive.all()):
            return total * torch.nan
        total = total + factor.log_determinant()
        if m:
            schur = schur - coupling.eliminated(factor)
    if m:
        schur_part: Tensor = _LogDeterminant.apply(schur)  # type: ignore[no-untyped-call]
        total = total + schur_part
    return total


class _LogDeterminant(torch.autograd.Function):
    """Of a positive definite matrix, by Cholesky; its derivative is the inverse. nan where there is no factor."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        lower, info = torch.linalg.cholesky_ex(matrix)
        ctx.save_for_backward(matrix, lower)
        logarithms: Tensor = 2.0 * lower.diagonal().log().sum()
        return logarithms * torch.nan if int(info) else logarithms

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Tensor:
        inverse: Tensor = _Inverse.apply(*ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return adjoint * inverse


class _Inverse(torch.autograd.Function):
    """Of a positive definite matrix whose factor is known: two products backward."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, lower: Tensor) -> Tensor:
        inverse = inverse_of(lower)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        (inverse,) = ctx.saved_tensors
        return -congruent(inverse, adjoint), None
