"""Fill-reducing orders of a sparse symmetric matrix: in which order its unknowns are eliminated.

A graph is the pattern off the diagonal, both triangles, as scipy's csr matrix of ones. Orders come from scipy and numpy
alone, so that the same pattern is eliminated in the same order wherever hofit is installed.

Source: Liu (1985), "Modification of the minimum-degree algorithm by multiple elimination", ACM TOMS 11; George (1973),
"Nested dissection of a regular finite element mesh", SIAM J. Numer. Anal. 10; Cuthill & McKee (1969).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]

LEAF = 8
"""Numbers of a part that is not cut any more; which of the cuts are worth a front is decided later."""

PIECE = 8
"""Numbers of a band that are eliminated as one: small factorisations are cheap here, calls and levels are not."""

NARROW = 16
"""Widest band that is cut to pieces; a wider one is a graph like any other."""

CROWDED = 50.0
"""Neighbours that each unknown has, on average, once an independent set is eliminated, from which the rest will end up
dense: minimum degree would take seconds to find that there is nothing to find."""


def pieces(graph: Any) -> tuple[Array, Array | None]:
    """Unknowns that are ordered as one, and the order of these blocks where it is known.

    Pieces of a narrow band (chains, autoregressions, walks) and the cuts between them, eliminated by cyclic reduction:
    pieces first, then every second cut, every fourth, and so on. Else unknowns with the same neighbours. All that is
    done a block at a time shrinks by the size of the blocks. Shapes: label (n,), order (blocks,).
    """
    size = graph.shape[0]
    light = np.flatnonzero(~_heavy(graph))
    label = np.empty(size, np.int64)
    part, within, _ = _along(graph[light][:, light])
    edges = graph[light][:, light].tocoo()
    band = int(np.abs(within[edges.row] - within[edges.col]).max(initial=0))
    known = None
    if 0 < band <= NARROW:
        period = PIECE + band
        number, cut = within // period, within % period >= PIECE
        halvings = np.where(cut, np.log2((number + 1) & -(number + 1)).astype(np.int64) + 1, 0)
        code = part * (2 * len(light) + 2) + 2 * number + cut
        _, first, label[light] = np.unique(code, return_index=True, return_inverse=True)
        known = halvings[first]
    else:
        # Equal sums of random numbers over the neighbourhood, itself included, are equal neighbourhoods.
        signature = np.random.default_rng(0).integers(1, 2**62, size)
        sums = signature[light] + graph[light].astype(np.int64) @ signature
        label[light] = np.unique(sums, return_inverse=True)[1]
    heavy = np.setdiff1d(np.arange(size), light, assume_unique=True)
    label[heavy] = label[light].max(initial=-1) + 1 + np.arange(len(heavy))
    if known is None:
        return label, None
    last = np.full(len(heavy), known.max() + 1)
    return label, np.argsort(np.concatenate([known, last]), kind="stable")


def orders(graph: Any) -> Iterator[Array]:
    """Orders worth a comparison, the most promising first. Unknowns that touch very many others always go last."""
    heavy = _heavy(graph)
    light = np.flatnonzero(~heavy)
    inner = graph[light][:, light].tocsr()
    for order in _orders(inner):
        yield np.concatenate([light[order], np.flatnonzero(heavy)])


def _orders(graph: Any) -> Iterator[Array]:
    if not graph.nnz:
        yield np.arange(graph.shape[0])
        return
    crowded = False
    for alone in (_lonely(graph), _one_side(graph)):
        rest = len(alone) - int(alone.sum())
        meetings = float((np.diff(graph.indptr)[alone].astype(np.float64) ** 2).sum())
        if meetings > CROWDED * rest:
            crowded = True
            yield _set_first(graph, alone, meetings)
    if crowded:
        yield np.argsort(np.diff(graph.indptr), kind="stable")  # for degrees that differ a lot, on both sides
    else:
        yield minimum_degree(graph)
        yield nested_dissection(graph)


def minimum_degree(graph: Any) -> Array:
    """By SuperLU, which has it for its own use: the order is read off a factorisation that drops whatever it can."""
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import spilu

    size = graph.shape[0]
    edges, own = graph.tocoo(), np.arange(size)
    entries = np.concatenate([np.zeros(graph.nnz), np.ones(size)])
    places = np.concatenate([edges.row, own]), np.concatenate([edges.col, own])
    pattern = csc_matrix((entries, places), shape=graph.shape)
    options = {"SymmetricMode": True}
    found = spilu(
        pattern, drop_tol=1.0, fill_factor=1.0, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options
    )
    return np.argsort(found.perm_c)


def nested_dissection(graph: Any) -> Array:
    """Each round cuts all parts at once, at the median of a reverse Cuthill-McKee order, by what touches the rest.

    As good as METIS on grids; where a graph has no shape of its own, minimum degree is better.
    """
    from scipy.sparse import csr_matrix

    size = graph.shape[0]
    edges = graph.tocoo()
    one, other = edges.row, edges.col
    free = np.ones(size, bool)
    rank = np.zeros(size, np.int64)
    top = size
    while True:
        inside = free[one] & free[other]
        one, other = one[inside], other[inside]
        part, within, length = _along(csr_matrix((np.ones(len(one), np.int8), (one, other)), shape=(size, size)))
        left = 2 * within < length[part]
        cut = np.unique(one[(length[part[one]] > LEAF) & left[one] & ~left[other]])
        if not len(cut):
            first = np.cumsum(length) - length
            rank[free] = (first[part] + within)[free] - size  # before all cuts, a part at a time
            return np.argsort(rank, kind="stable")
        cut = cut[np.argsort(part[cut], kind="stable")]
        rank[cut] = np.arange(top - len(cut), top)
        top -= len(cut)
        free[cut] = False


def _heavy(graph: Any) -> NDArray[np.bool_]:
    """Unknowns that touch more than 10 √n others, as borders do: they say nothing of the shape of the rest."""
    heavy: NDArray[np.bool_] = np.diff(graph.indptr) > max(16.0, 10.0 * graph.shape[0] ** 0.5)
    return heavy


def _along(graph: Any) -> tuple[Array, Array, Array]:
    """A walk through each connected part by reverse Cuthill-McKee.

    Which part each unknown is in, how far along it, and how long the parts are. Shapes (n,), (n,), (parts,).
    """
    from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

    size = graph.shape[0]
    if not size:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    _, part = connected_components(graph, directed=False)
    position = np.empty(size, np.int64)
    position[reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(size)
    length = np.bincount(part)
    first = np.cumsum(length) - length
    walk = np.lexsort((position, part))
    within = np.empty(size, np.int64)
    within[walk] = np.arange(size) - first[part[walk]]
    return part.astype(np.int64), within, length


def _lonely(graph: Any) -> NDArray[np.bool_]:
    """An independent set: the unknowns with fewer neighbours than any neighbour has, ties broken at random."""
    size = graph.shape[0]
    edges = graph.tocoo()
    key = np.diff(graph.indptr).astype(np.int64) * size + np.random.default_rng(0).permutation(size)
    least = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(least, edges.row, key[edges.col])
    lonely: NDArray[np.bool_] = key < least
    return lonely


def _one_side(graph: Any) -> NDArray[np.bool_]:
    """The larger side of each part whose unknowns fall into two sides without edges inside; nothing of other parts.

    The bipartite double cover of such a part is two parts, each with one copy of every unknown.
    """
    from scipy.sparse import bmat
    from scipy.sparse.csgraph import connected_components

    size = graph.shape[0]
    _, part = connected_components(graph, directed=False)
    _, cover = connected_components(bmat([[None, graph], [graph, None]]), directed=False)
    here, there = cover[:size], cover[size:]
    lean = np.bincount(part, np.sign(there - here), minlength=1)[part]  # how many more are of the first side
    side: NDArray[np.bool_] = (here != there) & ((here < there) == (lean >= 0))
    return side


def _set_first(graph: Any, alone: NDArray[np.bool_], meetings: float) -> Array:
    """An independent set first. What it leaves is dissected, unless the set joins most of it to one another."""
    first, rest = np.flatnonzero(alone), np.flatnonzero(~alone)
    if 2 * meetings > float(len(rest)) ** 2:
        return np.concatenate([first, rest[np.argsort(np.diff(graph.indptr)[rest], kind="stable")]])
    between = graph[rest][:, first].astype(np.int32)
    joined = (between @ between.T + graph[rest][:, rest]).tocsr()
    joined.setdiag(0)
    joined.eliminate_zeros()
    return np.concatenate([first, rest[nested_dissection(joined)]])
