"""Second derivatives between nodes, by few probes: a column of all rows of a node at once.

That a probe gives them whole rests on a guess: entries of a node, or its rows of so many last dimensions, do not
interact. The guess is held against a random probe, and rows are widened until both agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..proof import probe, refutes
from .maps import IndexCache, LiftFailed, reshaped
from .tape import grad
from .watch import SMALL

WIDEST = 16
"""Columns of a node's rows, where entries of a row interact, that are probed at most."""

FULL = 64
"""Entries of a node that are probed one by one at most, where they interact in no particular pattern."""

PROBES = 512
"""Probes of one Hessian at most, each a backward pass through a part of the model: more are not worth it."""

PROOF = 1e-9
"""How far a probe of W may lie from the pieces' own product, relative to the largest: rounding is about 1e-15."""


@dataclass(frozen=True, eq=False)
class Second:
    """Second derivatives between nodes u ≤ v.

    ``weights`` (S) stand between the places ``left`` (S) of u and ``right`` (S) of v, entry by entry. ``mirrored``: the
    transposed piece is meant too.
    """

    u: int
    v: int
    weights: Tensor
    left: Tensor
    right: Tensor
    mirrored: bool


class SecondDerivatives:
    """W: what the second derivatives between nodes are, given the graphs of the first.

    ``graphs[k]`` are gradients by node k, whose sum's derivatives are wanted; ``reads[k]`` says that node k depends on
    a parameter whose Hessian is wanted. ``event_dims[k,]`` is how many of node k's last dimensions interact, where any
    do: it is found and filled here. ``differentiable``: W is a function of the leaves.
    """

    def __init__(
        self,
        leaves: Sequence[Tensor],
        graphs: Sequence[Sequence[Tensor]],
        reads: Sequence[bool],
        event_dims: dict[tuple[int, ...], int],
        cache: IndexCache,
        differentiable: bool,
    ) -> None:
        self._leaves, self._graphs, self._reads = leaves, graphs, reads
        self._event_dims, self._cache, self._differentiable = event_dims, cache, differentiable

    def agreeing(self, prove: bool) -> list[Second]:
        """The second derivatives. ``prove``: rows are widened until nothing is found that stands between them.

        Raises: LiftFailed where that would take too many probes.
        """
        while True:
            try:
                seconds = self._seconds()
            except _Mismatch as mismatch:
                self._match(*mismatch.args)
                continue
            wrong = self._refuted(seconds) if prove else []
            if not wrong:
                return seconds
            for k in wrong:
                self._widen(k)

    def _rows_and_columns(self, k: int) -> tuple[int, int]:
        shape = self._leaves[k].shape
        columns = prod(shape[len(shape) - self._event_dims.get((k,), 0) :])
        return shape.numel() // max(columns, 1), columns

    def _is_full(self, k: int) -> bool:
        return self._leaves[k].numel() <= SMALL or self._rows_and_columns(k)[0] == 1

    def _widen(self, k: int) -> None:
        """One more dimension of a node whose entries interact, or all of them."""
        dims, shape = self._event_dims.get((k,), 0) + 1, self._leaves[k].shape
        if dims > len(shape) or prod(shape[len(shape) - dims :]) > WIDEST:
            if shape.numel() > FULL:
                raise LiftFailed(f"entries of a tensor of shape {tuple(shape)} interact")
            dims = len(shape)
        self._event_dims[k,] = dims

    def _splits(self, k: int) -> list[tuple[int, int]]:
        """(rows, dims) for every way to widen a node, or to leave it."""
        shape, least = self._leaves[k].shape, self._event_dims.get((k,), 0)
        columns = [(prod(shape[len(shape) - dims :]), dims) for dims in range(least, len(shape) + 1)]
        return [(shape.numel() // width, dims) for width, dims in columns if width <= WIDEST]

    def _match(self, u: int, v: int) -> None:
        """Widen two nodes that interact, so that they have as many rows, or the smaller one is probed whole."""
        choices = []
        for one in self._splits(u):
            for other in self._splits(v):
                if one[0] == other[0] > 1:
                    choices.append((one[0], one[1], other[1]))
        if choices:
            _, self._event_dims[u,], self._event_dims[v,] = max(choices)
            return
        small = min(u, v, key=lambda k: self._leaves[k].numel())
        if self._leaves[small].numel() > FULL:
            shapes = " and ".join(str(tuple(self._leaves[k].shape)) for k in (u, v))
            raise LiftFailed(f"tensors of shapes {shapes} interact")
        self._event_dims[small,] = self._leaves[small].dim()

    def _products(self, u: int, seed: Tensor) -> list[Tensor | None]:
        """W · seed, a tensor for each node that depends on a wanted parameter."""
        seeds = [seed.view(graph.shape) for graph in self._graphs[u]]
        asked = [leaf for leaf, reads in zip(self._leaves, self._reads, strict=True) if reads]
        found = iter(grad(self._graphs[u], asked, seeds, create_graph=self._differentiable))
        return [next(found) if reads else None for reads in self._reads]

    def _seconds(self) -> list[Second]:
        found: list[Second] = []
        live = [u for u, graphs in enumerate(self._graphs) if graphs and self._reads[u]]
        probes = sum(self._leaves[u].numel() if self._is_full(u) else self._rows_and_columns(u)[1] for u in live)
        if probes > PROBES:
            raise LiftFailed(f"{probes} probes would be needed")
        for u in live:
            leaf = self._leaves[u]
            found += self._of_small(u, leaf) if self._is_full(u) else self._of_large(u, leaf)
        return found

    def _of_small(self, u: int, leaf: Tensor) -> list[Second]:
        unit = torch.eye(leaf.numel(), dtype=leaf.dtype, device=leaf.device)
        rows = [self._products(u, unit[c]) for c in range(leaf.numel())]
        found = []
        for v, other in enumerate(self._leaves):
            blocks = [row[v] for row in rows]
            if all(block is None for block in blocks):
                continue
            if self._is_full(v):
                if v >= u:
                    flat = [torch.zeros_like(other) if block is None else block for block in blocks]
                    found += self._where_nonzero(u, v, torch.stack([b.reshape(-1) for b in flat]))
                continue
            right = self._cache.identity(other.shape, other.device)
            for c, block in enumerate(blocks):
                if block is not None:
                    left = self._cache.moved(lambda t, c=c: t.new_full((), c).expand(t.shape), right, "place", (c,))
                    found.append(Second(u, v, block, left, right, True))
        return found

    def _where_nonzero(self, u: int, v: int, block: Tensor) -> list[Second]:
        """The entries of a small matrix of second derivatives that are not zero; each pair of places once."""
        if u != v:
            left, right = self._listed(block.nonzero())
            return [Second(u, v, block[left, right], left, right, True)]
        (own,) = self._listed(block.diagonal().nonzero())
        left, right = self._listed(block.triu(1).nonzero())
        return [
            Second(u, u, block.diagonal()[own], own, own, False),
            Second(u, u, block[left, right], left, right, True),
        ]

    def _listed(self, places: Tensor) -> tuple[Tensor, ...]:
        """Places (S, dims), dimension by dimension: the same objects for the same places."""
        numbers = tuple(places.reshape(-1).tolist())
        listed: tuple[Tensor, ...] = self._cache.of("listed", (numbers, places.shape[1]), lambda: places.unbind(1))
        return listed

    def _of_large(self, u: int, leaf: Tensor) -> list[Second]:
        rows, columns = self._rows_and_columns(u)
        found = []
        for c in range(columns):
            seed = torch.ones_like(leaf)
            if columns > 1:
                seed = torch.zeros(rows, columns, dtype=leaf.dtype, device=leaf.device)
                seed[:, c] = 1.0
            for v, value in enumerate(self._products(u, seed)):
                if value is None or self._is_full(v):
                    continue
                rows_v, columns_v = self._rows_and_columns(v)
                if rows_v != rows:
                    if bool(value.any()):
                        raise _Mismatch(u, v)
                    continue
                if v < u:
                    continue
                if columns == columns_v == 1:
                    left = self._cache.identity(leaf.shape, leaf.device)
                    right = reshaped(self._cache, value, leaf.shape)
                    found.append(Second(u, v, value.reshape(leaf.shape), left, right, v > u))
                    continue
                left = self._column(leaf, rows, columns, c)
                for d in range(c if v == u else 0, columns_v):
                    right = self._column(value, rows, columns_v, d)
                    weights = value.reshape(rows, columns_v)[:, d]
                    found.append(Second(u, v, weights, left, right, v > u or d > c))
        return found

    def _column(self, leaf: Tensor, rows: int, columns: int, c: int) -> Tensor:
        whole = self._cache.identity(leaf.shape, leaf.device)
        return self._cache.moved(lambda t: t.reshape(rows, columns)[:, c], whole, "column", (rows, columns, c))

    def _refuted(self, seconds: list[Second]) -> list[int]:
        """Nodes whose part of W · (a probe) is not what the pieces say."""
        probes = [probe(leaf, k).view(-1) for k, leaf in enumerate(self._leaves)]
        live = [k for k, graphs in enumerate(self._graphs) if graphs and self._reads[k]]
        outputs = [graph for k in live for graph in self._graphs[k]]
        seeds = [probes[k].view(graph.shape) for k in live for graph in self._graphs[k]]
        if not outputs:
            return []
        true = grad(outputs, self._leaves, seeds, create_graph=False)
        claimed = [torch.zeros_like(one) for one in probes]
        for second in seconds:
            u, v, w = second.u, second.v, second.weights
            left, right = second.left.reshape(-1), second.right.reshape(-1)
            claimed[u] = claimed[u].index_add(0, left, w.reshape(-1) * probes[v][right])
            if second.mirrored:
                claimed[v] = claimed[v].index_add(0, right, w.reshape(-1) * probes[u][left])
        wrong = []
        for k, found in enumerate(true):
            expected = torch.zeros_like(claimed[k]) if found is None else found.reshape(-1)
            if self._reads[k] and not self._is_full(k) and refutes(claimed[k], expected, PROOF):
                wrong.append(k)
        return wrong


class _Mismatch(Exception):
    """Two nodes (u, v) interact whose rows are not as many."""
