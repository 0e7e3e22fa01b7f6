"""The log determinant of Σ c[k] · A[k] as a function of a few numbers c, whose derivatives are kept when found.

A model is traced many times while the numbers stand still, and asked for products with the Hessian in several
directions: the factor, the slope, one inner product a matrix, and the curvature, one sweep a matrix, are found once.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import handle_torch_function, has_torch_function

from ..linear.sparse import SparseFactor
from ..linear.sparse_log_determinant import sparse_log_determinant
from .basis import Basis
from .null_space import NullSpace

PENCILS = 8
"""Sums of the same matrices that are kept."""

STANDING = 2
"""Places of a sum whose factors are kept: that of a trust region's point, and that of its trial."""


class Pencil:
    """Constant matrices on one pattern, of which sums are taken, and what their sums send to zero."""

    def __init__(self, bases: tuple[Basis, ...], null: NullSpace | None) -> None:
        self.null, self.sparsity = null, bases[0].sparsity
        values = [one.values for one in bases]
        self.values = torch.stack(values)  # (K, S)
        at_zero = torch.zeros_like(values[0])
        self.offset = at_zero if null is None else null.held(self.sparsity, at_zero)
        """What stands in the rows that are held."""
        if null is not None:
            self.values = null.held(self.sparsity, self.values) - self.offset
        self._standing: dict[tuple[float, ...], Standing] = {}

    def at(self, numbers: Tensor) -> Standing:
        """Shape of numbers: (K,)."""
        key = tuple(numbers.tolist())
        found = self._standing.pop(key, None) or Standing(self, numbers)
        self._standing[key] = found
        if len(self._standing) > STANDING:
            del self._standing[next(iter(self._standing))]
        return found


class Standing:
    """The log determinant at some numbers. Shapes: slope (K,), curvature (K, K)."""

    def __init__(self, pencil: Pencil, numbers: Tensor) -> None:
        self._pencil = pencil
        with torch.enable_grad():
            self._values = (numbers.detach() @ pencil.values + pencil.offset).requires_grad_()
            factor = SparseFactor(pencil.sparsity, self._values)
            self._logarithm = sparse_log_determinant(pencil.sparsity, self._values, factor)
        constant = 0.0 if pencil.null is None else pencil.null.constant
        self.value = self._logarithm.detach() + constant

    @cached_property
    def slope(self) -> Tensor:
        return self._pencil.values @ self._inverse.detach()

    @cached_property
    def curvature(self) -> Tensor:
        if not self._inverse.requires_grad:  # nan, where the sum is not positive definite
            return self.slope.expand(len(self.slope), -1)
        with torch.enable_grad():
            rows = [
                torch.autograd.grad(self._inverse, self._values, one, retain_graph=True)[0]
                for one in self._pencil.values
            ]
        return torch.stack(rows) @ self._pencil.values.T

    @cached_property
    def _inverse(self) -> Tensor:
        """d log det / d values, with its graph."""
        with torch.enable_grad():
            found: Tensor = torch.autograd.grad(self._logarithm, self._values, create_graph=True)[0]
        return found


@lru_cache(maxsize=PENCILS)
def pencil(bases: tuple[Basis, ...], null: NullSpace | None) -> Pencil:
    """Kept, as the matrices are."""
    return Pencil(bases, null)


def log_determinant_of_sum(numbers: Tensor, of: Pencil) -> Tensor:
    """log det Σ numbers[k] · A[k]. Shapes: (…, K) → (…)."""
    if has_torch_function((numbers,)):
        seen: Tensor = handle_torch_function(log_determinant_of_sum, (numbers,), numbers, of)
        return seen
    each = [_Value.apply(one, of.at(one)) for one in numbers.reshape(-1, numbers.shape[-1])]  # type: ignore[no-untyped-call]
    return torch.stack(each).reshape(numbers.shape[:-1])


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, numbers: Tensor, standing: Standing) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.standing = standing
        return standing.value.clone()

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        slope: Tensor = _Slope.apply(*ctx.saved_tensors, ctx.standing)  # type: ignore[no-untyped-call]
        return adjoint * slope, None


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, numbers: Tensor, standing: Standing) -> Tensor:
        ctx.standing = standing
        return standing.slope.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None]:
        return ctx.standing.curvature @ adjoint, None
