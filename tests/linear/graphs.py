"""Graphs for the tests of sparse matrices: how many nodes, and the edges (e, 2), each once, in no order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
Graph = tuple[int, Array]


def chain(size: int) -> Graph:
    return band(size, 1)


def band(size: int, width: int) -> Graph:
    return shuffled(size, [(one, one + step) for step in range(1, width + 1) for one in range(size - step)])


def ring(size: int) -> Graph:
    return shuffled(size, [(one, (one + 1) % size) for one in range(size)])


def grid(side: int) -> Graph:
    at = np.arange(side * side).reshape(side, side)
    down = np.stack([at[1:].ravel(), at[:-1].ravel()], 1)
    across = np.stack([at[:, 1:].ravel(), at[:, :-1].ravel()], 1)
    return shuffled(side * side, np.concatenate([down, across]))


def tree(size: int) -> Graph:
    rng = np.random.default_rng(1)
    return shuffled(size, [(one, int(rng.integers(max(0, one - 20), one))) for one in range(1, size)])


def star(size: int) -> Graph:
    return shuffled(size, [(0, one) for one in range(1, size)])


def random(size: int, edges: int) -> Graph:
    pairs = np.random.default_rng(2).integers(0, size, (edges, 2))
    return shuffled(size, np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0))


def groups(count: int, length: int, border: int) -> Graph:
    """Rows of some numbers, all joined to one another and to a border."""
    edges = []
    for row in range(count):
        own = border + row * length + np.arange(length)
        edges += [(int(a), int(b)) for a in own for b in range(border)]
        edges += [(int(a), int(b)) for a in own for b in own if b < a]
    return shuffled(border + count * length, edges + [(a, b) for a in range(border) for b in range(a)])


def nested(groups: int, each: int, border: int) -> Graph:
    """Groups of numbers below a number, and a border that all touch."""
    edges = []
    for group in range(groups):
        head = border + group * (each + 1)
        edges += [(head, head + 1 + one) for one in range(each)]
        edges += [(head + one, outer) for one in range(each + 1) for outer in range(border)]
    return shuffled(border + groups * (each + 1), edges)


def crossed(rows: int, columns: int, meetings: int) -> Graph:
    rng = np.random.default_rng(3)
    met = np.unique(np.stack([rng.integers(0, rows, meetings), rows + rng.integers(0, columns, meetings)], 1), axis=0)
    return shuffled(rows + columns, met)


def skewed(rows: int, columns: int, meetings: int) -> Graph:
    """Crossed, where some of either side meet nearly all and most meet few."""
    rng = np.random.default_rng(4)
    row, column = (rng.zipf(1.3, 20 * meetings) - 1 for _ in range(2))
    row, column = row[row < rows][:meetings], rows + column[column < columns][:meetings]
    return shuffled(rows + columns, np.unique(np.stack([row, column], 1), axis=0))


def beside(*graphs: Graph) -> Graph:
    size, edges = 0, []
    for count, own in graphs:
        edges.append(own + size)
        size += count
    return shuffled(size, np.concatenate(edges))


def full(size: int) -> Graph:
    return shuffled(size, np.stack(np.tril_indices(size, -1), 1))


def shuffled(size: int, edges: Array | list[tuple[int, int]]) -> Graph:
    rng = np.random.default_rng(0)
    places = rng.permutation(size)
    return size, rng.permutation(places[np.asarray(edges, np.int64).reshape(-1, 2)])


NOTHING = np.empty((0, 2), np.int64)
GRAPHS: dict[str, Graph] = {
    "one number": (1, NOTHING),
    "two numbers": (2, np.array([[0, 1]])),
    "two numbers, no edge": (2, NOTHING),
    "no edges": (300, NOTHING),
    "chain": chain(300),
    "band": band(270, 4),
    "ring": ring(201),
    "grid": grid(17),
    "tree": tree(260),
    "star": star(230),
    "random": random(280, 320),
    "two parts and empty rows": beside(chain(120), (9, NOTHING), grid(11)),
    "groups": groups(70, 4, 5),
    "nested groups": nested(45, 5, 3),
    "crossed": crossed(220, 40, 800),
    "full": full(40),
    "full of 280": full(280),
}
