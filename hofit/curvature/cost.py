"""What a Hessian costs by the ways that are open, counted and not clocked: a fit that goes on must choose as it did."""

from __future__ import annotations

from collections.abc import Sequence

from .layout import Layout
from .lifting.pieces import LiftedLoss, Piece
from .placement import Placement

ENTRIES = 2000
"""Entries that take as long to compute as it takes to ask for an operation on them."""

TERM = 15
"""Small operations that a product of two terms takes to be placed and added."""

SECOND = 6
"""Operations of a Hessian-vector product for one of the model's."""

MANY_TERMS = 256
"""Products of terms from which on it is asked whether there is a cheaper way."""

CLEARLY = 2.0
"""How many times less the other way must cost."""


SMALL_FRONTS = 4.0
"""How much longer a product takes in the small fronts of a sparse factorisation than in one large matrix."""

BY_LEVELS = 3e6
"""Products that take as long as it takes to ask for a sparse factorisation."""


def numbers_of(layout: Layout) -> int:
    """Numbers of a Hessian in a layout of rows and their border."""
    m = len(layout.border)
    return m * m + sum(one.count * one.length * (one.length + m) for one in layout.rows)


def costs_less_sparse(sparse: Layout, layout: Layout) -> bool:
    """Whether a factorisation by the pattern costs less than one by rows and their border."""
    assert sparse.sparsity is not None
    m = len(layout.border)
    by_rows = sum(one.count * one.length * (one.length + m) ** 2 for one in layout.rows) + m**3 / 3
    return by_rows > BY_LEVELS and BY_LEVELS + SMALL_FRONTS * sparse.sparsity.flops < by_rows


def products_cost_less(
    lifted: LiftedLoss, pieces: Sequence[Piece], placement: Placement, products: int, entries: int
) -> bool:
    """Whether so many Hessian-vector products clearly cost less than what was lifted.

    ``entries`` is how many terms the loss is a sum of.
    """
    sizes = [product.weights.numel() for product in placement.products(pieces)]
    if len(sizes) < MANY_TERMS:
        return False
    by_terms = sum(TERM + size / ENTRIES for size in sizes)
    largest = max([entries, *(node.leaf.numel() for node in lifted.nodes)])
    by_products = (products + 1) * SECOND * lifted.operations * (1 + largest / ENTRIES)
    return CLEARLY * by_products < by_terms
