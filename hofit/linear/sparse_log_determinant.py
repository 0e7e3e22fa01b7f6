"""The log determinant of a sparse matrix as a function to be differentiated twice.

d log det H = ⟨H⁻¹, dH⟩ needs the inverse on the pattern of H alone. Its derivative, −H⁻¹ V H⁻¹ on the pattern, does
not follow from that part of the inverse: the sweeps that give it are differentiated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .multifrontal import selected_derivative
from .sparse import SparseFactor
from .sparsity import Sparsity


def sparse_log_determinant(sparsity: Sparsity, values: Tensor, factor: SparseFactor | None = None) -> Tensor:
    """log det H, to be differentiated twice in its values; shape (). nan where H is not positive definite.

    A ``factor`` of the same values, without a shift, saves a factorisation. Shape of values: (S,).
    """
    found = SparseFactor(sparsity, values) if factor is None else factor
    if not found.positive:
        return values.sum() * torch.nan
    result: Tensor = _LogDeterminant.apply(values, found)  # type: ignore[no-untyped-call]
    return result


class _LogDeterminant(torch.autograd.Function):
    """By a factor of the values; its derivative is the inverse on the pattern."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: SparseFactor) -> Tensor:
        ctx.save_for_backward(values)
        ctx.factor = factor
        return factor.log_determinant()

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        inverse: Tensor = _Inverse.apply(*ctx.saved_tensors, ctx.factor)  # type: ignore[no-untyped-call]
        return adjoint * inverse, None


class _Inverse(torch.autograd.Function):
    """On the pattern, an entry off the diagonal counted for both triangles. Its derivative is symmetric."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: SparseFactor) -> Tensor:
        ctx.factor = factor
        return _twice_off_the_diagonal(factor.sparsity, factor.inverse())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        factor: SparseFactor = ctx.factor
        elimination = factor.sparsity.elimination
        change = selected_derivative(elimination, factor.panel, factor.inverse_panel, adjoint)
        return _twice_off_the_diagonal(factor.sparsity, change.index_select(0, elimination.address)), None


def _twice_off_the_diagonal(sparsity: Sparsity, values: Tensor) -> Tensor:
    return torch.where(sparsity.rows == sparsity.columns, values, 2.0 * values)
