"""The Hessian of a lifted loss in a layout: sums over observations.

Every observation adds weight · (left terms)(right terms)ᵀ. What is summed, and where it goes, is known from the index
maps alone; it is worked out once and kept with the maps, so an iteration only multiplies and adds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..linear.coupling import Coupling
from .lifting.maps import Entry, Matrix, Term, summed
from .lifting.pieces import LiftedLoss, Piece
from .parts import ArrowheadParts
from .placement import Placement, TermProduct
from .sums import Sums, crossed, gathered, single


class Interaction(Exception):
    """Rows that the layout holds apart interact. ``names`` are the parameters."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


def assembled(lifted: LiftedLoss, pieces: Sequence[Piece], placement: Placement) -> ArrowheadParts:
    """The parts of the Hessian in the layout of ``placement``.

    Raises: Interaction where the pieces do not fit the layout.
    """
    assembly = _Assembly(placement, lifted.nodes[0].leaf)
    for product in placement.products(pieces):
        apart = assembly.held_apart(product)
        if not apart:
            assembly.add(product)
        elif not product.vanishes():
            raise Interaction([lifted.names[source] for source in apart])
    return assembly.parts()


class _Assembly:
    """The parts of one Hessian while products are added to them.

    Shapes: of each group of rows a block (L, L, R), and a coupling (L, m, R); corner (m, m), made symmetric at the end.
    """

    def __init__(self, placement: Placement, like: Tensor) -> None:
        self._placement, self._cache, layout = placement, placement.cache, placement.layout
        m = len(layout.border)
        self._blocks = [like.new_zeros(one.length, one.length, one.count) for one in layout.rows]
        self._couplings = [like.new_zeros(one.length, m, one.count) for one in layout.rows]
        self._corner = like.new_zeros(m, m)
        self._sums = Sums(self._cache)

    def parts(self) -> ArrowheadParts:
        couplings = [Coupling(one.permute(2, 0, 1)) for one in self._couplings]
        blocks, corner = [one.permute(2, 0, 1) for one in self._blocks], (self._corner + self._corner.T) / 2
        return ArrowheadParts(self._placement.layout, blocks, couplings, corner)

    def held_apart(self, product: TermProduct) -> list[int]:
        """The parameters whose rows a product couples, though the layout holds them apart. A matrix couples all."""
        a, b = self._placement.groups(product)
        inside = [term for term, group in ((product.left, a), (product.right, b)) if group >= 0]
        apart: list[Term] = [term for term in inside if isinstance(term, Matrix)]
        if not apart and len(inside) == 2 and (a != b or not self._placement.same_rows(product)):
            apart = inside
        return [term.source for term in apart]

    def add(self, product: TermProduct) -> None:
        """A product that the layout does not hold apart."""
        left, right, placement = product.left, product.right, self._placement
        a, b = placement.groups(product)
        if isinstance(left, Matrix) and isinstance(right, Matrix):
            self._add_matrices(product, left, right)
        elif isinstance(left, Matrix):
            assert isinstance(right, Entry)
            self._add_matrix(product, left, right)
        elif isinstance(right, Matrix):
            self._add_matrix(product, right, left)
        elif a >= 0 and b >= 0:
            columns = placement.column(left), placement.column(right)
            self._add_twice(self._blocks[a], product, *columns, placement.rows(left))
        elif a >= 0:
            self._add_coupling(product, a, left, right)
        elif b >= 0:
            self._add_coupling(product.turned(), b, right, left)
        else:
            self._add_twice(self._corner, product, placement.place(left), placement.place(right))

    def _add_coupling(self, product: TermProduct, group: int, inner: Entry, outer: Entry) -> None:
        """Between a group's rows, on the left, and the border."""
        target, placement = self._couplings[group], self._placement
        rows, column, place = placement.rows(inner), placement.column(inner), placement.place(outer)
        self._add(target, product, column, place, rows)

    def _add_twice(
        self, target: Tensor, product: TermProduct, first: Tensor, second: Tensor, rows: Tensor | None = None
    ) -> None:
        """A product, and its transpose if it is mirrored."""
        self._add(target, product, first, second, rows)
        if product.mirrored:
            self._add(target, product, second, first, rows)

    def _add(
        self, target: Tensor, product: TermProduct, first: Tensor, second: Tensor, rows: Tensor | None = None
    ) -> None:
        """target[first, second, rows] += weights · coefficients · factor; the flat places are kept between traces."""
        key, value = self._sums.value(product)
        i, j = single(self._cache, first), single(self._cache, second)
        if i is not None and j is not None:
            if rows is None:
                target[i, j] += self._sums.whole(key, value) * product.factor
            else:
                total = self._sums.by_row(key, value, rows, target.shape[-1])
                target[i, j].add_(total, alpha=product.factor)
            return
        indices, strides = [first, second] if rows is None else [first, second, rows], target.stride()
        *indices, value = summed(self._cache, indices[0], value.expand(first.shape), *indices[1:])
        flat = self._cache.of(
            "flat places", (*indices, strides), lambda: sum(i * s for i, s in zip(indices, strides, strict=True))
        )
        target.view(-1).index_add_(0, flat.reshape(-1), value.reshape(-1), alpha=product.factor)

    def _add_matrices(self, product: TermProduct, left: Matrix, right: Matrix) -> None:
        """Between two places of the border that constant matrices read."""
        total = crossed(product.weights, left, right)
        places, others = self._placement.places(left), self._placement.places(right)
        _add_at(self._corner, places, others, total * product.factor)
        if product.mirrored:
            _add_at(self._corner, others, places, total.T * product.factor)

    def _add_matrix(self, product: TermProduct, left: Matrix, right: Entry) -> None:
        """Between places of the border that a constant matrix reads, and what another term does."""
        weights, placement = product.weights.reshape(-1), self._placement
        value = weights if right.coefficient is None else weights * right.coefficient.reshape(-1)
        matrix = left.matrix.reshape(len(weights), -1)
        places, group, m = placement.places(left), placement.group[right.source], len(self._corner)
        if group < 0:
            index = placement.place(right).reshape(-1)
            total = gathered(self._cache, matrix, value, index, m) * product.factor  # (m, K)
            everywhere = torch.arange(m, device=places.device)
            _add_at(self._corner, everywhere, places, total)
            if product.mirrored:
                _add_at(self._corner, places, everywhere, total.T)
            return
        target = self._couplings[group]
        length, _, count = target.shape
        rows, column = placement.rows(right), placement.column(right)
        flat = self._cache.of("row and column", (rows, column, count), lambda: (column * count + rows).reshape(-1))
        total = gathered(self._cache, matrix, value, flat, length * count) * product.factor  # (L · R, K)
        target.index_add_(1, places, total.view(length, count, -1).permute(0, 2, 1))


def _add_at(target: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> None:
    target.index_put_((rows[:, None].expand(values.shape), columns.expand(values.shape)), values, accumulate=True)
