"""What a matrix sends to zero, and what its determinant is without that."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..linear.sparsity import Sparsity
from .kept import KEPT


class NullSpace:
    """A null space. Shapes: basis (n, r), orthonormal; rows (r,), where the basis is best told apart."""

    def __init__(self, columns: Tensor) -> None:
        from scipy.linalg import qr

        if columns.dim() != 2 or not 0 < columns.shape[1] < len(columns):
            raise ValueError(f"a null space is a few columns (n, r), not {tuple(columns.shape)}")
        self.basis, triangle = torch.linalg.qr(columns.detach())
        if float(triangle.diagonal().abs().min()) <= rounding(columns.dtype) * float(triangle.diagonal().abs().max()):
            raise ValueError("the columns of the null space depend on one another")
        _, _, order = qr(self.basis.T.cpu().numpy(), mode="economic", pivoting=True)
        rows = torch.from_numpy(order[: columns.shape[1]].copy()).long()
        self.rows = rows.to(columns.device)
        self.constant = float(-2.0 * torch.linalg.slogdet(self.basis[self.rows])[1])
        """log det(NᵀN) − 2 log |det N_I|, of which the first is zero."""

    def held(self, sparsity: Sparsity, values: Tensor) -> Tensor:
        """The values with the rows and columns I those of the unit matrix. Shapes: (…, S) → (…, S)."""
        chosen = torch.zeros(sparsity.size, dtype=torch.bool, device=values.device).index_fill(0, self.rows, True)
        touched = chosen[sparsity.rows] | chosen[sparsity.columns]
        return torch.where(touched, (sparsity.rows == sparsity.columns).to(values), values)


@lru_cache(maxsize=KEPT)
def in_both(one: NullSpace | None, other: NullSpace | None) -> NullSpace | None:
    """What both matrices, with no negative eigenvalues, send to zero."""
    if one is None or other is None or one is other:
        return one if one is other else None
    _, cosines, turned = torch.linalg.svd(other.basis.T @ one.basis, full_matrices=False)
    shared = turned[cosines > 1.0 - rounding(cosines.dtype)]
    return NullSpace(one.basis @ shared.T) if len(shared) else None


def rounding(dtype: torch.dtype) -> float:
    """How far numbers that ought to be equal, or zero, may lie apart, of the largest: half of the digits."""
    return float(torch.finfo(dtype).eps ** 0.5)
