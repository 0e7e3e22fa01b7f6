"""Which entries of a sparse symmetric matrix need not be zero; what its factorisation will take follows from it."""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
from torch import Tensor

from .elimination import Elimination, analysed


class Sparsity:
    """The pattern of the lower triangle. Shapes: rows, columns (S,), integers; rows ≥ columns, each place once.

    The diagonal is always part of it. The values of a matrix are a tensor (S,) in the order of these places.
    Raises ValueError where that is not so.
    """

    def __init__(self, size: int, rows: Tensor, columns: Tensor) -> None:
        self.size, self.rows, self.columns = size, rows, columns
        self._code, self._order = (rows * size + columns).sort()
        if int((rows == columns).sum()) != size or bool((rows < columns).any()):
            raise ValueError("a pattern is the lower triangle with all of the diagonal; see Sparsity.of")
        if bool((self._code[1:] == self._code[:-1]).any()):
            raise ValueError("a pattern has each place once; see Sparsity.of")

    @classmethod
    def of(cls, size: int, rows: Tensor, columns: Tensor) -> Sparsity:
        """Of any places (n,), of both triangles, some of them twice; the diagonal is added."""
        own = torch.arange(size, device=rows.device)
        late = torch.cat([torch.maximum(rows, columns), own])
        early = torch.cat([torch.minimum(rows, columns), own])
        code = (late * size + early).unique()
        return cls(size, code // size, code % size)

    def slots(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Where the values of some places stand, of either triangle. Shapes: any, both the same.

        Raises ValueError for a place that is not part of the pattern.
        """
        code = torch.maximum(rows, columns) * self.size + torch.minimum(rows, columns)
        found = torch.searchsorted(self._code, code).clamp_(max=len(self._code) - 1)
        missing = self._code[found] != code
        if bool(missing.any()):
            place = int(rows[missing][0]), int(columns[missing][0])
            raise ValueError(f"{place} is not part of the pattern of {len(self._code)} places")
        return self._order[found]

    @cached_property
    def diagonal(self) -> Tensor:
        """Where the values of the diagonal stand; shape (size,)."""
        own = torch.arange(self.size, device=self.rows.device)
        return self.slots(own, own)

    @cached_property
    def off(self) -> Tensor:
        """Where the values below the diagonal stand; shape (S − size,)."""
        return (self.rows != self.columns).nonzero()[:, 0]

    @cached_property
    def whole(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both triangles row by row, as a product takes them: where each row starts (size + 1,), the columns, and which
        value stands there, (2 S − size,)."""
        with warnings.catch_warnings():  # torch calls its format a beta, once
            warnings.simplefilter("ignore")
            torch.sparse_csr_tensor(torch.zeros(2, dtype=torch.int64), self.rows[:0], self.rows[:0].double(), (1, 1))
        place = torch.arange(len(self.rows), device=self.rows.device)
        rows, columns = torch.cat([self.rows, self.columns[self.off]]), torch.cat([self.columns, self.rows[self.off]])
        order = (rows * self.size + columns).argsort()
        counts = torch.bincount(rows, minlength=self.size).cumsum(0)
        return torch.cat([counts.new_zeros(1), counts]), columns[order], torch.cat([place, self.off])[order]

    @cached_property
    def elimination(self) -> Elimination:
        """In which order and how it is factorised, kept: the symbolic analysis, done once a pattern."""
        return analysed(self.size, self.rows.cpu().numpy(), self.columns.cpu().numpy(), self.rows.device)

    @property
    def flops(self) -> float:
        """Additions and multiplications of a factorisation, foretold; a pair counts for one."""
        return self.elimination.flops

    @property
    def seconds(self) -> float:
        """What a factorisation is foretold to cost on one core of some machine: only ratios mean something."""
        return self.elimination.seconds

    @property
    def fill(self) -> int:
        """Numbers in the factor's lower triangle, foretold."""
        return self.elimination.fill

    @property
    def memory(self) -> int:
        """Bytes that a factorisation takes, foretold, in float64; the selected inverse takes as many numbers again."""
        return self.elimination.memory

    def describe(self) -> str:
        """In words."""
        return (
            f"sparse: {self.size} numbers, {len(self.rows)} entries, fill {self.fill / max(1, len(self.rows)):.1f}, "
            f"{self.flops / 1e6:.1f} Mflop, {self.memory / 2**20:.1f} MiB"
        )
