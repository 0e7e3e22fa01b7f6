"""A block-diagonal matrix: the rows of plates, which do not interact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from .block_cholesky import BlockCholesky
from .dense import held_matrices
from .operator import Factor, Operator, Spectrum, unknown_spectrum

CANDIDATES = 64
"""Blocks to a group that are decomposed to find one that proves negative curvature."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of one length.

    Shapes: index (R, L), where the entries of a row stand in the flat vector; matrices (R, L, L), symmetric.
    """

    index: Tensor
    matrices: Tensor


class BlockDiagonal(Operator):
    """Groups (one at least) of equal blocks; every flat place stands in exactly one row of one group."""

    structure = "rows"

    def __init__(self, groups: Sequence[Blocks]) -> None:
        self.groups = list(groups)
        self.size = sum(group.index.numel() for group in self.groups)
        self.like = self.groups[0].matrices.new_empty(0)

    def matvec(self, vectors: Tensor) -> Tensor:
        result = torch.empty_like(vectors)
        for group in self.groups:
            rows = vectors[..., group.index]
            result[..., group.index] = (group.matrices @ rows[..., None])[..., 0]
        return result

    def diagonal(self) -> Tensor:
        result = self.like.new_empty(self.size)
        for group in self.groups:
            result[group.index] = group.matrices.diagonal(dim1=-2, dim2=-1)
        return result

    def scaled(self, scale: Tensor) -> BlockDiagonal:
        groups = []
        for group in self.groups:
            s = scale[group.index]
            groups.append(Blocks(group.index, group.matrices * s[:, :, None] * s[:, None, :]))
        return BlockDiagonal(groups)

    def held(self, places: Tensor) -> BlockDiagonal:
        return BlockDiagonal(held_blocks(self.groups, places))

    def largest(self) -> float:
        return float(torch.stack([group.matrices.abs().max() for group in self.groups]).max())

    def norm_bound(self) -> float:
        return float(torch.stack([group.matrices.abs().sum(-1).max() for group in self.groups]).max())

    def factor(self, shift: float = 0.0) -> BlockDiagonalFactor:
        return BlockDiagonalFactor(self.groups, shift, self.like, self.size)

    def lowest(self, count: int = 1) -> Spectrum:
        """Exact; only blocks whose discs reach below an upper bound of the last wanted eigenvalue are decomposed."""
        count = min(count, self.size)
        if not isfinite(self.largest()):
            return unknown_spectrum(self.like.new_empty(self.size, 0), count)
        # The c-th smallest of the diagonal bounds the c-th eigenvalue when the c stand in different blocks.
        smallest = torch.cat([group.matrices.diagonal(dim1=-2, dim2=-1).amin(-1) for group in self.groups])
        reach = smallest.sort().values[count - 1] if len(smallest) >= count else torch.inf
        values, rows, inside = [], [], []
        for group in self.groups:
            near = (disc_bounds(group.matrices) <= reach).nonzero()[:, 0]
            eigenvalues, vectors = torch.linalg.eigh(group.matrices[near])
            found, at = torch.topk(eigenvalues.reshape(-1), min(count, eigenvalues.numel()), largest=False)
            row, which = at // group.index.shape[1], at % group.index.shape[1]
            values.append(found)
            rows += list(group.index[near[row]])
            inside += list(vectors[row, :, which])
        order = torch.cat(values).argsort()[:count]
        result = self.like.new_zeros(self.size, count)
        for column, k in enumerate(order.tolist()):
            result[rows[k], column] = inside[k]
        return Spectrum(torch.cat(values)[order], result)


class BlockDiagonalFactor(Factor):
    """The Cholesky factors of all blocks, which may leave places of a vector of ``size`` to others."""

    def __init__(self, groups: Sequence[Blocks], shift: float, like: Tensor, size: int) -> None:
        self._groups, self._like, self._size = groups, like, size
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

    def draw(self, noise: Tensor) -> Tensor:
        flat = noise.reshape(-1, self._size)
        result = torch.empty_like(flat)
        for number, group in enumerate(self._groups):
            result[:, group.index] = self.draw_rows(number, flat[:, group.index].permute(1, 2, 0)).permute(2, 0, 1)
        return result.reshape(noise.shape)

    def draw_rows(self, number: int, noise: Tensor) -> Tensor:
        """One group's share of ``draw``. Shapes: (R, L, k) → (R, L, k)."""
        return self._factors[number].back_solve(noise)

    def solve_rows(self, number: int, right: Tensor) -> Tensor:
        """One group's blocks⁻¹ right. Shapes: (R, L, k) → (R, L, k)."""
        return self._factors[number].solve(right)

    def rows_factor(self, number: int) -> BlockCholesky:
        """The factors of a group's rows."""
        return self._factors[number]

    def part(self, number: int, start: int, stop: int) -> BlockCholesky:
        """The factors of some rows of a group."""
        return self._factors[number].part(start, stop)

    def log_determinant(self) -> Tensor:
        return torch.stack([self._like.new_zeros(()), *(f.log_determinant() for f in self._factors)]).sum()

    def inverse_diagonal(self) -> Tensor:
        result = self._like.new_empty(self._size)
        for group, factor in zip(self._groups, self._factors, strict=True):
            result[group.index] = factor.inverse_diagonal()
        return result

    def _refused(self, shift: float) -> Tensor | None:
        """The lowest eigenvector of the worst of the blocks that are not positive definite.

        Of many such blocks only the CANDIDATES with the lowest discs are decomposed: any of them is a proof.
        """
        best: tuple[float, Tensor] | None = None
        for group, factor in zip(self._groups, self._factors, strict=True):
            bad = (~factor.positive).nonzero()[:, 0]
            bad = bad[torch.isfinite(group.matrices[bad]).all(-1).all(-1)]
            if not len(bad):
                continue
            bounds = disc_bounds(group.matrices[bad])
            bad = bad[torch.topk(bounds, min(CANDIDATES, len(bad)), largest=False).indices]
            values, vectors = torch.linalg.eigh(shifted(group.matrices[bad], shift))
            worst = int(values[:, 0].argmin())
            if best is None or float(values[worst, 0]) < best[0]:
                direction = values.new_zeros(self._size)
                direction[group.index[bad[worst]]] = vectors[worst, :, 0]
                best = (float(values[worst, 0]), direction)
        return None if best is None else best[1]


def held_blocks(groups: Sequence[Blocks], places: Tensor) -> list[Blocks]:
    """The blocks with the rows and columns of some places those of the identity. Shape of places: (d,)."""
    return [Blocks(group.index, held_matrices(group.matrices, places[group.index])) for group in groups]


def disc_bounds(matrices: Tensor) -> Tensor:
    """A lower bound of each block's eigenvalues (Gershgorin's discs). Shapes: (R, L, L) → (R,)."""
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    bounds: Tensor = (diagonal + diagonal.abs() - matrices.abs().sum(-1)).amin(-1)
    return bounds


def shifted(matrices: Tensor, shift: float) -> Tensor:
    """matrices + shift · I. Shape (R, L, L)."""
    if shift == 0.0:
        return matrices
    result = matrices.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(shift)
    return result
