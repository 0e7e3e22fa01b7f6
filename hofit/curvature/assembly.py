"""The Hessian of a lifted loss in a layout: sums over observations.

Every observation adds weight · (left terms)(right terms)ᵀ. What is summed, and where it goes, is known from the index
maps alone; it is worked out once and kept with the maps, so an iteration only multiplies and adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear.coupling import Coupling, DenseCoupling, Pattern, SparseCoupling
from .layout import Layout
from .lifting.maps import Entry, Matrix, Term, summed
from .lifting.pieces import LiftedLoss, Piece
from .parts import ArrowheadParts
from .placement import Placement, TermProduct
from .sums import Sums, crossed, gathered, single

WIDE_BORDER = 64
"""Numbers on the border from which on it is looked at whether rows touch few of them."""

SPARSE = 0.25
"""Part of a row's places on the border that it may touch, for the coupling to be kept by those it touches."""


class Interaction(Exception):
    """Rows that the layout holds apart interact. ``names`` are the parameters."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(", ".join(names))
        self.names = tuple(names)


def assembled(lifted: LiftedLoss, pieces: Sequence[Piece], placement: Placement) -> ArrowheadParts:
    """The parts of the Hessian in the layout of ``placement``.

    Raises: Interaction where the pieces do not fit the layout.
    """
    assembly = _Assembly(placement, pieces, lifted.nodes[0].leaf)
    for product in placement.products(pieces):
        apart = assembly.held_apart(product)
        if not apart:
            assembly.add(product)
        elif not product.vanishes():
            raise Interaction([lifted.names[source] for source in apart])
    return assembly.parts()


class _Assembly:
    """The parts of one Hessian while products are added to them.

    Shapes: of each group of rows a block (L, L, R), and a coupling (L, m, R), or (L, n) where it is sparse; corner
    (m, m), made symmetric at the end.
    """

    def __init__(self, placement: Placement, pieces: Sequence[Piece], like: Tensor) -> None:
        self._placement, self._cache, layout = placement, placement.cache, placement.layout
        m = len(layout.border)
        self._touched = _find_touched(placement, pieces)
        """Of each group, where its coupling is sparse."""
        self._blocks = [like.new_zeros(one.length, one.length, one.count) for one in layout.rows]
        if self._touched is None:
            self._couplings = [like.new_zeros(one.length, m, one.count) for one in layout.rows]
        else:
            sizes = zip(layout.rows, self._touched, strict=True)
            self._couplings = [like.new_zeros(one.length, len(touched.codes)) for one, touched in sizes]
        self._corner = like.new_zeros(m, m)
        self._sums = Sums(self._cache)

    def parts(self) -> ArrowheadParts:
        couplings: list[Coupling]
        if self._touched is None:
            couplings = [DenseCoupling(one.permute(2, 0, 1)) for one in self._couplings]
        else:
            both = zip(self._touched, self._couplings, strict=True)
            couplings = [SparseCoupling(touched.pattern, one.T) for touched, one in both]
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
        if self._touched is None:
            self._add(target, product, column, place, rows)
            return
        touched = self._touched[group]
        slot = self._cache.of("slot", (rows, place, touched.codes), lambda: touched.slots(rows, place))
        self._add(target, product, column, slot)

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


@dataclass(frozen=True, eq=False)
class _Touched:
    """The places of the border that each row of a group touches. Shape of codes: (n,), row · m + place, sorted."""

    codes: Tensor
    pattern: Pattern

    def slots(self, rows: Tensor, place: Tensor) -> Tensor:
        """Which of the n a row and a place are; shape that of ``rows``."""
        return torch.searchsorted(self.codes, rows * self.pattern.m + place)


def _find_touched(placement: Placement, pieces: Sequence[Piece]) -> list[_Touched] | None:
    """For a wide border of which rows touch little; None where couplings had better be dense."""
    layout = placement.layout
    if len(layout.border) < WIDE_BORDER or not layout.rows:
        return None
    pairs: list[tuple[int, Tensor, Tensor]] = []
    for product in placement.products(pieces):
        a, b = placement.groups(product)
        if (a >= 0) == (b >= 0):
            continue
        inner, outer = (product.left, product.right) if a >= 0 else (product.right, product.left)
        if isinstance(inner, Matrix) or isinstance(outer, Matrix):
            return None
        pairs.append((max(a, b), placement.rows(inner), placement.place(outer)))
    found: list[_Touched] | None = placement.cache.of("touched", tuple(pairs), lambda: _touched(pairs, layout))
    return found


def _touched(pairs: Sequence[tuple[int, Tensor, Tensor]], layout: Layout) -> list[_Touched] | None:
    m, found = len(layout.border), []
    for number, one in enumerate(layout.rows):
        own = [(rows * m + place).reshape(-1).unique() for group, rows, place in pairs if group == number]
        codes = torch.cat([*own, layout.border.new_zeros(0)]).unique()
        if len(codes) > SPARSE * m * one.count:
            return None
        found.append(_Touched(codes, Pattern(codes // m, codes % m, one.count, m)))
    return found


def _add_at(target: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> None:
    target.index_put_((rows[:, None].expand(values.shape), columns.expand(values.shape)), values, accumulate=True)
