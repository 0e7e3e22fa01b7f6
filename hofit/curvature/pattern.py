"""The Hessian of a lifted loss on the places where it has entries, and nowhere else.

Every observation adds weight · (left terms)(right terms)ᵀ. The index maps alone say where that stands, so the pattern
is known before any number, and each observation's place in the values is worked out once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..linear.sparsity import Sparsity
from .assembly import Interaction, assembled
from .lifting.maps import Entry, IndexCache, Matrix, summed
from .lifting.pieces import LiftedLoss, Piece
from .parts import Parts, SparseParts
from .placement import Placement, TermProduct
from .sums import Sums, crossed, gathered


def found_sparsity(placement: Placement, pieces: Sequence[Piece], most: int) -> Sparsity | None:
    """The pattern of everything that is placed; None where it has more than ``most`` entries."""
    size, total, seen, codes = placement.layout.size, 0, set(), []
    for product in placement.products(pieces):
        for first, second in _places(placement, product):
            key = (id(first), id(second))
            if key in seen:
                continue
            seen.add(key)
            if first.numel() * second.numel() > most and first.shape != second.shape:  # of a matrix
                return None
            late, early = torch.maximum(first, second), torch.minimum(first, second)
            own = (late * size + early)[late < size].unique()
            codes.append(own)
            total += len(own)
            if total > 4 * most:
                return None
    whole = torch.cat(codes).unique() if codes else torch.zeros(0, dtype=torch.long)
    if len(whole) > most:
        return None
    return Sparsity.of(size, whole // size, whole % size)


def hessian_parts(lifted: LiftedLoss, pieces: Sequence[Piece], placement: Placement) -> Parts:
    """The Hessian in the layout of ``placement``. Raises: Interaction where the pieces do not fit it."""
    if placement.layout.sparsity is None:
        return assembled(lifted, lifted.without_sums(pieces), placement)
    return _sparse_parts(lifted, pieces, placement)


def _sparse_parts(lifted: LiftedLoss, pieces: Sequence[Piece], placement: Placement) -> SparseParts:
    """The values of the Hessian on the sparsity of the layout. Raises: Interaction where it has others."""
    assembly = _Scattering(placement, lifted.nodes[0].leaf)
    for product in placement.products(pieces):
        try:
            assembly.add(product)
        except ValueError:
            names = [lifted.names[term.source] for term in (product.left, product.right)]
            raise Interaction(names) from None
    return assembly.parts()


def _places(placement: Placement, product: TermProduct) -> Iterator[tuple[Tensor, Tensor]]:
    """The places that a product may add to: two tensors that broadcast to each other."""
    left, right = product.left, product.right
    if isinstance(left, Entry) and isinstance(right, Entry):
        yield _narrowed(placement.cache, placement.place(left), placement.place(right))
        return
    first, second = (
        _distinct(placement.cache, placement.place(term)) if isinstance(term, Entry) else placement.places(term)
        for term in (left, right)
    )
    yield first[:, None], second[None, :]


def _narrowed(cache: IndexCache, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Without the dimensions along which neither changes."""
    one, other, _ = summed(cache, first, first, second)
    return one, other


def _distinct(cache: IndexCache, places: Tensor) -> Tensor:
    distinct, _ = cache.of("distinct", (places,), lambda: places.reshape(-1).unique(return_inverse=True))
    found: Tensor = distinct
    return found


class _Scattering:
    """The values while products are added to them, and behind them the rows of the sums, (r, d + r) and flat."""

    def __init__(self, placement: Placement, like: Tensor) -> None:
        sparsity = placement.layout.sparsity
        assert sparsity is not None
        self._placement, self._cache, self._sparsity = placement, placement.cache, sparsity
        r = placement.beside
        self._values = like.new_zeros(len(sparsity.rows) + r * (sparsity.size + r))
        self._sums = Sums(self._cache)

    def parts(self) -> SparseParts:
        count, r = len(self._sparsity.rows), self._placement.beside
        beside = self._values[count:].view(r, self._sparsity.size + r)
        return SparseParts(self._sparsity, self._values[:count], beside, self._wide_sums())

    def _wide_sums(self) -> Tensor:
        """What the sums are of all numbers; shape (r, d)."""
        placement, d = self._placement, self._sparsity.size
        flat = self._values.new_zeros(placement.beside * d)
        for k, terms in placement.sums.items():
            rows = placement.places_of(k) - d
            for term in terms:
                if term.source not in placement.group:
                    continue
                if isinstance(term, Matrix):
                    place = rows[:, None] * d + placement.places(term)
                    value = term.matrix.reshape(place.shape)
                else:
                    place = rows * d + placement.place(term).reshape(-1)
                    value = flat.new_ones(place.shape) if term.coefficient is None else term.coefficient.reshape(-1)
                flat = flat.index_add(0, place.reshape(-1), value.reshape(-1).to(flat), alpha=term.factor)
        return flat.view(placement.beside, d)

    def add(self, product: TermProduct) -> None:
        """Raises: ValueError where the sparsity has no such place."""
        left, right, placement = product.left, product.right, self._placement
        if isinstance(left, Entry) and isinstance(right, Entry):
            _, value = self._sums.value(product)
            first, second = placement.place(left), placement.place(right)
            first, second, value = summed(self._cache, first, value.expand(first.shape), second)
            self._add(first, second, value, product.factor, product.mirrored)
        elif isinstance(left, Matrix) and isinstance(right, Matrix):
            total, first, second = (
                crossed(product.weights, left, right),
                placement.places(left),
                placement.places(right),
            )
            if product.mirrored:
                self._add(first[:, None], second[None, :], total, product.factor, True)
            else:  # symmetric by itself: what is below its diagonal is mirrored
                self._add(first[:, None], first[None, :], total.tril(-1), product.factor, True)
                self._add(first, first, total.diagonal(), product.factor, False)
        else:
            matrix, entry = (left, right) if isinstance(left, Matrix) else (right, left)
            assert isinstance(matrix, Matrix) and isinstance(entry, Entry)
            self._add_matrix(product, matrix, entry)

    def _add_matrix(self, product: TermProduct, matrix: Matrix, entry: Entry) -> None:
        weights, place = product.weights.reshape(-1), self._placement.place(entry)
        value = weights if entry.coefficient is None else weights * entry.coefficient.reshape(-1)
        distinct, number = self._cache.of("distinct", (place,), lambda: place.reshape(-1).unique(return_inverse=True))
        flat = matrix.matrix.reshape(len(value), -1)
        total = gathered(self._cache, flat, value, number, len(distinct))
        self._add(distinct[:, None], self._placement.places(matrix)[None, :], total, product.factor, True)

    def _add(self, first: Tensor, second: Tensor, value: Tensor, factor: float, mirrored: bool) -> None:
        """values[first, second] += value · factor. The transpose of what is mirrored stands in the other triangle,
        which is not kept; on the diagonal it is the same once more."""
        slots, own = self._cache.of(
            "slots",
            (first, second, self._sparsity.rows),
            lambda: _slots(self._sparsity, first, second, self._placement.beside),
        )
        flat = value.reshape(-1)
        if mirrored and own is not None:
            flat = flat + torch.where(own, flat, 0.0)
        self._values.index_add_(0, slots, flat, alpha=factor)


def _slots(sparsity: Sparsity, first: Tensor, second: Tensor, beside: int) -> tuple[Tensor, Tensor | None]:
    """Where places stand among the values, and which of them are on the diagonal, where any is. Raises: ValueError."""
    first, second = (one.reshape(-1) for one in torch.broadcast_tensors(first, second))
    late, early, size = torch.maximum(first, second), torch.minimum(first, second), sparsity.size
    inside = late < size
    slots = len(sparsity.rows) + (late - size) * (size + beside) + early
    slots[inside] = sparsity.slots(late[inside], early[inside])
    own = first == second
    return slots, own if bool(own.any()) else None
