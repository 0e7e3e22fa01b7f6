"""Where the entries that a lifted loss is made of stand in a layout, and the finest layout in which they fit.

Every observation adds weight · (left terms)(right terms)ᵀ to the Hessian. Which rows that couples is known from the
index maps alone; numbers are looked at only where a product does not fit, for it may be zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..coordinates import Coordinates
from .layout import Layout, Rows, arranged
from .lifting.maps import Entry, Matrix, Term, taken
from .lifting.pieces import LiftedLoss, Piece


@dataclass(frozen=True, eq=False)
class TermProduct:
    """What one term on the left and one on the right of a piece add; ``mirrored``: the transpose is added too."""

    weights: Tensor
    left: Term
    right: Term
    mirrored: bool

    @property
    def factor(self) -> float:
        return self.left.factor * self.right.factor

    def turned(self) -> TermProduct:
        """The transpose."""
        return TermProduct(self.weights, self.right, self.left, self.mirrored)

    def vanishes(self) -> bool:
        """Whether it is zero here: asked only where it does not fit."""
        value = self.weights.reshape(-1)
        for term in (self.left, self.right):
            if isinstance(term, Entry) and term.coefficient is not None:
                value = value * term.coefficient.reshape(-1)
        return not bool(value.any())


class Placement:
    """Where each entry of a parameter stands in a layout: row and column, or place on the border.

    ``group[k]`` is the number of the rows that node k, a parameter, belongs to; −1 on the border. ``keeps_sums``, and
    with a sparsity: wide sums have places after all others.
    """

    def __init__(self, layout: Layout, lifted: LiftedLoss, coordinates: Coordinates, keeps_sums: bool = False) -> None:
        self.layout, self.cache = layout, lifted.cache
        group, row, column, place = (torch.full((layout.size,), -1) for _ in range(4))
        for number, rows in enumerate(layout.rows):
            group[rows.index] = number
            row[rows.index] = torch.arange(rows.count)[:, None]
            column[rows.index] = torch.arange(rows.length)
        place[layout.border] = torch.arange(len(layout.border))
        self.group: dict[int, int] = {}
        self._row: dict[int, Tensor] = {}
        self._column: dict[int, Tensor] = {}
        self._place: dict[int, Tensor] = {}
        for k, name in lifted.names.items():
            own = coordinates.slices.get(name)
            if own is not None:
                self.group[k] = int(group[own][0]) if own.stop > own.start else -1
                self._row[k], self._column[k], self._place[k] = row[own], column[own], place[own]
        self.sums: dict[int, list[Term]] = {}
        """Wide sums that are kept, after all that is placed; and how many numbers they are."""
        self.beside = 0
        if layout.sparsity is None and not keeps_sums:
            return
        for k, terms in lifted.sums.items():
            if any(term.source in self.group for term in terms):
                leaf = lifted.nodes[k].leaf
                self.group[k] = -1
                self._place[k] = layout.size + self.beside + torch.arange(leaf.numel())
                self.sums[k] = terms
                self.beside += leaf.numel()

    def products(self, pieces: Sequence[Piece]) -> Iterator[TermProduct]:
        """Every product of two terms of the parameters that are placed."""
        for piece in pieces:
            own = piece.left is piece.right
            for i, left in enumerate(piece.left):
                for right in piece.right[i:] if own else piece.right:
                    if left.source in self.group and right.source in self.group:
                        mirrored = piece.mirrored or (own and left is not right)
                        yield TermProduct(piece.weights, left, right, mirrored)

    def groups(self, product: TermProduct) -> tuple[int, int]:
        return self.group[product.left.source], self.group[product.right.source]

    def rows(self, term: Entry) -> Tensor:
        """One object for equal row maps, so that what is summed over them is summed once."""
        rows = self._read("row", self._row, term)
        known: list[Tensor] = self.cache.of("row maps", (self.layout.border,), list)
        shared: Tensor = self.cache.of("shared", (rows,), lambda: _interned(known, rows))
        return shared

    def column(self, term: Entry) -> Tensor:
        return self._read("column", self._column, term)

    def place(self, term: Entry) -> Tensor:
        return self._read("place of", self._place, term)

    def places(self, term: Matrix) -> Tensor:
        table = self._place[term.source]
        return self.cache.moved(lambda places: table[places], term.places, "places of", (table,))

    def places_of(self, node: int) -> Tensor:
        """Where the numbers of a parameter, or of a sum that is kept, stand; flat."""
        return self._place[node]

    def same_rows(self, product: TermProduct) -> bool:
        """Whether both terms, of one group, read the same row at every observation. A matrix reads several."""
        left, right = product.left, product.right
        if isinstance(left, Matrix) or isinstance(right, Matrix):
            return False
        return self.rows(left) is self.rows(right) or bool((self.rows(left) == self.rows(right)).all())

    def _read(self, label: str, tables: dict[int, Tensor], term: Entry) -> Tensor:
        table = tables[term.source]
        return self.cache.moved(lambda index: taken(table, index), term.index, label, (table,))


def _interned(known: list[Tensor], rows: Tensor) -> Tensor:
    for other in known:
        if other.shape == rows.shape and other.stride() == rows.stride() and torch.equal(other, rows):
            return other
    known.append(rows)
    return rows


def finest_layout(
    lifted: LiftedLoss, pieces: Sequence[Piece], coordinates: Coordinates, given: list[Rows]
) -> tuple[Layout, list[Rows]]:
    """The finest layout that holds: the largest candidates as rows, everything they touch as border.

    Returns it with the candidates whose rows interact, which had to be taken into the border.
    """
    placement = Placement(arranged(given, given), lifted, coordinates)
    touching: set[tuple[int, int]] = set()
    broken: set[int] = set()
    for product in placement.products(pieces):
        a, b = placement.groups(product)
        mixed = {g for term, g in ((product.left, a), (product.right, b)) if isinstance(term, Matrix)}
        if a == b and not placement.same_rows(product):
            mixed.add(a)
        mixed = {g for g in mixed if given[g].count > 1}
        pair = (min(a, b), max(a, b))
        if (mixed <= broken and (a == b or pair in touching)) or product.vanishes():
            continue
        broken |= mixed
        if a != b:
            touching.add(pair)
    chosen: list[int] = []
    for k, one in enumerate(given):
        if one.count > 1 and k not in broken and not any((min(k, j), max(k, j)) in touching for j in chosen):
            chosen.append(k)
    return arranged(given, [given[k] for k in chosen]), [given[k] for k in sorted(broken)]
