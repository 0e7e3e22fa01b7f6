"""The Hessian of a lifted loss, in pieces: second derivatives between nodes, and the maps from parameters to nodes.

With z the nodes and J = dz/dx their maps, H = Jᵀ W J, where W is the Hessian over the nodes of the loss with every map
in it replaced by its multiplier: nodes that are functions of others contribute their own second derivatives, weighted
with the loss's slope there. W falls apart by entries, so a few probes give it whole; J is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..point import Params
from .lift import Entry, IndexCache, Lift, LiftFailed, Matrix, Term

FULL = 8
"""Nodes of at most so many entries are probed entry by entry: whatever they touch, of whatever shape, is found."""

WIDEST = 16
"""Columns of a node's rows, where entries of a row interact, that are probed at most."""

LARGEST_INPUT = 4096
"""Entries that a small node may depend on in no particular pattern."""

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


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of H: Σₙ weights[n] · (Σ left terms)ₙ (Σ right terms)ₙᵀ over the parameters; see Second."""

    weights: Tensor
    left: list[Term]
    right: list[Term]
    mirrored: bool


class Lifted:
    """One loss, taken apart at one point.

    ``gradient`` is that of the parameters; ``signature`` says what the trace was like. ``events`` says how many of a
    node's last dimensions interact, for the nodes where any do; ``take_apart`` finds and fills it.
    Raises: LiftFailed where the computation cannot be followed.
    """

    def __init__(
        self, leaves: Params, evaluate: Callable[[Lift], Tensor], cache: IndexCache, events: dict[int, int]
    ) -> None:
        self.cache, self.events = cache, events
        lift = Lift(leaves, cache)
        loss = lift.finish(evaluate(lift))
        if not loss.requires_grad:
            raise LiftFailed("the loss does not depend on any parameter")
        self.loss = float(loss.detach())
        self.nodes = lift.nodes
        self.names = {k: node.name for k, node in enumerate(self.nodes) if node.name is not None}
        self._leaves = [node.leaf for node in self.nodes]
        self._graphs: list[list[Tensor]] = [[] for _ in self.nodes]
        adjoints = self._differentiate(loss)
        self.gradient: Params = {name: adjoints[k].reshape(self._leaves[k].shape) for k, name in self.names.items()}
        self.signature = tuple(
            (tuple(node.leaf.shape), node.definition is None, tuple((type(t).__name__, t.source) for t in node.terms))
            for node in self.nodes
        )

    def take_apart(self, prove: bool) -> list[Piece]:
        """All of H, in pieces. ``prove``: hold W against a random probe, and widen rows until they agree.

        Cost: one backward pass a column of each node, through what follows the node only.
        Raises: LiftFailed where the pieces cannot be made to agree.
        """
        seconds = self._seconds()
        while prove:
            wrong = self._refuted(seconds)
            if not wrong:
                break
            for k in wrong:
                events, shape = self.events.get(k, 0) + 1, self._leaves[k].shape
                if events > len(shape) or prod(shape[len(shape) - events :]) > WIDEST:
                    raise LiftFailed(f"entries of a tensor of shape {tuple(shape)} interact")
                self.events[k] = events
            seconds = self._seconds()
        maps = self._maps()
        pieces = [self._piece(second, maps) for second in seconds if second.weights.numel()]
        self._graphs, self._leaves = [], []
        return pieces

    # first derivatives -------------------------------------------------------------------------------------------

    def _differentiate(self, loss: Tensor) -> list[Tensor]:
        """d loss / d node, total, for every node; keeps the graphs that W is read from."""
        adjoints = [torch.zeros(leaf.numel(), dtype=leaf.dtype, device=leaf.device) for leaf in self._leaves]

        def add(output: Tensor, k: int, seed: Tensor | None) -> None:
            gradients = torch.autograd.grad(output, self._leaves[:k], seed, create_graph=True, allow_unused=True)
            for j, gradient in enumerate(gradients):
                if gradient is not None:
                    adjoints[j] = adjoints[j] + gradient.detach().reshape(-1)
                    if gradient.requires_grad:
                        self._graphs[j].append(gradient)

        add(loss, len(self._leaves), None)
        for k in reversed(range(len(self.nodes))):
            node = self.nodes[k]
            adjoint = adjoints[k].view(node.leaf.shape)
            if node.definition is not None:
                add(node.definition, k, adjoint)
            for term in node.terms:
                target = adjoints[term.source]
                if isinstance(term, Matrix):
                    flat = term.matrix.reshape(-1, len(term.places))
                    target = target.index_add(0, term.places, term.factor * (adjoint.reshape(-1) @ flat))
                else:
                    value = adjoint if term.coefficient is None else adjoint * term.coefficient
                    index, value = summed(self.cache, term.index, value)
                    target = accumulated(self.cache, target, index, value * term.factor)
                adjoints[term.source] = target
        return adjoints

    # second derivatives ------------------------------------------------------------------------------------------

    def _rows_and_columns(self, k: int) -> tuple[int, int]:
        shape = self._leaves[k].shape
        columns = prod(shape[len(shape) - self.events.get(k, 0) :])
        return shape.numel() // max(columns, 1), columns

    def _is_full(self, k: int) -> bool:
        return self._leaves[k].numel() <= FULL or self._rows_and_columns(k)[0] == 1

    def _products(self, u: int, seed: Tensor) -> tuple[Tensor | None, ...]:
        seeds = [seed.view(graph.shape) for graph in self._graphs[u]]
        return torch.autograd.grad(self._graphs[u], self._leaves, seeds, retain_graph=True, allow_unused=True)

    def _seconds(self) -> list[Second]:
        found: list[Second] = []
        for u, leaf in enumerate(self._leaves):
            if not self._graphs[u]:
                continue
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
                    found.append(self._where_nonzero(u, v, torch.stack([b.reshape(-1) for b in flat])))
                continue
            right = self.cache.identity(other.shape, other.device)
            for c, block in enumerate(blocks):
                if block is not None:
                    left = self.cache.moved(lambda t, c=c: t.new_full((), c).expand(t.shape), right, "place", (c,))
                    found.append(Second(u, v, block, left, right, True))
        return found

    def _where_nonzero(self, u: int, v: int, block: Tensor) -> Second:
        """The entries of a small matrix of second derivatives that are not zero."""
        places = tuple(block.nonzero().reshape(-1).tolist())
        left, right = self.cache.of(
            "nonzero", (places,), lambda: torch.tensor(places, dtype=torch.long).view(-1, 2).unbind(1)
        )
        return Second(u, v, block[left, right], left, right, v > u)

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
                        shapes = f"{tuple(leaf.shape)} and {tuple(value.shape)}"
                        raise LiftFailed(f"tensors of shapes {shapes} interact")
                    continue
                if v < u:
                    continue
                if columns == columns_v == 1:
                    left = self.cache.identity(leaf.shape, leaf.device)
                    right = self._reshaped(value, leaf.shape)
                    found.append(Second(u, v, value.reshape(leaf.shape), left, right, v > u))
                    continue
                left = self._column(leaf, rows, columns, c)
                for d in range(c if v == u else 0, columns_v):
                    right = self._column(value, rows, columns_v, d)
                    weights = value.reshape(rows, columns_v)[:, d]
                    found.append(Second(u, v, weights, left, right, v > u or d > c))
        return found

    def _column(self, leaf: Tensor, rows: int, columns: int, c: int) -> Tensor:
        whole = self.cache.identity(leaf.shape, leaf.device)
        return self.cache.moved(lambda t: t.reshape(rows, columns)[:, c], whole, "column", (rows, columns, c))

    def _refuted(self, seconds: list[Second]) -> list[int]:
        """Nodes whose part of W · (random signs) is not what the pieces say."""
        generator = torch.Generator().manual_seed(5)
        signs = [
            (2.0 * torch.randint(0, 2, (leaf.numel(),), generator=generator) - 1).to(leaf) for leaf in self._leaves
        ]
        outputs = [graph for graphs in self._graphs for graph in graphs]
        seeds = [signs[k].view(graph.shape) for k, graphs in enumerate(self._graphs) for graph in graphs]
        if not outputs:
            return []
        true = torch.autograd.grad(outputs, self._leaves, seeds, retain_graph=True, allow_unused=True)
        claimed = [torch.zeros_like(sign) for sign in signs]
        for second in seconds:
            u, v, w = second.u, second.v, second.weights
            left, right = second.left.reshape(-1), second.right.reshape(-1)
            claimed[u] = claimed[u].index_add(0, left, w.reshape(-1) * signs[v][right])
            if second.mirrored:
                claimed[v] = claimed[v].index_add(0, right, w.reshape(-1) * signs[u][left])
        wrong = []
        for k, found in enumerate(true):
            expected = torch.zeros_like(claimed[k]) if found is None else found.reshape(-1)
            if not expected.numel():
                continue
            scale = float(torch.maximum(expected.abs().max(), claimed[k].abs().max()))
            tolerance = max(PROOF, 1e3 * torch.finfo(expected.dtype).eps)
            if not float((expected - claimed[k]).abs().max()) <= tolerance * scale and not self._is_full(k):
                wrong.append(k)
        return wrong

    # the maps ----------------------------------------------------------------------------------------------------

    def _maps(self) -> list[list[Term]]:
        """Every node as a linear map of the parameters: its derivative."""
        maps: list[list[Term]] = []
        for k, node in enumerate(self.nodes):
            if node.name is not None:
                maps.append([Entry(k, self.cache.identity(node.leaf.shape, node.leaf.device))])
                continue
            terms = node.terms if node.definition is None else self._slopes(k)
            maps.append([self._composed(term, inner) for term in terms for inner in maps[term.source]])
        return maps

    def _slopes(self, k: int) -> list[Term]:
        """The derivative of a node that is a function of earlier ones: entry by entry, or whole where it is small."""
        definition = self.nodes[k].definition
        assert definition is not None
        inputs = self._leaves[:k]
        if definition.numel() > FULL:
            slopes = torch.autograd.grad(definition.sum(), inputs, retain_graph=True, allow_unused=True)
            terms: list[Term] = []
            for j, slope in enumerate(slopes):
                if slope is None or not slope.numel():
                    continue
                if slope.numel() != definition.numel():
                    raise LiftFailed(f"a tensor of shape {tuple(definition.shape)} is no elementwise function")
                index = self._reshaped(slope, definition.shape)
                terms.append(Entry(j, index, slope.reshape(definition.shape)))
            return terms
        rows = [
            torch.autograd.grad(entry, inputs, retain_graph=True, allow_unused=True)
            for entry in definition.reshape(-1).unbind()
        ]
        terms = []
        for j, leaf in enumerate(inputs):
            parts = [row[j] for row in rows]
            if all(part is None for part in parts):
                continue
            if leaf.numel() > LARGEST_INPUT:
                raise LiftFailed(f"a tensor of shape {tuple(definition.shape)} depends on {leaf.numel()} numbers")
            whole = torch.stack([torch.zeros_like(leaf) if p is None else p for p in parts])
            whole = whole.reshape(definition.numel(), leaf.numel())
            if leaf.numel() == definition.numel() and not bool((whole - whole.diagonal().diag()).any()):
                index = self._reshaped(leaf, definition.shape)
                terms.append(Entry(j, index, whole.diagonal().reshape(definition.shape)))
                continue
            places = self._reshaped(leaf, torch.Size((leaf.numel(),)))
            terms.append(Matrix(j, places, whole.reshape(*definition.shape, leaf.numel())))
        return terms

    def _reshaped(self, tensor: Tensor, shape: torch.Size) -> Tensor:
        """The flat places of a tensor's entries, in another shape."""
        whole = self.cache.identity(tensor.shape, tensor.device)
        if tensor.shape == shape:
            return whole
        return self.cache.moved(lambda t: t.reshape(shape), whole, "as", (tuple(shape),))

    def _composed(self, outer: Term, inner: Term) -> Term:
        """outer ∘ inner: what an entry of the later node gets from the parameters through the earlier one."""
        factor = outer.factor * inner.factor
        if isinstance(outer, Entry) and isinstance(inner, Entry):
            whole = self.cache.identity(inner.index.shape, inner.index.device)
            index, coefficient = outer.index, outer.coefficient
            if inner.index is not whole:
                index = self.cache.moved(lambda t: inner.index.reshape(-1)[t], outer.index, "through", (inner.index,))
            if inner.coefficient is not None:
                taken = inner.coefficient
                if outer.index is not whole:
                    taken = inner.coefficient.reshape(-1)[outer.index]
                coefficient = taken if coefficient is None else taken * coefficient
            return Entry(inner.source, index, coefficient, factor)
        if isinstance(outer, Entry):
            assert isinstance(inner, Matrix)
            rows = inner.matrix.reshape(-1, len(inner.places))[outer.index]
            if outer.coefficient is not None:
                rows = rows * outer.coefficient[..., None]
            return Matrix(inner.source, inner.places, rows, factor)
        if isinstance(inner, Entry):
            places = self.cache.moved(lambda t: inner.index.reshape(-1)[t], outer.places, "through", (inner.index,))
            matrix = outer.matrix
            if inner.coefficient is not None:
                matrix = matrix * inner.coefficient.reshape(-1)[outer.places]
            return Matrix(inner.source, places, matrix, factor)
        flat = inner.matrix.reshape(-1, len(inner.places))
        return Matrix(inner.source, inner.places, outer.matrix @ flat[outer.places], factor)

    def _piece(self, second: Second, maps: list[list[Term]]) -> Piece:
        u, v = second.u, second.v
        left = [self._at(term, second.left) for term in maps[u]]
        right = left if u == v and second.left is second.right else [self._at(term, second.right) for term in maps[v]]
        return Piece(second.weights, left, right, second.mirrored)

    def _at(self, term: Term, places: Tensor) -> Term:
        """The term at some places of its node."""
        if isinstance(term, Matrix):
            flat = term.matrix.reshape(-1, len(term.places))
            if places is self.cache.identity(places.shape, places.device):
                return Matrix(term.source, term.places, flat, term.factor)
            return Matrix(term.source, term.places, flat[places.reshape(-1)], term.factor)
        if places is self.cache.identity(term.index.shape, places.device):
            return term
        index = self.cache.moved(lambda t: _taken(t, places), term.index, "at", (places,))
        coefficient = None if term.coefficient is None else _taken(term.coefficient, places)
        return Entry(term.source, index, coefficient, term.factor)


def summed(cache: IndexCache, index: Tensor, value: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Sum ``value`` over the dimensions along which no index changes; (index, *others, value) without them."""
    indices = (index, *others)
    dims = [d for d in range(index.dim()) if all(i.stride(d) == 0 for i in indices) and index.shape[d] > 1]
    if not dims:
        return (*indices, value)
    narrowed = [
        cache.moved(lambda t: t[tuple(0 if d in dims else slice(None) for d in range(t.dim()))], i, "narrow", (dims,))
        for i in indices
    ]
    return (*narrowed, value.sum(dims))


def accumulated(cache: IndexCache, target: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """target + Σ value at index; shape of target (n,)."""
    if value.numel() == len(target) and is_identity(cache, index):
        return target + value.reshape(-1)
    if value.numel() == 1:
        return target.index_add(0, index.reshape(-1), value.reshape(-1))
    return target.index_add(0, index.reshape(-1), value.expand(index.shape).reshape(-1))


def is_identity(cache: IndexCache, index: Tensor) -> bool:
    """Whether an index map is 0, 1, 2, …"""
    if index is cache.identity(index.shape, index.device):
        return True
    flat = cache.identity(torch.Size((index.numel(),)), index.device)
    return bool(cache.of("identity", (index,), lambda: bool((index.reshape(-1) == flat).all())))


def _taken(tensor: Tensor, places: Tensor) -> Tensor:
    """tensor.flat[places], as an expanded view where all places are one."""
    if all(stride == 0 for stride, size in zip(places.stride(), places.shape, strict=True) if size > 1):
        place = int(places.reshape(-1)[0])
        return tensor.reshape(-1)[place].expand(places.shape)
    return tensor.reshape(-1)[places]
