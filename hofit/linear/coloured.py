"""A sparse pattern swept by colours: numbers of one colour do not touch, so each colour is one batched step.

H = D + L + Lᵀ, with L what leads from a later colour to an earlier one. P = (D + L) D⁻¹ (D + L)ᵀ differs from H by
L D⁻¹ Lᵀ, which the first colour has no part in; its determinant is that of D. With F = (D + L) D^(−½), P = F Fᵀ and
M = F⁻¹ H F⁻ᵀ is the identity on the first colour, and on the others the Schur complement, scaled: of crossed effects a
matrix with as many rows as the smaller factor has levels, and well conditioned.

Source: Saad (2003), "Iterative Methods for Sparse Linear Systems", section 10.2 (SSOR); Eisenstat (1981), "Efficient
implementation of a class of preconditioned conjugate gradient methods", SIAM J. Sci. Stat. Comput. 2 (of the product).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .sparsity import Sparsity


@dataclass(frozen=True, eq=False)
class Step:
    """What one colour reads of others: rows ``start`` to ``end`` in swept order, and for each of them a bag of entries.

    Shapes: columns (n,), in swept order; slots (n,), where the values stand; offsets (end − start + 1,).
    """

    start: int
    end: int
    columns: Tensor
    slots: Tensor
    offsets: Tensor


class Coloured(Sparsity):
    """A pattern that is not factorised, but solved with and estimated from by so many ``probes``."""

    def __init__(self, sparsity: Sparsity, probes: int) -> None:
        super().__init__(sparsity.size, sparsity.rows, sparsity.columns)
        self.probes = probes

    @cached_property
    def colours(self) -> Tensor:
        """Of each number the first that no neighbour before it has; numbered so that colour 0 has the most. (size,)"""
        first = torch.cat([self.rows[self.off], self.columns[self.off]])
        second = torch.cat([self.columns[self.off], self.rows[self.off]])
        offsets, order = _bags(first, self.size)
        ends, neighbours = offsets.tolist(), second[order].tolist()
        found = [-1] * self.size
        for i in range(self.size):
            taken = {found[j] for j in neighbours[ends[i] : ends[i + 1]]}
            colour = 0
            while colour in taken:
                colour += 1
            found[i] = colour
        colours = torch.tensor(found, dtype=torch.long, device=self.rows.device)
        if not self.size:
            return colours
        by_count = torch.bincount(colours).argsort(descending=True, stable=True)
        return by_count.argsort()[colours]

    @cached_property
    def counts(self) -> list[int]:
        """Numbers of each colour."""
        found: list[int] = torch.bincount(self.colours).tolist()
        return found

    @property
    def first(self) -> int:
        """Numbers of the first colour: what is swept exactly."""
        return self.counts[0] if self.size else 0

    @cached_property
    def order(self) -> Tensor:
        """Which number stands where in swept order, colour after colour; shape (size,)."""
        return self.colours.argsort(stable=True)

    @cached_property
    def place(self) -> Tensor:
        """Where each number stands in swept order; shape (size,)."""
        return self.order.argsort()

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Of each entry off the diagonal, the later and the earlier of its numbers in swept order; shapes (n,)."""
        one, other = self.place[self.rows[self.off]], self.place[self.columns[self.off]]
        return torch.maximum(one, other), torch.minimum(one, other)

    @cached_property
    def down(self) -> list[Step]:
        """What each colour reads of earlier ones, in order."""
        late, early = self.ends
        return self._steps(late, early)

    @cached_property
    def up(self) -> list[Step]:
        """What each colour reads of later ones, the last first."""
        late, early = self.ends
        return self._steps(early, late)[::-1]

    def describe(self) -> str:
        """In words."""
        count = len(self.counts) if self.size else 0
        return (
            f"sparse: {self.size} numbers, {len(self.rows)} entries, {count} colour{'s'[: count != 1]}, solved by "
            f"conjugate gradients, log-determinant by {self.probes} probes"
        )

    def _steps(self, own: Tensor, read: Tensor) -> list[Step]:
        offsets, order = _bags(own, self.size)
        columns, slots, found, start = read[order], self.off[order], [], 0
        for count in self.counts:
            first, last = int(offsets[start]), int(offsets[start + count])
            bags = offsets[start : start + count + 1] - first
            found.append(Step(start, start + count, columns[first:last], slots[first:last], bags))
            start += count
        return found


class Sweeps:
    """F and M of one matrix. Shape of values: (S,). Vectors are (size, k), in swept order; those of M have the numbers
    of all colours but the first alone, (rest, k)."""

    def __init__(self, pattern: Coloured, values: Tensor, shift: float = 0.0) -> None:
        self.pattern = pattern
        self.diagonal = values[pattern.diagonal][pattern.order] + shift
        self.root = self.diagonal.clamp_min(0.0).sqrt()
        self.rest = pattern.size - pattern.first
        self._down = [(step, values[step.slots]) for step in pattern.down]
        self._up = [(step, values[step.slots]) for step in pattern.up]

    def forward(self, vectors: Tensor) -> Tensor:
        """(D + L)⁻¹ v."""
        return self._swept(self._down, vectors)

    def backward(self, vectors: Tensor) -> Tensor:
        """(D + L)⁻ᵀ v."""
        return self._swept(self._up, vectors)

    def half(self, vectors: Tensor) -> Tensor:
        """F⁻¹ v."""
        return self.root[:, None] * self.forward(vectors)

    def half_transposed(self, vectors: Tensor) -> Tensor:
        """F⁻ᵀ v."""
        return self.backward(self.root[:, None] * vectors)

    def product(self, vectors: Tensor) -> Tensor:
        """M v. With y = F⁻ᵀ v, Hy is (D + L) y + D^(½) v − D y, so that one sweep each way does."""
        first = self.pattern.first
        scaled = self.whole(self.root[first:, None] * vectors)
        up = self.backward(scaled)
        down = self.forward(scaled - self.diagonal[:, None] * up)
        return self.root[first:, None] * (up + down)[first:]

    def whole(self, vectors: Tensor) -> Tensor:
        """With zeros for the first colour. Shapes: (rest, k) → (size, k)."""
        return torch.cat([vectors.new_zeros(self.pattern.first, vectors.shape[1]), vectors])

    def off_diagonal(self, vectors: Tensor) -> Tensor:
        """(L + Lᵀ) v."""
        found = torch.empty_like(vectors)
        for step, values in self._down:
            found[step.start : step.end] = _bagged(step, values, vectors)
        for step, values in self._up:
            found[step.start : step.end] += _bagged(step, values, vectors)
        return found

    def _swept(self, steps: list[tuple[Step, Tensor]], vectors: Tensor) -> Tensor:
        found = torch.zeros_like(vectors)
        for step, values in steps:
            rows = slice(step.start, step.end)
            found[rows] = (vectors[rows] - _bagged(step, values, found)) / self.diagonal[rows, None]
        return found


def _bagged(step: Step, values: Tensor, vectors: Tensor) -> Tensor:
    """Σ h_ij v_j over what a colour reads. Shapes: (size, k) → (rows of the colour, k)."""
    if not len(values):
        return vectors.new_zeros(step.end - step.start, vectors.shape[1])
    return embedding_bag(
        step.columns, vectors, step.offsets, mode="sum", per_sample_weights=values, include_last_offset=True
    )


def _bags(owner: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where the entries of each owner begin, sorted by it, and which they are. Shapes: (n,) → (size + 1,), (n,)."""
    owner, order = owner.sort(stable=True)
    return torch.searchsorted(owner, torch.arange(size + 1, device=owner.device)), order
