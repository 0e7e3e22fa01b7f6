"""Where the rows below a batch of fronts lead: what eliminating the pivots changes, and what is read back from there.

The numbers of all fronts stand in one flat panel. A front's update L₂₁ L₂₁ᵀ goes straight to the blocks of the
ancestors that own its columns, so no update is kept between levels; the same addresses, read instead of written, give
the part of the inverse that a front needs (Erisman & Tinney 1975).

Three ways there: addresses that are kept, addresses in one root that are computed when they are needed, and all of a
root. Shapes: B fronts, p pivots, u rows, k vectors.

Source: Duff & Reid (1983); Liu (1992), "The multifrontal method for sparse matrix solution", SIAM Review 34.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from .dense import BLOCK

CHUNK = 2**16
"""Numbers of updates at a time: what one product writes is still in the cache when it is added to the panel."""

PARTS = 8
"""Parts of the rows of fronts, by which what is above the diagonal is mostly left out."""


class Updates(ABC):
    """The rows of one batch."""

    @abstractmethod
    def subtract(self, panel: Tensor, left: Tensor, right: Tensor, symmetric: bool) -> None:
        """panel −= (left rightᵀ + right leftᵀ) / 2 where the rows meet, the lower triangle. Shapes: (B, u, p).

        ``symmetric``: left rightᵀ is so by itself, and half of the products need not be taken.
        """

    @abstractmethod
    def product(self, panel: Tensor, right: Tensor, out: Tensor) -> None:
        """What the panel holds where the rows meet, symmetric, times ``right``. Shapes: (B, u, p) → (B, u, p)."""

    @abstractmethod
    def taken(self, vectors: Tensor) -> Tensor:
        """Vectors where the rows are. Shapes: (places, k) → (B, u, k), or (u, k) where the rows of all are the same."""

    @abstractmethod
    def spread(self, vectors: Tensor, left: Tensor, right: Tensor) -> None:
        """vectors −= left right where the rows are. Shapes: (places, k), (B, u, p), (B, p, k)."""


@dataclass(frozen=True)
class Root:
    """A front without rows: where its block stands in the panel, and its pivots among the places."""

    start: int
    first: int
    pivots: int

    def block(self, panel: Tensor) -> Tensor:
        """Column by column. Shape (m · m,)."""
        return panel[self.start : self.start + self.pivots**2]

    def vectors(self, vectors: Tensor) -> Tensor:
        """Shapes: (places, k) → (m, k)."""
        return vectors[self.first : self.first + self.pivots]


@dataclass(frozen=True)
class Scattered(Updates):
    """Anywhere in the ancestors.

    Shapes: addresses (B, u (u + 1) / 2), of the lower triangle column by column, which is how it lies in the panel;
    places (B, u). What is padding has the address 0 and the last place, whose numbers mean nothing.
    """

    addresses: Tensor
    places: Tensor

    def subtract(self, panel: Tensor, left: Tensor, right: Tensor, symmetric: bool) -> None:
        lower, upper, _ = self._triangle
        for part in self._chunks():
            update = torch.bmm(left[part], right[part].mT).flatten(1)
            half = _picked(update, lower)
            if not symmetric:
                half = half.add_(_picked(update, upper)).div_(2.0)
            panel.index_add_(0, self.addresses[part].view(-1), half.view(-1), alpha=-1)

    def product(self, panel: Tensor, right: Tensor, out: Tensor) -> None:
        rows = right.shape[1]
        for part in self._chunks():
            addresses = self.addresses[part]
            half = panel.index_select(0, addresses.view(-1)).view(addresses.shape)
            meeting = _picked(half, self._triangle[2]).view(-1, rows, rows)
            torch.bmm(meeting, right[part], out=out[part])

    def taken(self, vectors: Tensor) -> Tensor:
        return vectors[self.places]

    def spread(self, vectors: Tensor, left: Tensor, right: Tensor) -> None:
        vectors.index_add_(0, self.places.view(-1), (left @ right).flatten(0, 1), alpha=-1)

    @cached_property
    def _triangle(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where the lower triangle stands in a square, and its mirror image; where each of a square does in it."""
        rows = self.places.shape[1]
        column, row = torch.triu_indices(rows, rows, device=self.places.device)
        lower, upper = row * rows + column, column * rows + row
        back = torch.empty(rows * rows, dtype=torch.int64, device=self.places.device)
        back[lower] = back[upper] = torch.arange(len(lower), device=self.places.device)
        return lower, upper, back

    def _chunks(self) -> Iterator[slice]:
        count, rows = self.places.shape
        each = max(1, CHUNK // rows**2)
        return (slice(start, min(start + each, count)) for start in range(0, count, each))


@dataclass(frozen=True)
class InRoot(Updates):
    """In one root, whose block is too large for a cache: it is gone through once, row by row of it.

    Shapes: pivots (B, u), which of the root's they are; padding may be any. entries (e,), the rows that are no padding
    in the order of their pivots, as numbers into the flat (B · u,).
    """

    root: Root
    pivots: Tensor
    entries: Tensor

    def subtract(self, panel: Tensor, left: Tensor, right: Tensor, symmetric: bool) -> None:
        block = self.root.block(panel)
        for start, entries in self._parts:
            others = left[:, start:], right[:, start:]
            for entry, front, addresses in self._addresses(entries, start):
                update = _outer(left, others[1], entry, front)
                if not symmetric:
                    update = (update + _outer(right, others[0], entry, front)).div_(2.0)
                block.index_add_(0, addresses.view(-1), update.view(-1), alpha=-1)  # both triangles have room

    def product(self, panel: Tensor, right: Tensor, out: Tensor) -> None:
        flat = out.zero_().view(-1, out.shape[2])
        block = self.root.block(panel)
        for entry, front, addresses in self._addresses(self.entries, 0):
            meeting = block.index_select(0, addresses.view(-1)).view(addresses.shape)
            flat[entry] = torch.bmm(meeting[:, None], right.index_select(0, front))[:, 0]

    def taken(self, vectors: Tensor) -> Tensor:
        return self.root.vectors(vectors)[self.pivots]

    def spread(self, vectors: Tensor, left: Tensor, right: Tensor) -> None:
        own = self.root.vectors(vectors)
        own.index_add_(0, self.pivots.view(-1), (left @ right).flatten(0, 1), alpha=-1)

    @cached_property
    def _parts(self) -> list[tuple[int, Tensor]]:
        """Entries by where they stand among the rows of their front, and the first row that each of a part meets: those
        of a front follow its pivots, so that rows before belong to the other triangle."""
        row, count = self.entries % self.pivots.shape[1], self.pivots.shape[1]
        ends = [count * part // PARTS for part in range(PARTS + 1)]
        inside = [(row >= start) & (row < stop) for start, stop in pairwise(ends)]
        return [(start, self.entries[own]) for start, own in zip(ends, inside, strict=False) if bool(own.any())]

    def _addresses(self, entries: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """In chunks: entries and their fronts (c,), and where each meets the rows of its front from the first on."""
        rows, pivots = self.pivots.shape[1], self.pivots[:, first:]
        for entry in entries.split(max(1, CHUNK // pivots.shape[1])):
            front = entry // rows
            start = self.pivots.view(-1).index_select(0, entry) * self.root.pivots
            yield entry, front, pivots.index_select(0, front).add_(start[:, None])


@dataclass(frozen=True)
class WholeRoot(Updates):
    """All pivots of one root, in their order."""

    root: Root

    def subtract(self, panel: Tensor, left: Tensor, right: Tensor, symmetric: bool) -> None:
        pivots = self.root.pivots
        block = self.root.block(panel).view(pivots, pivots)
        one_side = _wide(left), _wide(right)
        sides = [one_side] if symmetric else [one_side, one_side[::-1]]
        for start in range(0, pivots, BLOCK):
            part = slice(start, start + BLOCK)
            for one, other in sides:
                block[part, start:].addmm_(one[part], other[start:].T, alpha=-1.0 / len(sides))

    def product(self, panel: Tensor, right: Tensor, out: Tensor) -> None:
        count, rows, pivots = right.shape
        block = self.root.block(panel).view(rows, rows)  # symmetric
        out.copy_((right.mT.reshape(count * pivots, rows) @ block).view(count, pivots, rows).mT)

    def taken(self, vectors: Tensor) -> Tensor:
        return self.root.vectors(vectors)

    def spread(self, vectors: Tensor, left: Tensor, right: Tensor) -> None:
        self.root.vectors(vectors).addmm_(_wide(left), right.flatten(0, 1), alpha=-1)


def _picked(numbers: Tensor, places: Tensor) -> Tensor:
    """The same places of each row. Shapes: (b, n), (m,) → (b, m)."""
    return numbers.gather(1, places.expand(len(numbers), -1))


def _outer(left: Tensor, right: Tensor, entry: Tensor, front: Tensor) -> Tensor:
    """Some rows of ``left`` by all of ``right`` of their fronts. Shapes: (B, u, p), (c,), each twice → (c, u)."""
    one, all_rows = left.flatten(0, 1).index_select(0, entry), right.index_select(0, front)
    if left.shape[2] == 1:
        return all_rows[:, :, 0].mul_(one)
    return torch.bmm(all_rows, one[:, :, None])[:, :, 0]


def _wide(rows: Tensor) -> Tensor:
    """The columns of all fronts beside one another. Shapes: (B, m, p) → (m, B p)."""
    return rows.transpose(0, 1).flatten(1)
