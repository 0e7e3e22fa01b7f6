"""A block-diagonal matrix: the rows of plates, which do not interact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from .block_cholesky import BlockCholesky
from .dense import held_matrices
from .operator import Factor, Operator, Spectrum
from .spectrum import unknown_spectrum

CANDIDATES = 64
"""Blocks to a group that are decomposed to find one that proves negative curvature."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of one length.

    Shapes: index (R, L), where the entries of a row stand in the flat vector (d,); matrices (R, L, L), symmetric.
    """

    index: Tensor
    matrices: Tensor

    def diagonal(self) -> Tensor:
        """Shape (R, L)."""
        return self.matrices.diagonal(dim1=-2, dim2=-1)

    def scaled(self, scale: Tensor) -> Blocks:
        """diag(s) A diag(s). Shape of scale: (d,)."""
        s = scale[self.index]
        return Blocks(self.index, self.matrices * s[:, :, None] * s[:, None, :])

    def held(self, places: Tensor) -> Blocks:
        """The rows and columns of some places those of the identity. Shape of places: (d,), booleans."""
        return Blocks(self.index, held_matrices(self.matrices, places[self.index]))


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
            result[group.index] = group.diagonal()
        return result

    def scaled(self, scale: Tensor) -> BlockDiagonal:
        return BlockDiagonal([group.scaled(scale) for group in self.groups])

    def held(self, places: Tensor) -> BlockDiagonal:
        return BlockDiagonal([group.held(places) for group in self.groups])

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
        smallest = torch.cat([group.diagonal().amin(-1) for group in self.groups])
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
    """The Cholesky ``factors`` of each group's blocks, which may leave places of a vector of ``size`` to others."""

    def __init__(self, groups: Sequence[Blocks], shift: float, like: Tensor, size: int) -> None:
        self._groups, self._like, self._size = groups, like, size
        self.factors = [BlockCholesky(shifted(group.matrices, shift)) for group in groups]
        self.positive = all(bool(factor.positive.all()) for factor in self.factors)
        if not self.positive:
            self.direction = self._refused(shift)

    def solve(self, vectors: Tensor) -> Tensor:
        return self._by_rows(BlockCholesky.solve, vectors)

    def draw(self, noise: Tensor) -> Tensor:
        return self._by_rows(BlockCholesky.back_solve, noise)

    def log_determinant(self) -> Tensor:
        return torch.stack([self._like.new_zeros(()), *(f.log_determinant() for f in self.factors)]).sum()

    def inverse_diagonal(self) -> Tensor:
        result = self._like.new_empty(self._size)
        for group, factor in zip(self._groups, self.factors, strict=True):
            result[group.index] = factor.inverse_diagonal()
        return result

    def _by_rows(self, solve: Callable[[BlockCholesky, Tensor], Tensor], vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, self._size)
        result = torch.empty_like(flat)
        for group, factor in zip(self._groups, self.factors, strict=True):
            rows = flat[:, group.index].permute(1, 2, 0)  # (R, L, k)
            result[:, group.index] = solve(factor, rows).permute(2, 0, 1)
        return result.reshape(vectors.shape)

    def _refused(self, shift: float) -> Tensor | None:
        """The lowest eigenvector of the worst of the blocks that are not positive definite.

        Of many such blocks only the CANDIDATES with the lowest discs are decomposed: any of them is a proof.
        """
        best: tuple[float, Tensor] | None = None
        for group, factor in zip(self._groups, self.factors, strict=True):
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
