"""Sums of sparse symmetric matrices, each times a number that may be a parameter."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..linear.sparse import Sparse, SparseFactor
from ..linear.sparsity import Sparsity
from .basis import Basis, Number, Part, on_pattern
from .determinant import log_determinant_of_values
from .kept import content_of, given_places, union
from .null_space import NullSpace, in_both, rounding
from .pencil import log_determinant_of_sum, pencil


class SparseSymmetric:
    """A sparse symmetric matrix; a sum of such, each times a number or a tensor of parameters.

    ``indices`` (2, k), integers, are places of either triangle, each given once: (i, j) stands for (j, i) too.
    ``values`` (k,) or (…, k) may depend on parameters. ``null`` (size, r): all columns that the matrix sends to
    zero; without, it is taken for positive definite.
    A + B, A - B, c * A and A / c are what they look like; c is a number or a tensor (…), which adds batch dimensions.
    Raises: ValueError for places that are twice or outside, and for a null space that is none; TypeError.
    """

    __array_ufunc__ = None  # a number of numpy's times a matrix is asked of the matrix

    def __init__(self, indices: Tensor, values: Tensor, size: int, null: Tensor | None = None) -> None:
        if indices.dim() != 2 or len(indices) != 2 or values.shape[-1:] != indices.shape[1:]:
            raise ValueError(f"places (2, k) and values (…, k), not {tuple(indices.shape)} and {tuple(values.shape)}")
        given = given_places(size, *(content_of(one) for one in indices))
        given = given.to(values.device)
        padded = torch.cat([values, values.new_zeros(*values.shape[:-1], 1)], -1)
        self._lay((Part(1.0, Basis(given.sparsity, padded.index_select(-1, given.taken))),), None)
        if null is not None:
            self._lay(self._parts, NullSpace(null.to(values)))
            self._check_null()

    @classmethod
    def of(cls, matrix: Tensor, null: Tensor | None = None) -> SparseSymmetric:
        """Of a constant: a dense matrix, most of whose entries are zero, or a sparse one.

        Raises: ValueError where it is not square and symmetric, or depends on parameters.
        """
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"a precision is square, not {tuple(matrix.shape)}")
        if matrix.requires_grad:
            raise ValueError(
                "torch's sparse tensors lose the second derivative of their values: "
                "take tau * SparseSymmetric.of(a constant), or SparseSymmetric(indices, values, size)"
            )
        with torch.no_grad():
            entries = (matrix if matrix.layout is torch.sparse_coo else matrix.to_sparse_coo()).coalesce()
            (rows, columns), values = entries.indices(), entries.values()
            lower, upper = rows >= columns, rows <= columns
            order = (columns[upper] * len(matrix) + rows[upper]).argsort()
            same = int(lower.sum()) == int(upper.sum()) and torch.equal(columns[upper][order], rows[lower])
            same = same and torch.equal(rows[upper][order], columns[lower])
            if not same or not torch.allclose(
                values[upper][order], values[lower], rtol=rounding(values.dtype), atol=0.0
            ):
                raise ValueError("the matrix is not symmetric")
            return cls(torch.stack([rows[lower], columns[lower]]), values[lower], len(matrix), null)

    @property
    def size(self) -> int:
        return self.sparsity.size

    @property
    def sparsity(self) -> Sparsity:
        """The places of the lower triangle, with all of the diagonal."""
        return self._parts[0].basis.sparsity

    @property
    def null(self) -> Tensor | None:
        """An orthonormal basis of the null space; shape (size, r)."""
        return None if self._null is None else self._null.basis

    @property
    def rank(self) -> int:
        return self.size - (0 if self._null is None else self._null.basis.shape[1])

    @cached_property
    def values(self) -> Tensor:
        """Of the places of ``sparsity``; shape (…, S)."""
        total = self._parts[0].times(self._parts[0].basis.values)
        for part in self._parts[1:]:
            total = total + part.times(part.basis.values)
        return total

    def __add__(self, other: SparseSymmetric) -> SparseSymmetric:
        if not isinstance(other, SparseSymmetric):
            return NotImplemented
        if other.size != self.size:
            raise ValueError(f"matrices of {self.size} and {other.size} rows cannot be added")
        sparsity = union(self.sparsity, other.sparsity)
        parts = tuple(Part(part.factor, on_pattern(part.basis, sparsity)) for part in (*self._parts, *other._parts))
        return _made(parts, in_both(self._null, other._null))

    def __mul__(self, factor: Number) -> SparseSymmetric:
        if not isinstance(factor, (Tensor, float, int)):
            return NotImplemented
        return _made(tuple(Part(factor * part.factor, part.basis) for part in self._parts), self._null)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Number) -> SparseSymmetric:
        return self * (1.0 / divisor)

    def __neg__(self) -> SparseSymmetric:
        return self * -1.0

    def __sub__(self, other: SparseSymmetric) -> SparseSymmetric:
        return self + (-other)

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """The product with vectors (…, size), each in the last dimension."""
        sparsity = self.sparsity
        rows, columns = sparsity.rows[sparsity.off], sparsity.columns[sparsity.off]
        values = self.values.index_select(-1, sparsity.off)
        product = self.values.index_select(-1, sparsity.diagonal) * vectors
        product = product.index_add(-1, rows, values * vectors.index_select(-1, columns))
        return product.index_add(-1, columns, values * vectors.index_select(-1, rows))

    def quadratic_form(self, vectors: Tensor) -> Tensor:
        """xᵀ A x of vectors (…, size); shape (…). A sum over the places, in which hofit sees who meets whom.

        Of constants as a sum over differences, so that nothing is lost where x has a level far from zero.
        """
        sparsity = self.sparsity
        if not all(part.basis.is_constant for part in self._parts):
            met = vectors.index_select(-1, sparsity.rows) * vectors.index_select(-1, sparsity.columns)
            return (self.values * multiplicity(sparsity, self.values) * met).sum(-1)
        terms = [part.times(one).sum(-1) for part in self._parts for one in part.basis.squares(vectors)]
        total = vectors.new_zeros(vectors.shape[:-1])
        for one in terms:
            total = total + one
        return total

    def to_dense(self) -> Tensor:
        """Shape (…, size, size)."""
        dense = self.values.new_zeros(*self.values.shape[:-1], self.size, self.size)
        dense[..., self.sparsity.rows, self.sparsity.columns] = self.values
        dense[..., self.sparsity.columns, self.sparsity.rows] = self.values
        return dense

    def log_determinant(self) -> Tensor:
        """See ``log_determinant``."""
        if len(self._parts) == 1 and self._parts[0].basis.is_constant:
            (part,) = self._parts
            constant = part.basis.log_determinant(self._null)
            return constant + self.rank * torch.as_tensor(part.factor, dtype=constant.dtype).log()
        bases = [part.basis for part in self._parts]
        if all(one.is_constant and one.values.dim() == 1 for one in bases):
            like = bases[0].values
            factors = [torch.as_tensor(part.factor, dtype=like.dtype, device=like.device) for part in self._parts]
            numbers = torch.stack(torch.broadcast_tensors(*factors), -1)
            return log_determinant_of_sum(numbers, pencil(tuple(bases), self._null))
        return log_determinant_of_values(self.values, self.sparsity, self._null)

    def factor(self) -> SparseFactor:
        """Of the matrix as it is now, without derivatives; of an intrinsic one with the rows I held, as if known.

        Raises: ValueError where there are batch dimensions, or where it is not positive definite.
        """
        values = self.values.detach()
        if values.dim() > 1:
            raise ValueError("a batch of matrices is not factorised at once")
        found = SparseFactor(self.sparsity, values if self._null is None else self._null.held(self.sparsity, values))
        if not found.positive:
            raise ValueError("the precision is not positive definite")
        return found

    def held_rows(self) -> Tensor:
        """The rows I, none where the matrix is positive definite; shape (r,)."""
        return self.values.new_empty(0, dtype=torch.long) if self._null is None else self._null.rows

    def hear(self, order: int, log_determinant: float) -> SparseSymmetric:
        """The same, known to be DᵀD of differences of an order, with a log determinant in closed form."""
        (part,) = self._parts
        basis = Basis(self.sparsity, part.basis.values, order)
        basis.hear_log_determinant(self._null, log_determinant)
        return _made((Part(1.0, basis),), self._null)

    def _lay(self, parts: tuple[Part, ...], null: NullSpace | None) -> None:
        self._parts, self._null = parts, null

    def _check_null(self) -> None:
        assert self._null is not None
        basis, values = self._null.basis, self.values.detach()
        sent = Sparse(self.sparsity, values.reshape(-1, values.shape[-1])[0]).matvec(basis.T)
        if float(sent.abs().max()) > rounding(values.dtype) * float(values.abs().max()):
            raise ValueError("the matrix does not send its null space to zero")


def log_determinant(matrix: SparseSymmetric | Tensor) -> Tensor:
    """log det, to be differentiated twice; shape (…). nan where the matrix is not positive definite.

    Of an intrinsic matrix the log of the product of its eigenvalues that are not zero. A tensor is a constant matrix.
    """
    found = matrix if isinstance(matrix, SparseSymmetric) else SparseSymmetric.of(matrix)
    return found.log_determinant()


def multiplicity(sparsity: Sparsity, like: Tensor) -> Tensor:
    """One on the diagonal, two off it; shape (S,)."""
    return torch.where(sparsity.rows == sparsity.columns, 1.0, 2.0).to(like)


def _made(parts: tuple[Part, ...], null: NullSpace | None) -> SparseSymmetric:
    found = SparseSymmetric.__new__(SparseSymmetric)
    found._lay(parts, null)
    return found
