"""Solutions with a sparse matrix as functions of both sides, to be differentiated as often as is wanted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .sparse import SparseFactor


def sparse_solve(values: Tensor, right: Tensor, factor: SparseFactor) -> Tensor:
    """H⁻¹ B. ``factor`` is that of the values. Shapes: values (S,), right (d, k) → (d, k)."""
    solved: Tensor = _Solve.apply(values, right, factor)  # type: ignore[no-untyped-call]
    return solved


class _Solve(torch.autograd.Function):
    """d(H⁻¹ B) = H⁻¹ (dB − dH H⁻¹ B)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, right: Tensor, factor: SparseFactor) -> Tensor:
        ctx.save_for_backward(values, right)
        ctx.factor = factor
        return factor.solve(right.T).T

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, Tensor, None]:
        values, right = ctx.saved_tensors
        sparsity = ctx.factor.sparsity
        rows, columns = sparsity.rows, sparsity.columns
        back, solved = sparse_solve(values, adjoint, ctx.factor), sparse_solve(values, right, ctx.factor)
        both = (back[rows] * solved[columns]).sum(1) + (back[columns] * solved[rows]).sum(1)
        return -torch.where(rows == columns, both / 2, both), back, None
