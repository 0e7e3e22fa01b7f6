"""The log determinant by probes as a function to be differentiated twice.

Value and gradient belong to one function, that of fixed probes. Its second derivative is estimated: tr(H⁻¹ V H⁻¹ W) is
the mean of (V x)ᵀ H⁻¹ (W x) over draws x with covariance H⁻¹, made symmetric in V and W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .sparse import PROBES, Sparse
from .sparse_log_determinant import on_pattern, twice_off_the_diagonal
from .stochastic import StochasticFactor


def stochastic_log_determinant(values: Tensor, factor: StochasticFactor) -> Tensor:
    """log det H as its ``factor`` estimates it; shape (). nan where H is not definite. Values: (S,)."""
    result: Tensor = _LogDeterminant.apply(values, factor)  # type: ignore[no-untyped-call]
    return result


class _LogDeterminant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: StochasticFactor) -> Tensor:
        ctx.save_for_backward(values)
        ctx.factor = factor
        return factor.log_determinant()

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        slope: Tensor = _Slope.apply(*ctx.saved_tensors, ctx.factor)  # type: ignore[no-untyped-call]
        return adjoint * slope, None


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: StochasticFactor) -> Tensor:
        ctx.factor = factor
        return factor.slope()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        factor: StochasticFactor = ctx.factor
        if not bool(adjoint.any()):
            return adjoint, None
        sparsity = factor.sparsity
        drawn = factor.estimate.draws[sparsity.place, :PROBES].T
        answers = factor.solve(Sparse(sparsity, adjoint).matvec(drawn))
        return twice_off_the_diagonal(sparsity, on_pattern(sparsity, drawn, answers)), None
