"""The elimination tree of a sparse symmetric matrix, and how many numbers each column of its factor holds.

Source: Liu (1990), "The role of elimination trees in sparse factorization", SIAM J. Matrix Anal. Appl. 11; Gilbert, Ng
& Peyton (1994), "An efficient algorithm to compute row and column counts for sparse Cholesky factorization", SIAM J.
Matrix Anal. Appl. 15.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]


@dataclass(frozen=True)
class EliminationTree:
    """A tree, or several, whose nodes are numbered in postorder: a node comes right after those below it.

    Shapes (n,): parent, −1 at a root; depth below the root; size, the node and all below it.
    """

    parent: Array
    depth: Array
    size: Array


def elimination_tree(count: int, early: Array, late: Array) -> tuple[Array, EliminationTree]:
    """The postorder number of each node, and the tree. Shapes: an edge each, the node that is eliminated first in
    ``early`` (e,), ``late`` (e,) → (count,).
    """
    parent = _parents(count, early, late)
    size = [1] * count
    for node, above in enumerate(parent):
        if above >= 0:
            size[above] += size[node]
    number, start, depth, top = [0] * count, [0] * count, [0] * count, 0
    for node in range(count - 1, -1, -1):
        above = parent[node]
        if above < 0:
            begin = top
            top += size[node]
        else:
            begin = start[above]
            start[above] += size[node]
            depth[node] = depth[above] + 1
        start[node] = begin
        number[node] = begin + size[node] - 1
    postorder = np.array(number, np.int64)
    parents = np.array(parent, np.int64)
    tree = EliminationTree(*(np.empty(count, np.int64) for _ in range(3)))
    tree.parent[postorder] = np.where(parents >= 0, postorder[parents], -1)
    tree.depth[postorder] = depth
    tree.size[postorder] = size
    return postorder, tree


def column_counts(tree: EliminationTree, early: Array, late: Array, weight: Array) -> Array:
    """Rows of the factor below each node's own, a node counting for ``weight`` rows; shape (n,).

    Row i of the factor is the subtree of the paths from its entries up to i. Every node of it is counted once by +1 at
    each entry, −1 where two neighbouring paths meet and −1 at i, summed over everything below a node. In postorder the
    meeting point of neighbours is the parent of the shallowest node between them.
    """
    count = len(weight)
    order = np.lexsort((early, late))
    early, late = early[order], late[order]
    rows = weight[late].astype(np.float64)
    change = np.bincount(early, rows, count) - weight * (np.bincount(late, minlength=count) > 0)
    same = np.flatnonzero(late[1:] == late[:-1])
    if len(same):
        left, right = early[same], early[same + 1]
        shallowest = _argmin_between(tree.depth, left, right)
        meeting = np.where(shallowest == right, right, tree.parent[shallowest])
        change = change - np.bincount(meeting, rows[same], count)
    total = np.concatenate([[0], np.cumsum(change.round().astype(np.int64))])
    node = np.arange(count)
    counts: Array = total[node + 1] - total[node + 1 - tree.size]
    return counts


def _parents(count: int, early: Array, late: Array) -> list[int]:
    """Liu's, with the paths compressed.

    The tree of a spanning forest that is minimal in ``late`` is the same, so that the loop sees as many edges as nodes.
    """
    if len(early) > count:
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import minimum_spanning_tree

        forest = minimum_spanning_tree(csr_matrix((late + 1.0, (early, late)), shape=(count, count))).tocoo()
        early, late = forest.row, forest.col
    order = np.argsort(late, kind="stable")
    parent, top = [-1] * count, [-1] * count
    for node, root in zip(early[order].tolist(), late[order].tolist(), strict=True):
        while (above := top[node]) != -1 and above != root:
            top[node] = root
            node = above
        if above == -1:
            top[node] = parent[node] = root
    return parent


def _argmin_between(values: Array, left: Array, right: Array) -> Array:
    """Where the smallest of values[left … right] is, by minima over powers of two. Shapes: (n,), (k,), (k,) → (k,)."""
    count = len(values)
    minima = values * count + np.arange(count)
    found = np.empty(len(left), np.int64)
    power = np.log2(right - left + 1).astype(np.int64)
    for exponent in range(int(power.max()) + 1):
        if exponent:
            step = 1 << (exponent - 1)
            minima = np.minimum(minima[:-step], minima[step:])
        now = power == exponent
        found[now] = np.minimum(minima[left[now]], minima[right[now] - (1 << exponent) + 1]) % count
    return found
