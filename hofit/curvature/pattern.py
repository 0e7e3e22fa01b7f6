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
            if max(len(first), len(second)) > most:  # of a matrix: first × second places
                return None
            own = (torch.maximum(first, second) * size + torch.minimum(first, second)).reshape(-1).unique()
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
    make = assembled if placement.layout.sparsity is None else _sparse_parts
    return make(lifted, pieces, placement)


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
    """The values while products are added to them."""

    def __init__(self, placement: Placement, like: Tensor) -> None:
        sparsity = placement.layout.sparsity
        assert sparsity is not None
        self._placement, self._cache, self._sparsity = placement, placement.cache, sparsity
        self._values = like.new_zeros(len(sparsity.rows))
        self._sums = Sums(self._cache)

    def parts(self) -> SparseParts:
        return SparseParts(self._sparsity, self._values)

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
            "slots", (first, second, self._sparsity.rows), lambda: _slots(self._sparsity, first, second)
        )
        flat = value.reshape(-1)
        if mirrored and own is not None:
            flat = flat + torch.where(own, flat, 0.0)
        self._values.index_add_(0, slots, flat, alpha=factor)


def _slots(sparsity: Sparsity, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where places stand among the values, and which of them are on the diagonal, where any is. Raises: ValueError."""
    first, second = (one.reshape(-1) for one in torch.broadcast_tensors(first, second))
    slots = sparsity.slots(first, second)
    own = first == second
    return slots, own if bool(own.any()) else None
