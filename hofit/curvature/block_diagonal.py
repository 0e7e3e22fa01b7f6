"""A block-diagonal matrix: the rows of plates, which do not interact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .operator import Factor, Operator, Spectrum
from .small import BlockCholesky


@dataclass(frozen=True)
class Blocks:
    """Blocks of one length.

    Shapes: index (R, L), where the entries of a row stand in the flat vector; matrices (R, L, L), symmetric.
    """

    index: Tensor
    matrices: Tensor


class BlockDiagonal(Operator):
    """Groups of equal blocks; every flat place stands in exactly one row of one group."""

    structure = "rows"

    def __init__(self, groups: Sequence[Blocks]) -> None:
        self.groups = list(groups)
        self.size = sum(group.index.numel() for group in self.groups)

    def matvec(self, vectors: Tensor) -> Tensor:
        result = torch.empty_like(vectors)
        for group in self.groups:
            rows = vectors[..., group.index]
            result[..., group.index] = (group.matrices @ rows[..., None])[..., 0]
        return result

    def diagonal(self) -> Tensor:
        like = self.groups[0].matrices
        result = like.new_empty(self.size)
        for group in self.groups:
            result[group.index] = group.matrices.diagonal(dim1=-2, dim2=-1)
        return result

    def scaled(self, scale: Tensor) -> BlockDiagonal:
        groups = []
        for group in self.groups:
            s = scale[group.index]
            groups.append(Blocks(group.index, group.matrices * s[:, :, None] * s[:, None, :]))
        return BlockDiagonal(groups)

    def largest(self) -> float:
        return float(torch.stack([group.matrices.abs().max() for group in self.groups]).max())

    def norm_bound(self) -> float:
        return float(torch.stack([group.matrices.abs().sum(-1).max() for group in self.groups]).max())

    def factor(self, shift: float = 0.0) -> BlockDiagonalFactor:
        return BlockDiagonalFactor(self.groups, shift, self.size)

    def lowest(self, count: int = 1) -> Spectrum:
        values, places = [], []
        for number, group in enumerate(self.groups):
            eigenvalues = torch.linalg.eigvalsh(group.matrices)
            found, at = torch.topk(eigenvalues.reshape(-1), min(count, eigenvalues.numel()), largest=False)
            values.append(found)
            places += [(number, int(i) // eigenvalues.shape[1], int(i) % eigenvalues.shape[1]) for i in at]
        order = torch.cat(values).argsort()[:count]
        chosen = torch.cat(values)[order]
        vectors = chosen.new_zeros(self.size, len(order))
        for column, k in enumerate(order.tolist()):
            number, row, which = places[k]
            group = self.groups[number]
            vectors[group.index[row], column] = torch.linalg.eigh(group.matrices[row])[1][:, which]
        return Spectrum(chosen, vectors)


class BlockDiagonalFactor(Factor):
    """The Cholesky factors of all blocks."""

    def __init__(self, groups: Sequence[Blocks], shift: float, size: int) -> None:
        self._groups, self._size = groups, size
        self._factors = [BlockCholesky(shifted(group.matrices, shift)) for group in groups]
        self.positive = all(bool(factor.positive.all()) for factor in self._factors)
        if not self.positive:
            self.direction = self._refused(shift)

    def solve(self, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self._size)
        result = torch.empty_like(flat)
        for group, factor in zip(self._groups, self._factors, strict=True):
            rows = flat[:, group.index].permute(1, 2, 0)
            result[:, group.index] = factor.solve(rows).permute(2, 0, 1)
        return result.reshape(vectors.shape)

    def solve_rows(self, number: int, right: Tensor) -> Tensor:
        """One group's blocks⁻¹ right. Shapes: (R, L, k) → (R, L, k)."""
        return self._factors[number].solve(right)

    def part(self, number: int, start: int, stop: int) -> BlockCholesky:
        """The factors of some rows of a group."""
        return self._factors[number].part(start, stop)

    def log_determinant(self) -> Tensor:
        return torch.stack([factor.log_determinant() for factor in self._factors]).sum()

    def inverse_diagonal(self) -> Tensor:
        result = self._groups[0].matrices.new_empty(self._size)
        for group, factor in zip(self._groups, self._factors, strict=True):
            result[group.index] = factor.inverse_diagonal()
        return result

    def _refused(self, shift: float) -> Tensor:
        """The lowest eigenvector of the worst of the blocks that are not positive definite."""
        best: tuple[float, Tensor] | None = None
        for group, factor in zip(self._groups, self._factors, strict=True):
            bad = (~factor.positive).nonzero()[:, 0]
            if not len(bad):
                continue
            values, vectors = torch.linalg.eigh(shifted(group.matrices[bad], shift))
            worst = int(values[:, 0].argmin())
            if best is None or float(values[worst, 0]) < best[0]:
                direction = values.new_zeros(self._size)
                direction[group.index[bad[worst]]] = vectors[worst, :, 0]
                best = (float(values[worst, 0]), direction)
        assert best is not None
        return best[1]


def shifted(matrices: Tensor, shift: float) -> Tensor:
    """matrices + shift · I. Shape (R, L, L)."""
    if shift == 0.0:
        return matrices
    result = matrices.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(shift)
    return result
