"""Cholesky factors of many small blocks at once.

LAPACK pays a call for each block; for blocks of a few numbers the factorisation written out over whole columns, one
tensor operation for all rows, is many times faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

WRITTEN_OUT = 6
"""Block sizes up to which columns are written out: L³/6 tensor operations against one LAPACK call a row."""


class BlockCholesky:
    """Lower factors of blocks. Shapes: blocks (R, L, L); ``positive`` (R,), whether the block is positive definite.

    A block with entries that are not finite is not.
    """

    positive: Tensor

    def __init__(self, blocks: Tensor) -> None:
        self.length = blocks.shape[-1]
        self._columns: list[list[Tensor]] | None = None
        if self.length <= WRITTEN_OUT:
            self._write_out(blocks)
        else:
            self._factor, info = torch.linalg.cholesky_ex(blocks)
            self.positive = (info == 0) & torch.isfinite(self._factor.diagonal(dim1=-2, dim2=-1)).all(-1)

    def solve(self, right: Tensor) -> Tensor:
        """blocks⁻¹ right. Shapes: (R, L, k) → (R, L, k)."""
        if self._columns is None:
            return torch.cholesky_solve(right, self._factor)
        return _joined(self._backward(self._columns, self._forward(self._columns, right)))

    def half_solve(self, right: Tensor) -> Tensor:
        """lower⁻¹ right, with blocks = lower lowerᵀ. Shapes: (R, L, k) → (R, L, k)."""
        if self._columns is None:
            half: Tensor = torch.linalg.solve_triangular(self._factor, right, upper=False)
            return half
        return _joined(self._forward(self._columns, right))

    def back_solve(self, right: Tensor) -> Tensor:
        """lower⁻ᵀ right. Shapes: (R, L, k) → (R, L, k)."""
        if self._columns is None:
            back: Tensor = torch.linalg.solve_triangular(self._factor.mT, right, upper=True)
            return back
        return _joined(self._backward(self._columns, list(right.unbind(1))))

    def _forward(self, lower: list[list[Tensor]], right: Tensor) -> list[Tensor]:
        x = list(right.unbind(1))
        for i in range(self.length):
            for k in range(i):
                x[i] = x[i] - lower[i][k][:, None] * x[k]
            x[i] = x[i] / lower[i][i][:, None]
        return x

    def _backward(self, lower: list[list[Tensor]], x: list[Tensor]) -> list[Tensor]:
        for i in reversed(range(self.length)):
            for k in range(i + 1, self.length):
                x[i] = x[i] - lower[k][i][:, None] * x[k]
            x[i] = x[i] / lower[i][i][:, None]
        return x

    def log_determinant(self) -> Tensor:
        """The sum over rows; shape ()."""
        if self._columns is None:
            total: Tensor = self._factor.diagonal(dim1=-2, dim2=-1).log().sum()
        else:
            total = torch.stack([self._columns[i][i].log().sum() for i in range(self.length)]).sum()
        return 2.0 * total

    def inverse_diagonal(self) -> Tensor:
        """Shape (R, L)."""
        like = self._factor if self._columns is None else self._columns[0][0]
        unit = torch.eye(self.length, dtype=like.dtype, device=like.device).expand(len(like), -1, -1)
        return self.solve(unit).diagonal(dim1=-2, dim2=-1)

    def picked(self, rows: slice | Tensor) -> BlockCholesky:
        """The factors of some rows."""
        part = BlockCholesky.__new__(BlockCholesky)

        def taken(tensor: Tensor) -> Tensor:
            return tensor.index_select(0, rows) if isinstance(rows, Tensor) else tensor[rows]

        part.length, part.positive, part._columns = self.length, taken(self.positive), None
        if self._columns is None:
            part._factor = taken(self._factor)
        else:
            part._columns = [[taken(entry) for entry in row] for row in self._columns]
        return part

    def _write_out(self, blocks: Tensor) -> None:
        n = self.length
        lower: list[list[Tensor]] = [[] for _ in range(n)]
        positive = torch.ones(blocks.shape[0], dtype=torch.bool, device=blocks.device)
        for i in range(n):
            for j in range(i + 1):
                value = blocks[:, i, j]
                for k in range(j):
                    value = value - lower[i][k] * lower[j][k]
                if i == j:
                    fine = (value > 0) & (value < torch.inf)
                    positive &= fine
                    lower[i].append(torch.where(fine, value, torch.ones_like(value)).sqrt())
                else:
                    lower[i].append(value / lower[j][j])
        self._columns, self.positive = lower, positive


def _joined(x: list[Tensor]) -> Tensor:
    """(R, k) for each place of a row → (R, L, k), with the rows last in memory: that is how they are worked on."""
    return x[0][:, None] if len(x) == 1 else torch.stack([one.T for one in x]).permute(2, 0, 1)
