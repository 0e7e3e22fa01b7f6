"""The Hessian of a lifted loss, in pieces: second derivatives between nodes, and the maps from parameters to nodes.

With z the nodes and J = dz/dx their maps, H = Jᵀ W J, where W is the Hessian over the nodes of the loss with every map
in it replaced by its multiplier: nodes that are functions of others contribute their own second derivatives, weighted
with the loss's slope there. W falls apart by entries, so a few probes give it whole; J is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...point import Params
from .tape import Tape
from .watch import SMALL, Entry, IndexCache, Lift, LiftFailed, Matrix, Term, is_identity

WIDEST = 16
"""Columns of a node's rows, where entries of a row interact, that are probed at most."""

FULL = 64
"""Entries of a node that are probed one by one at most, where they interact in no particular pattern."""

PROBES = 512
"""Probes of one Hessian at most, each a backward pass through a part of the model: more are not worth it."""

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

    ``signature`` says what the trace was like: which functions were called and which nodes they made. ``separable``:
    for traces like this one, ``take_apart`` needs no proof. ``events`` says how many of a node's last dimensions
    interact, for the nodes where any do, and how many of a function's last dimensions, for pairs of nodes;
    ``take_apart`` finds and fills it.

    ``wanted`` are the names whose Hessian the pieces are of; all where None. ``differentiable``: gradient and pieces
    are functions of all leaves, and ``tape`` differentiates what is made of them.
    Raises: LiftFailed where the computation cannot be followed.
    """

    def __init__(
        self,
        leaves: Params,
        evaluate: Callable[[Lift], Tensor],
        cache: IndexCache,
        events: dict[tuple[int, ...], int],
        wanted: Collection[str] | None = None,
        differentiable: bool = False,
    ) -> None:
        self.cache, self.events, self._differentiable = cache, events, differentiable
        lift = Lift(leaves, cache)
        try:
            self._total = lift.finish(evaluate(lift))
        except Exception as error:  # at this very point the model has been computed before
            raise LiftFailed(f"the model raises when it is watched: {type(error).__name__}: {error}") from error
        if not self._total.requires_grad:
            raise LiftFailed("the loss does not depend on any parameter")
        self.loss = float(self._total.detach())
        self.nodes = lift.nodes
        self.separable = lift.separable
        self.names = {k: node.name for k, node in enumerate(self.nodes) if node.name is not None}
        self.gradient: Params = {}
        """Of the parameters; only after ``take_apart`` with ``prove``, or where ``differentiable``."""
        self.tape = Tape(leaves)
        self._leaves = [node.leaf for node in self.nodes]
        self._graphs: list[list[Tensor]] = [[] for _ in self.nodes]
        self._reads = [node.name in wanted if wanted is not None else True for node in self.nodes]
        """Which nodes depend on a wanted parameter."""
        self.signature = _digest(lift)
        if differentiable:
            for k, node in enumerate(self.nodes):
                if node.name is None:
                    self.tape.replace(node.leaf, self._pull_of(k))

    @property
    def total(self) -> Tensor:
        """The loss as a function of the leaves; shape ()."""
        return self._total

    def take_apart(self, prove: bool) -> list[Piece]:
        """All of H, in pieces. ``prove``: find the gradient too, hold W against a random probe, and widen rows until
        they agree. Where ``separable`` is False, W is held against the probe in any case.

        Cost: one backward pass a column of each node, through what follows the node only.
        Raises: LiftFailed where the pieces cannot be made to agree.
        """
        try:
            self._differentiate(everything=prove or self._differentiable)
            seconds = self._agreeing(prove or not self.separable)
            maps = self._maps()
            pieces = [self._piece(second, maps) for second in seconds if second.weights.numel()]
        except RuntimeError as error:  # a function that cannot be differentiated twice, dtypes that do not fit
            raise LiftFailed(str(error)) from error
        if not self._differentiable:
            self._graphs, self._leaves = [], []
        return pieces

    # first derivatives -------------------------------------------------------------------------------------------

    def _differentiate(self, everything: bool) -> None:
        """Keeps the graphs that W is read from: the gradients of the loss, and of each function times its multiplier.

        The multiplier of a node is d loss / d node, total. The parameters' own are the gradient, found if
        ``everything`` is asked for: they are not needed for W.
        """
        needed = [everything] * len(self.nodes)
        for k, node in enumerate(self.nodes):
            needed[k] |= node.definition is not None or any(needed[term.source] for term in node.terms)
        adjoints = [leaf.new_zeros(leaf.numel()) if n else None for leaf, n in zip(self._leaves, needed, strict=True)]
        sources: dict[int, list[int]] = {}

        def add(output: Tensor, k: int, seed: Tensor | None) -> None:
            gradients = torch.autograd.grad(output, self._leaves[:k], seed, create_graph=True, allow_unused=True)
            sources[k] = [j for j, gradient in enumerate(gradients) if gradient is not None]
            for j, gradient in enumerate(gradients):
                if gradient is not None:
                    before = adjoints[j]
                    if before is not None:
                        own = gradient if self._differentiable else gradient.detach()
                        adjoints[j] = before + own.reshape(-1)
                    if gradient.requires_grad:
                        self._graphs[j].append(gradient)

        add(self._total, len(self._leaves), None)
        for k in reversed(range(len(self.nodes))):
            node, flat = self.nodes[k], adjoints[k]
            if flat is None:
                continue
            adjoint = flat.view(node.leaf.shape)
            if node.definition is not None:
                # A multiplier is held where W is differentiated: W is the Hessian of loss + multiplier · function.
                add(node.definition, k, self.tape.cut(adjoint) if self._differentiable else adjoint)
            for term in node.terms:
                target = adjoints[term.source]
                if target is not None:
                    adjoints[term.source] = self._through(term, adjoint, target)
        if everything:
            for k, name in self.names.items():
                total = adjoints[k]
                assert total is not None
                self.gradient[name] = total.view(self._leaves[k].shape)
        for k, node in enumerate(self.nodes):
            read = sources.get(k, []) if node.definition is not None else [term.source for term in node.terms]
            self._reads[k] |= any(self._reads[j] for j in read)

    def _pull_of(self, k: int) -> Callable[[Tensor, bool], list[tuple[Tensor, Tensor]]]:
        """What an adjoint of node k adds to those of the leaves that it was made from."""
        node, leaves = self.nodes[k], [node.leaf for node in self.nodes[:k]]

        def through_function(adjoint: Tensor, create_graph: bool) -> list[tuple[Tensor, Tensor]]:
            assert node.definition is not None
            found = torch.autograd.grad(
                node.definition, leaves, adjoint, create_graph=create_graph, retain_graph=True, allow_unused=True
            )
            return [(leaf, gradient) for leaf, gradient in zip(leaves, found, strict=True) if gradient is not None]

        def through_terms(adjoint: Tensor, create_graph: bool) -> list[tuple[Tensor, Tensor]]:
            zero = {term.source: leaves[term.source].new_zeros(leaves[term.source].numel()) for term in node.terms}
            for term in node.terms:
                zero[term.source] = self._through(term, adjoint, zero[term.source])
            return [(leaves[source], total.view(leaves[source].shape)) for source, total in zero.items()]

        return through_terms if node.definition is None else through_function

    def _through(self, term: Term, adjoint: Tensor, target: Tensor) -> Tensor:
        """target + termᵀ adjoint. Shape of target: (n,), that of the term's source, flat."""
        if isinstance(term, Matrix):
            flat = term.matrix.reshape(-1, len(term.places))
            return target.index_add(0, term.places, term.factor * (adjoint.reshape(-1) @ flat))
        value = adjoint if term.coefficient is None else adjoint * term.coefficient
        index, value = summed(self.cache, term.index, value)
        return accumulated(self.cache, target, index, value * term.factor)

    # second derivatives ------------------------------------------------------------------------------------------

    def _rows_and_columns(self, k: int) -> tuple[int, int]:
        shape = self._leaves[k].shape
        columns = prod(shape[len(shape) - self.events.get((k,), 0) :])
        return shape.numel() // max(columns, 1), columns

    def _is_full(self, k: int) -> bool:
        return self._leaves[k].numel() <= SMALL or self._rows_and_columns(k)[0] == 1

    def _agreeing(self, prove: bool) -> list[Second]:
        """The second derivatives; rows are widened until nothing is found that stands between them."""
        while True:
            try:
                seconds = self._seconds()
            except _Mismatch as mismatch:
                self._match(*mismatch.nodes)
                continue
            wrong = self._refuted(seconds) if prove else []
            if not wrong:
                return seconds
            for k in wrong:
                self._widen(k)

    def _widen(self, k: int) -> None:
        """One more dimension of a node whose entries interact, or all of them."""
        events, shape = self.events.get((k,), 0) + 1, self._leaves[k].shape
        if events > len(shape) or prod(shape[len(shape) - events :]) > WIDEST:
            if shape.numel() > FULL:
                raise LiftFailed(f"entries of a tensor of shape {tuple(shape)} interact")
            events = len(shape)
        self.events[k,] = events

    def _splits(self, k: int) -> list[tuple[int, int]]:
        """(rows, events) for every way to widen a node, or to leave it."""
        shape, least = self._leaves[k].shape, self.events.get((k,), 0)
        columns = [(prod(shape[len(shape) - events :]), events) for events in range(least, len(shape) + 1)]
        return [(shape.numel() // width, events) for width, events in columns if width <= WIDEST]

    def _match(self, u: int, v: int) -> None:
        """Widen two nodes that interact, so that they have as many rows, or the smaller one is probed whole."""
        choices = []
        for one in self._splits(u):
            for other in self._splits(v):
                if one[0] == other[0] > 1:
                    choices.append((one[0], one[1], other[1]))
        if choices:
            _, self.events[u,], self.events[v,] = max(choices)
            return
        small = min(u, v, key=lambda k: self._leaves[k].numel())
        if self._leaves[small].numel() > FULL:
            shapes = " and ".join(str(tuple(self._leaves[k].shape)) for k in (u, v))
            raise LiftFailed(f"tensors of shapes {shapes} interact")
        self.events[small,] = self._leaves[small].dim()

    def _products(self, u: int, seed: Tensor) -> list[Tensor | None]:
        """W · seed, a tensor for each node that depends on a wanted parameter."""
        seeds = [seed.view(graph.shape) for graph in self._graphs[u]]
        asked = [leaf for leaf, reads in zip(self._leaves, self._reads, strict=True) if reads]
        found = iter(self._grad(self._graphs[u], asked, seeds))
        return [next(found) if reads else None for reads in self._reads]

    def _grad(self, outputs: Any, inputs: Any, seeds: Any = None, materialize: bool = False) -> tuple[Any, ...]:
        """torch.autograd.grad, differentiable where the pieces are to be."""
        found: tuple[Any, ...] = torch.autograd.grad(
            outputs,
            inputs,
            seeds,
            retain_graph=True,
            create_graph=self._differentiable,
            allow_unused=True,
            materialize_grads=materialize,
        )
        return found

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
            right = self.cache.identity(other.shape, other.device)
            for c, block in enumerate(blocks):
                if block is not None:
                    left = self.cache.moved(lambda t, c=c: t.new_full((), c).expand(t.shape), right, "place", (c,))
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
        listed: tuple[Tensor, ...] = self.cache.of("listed", (numbers, places.shape[1]), lambda: places.unbind(1))
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
        signs = [_signs(leaf, seed=k).view(-1) for k, leaf in enumerate(self._leaves)]
        live = [k for k, graphs in enumerate(self._graphs) if graphs and self._reads[k]]
        outputs = [graph for k in live for graph in self._graphs[k]]
        seeds = [signs[k].view(graph.shape) for k in live for graph in self._graphs[k]]
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
            if self._reads[k] and not self._is_full(k) and not _close(claimed[k], expected):
                wrong.append(k)
        return wrong

    # the maps ----------------------------------------------------------------------------------------------------

    def _maps(self) -> list[list[Term]]:
        """Every node as a linear map of the parameters: its derivative."""
        maps: list[list[Term]] = []
        for k, node in enumerate(self.nodes):
            if not self._reads[k]:
                maps.append([])
                continue
            if node.name is not None:
                maps.append([Entry(k, self.cache.identity(node.leaf.shape, node.leaf.device))])
                continue
            terms = node.terms if node.definition is None else self._slopes(k)
            maps.append([self._composed(term, inner) for term in terms for inner in maps[term.source]])
        return maps

    def _slopes(self, k: int) -> list[Term]:
        """The derivative of a node that is a function of earlier ones: row by row, or whole where one is small."""
        definition = self.nodes[k].definition
        assert definition is not None
        if definition.numel() <= SMALL:
            return self._slopes_of_small(definition, self._leaves[:k])
        probe = _signs(definition)
        totals = torch.autograd.grad(
            definition, self._leaves[:k], probe, create_graph=True, retain_graph=True, allow_unused=True
        )
        terms: list[Term] = []
        for j, total in enumerate(totals):
            if total is None or not total.numel() or not self._reads[j]:
                continue
            terms += self._slope(k, j, definition, probe, total.detach())
        return terms

    def _slope(self, k: int, j: int, definition: Tensor, probe: Tensor, total: Tensor) -> list[Term]:
        """d definition / d leaf j; ``total`` is that derivative, transposed, times ``probe``, to hold it against."""
        leaf, shape = self._leaves[j], definition.shape
        events = self.events.get((k, j), 0)
        while leaf.numel() > SMALL and events < len(shape):
            columns = prod(shape[len(shape) - events :])
            rows = shape.numel() // columns
            if columns > WIDEST:
                break
            if leaf.numel() % rows == 0 and leaf.numel() // rows <= WIDEST:
                terms = self._slope_by_rows(j, definition, rows, columns)
                found = sum(
                    (self._through(t, probe, torch.zeros_like(leaf).view(-1)) for t in terms), start=0 * probe.sum()
                )
                if _close(found.view(total.shape), total):
                    self.events[k, j] = events
                    return terms
            events += 1
        if leaf.numel() > FULL:
            raise LiftFailed(f"a tensor of shape {tuple(shape)} depends on one of shape {tuple(leaf.shape)} at large")
        multiplier = torch.zeros_like(definition).requires_grad_()
        (linear,) = torch.autograd.grad(definition, leaf, multiplier, create_graph=True, retain_graph=True)
        if not linear.requires_grad:
            return []
        columns_ = [self._grad(entry, multiplier, materialize=True)[0] for entry in linear.reshape(-1).unbind()]
        places = self._reshaped(leaf, torch.Size((leaf.numel(),)))
        return [Matrix(j, places, torch.stack(columns_, -1))]

    def _slope_by_rows(self, j: int, definition: Tensor, rows: int, columns: int) -> list[Term]:
        """d definition / d leaf j where row i of the one depends on row i of the other only."""
        leaf = self._leaves[j]
        inner = leaf.numel() // rows
        found = []
        for c in range(columns):
            seed = definition.new_zeros(rows, columns)
            seed[:, c] = 1.0
            (slope,) = self._grad(definition, leaf, seed.view(definition.shape), materialize=True)
            found.append(slope.reshape(rows, inner))
        slopes = torch.stack(found, 1)
        whole = self.cache.identity(leaf.shape, leaf.device)
        terms: list[Term] = []
        for d in range(inner):
            index = self.cache.moved(
                lambda t, d=d: t.reshape(rows, inner)[:, d, None].expand(rows, columns).reshape(definition.shape),
                whole,
                "of the row",
                (rows, inner, columns, d, tuple(definition.shape)),
            )
            if inner == 1 and columns == 1:
                index = self._reshaped(leaf, definition.shape)
            terms.append(Entry(j, index, slopes[..., d].reshape(definition.shape)))
        return terms

    def _slopes_of_small(self, definition: Tensor, inputs: list[Tensor]) -> list[Term]:
        """Entry by entry. A derivative that is diagonal, now, is one entry of the source an entry."""
        rows = [self._grad(entry, inputs) for entry in definition.reshape(-1).unbind()]
        terms: list[Term] = []
        for j, leaf in enumerate(inputs):
            parts = [row[j] for row in rows]
            if all(part is None for part in parts) or not leaf.numel() or not self._reads[j]:
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


class _Mismatch(Exception):
    """Two nodes interact whose rows are not as many."""

    def __init__(self, u: int, v: int) -> None:
        super().__init__()
        self.nodes = (u, v)


def _digest(lift: Lift) -> str:
    """What a trace was like, whatever its numbers were: the same in every process."""
    nodes = [
        (tuple(node.leaf.shape), node.definition is None, [(type(t).__name__, t.source) for t in node.terms])
        for node in lift.nodes
    ]
    return hashlib.sha256(repr((lift.calls, nodes)).encode()).hexdigest()


def _signs(like: Tensor, seed: int = 0) -> Tensor:
    """Random signs, the same at every call; of the shape of ``like``."""
    generator = torch.Generator().manual_seed(5 + seed)
    return (2 * torch.randint(0, 2, like.shape, generator=generator) - 1).to(like.detach())


def _close(found: Tensor, expected: Tensor) -> bool:
    """Whether two tensors agree up to rounding; where the second is not finite nothing can be said."""
    if not expected.numel() or not bool(torch.isfinite(expected).all()):
        return True
    scale = torch.maximum(expected.abs().max(), found.abs().max())
    tolerance = max(PROOF, 1e3 * torch.finfo(expected.dtype).eps)
    return bool((expected - found).abs().max() <= tolerance * scale)


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


def _taken(tensor: Tensor, places: Tensor) -> Tensor:
    """tensor.flat[places], as an expanded view where all places are one."""
    if all(stride == 0 for stride, size in zip(places.stride(), places.shape, strict=True) if size > 1):
        place = int(places.reshape(-1)[0])
        return tensor.reshape(-1)[place].expand(places.shape)
    return tensor.reshape(-1)[places]
