"""Distributions for models: a Gaussian by its sparse precision.

May import: linalg, linear, internals. Imported by models: nothing here knows a config or a fit.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.overrides import handle_torch_function, has_torch_function

from .internals import distributions_are_validated
from .linalg import SparseSymmetric
from .linear.sparse import SparseFactor

__all__ = ["GMRF"]

LOG_2PI = 1.8378770664093453


class GMRF(TorchDistribution):
    """A Gaussian Markov random field: x ~ Normal(loc, Q⁻¹) by its sparse precision Q.

    ``precision``: a ``hofit.linalg.SparseSymmetric``, such as ``tau * (kappa * identity(n) + laplacian(edges, n))``, or
    a constant matrix, sparse or mostly zero. ``loc``: a number or a tensor that broadcasts to (…, n).
    Of an intrinsic Q, with a null space of r columns, the density is ½ log |Q|* − ½ (n − r) log 2π − ½ dᵀ Q d with
    d = x − loc and |Q|* the product of the eigenvalues that are not zero: flat along the null space, improper there,
    and a draw has no part in it.
    Shapes: event (n,); batch as loc and the precision's batch broadcast. Draws have first derivatives only.
    Cost: log_prob one factorisation, of a constant times a parameter none.
    Raises: ValueError where the precision is not square or symmetric; a draw, where it is not positive definite.
    Source: Rue & Held (2005), "Gaussian Markov Random Fields", sections 2.3, 2.4 and 3.2.
    """

    arg_constraints = {"loc": constraints.real_vector}  # noqa: RUF012, as torch has it
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        precision: SparseSymmetric | Tensor,
        loc: Tensor | float = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        self.precision = precision if isinstance(precision, SparseSymmetric) else SparseSymmetric.of(precision)
        values, size = self.precision.values, self.precision.size
        centre = torch.as_tensor(loc, dtype=values.dtype, device=values.device)
        batch_shape = torch.broadcast_shapes(values.shape[:-1], centre.shape[:-1])
        self.loc = centre.expand(*batch_shape, size)
        self.validates = distributions_are_validated() if validate_args is None else validate_args
        super().__init__(batch_shape, torch.Size((size,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> GMRF:
        new: GMRF = GMRF.__new__(type(self)) if _instance is None else _instance
        new.precision, new.validates = self.precision, self.validates
        new.loc = self.loc.expand(*batch_shape, self.precision.size)
        super(GMRF, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Raises: NotImplementedError for an intrinsic field, which has none."""
        if self.precision.null is not None:
            raise NotImplementedError("an intrinsic field has no variance")
        return self._factor.inverse_diagonal().expand(self.loc.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.validates and not (value.shape[-1:] == self.event_shape and bool(self.support.check(value).all())):
            raise ValueError(f"a value is {self.precision.size} real numbers, not {tuple(value.shape)} of any kind")
        precision = self.precision
        constant = 0.5 * precision.log_determinant() - 0.5 * precision.rank * LOG_2PI
        return constant - 0.5 * precision.quadratic_form(value - self.loc)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.loc.shape
        with torch.no_grad():
            noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
            noise = noise.index_fill(-1, self.precision.held_rows(), 0.0)
            drawn = self._factor.draw(noise)
        null = self.precision.null
        draw = differentiable_draw(self.precision.values, drawn, self._factor, self.precision.held_rows())
        return self.loc + (draw if null is None else draw - (draw @ null) @ null.T)

    @cached_property
    def _factor(self) -> SparseFactor:
        return self.precision.factor()


def differentiable_draw(values: Tensor, draw: Tensor, factor: SparseFactor, held: Tensor) -> Tensor:
    """The draw, whose derivative is that of a flow: with dx = −½ Q⁻¹ dQ x a draw by Q becomes one by Q + dQ.

    Shapes: values (S,); draw (…, n), zero at the rows ``held`` (r,).
    """
    if has_torch_function((values,)):
        seen: Tensor = handle_torch_function(differentiable_draw, (values,), values, draw, factor, held)
        return seen
    found: Tensor = _Draw.apply(values, draw, factor, held)  # type: ignore[no-untyped-call]
    return found


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, draw: Tensor, factor: SparseFactor, held: Tensor) -> Tensor:
        ctx.save_for_backward(values, draw, held)
        ctx.factor = factor
        return draw.clone()

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None, None, None]:
        values, draw, held = ctx.saved_tensors
        adjoint = adjoint.index_fill(-1, held, 0.0)
        slope: Tensor = _Slope.apply(values, adjoint, draw, ctx.factor)  # type: ignore[no-untyped-call]
        return slope, None, None, None


class _Slope(torch.autograd.Function):
    """Of the flow. It has no derivative: torch would take one that is refused with ``once_differentiable`` for zero."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, adjoint: Tensor, draw: Tensor, factor: SparseFactor) -> Tensor:
        rows, columns, size = factor.sparsity.rows, factor.sparsity.columns, draw.shape[-1]
        answer, flat = factor.solve(adjoint).reshape(-1, size), draw.reshape(-1, size)
        met = (answer[:, rows] * flat[:, columns] + answer[:, columns] * flat[:, rows]).sum(0)
        return torch.where(rows == columns, -0.25, -0.5) * met

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        raise NotImplementedError("a draw of a GMRF has first derivatives only")
