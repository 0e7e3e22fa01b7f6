"""The symbolic analysis of a sparse symmetric matrix: everything about its factorisation that needs no numbers.

The order, the elimination tree, the fronts and their batches, and at which address of the panel each number of each
front stands. Unknowns are renumbered to places, batch by batch and front by front, so that a batch is one slice of the
panel and of every vector; fronts of a batch are padded to one size by pivots that are one and rows that are zero.

Source: Duff & Reid (1983); Liu (1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .elimination_tree import column_counts, elimination_tree
from .ordering import orders, pieces
from .supernodes import GROUP_SECONDS, Batch, Fronts, batches, find_fronts, front_seconds, one_front, whole_seconds
from .updates import InRoot, Root, Scattered, Updates, WholeRoot

Array = NDArray[np.int64]

WORTH_COMPARING = 1e8
"""Operations of a factorisation from which a second order is tried: it takes as long as some 10⁸ of them."""

ADDRESSES = 4_000_000
"""Addresses that are computed at a time."""


@dataclass(frozen=True)
class Group:
    """A batch of B fronts with p pivots and u rows each: where it stands in a panel and in vectors.

    The pivots' blocks stand column by column, where LAPACK works in place; the rows follow after all of them.
    """

    count: int
    pivots: int
    rows: int
    first: int
    start: int
    updates: Updates | None

    def blocks(self, panel: Tensor) -> Tensor:
        """The pivots' blocks, of which the lower triangle holds. Shape (B, p, p)."""
        stop = self.start + self.count * self.pivots**2
        return panel[self.start : stop].view(self.count, self.pivots, self.pivots).mT

    def below(self, panel: Tensor) -> Tensor:
        """The rows below the pivots. Shape (B, u, p)."""
        start = self.start + self.count * self.pivots**2
        stop = start + self.count * self.rows * self.pivots
        return panel[start:stop].view(self.count, self.rows, self.pivots)

    def vectors(self, vectors: Tensor) -> Tensor:
        """Shapes: (places, k) → (B, p, k)."""
        stop = self.first + self.count * self.pivots
        return vectors[self.first : stop].view(self.count, self.pivots, -1)


@dataclass(frozen=True)
class Elimination:
    """Shapes: place (n,), where each unknown stands among ``places``, the last of which is nobody's; address (S,),
    where each entry of the pattern stands in a panel of ``length``, whose first number is nobody's; pivots
    (places − 1,), where those of all places do; padding (q,), where those do that are one.

    flops of a factorisation, numbers in L without padding (``fill``), bytes of a panel in float64 and of the addresses.
    """

    places: int
    length: int
    groups: Sequence[Group]
    place: Tensor
    address: Tensor
    pivots: Tensor
    padding: Tensor
    flops: float
    fill: int
    memory: int

    @property
    def seconds(self) -> float:
        """What a factorisation is foretold to cost, by the model of ``supernodes``."""
        total = 0.0
        for one in self.groups:
            cost = whole_seconds if isinstance(one.updates, WholeRoot) else front_seconds
            total += GROUP_SECONDS + one.count * float(cost(float(one.pivots), float(one.rows)))
        return total


def analysed(size: int, rows: Array, columns: Array, device: torch.device) -> Elimination:
    """Of a pattern's lower triangle. Shapes: rows, columns (S,); the tensors of what comes of it are on ``device``."""
    if front_seconds(float(size), 0.0) < 2 * GROUP_SECONDS:
        fronts, plan = one_front(size)
        order, block = np.arange(size), np.zeros(size, np.int64)
    else:
        fronts, order, block = _fronts_of(size, rows, columns)
        plan = batches(fronts)
    return _Layout(fronts, plan, fronts.front_of[block], order).elimination(rows, columns, device)


def _fronts_of(size: int, rows: Array, columns: Array) -> tuple[Fronts, Array, Array]:
    """The fronts of the cheapest order; the place of each unknown in it, and its node of the tree. Shapes (n,)."""
    off = rows != columns
    label, known = pieces(_graph(size, rows[off], columns[off]))
    nodes = int(label.max()) + 1
    weight = np.bincount(label)
    one, other = label[rows[off]], label[columns[off]]
    edge = _distinct(np.minimum(one, other) * nodes + np.maximum(one, other))
    one, other = edge // nodes, edge % nodes
    one, other = one[one != other], other[one != other]
    best, cheapest = None, np.inf
    for order in [known] if known is not None else orders(_graph(nodes, one, other)):
        position = np.empty(nodes, np.int64)
        position[order] = np.arange(nodes)
        early, late = np.minimum(position[one], position[other]), np.maximum(position[one], position[other])
        postorder, tree = elimination_tree(nodes, early, late)
        node = postorder[position]
        heavy = np.empty(nodes, np.int64)
        heavy[node] = weight
        counts = column_counts(tree, postorder[early], postorder[late], heavy)
        flops = float((heavy * (counts + heavy).astype(np.float64) ** 2).sum())
        if flops < cheapest:
            best, cheapest = (tree, counts, heavy, node), flops
        if cheapest < WORTH_COMPARING:
            break
    assert best is not None
    tree, counts, heavy, node = best
    return find_fronts(tree, counts, heavy), node[label], node[label]


def _distinct(keys: Array) -> Array:
    """Sorted, each once; numpy's own takes a hash table, which is many times slower for many different keys."""
    ordered = np.sort(keys)
    distinct: Array = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return distinct


def _graph(size: int, rows: Array, columns: Array) -> object:
    from scipy.sparse import csr_matrix

    ones = np.ones(2 * len(rows), np.int8)
    places = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    return csr_matrix((ones, places), shape=(size, size))


class _Layout:
    """Places and addresses. Fronts are numbered as they follow one another in the panel.

    Shapes: a number for each front (f,); ``place`` (n,); ``owner`` (places,), the front of each place.
    """

    def __init__(self, fronts: Fronts, plan: Sequence[Batch], front: Array, order: Array) -> None:
        members = np.concatenate([batch.members for batch in plan])
        self.plan, self.count = plan, len(members)
        number = np.empty(self.count, np.int64)
        number[members] = np.arange(self.count)
        length = np.array([len(batch.members) for batch in plan])
        self.batch = np.repeat(np.arange(len(plan)), length)
        self.pivots = np.repeat([batch.pivots for batch in plan], length)
        self.rows = np.repeat([batch.rows for batch in plan], length)
        self.level = fronts.level[members]
        root = fronts.root[members]
        self.root = np.where(root >= 0, number[root], -1)
        self.whole = fronts.whole[members]
        self.own_pivots, self.own_rows = fronts.pivots[members], fronts.rows[members]
        self.first = np.cumsum(self.pivots) - self.pivots
        self.places = int(self.pivots.sum()) + 1
        self.owner = np.append(np.repeat(np.arange(self.count), self.pivots), self.count)

        numbers = length * np.array([batch.pivots * (batch.pivots + batch.rows) for batch in plan])
        self.start = 1 + np.cumsum(numbers) - numbers  # of each batch; address 0 is nobody's
        self.length = 1 + int(numbers.sum())
        self.batch_first = np.cumsum(length) - length
        within = np.arange(self.count) - self.batch_first[self.batch]
        begin = self.start[self.batch]
        self.block = begin + within * self.pivots**2
        self.below = begin + length[self.batch] * self.pivots**2 + within * self.rows * self.pivots

        own = number[front]
        walk = np.lexsort((order, own))
        each = np.bincount(own, minlength=self.count)
        self.place = np.empty(len(front), np.int64)
        self.place[walk] = self.first[own[walk]] + np.arange(len(front)) - (np.cumsum(each) - each)[own[walk]]

    def elimination(self, rows: Array, columns: Array, device: torch.device) -> Elimination:
        one, other = self.place[rows], self.place[columns]
        early, late = np.minimum(one, other), np.maximum(one, other)
        structure = _Structure(self, early, late)
        updates = structure.updates(device)
        groups = []
        for batch, above in zip(range(len(self.plan)), updates, strict=True):
            plan, front = self.plan[batch], self.batch_first[batch]
            start, first = int(self.start[batch]), int(self.first[front])
            groups.append(Group(len(plan.members), plan.pivots, plan.rows, first, start, above))
        each = np.arange(self.places - 1)
        front = self.owner[each]
        pivots = self.block[front] + (each - self.first[front]) * (self.pivots[front] + 1)
        padding = np.delete(pivots, self.place)
        p, u = self.own_pivots.astype(np.float64), self.own_rows.astype(np.float64)
        flops = float((p**3 / 3 + p**2 * u + p * u**2).sum())
        fill = int((p * (p + 1) / 2 + p * u).sum())
        address = structure.address(early, late)
        kept = sum(one.addresses.nbytes for one in updates if isinstance(one, Scattered))
        memory = 8 * (self.length + len(address)) + kept
        indices = [torch.from_numpy(each).to(device) for each in (self.place, address, pivots, padding)]
        place, at, diagonal, ones = indices
        return Elimination(self.places, self.length, groups, place, at, diagonal, ones, flops, fill, memory)


class _Structure:
    """Which rows each front has: its own entries', and what the fronts below pass on.

    Sorted by front and place. Shapes (r,): front, place; ``key`` is both in one number, ``position`` the number of the
    row in its front. parent (f,): the front of the first row, ``count`` for none.
    """

    def __init__(self, layout: _Layout, early: Array, late: Array) -> None:
        self.layout = layout
        owner, places, count = layout.owner, layout.places, layout.count
        kept = (owner[early] != owner[late]) & ~layout.whole[owner[early]]
        key = owner[early[kept]] * places + late[kept]
        level = layout.level[key // places]
        waiting: list[list[Array]] = [[key[level == now]] for now in range(int(layout.level.max()) + 1)]
        self.parent = np.full(count, count)
        found = []
        for now in range(len(waiting)):
            key = _distinct(np.concatenate(waiting[now]))
            waiting[now] = []
            found.append(key)
            front, place = key // places, key % places
            head = np.ones(len(key), np.bool_)
            head[1:] = front[1:] != front[:-1]
            self.parent[front[head]] = owner[place[head]]
            above = self.parent[front]
            passed = owner[place] != above
            key = above[passed] * places + place[passed]
            level = layout.level[above[passed]]
            for then in np.unique(level):
                waiting[then].append(key[level == then])
        # Batches follow one another by level, and fronts by batch, so the keys of all levels are sorted.
        self.key = np.concatenate(found)
        self.front, self.place = self.key // places, self.key % places
        self.begin = np.searchsorted(self.front, np.arange(count))
        self.position = np.arange(len(self.key)) - self.begin[self.front]

    def address(self, early: Array, late: Array) -> Array:
        """Where the entries of the pattern stand in the panel."""
        layout = self.layout
        front = layout.owner[early]
        column = early - layout.first[front]
        inside = layout.owner[late] == front
        found: Array = layout.block[front] + column * layout.pivots[front] + late - layout.first[front]
        front, column, late = front[~inside], column[~inside], late[~inside]
        listed = np.searchsorted(self.key, front * layout.places + late) - self.begin[front]
        row = np.where(layout.whole[front], late - layout.first[layout.root[front]], listed)
        found[~inside] = layout.below[front] + row * layout.pivots[front] + column
        return found

    def updates(self, device: torch.device) -> list[Updates | None]:
        """Of each batch, from the roots down: the addresses of a front's updates are some of its parent's."""
        layout = self.layout
        found: list[Updates | None] = [None] * len(layout.plan)
        in_parent = self._in_parent()
        kind = np.int32 if layout.length < 2**31 else np.int64
        below: list[Array | None] = [None] * len(layout.plan)
        for batch in reversed(range(len(layout.plan))):
            plan, front = layout.plan[batch], layout.batch_first[batch]
            if not plan.rows:
                continue
            root = self._root(front)
            if root is not None and layout.whole[front]:
                found[batch] = WholeRoot(root)
                continue
            local, place = self._table(batch, in_parent, -1), self._table(batch, self.place, layout.places - 1)
            if root is not None:
                below[batch] = local
                entries = np.argsort(local.ravel(), kind="stable")[np.count_nonzero(local < 0) :]
                pivots = np.maximum(local, 0)
                found[batch] = InRoot(root, *(torch.from_numpy(one).to(device) for one in (pivots, entries)))
                continue
            column, row = np.triu_indices(plan.rows)
            addresses: Array = np.empty((len(plan.members), len(row)), kind)
            each = max(1, ADDRESSES // plan.rows**2)
            for start in range(0, len(plan.members), each):
                part = slice(start, start + each)
                pairs = local[part][:, row], local[part][:, column]
                addresses[part] = self._addresses(front + np.arange(len(plan.members))[part], *pairs, below)
            below[batch] = addresses
            found[batch] = Scattered(torch.from_numpy(addresses).to(device), torch.from_numpy(place).to(device))
        return found

    def _root(self, front: int) -> Root | None:
        layout, root = self.layout, self.layout.root[front]
        if root < 0:
            return None
        return Root(int(layout.block[root]), int(layout.first[root]), int(layout.pivots[root]))

    def _in_parent(self) -> Array:
        """Where each row stands in the parent's front, its pivots first, then its rows."""
        layout = self.layout
        parent = self.parent[self.front]
        listed = np.searchsorted(self.key, parent * layout.places + self.place) - self.begin[parent]
        pivot = layout.owner[self.place] == parent
        found: Array = np.where(pivot, self.place - layout.first[parent], layout.pivots[parent] + listed)
        return found

    def _table(self, batch: int, values: Array, padding: int) -> Array:
        """What each row has, by front and row. Shape (B, u)."""
        plan, front = self.layout.plan[batch], self.layout.batch_first[batch]
        start, stop = np.searchsorted(self.front, [front, front + len(plan.members)])
        table = np.full((len(plan.members), plan.rows), padding)
        table[self.front[start:stop] - front, self.position[start:stop]] = values[start:stop]
        return table

    def _addresses(self, fronts: Array, late: Array, early: Array, below: Sequence[Array | None]) -> Array:
        """Of pairs of places in the parent's front. Shapes: fronts (b,), late, early (b, h) → (b, h)."""
        layout = self.layout
        parent = self.parent[fronts]
        alone = parent == layout.count  # all padding
        parent = np.where(alone, 0, parent)[:, None]
        pivots = layout.pivots[parent]
        row = late - pivots
        inside = layout.block[parent] + early * pivots + late
        found: Array = np.where(late < pivots, inside, layout.below[parent] + row * pivots + early)
        further = (early >= pivots) & (late >= 0)
        if further.any():
            front = np.broadcast_to(parent, further.shape)[further]
            found[further] = _looked_up(layout, below, front, row[further], (early - pivots)[further])
        found[late < 0] = 0
        return found


def _looked_up(layout: _Layout, below: Sequence[Array | None], front: Array, row: Array, column: Array) -> Array:
    """The addresses of some updates of some fronts. Shapes (k,)."""
    found = np.empty(len(front), np.int64)
    batch = layout.batch[front]
    for number in np.unique(batch):
        kept = below[number]
        assert kept is not None  # a front with rows beyond its parent's pivots has a parent that has rows
        now = batch == number
        member = front[now] - layout.batch_first[number]
        root = layout.root[layout.batch_first[number]]
        if root < 0:
            # The lower triangle column by column: before column c stand c of them, of u, u − 1, … numbers.
            later, rows = column[now], layout.rows[layout.batch_first[number]]
            found[now] = kept[member, later * (2 * rows - later + 1) // 2 + row[now] - later]
        else:
            one, other = kept[member, row[now]], kept[member, column[now]]
            block = layout.block[root] + np.minimum(one, other) * layout.pivots[root]
            found[now] = block + np.maximum(one, other)
    return found
