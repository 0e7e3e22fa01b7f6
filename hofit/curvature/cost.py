"""What a Hessian costs by the ways that are open, counted and not clocked: a fit that goes on must choose as it did."""

from __future__ import annotations

from collections.abc import Sequence

from ..linear.supernodes import GROUP_SECONDS, PRODUCT_SECONDS, front_seconds
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


def numbers_of(layout: Layout) -> int:
    """Numbers of a Hessian in a layout of rows and their border."""
    m = len(layout.border)
    return m * m + sum(one.count * one.length * (one.length + m) for one in layout.rows)


def costs_less_sparse(sparse: Layout, layout: Layout) -> bool:
    """Whether a factorisation by the pattern clearly costs less than one by rows and their border."""
    assert sparse.sparsity is not None
    m = len(layout.border)
    products = sum(one.count * one.length * (one.length + m) ** 2 for one in layout.rows)
    by_rows = GROUP_SECONDS + PRODUCT_SECONDS * products + float(front_seconds(float(m), 0.0))
    least = 2 * GROUP_SECONDS  # so that nothing is analysed for what is small
    return CLEARLY * least < by_rows and CLEARLY * sparse.sparsity.seconds < by_rows


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
