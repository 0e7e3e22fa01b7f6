"""Fronts of a sparse factorisation: columns of L that are worked on as one dense block, and fronts as one batch.

A front has pivots, the columns, and rows below them that are not zero. Columns of one structure are a front by nature;
further ones are joined where the zeros that are then stored cost less than a front of their own would. Fronts of one
level, none of which waits for another, are one batch, or a few by size.

Source: Duff & Reid (1983), "The multifrontal solution of indefinite sparse symmetric linear equations", ACM TOMS 9;
Liu, Ng & Peyton (1993), "On finding supernodes for sparse matrix computations", SIAM J. Matrix Anal. Appl. 14.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from .elimination_tree import EliminationTree

Array = NDArray[np.int64]
Sizes = TypeVar("Sizes", float, NDArray[np.float64])

# Seconds on one core with AVX-512, torch 2.13 with MKL, float64, by a fit to times of each operation. Only their ratios
# matter, and those little: they decide which of two ways to the same numbers is taken.
GROUP_SECONDS = 6e-5
"""What a batch costs whatever stands in it: some fifteen calls of torch."""

FRONT_SECONDS = 3e-7
"""What a front of a batch costs: three calls of LAPACK and BLAS."""

PIVOT_SECONDS = 6e-9
"""A number of the pivots' block; LAPACK's factorisation is quadratic up to 500 pivots or so."""

CUBIC_SECONDS = 7e-12
"""Multiplied by the cube of the pivots."""

ROW_SECONDS = 4.5e-9
"""A number of the rows below the pivots."""

PRODUCT_SECONDS = 4e-11
"""An addition and a multiplication of a product of matrices, the addresses of its results apart."""

MOVE_SECONDS = 2e-9
"""A number that is added to, or gathered from, the blocks of other fronts."""

ROOT_MOVE_SECONDS = 5e-9
"""The same in one large root, with addresses that are computed at the time."""

FIRST_STEP = 1.25
"""Ratio of the sizes of one class before classes are joined; between 1.12 and 1.5 it hardly matters."""

FEW = 32
"""Fronts below one front up to which they may be joined with it: the leaves of a star are a batch as they are."""

MANY_UPDATES = 1_000_000
"""Numbers that the fronts below one root pass on to it, from which their addresses are worth a batch to be computed
when they are needed: kept, they would take more memory than the factor."""


def front_seconds(pivots: Sizes, rows: Sizes) -> Sizes:
    """What a front is foretold to cost."""
    own = FRONT_SECONDS + PIVOT_SECONDS * pivots * pivots + CUBIC_SECONDS * pivots * pivots * pivots
    below = rows * pivots * (ROW_SECONDS + 1.5 * PRODUCT_SECONDS * pivots)
    return own + below + rows * rows * (MOVE_SECONDS + PRODUCT_SECONDS * pivots)


def whole_seconds(pivots: Sizes, rows: Sizes) -> Sizes:
    """The same where all fronts of a batch have all pivots of one root as rows: one product adds what they pass on."""
    return pivots * rows * (ROW_SECONDS + 0.5 * PRODUCT_SECONDS * rows)


@dataclass(frozen=True)
class Fronts:
    """Shapes (f,): how many pivots and rows; the level, zero for fronts without any below.

    front_of (blocks,): the front of each node of the tree. root (f,): the front whose pivots hold all rows of this one,
    where it has no rows of its own and is told apart; else −1. whole (f,): whether this one takes all of them as rows.
    """

    pivots: Array
    rows: Array
    level: Array
    front_of: Array
    root: Array
    whole: NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Fronts of one level that are padded to one size; ``members`` (B,) numbers them. One root, if any, for all."""

    pivots: int
    rows: int
    members: Array

    def seconds(self) -> float:
        return GROUP_SECONDS + len(self.members) * front_seconds(float(self.pivots), float(self.rows))


def one_front(size: int) -> tuple[Fronts, list[Batch]]:
    """The whole matrix as one front: what a small one is fastest as."""
    nothing = np.zeros(1, np.int64)
    fronts = Fronts(nothing + size, nothing, nothing, nothing, nothing - 1, np.zeros(1, np.bool_))
    return fronts, [Batch(size, 0, nothing)]


def find_fronts(tree: EliminationTree, counts: Array, weight: Array) -> Fronts:
    """Shapes (blocks,): ``counts`` as column_counts has it, ``weight`` the unknowns of each node."""
    nodes = len(weight)
    chained = (tree.parent[:-1] == np.arange(1, nodes)) & (counts[:-1] == counts[1:] + weight[1:])
    head = np.concatenate([[True], ~chained])
    natural = np.cumsum(head) - 1
    last = np.concatenate([np.flatnonzero(head)[1:], [nodes]]) - 1
    above = tree.parent[last]
    parent = np.where(above >= 0, natural[above], -1)
    pivots = np.bincount(natural, weight).astype(np.int64)
    into, level, pivots = _joined(parent, pivots, counts[last])
    alive = np.flatnonzero(into == np.arange(len(into)))
    number = np.full(len(into), -1)
    number[alive] = np.arange(len(alive))
    parent = parent[alive]
    parent = np.where(parent >= 0, number[into[parent]], -1)
    fronts = Fronts(
        pivots[alive],
        counts[last][alive],
        level[alive],
        number[into][natural],
        np.full(len(alive), -1),
        np.zeros(len(alive), np.bool_),
    )
    return _with_roots(fronts, parent)


def _joined(parent: Array, pivots: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Which front each joins, from below; the levels, and how many pivots there are then. Shapes (s,)."""
    count = len(parent)
    size, below, into = pivots.tolist(), rows.tolist(), list(range(count))
    children: list[list[int]] = [[] for _ in range(count)]
    for child, above in enumerate(parent.tolist()):
        if above >= 0:
            children[above].append(child)
    for above in range(count):
        if not children[above]:
            continue
        few = len(children[above]) <= FEW
        now = front_seconds(size[above], below[above])
        left = []
        for child in children[above]:
            both = front_seconds(size[above] + size[child], below[above])
            if (few or children[child]) and both <= now + front_seconds(size[child], below[child]):
                size[above] += size[child]
                into[child] = above
                now = both
                left += children[child]
            else:
                left.append(child)
        children[above] = left
    level = [0] * count
    for above in range(count):
        if into[above] == above and children[above]:
            level[above] = 1 + max(level[child] for child in children[above])
    for front in range(count - 1, -1, -1):
        into[front] = into[into[front]]
    return np.array(into, np.int64), np.array(level, np.int64), np.array(size, np.int64)


def _with_roots(fronts: Fronts, parent: Array) -> Fronts:
    """Fronts right below a root without rows of its own pass all of their updates to that one block.

    Where it is cheaper, one product over all of them does it, with all the root's pivots as rows.
    """
    under = (parent >= 0) & (fronts.rows[parent] == 0)
    height = np.where(under, fronts.pivots[parent], 0).astype(np.float64)
    updates = fronts.rows.astype(np.float64) ** 2
    product = whole_seconds(fronts.pivots.astype(np.float64), height)
    whole = under & (fronts.level == 0) & (ROOT_MOVE_SECONDS * updates > product)
    passed = np.bincount(parent[under & ~whole], updates[under & ~whole], len(parent))
    root = np.where(under & (whole | (passed[parent] > MANY_UPDATES)), parent, -1)
    rows = np.where(whole, height.astype(np.int64), fronts.rows)
    return Fronts(fronts.pivots, rows, fronts.level, fronts.front_of, root, whole)


def batches(fronts: Fronts) -> list[Batch]:
    """Level by level. Sizes are classed by powers of FIRST_STEP; then the two classes are joined for which padding
    costs least, as long as it costs less than a batch.
    """
    found: list[Batch] = []
    order = np.argsort(fronts.level, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(fronts.level[order])) + 1):
        kind = 2 * fronts.root[members] + fronts.whole[members]
        sizes = _class_of(fronts.pivots[members]) * 1000 + np.where(
            fronts.rows[members] > 0, 1 + _class_of(fronts.rows[members]), 0
        )
        by_size = np.lexsort((sizes, kind))
        members, kind, sizes = members[by_size], kind[by_size], sizes[by_size]
        for alike in np.split(np.arange(len(members)), np.flatnonzero(np.diff(kind)) + 1):
            cuts = np.flatnonzero(np.diff(sizes[alike])) + 1
            found += _fewer([_batch(fronts, part) for part in np.split(members[alike], cuts)])
    return found


def _class_of(sizes: Array) -> Array:
    found: Array = np.ceil(np.log(np.maximum(sizes, 1)) / np.log(FIRST_STEP)).astype(np.int64)
    return found


def _batch(fronts: Fronts, members: Array) -> Batch:
    return Batch(int(fronts.pivots[members].max()), int(fronts.rows[members].max()), members)


def _fewer(classes: Sequence[Batch]) -> list[Batch]:
    """Joined two by two, the two that gain most first."""
    left = list(classes)
    while len(left) > 1:
        length, pivots, rows, alone = (
            np.array(each, np.float64)
            for each in zip(*((len(one.members), one.pivots, one.rows, one.seconds()) for one in left), strict=True)
        )
        padded = front_seconds(np.maximum.outer(pivots, pivots), np.maximum.outer(rows, rows))
        gain = np.add.outer(alone, alone) - GROUP_SECONDS - np.add.outer(length, length) * padded
        gain[np.tril_indices(len(left))] = 0.0
        first, second = (int(place) for place in np.unravel_index(int(gain.argmax()), gain.shape))
        if gain[first, second] <= 0:
            break
        other, one = left.pop(second), left.pop(first)
        members = np.sort(np.concatenate([one.members, other.members]))  # neighbours in the tree, neighbours in memory
        left.append(Batch(max(one.pivots, other.pivots), max(one.rows, other.rows), members))
    return left
