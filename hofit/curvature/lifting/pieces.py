"""The Hessian of a lifted loss, in pieces: second derivatives between nodes, and the maps from parameters to nodes.

With z the nodes and J = dz/dx their maps, H = Jᵀ W J, where W is the Hessian over the nodes of the loss with every map
in it replaced by its multiplier: nodes that are functions of others contribute their own second derivatives, weighted
with the loss's slope there. W falls apart by entries, so a few probes give it whole; J is known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from ...point import Params
from ..proof import probe, refutes
from .maps import Entry, IndexCache, LiftFailed, Matrix, Term, add_transposed, composed, reshaped, restricted
from .products import RULES
from .seconds import FULL, PROOF, WIDEST, Second, SecondDerivatives
from .tape import Pull, Tape, grad, pull_through
from .watch import SMALL, WIDE, Watch

LARGEST_INPUT = 4096
"""Entries that a small node may depend on in no particular pattern."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of H: Σₙ weights[n] · (Σ left terms)ₙ (Σ right terms)ₙᵀ over the parameters; see Second."""

    weights: Tensor
    left: list[Term]
    right: list[Term]
    mirrored: bool


class LiftedLoss:
    """One loss, taken apart at one point.

    ``signature`` says what the trace was like: which functions were called and which nodes they made. ``separable``:
    for traces like this one, ``take_apart`` needs no proof. ``event_dims`` says how many of a node's last
    dimensions interact, for the nodes where any do, and how many of a function's last dimensions, for pairs of nodes;
    ``take_apart`` finds and fills it.

    ``wanted`` are the names whose Hessian the pieces are of; all where None. ``differentiable``: gradient and pieces
    are functions of all leaves, and ``tape`` differentiates what is made of them.
    Raises: LiftFailed where the computation cannot be followed.
    """

    def __init__(
        self,
        leaves: Params,
        evaluate: Callable[[Watch], Tensor],
        cache: IndexCache,
        event_dims: dict[tuple[int, ...], int],
        wanted: Collection[str] | None = None,
        differentiable: bool = False,
    ) -> None:
        self.cache, self.event_dims, self._differentiable = cache, event_dims, differentiable
        watch = Watch(leaves, RULES, cache)
        try:
            self.total = watch.finish(evaluate(watch))
            """The loss as a function of the leaves; shape ()."""
        except Exception as error:  # watching is to blame: the model was computed at this very point before
            raise LiftFailed(f"the model raises when it is watched: {type(error).__name__}: {error}") from error
        if not self.total.requires_grad:
            raise LiftFailed("the loss does not depend on any parameter")
        self.loss = float(self.total.detach())
        self.operations = len(watch.calls)
        """How many of torch's functions were called."""
        self.nodes = watch.nodes
        self.separable = watch.separable
        self.names = {k: node.name for k, node in enumerate(self.nodes) if node.name is not None}
        self.sums: dict[int, list[Term]] = {}
        """Nodes of few numbers, wide sums, and what they are of the parameters: pieces read them as they stand."""
        self.gradient: Params = {}
        """Of the parameters; only after ``take_apart`` with ``prove``, or where ``differentiable``."""
        self.tape = Tape(leaves)
        self._grad = partial(grad, create_graph=differentiable)
        self._leaves = [node.leaf for node in self.nodes]
        self._graphs: list[list[Tensor]] = [[] for _ in self.nodes]
        self._reads = [node.name in wanted if wanted is not None else True for node in self.nodes]
        """Which nodes depend on a wanted parameter."""
        self.signature = watch.signature()
        if differentiable:
            for k, node in enumerate(self.nodes):
                if node.name is None:
                    self.tape.replace(node.leaf, self._pull_of(k))

    def take_apart(self, prove: bool) -> list[Piece]:
        """All of H, in pieces. ``prove``: find the gradient too, hold W against a random probe, and widen rows until
        they agree. Where ``separable`` is False, W is held against the probe in any case.

        Cost: one backward pass a column of each node, through what follows the node only.
        Raises: LiftFailed where the pieces cannot be made to agree.
        """
        try:
            self._differentiate(everything=prove or self._differentiable)
            seconds = SecondDerivatives(
                self._leaves, self._graphs, self._reads, self.event_dims, self.cache, self._differentiable
            ).agreeing(prove or not self.separable)
            maps, self.sums = self._maps()
            pieces = [self._piece(second, maps) for second in seconds if second.weights.numel()]
            read = {term.source for piece in pieces for term in (*piece.left, *piece.right)}
            self.sums = {k: terms for k, terms in self.sums.items() if k in read}
        except RuntimeError as error:  # torch's, of a function that has no second derivative, or of dtypes
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
            gradients = grad(output, self._leaves[:k], seed, create_graph=True)
            sources[k] = [j for j, gradient in enumerate(gradients) if gradient is not None]
            for j, gradient in enumerate(gradients):
                if gradient is not None:
                    before = adjoints[j]
                    if before is not None:
                        own = gradient if self._differentiable else gradient.detach()
                        adjoints[j] = before + own.reshape(-1)
                    if gradient.requires_grad:
                        self._graphs[j].append(gradient)

        add(self.total, len(self._leaves), None)
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
                    adjoints[term.source] = add_transposed(self.cache, target, term, adjoint)
        if everything:
            for k, name in self.names.items():
                total = adjoints[k]
                assert total is not None
                self.gradient[name] = total.view(self._leaves[k].shape)
        for k, node in enumerate(self.nodes):
            read = sources.get(k, []) if node.definition is not None else [term.source for term in node.terms]
            self._reads[k] |= any(self._reads[j] for j in read)

    def _pull_of(self, k: int) -> Pull:
        """What an adjoint of node k adds to those of the leaves that it was made from."""
        node, leaves = self.nodes[k], [node.leaf for node in self.nodes[:k]]
        cache = self.cache  # and not self, which has the tape: a circle would keep every point's graph for a while

        def through_terms(adjoint: Tensor, create_graph: bool) -> list[tuple[Tensor, Tensor]]:
            total = {term.source: leaves[term.source].new_zeros(leaves[term.source].numel()) for term in node.terms}
            for term in node.terms:
                total[term.source] = add_transposed(cache, total[term.source], term, adjoint)
            return [(leaves[source], found.view(leaves[source].shape)) for source, found in total.items()]

        return through_terms if node.definition is None else pull_through(node.definition, leaves)

    # the maps ----------------------------------------------------------------------------------------------------

    def _maps(self) -> tuple[list[list[Term]], dict[int, list[Term]]]:
        """Every node as a linear map of the parameters, its derivative, and of wide sums; what those are."""
        maps: list[list[Term]] = []
        sums: dict[int, list[Term]] = {}
        for k, node in enumerate(self.nodes):
            if not self._reads[k]:
                maps.append([])
                continue
            if node.name is not None:
                maps.append([Entry(k, self.cache.identity(node.leaf.shape, node.leaf.device))])
                continue
            terms = node.terms if node.definition is None else self._slopes(k)
            own = [composed(self.cache, term, inner) for term in terms for inner in maps[term.source]]
            if node.leaf.numel() <= SMALL and any(isinstance(one, Matrix) and len(one.places) >= WIDE for one in own):
                sums[k] = self._through(own, sums)
                own = [Entry(k, self.cache.identity(node.leaf.shape, node.leaf.device))]
            maps.append(own)
        return maps, sums

    def _through(self, terms: Sequence[Term], sums: dict[int, list[Term]]) -> list[Term]:
        """Terms of parameters and of wide sums as terms of the parameters alone."""
        return [
            own
            for term in terms
            for own in (
                [composed(self.cache, term, inner) for inner in sums[term.source]] if term.source in sums else [term]
            )
        ]

    def without_sums(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """The same pieces, as terms of the parameters alone."""
        if not self.sums:
            return pieces
        found = []
        for piece in pieces:
            left = right = self._through(piece.left, self.sums)
            if piece.right is not piece.left:
                right = self._through(piece.right, self.sums)
            found.append(Piece(piece.weights, left, right, piece.mirrored))
        return found

    def _slopes(self, k: int) -> list[Term]:
        """The derivative of a node that is a function of earlier ones: row by row, or whole where one is small."""
        definition = self.nodes[k].definition
        assert definition is not None
        if definition.numel() <= SMALL:
            return self._slopes_of_small(definition, self._leaves[:k])
        vector = probe(definition)
        totals = grad(definition, self._leaves[:k], vector, create_graph=True)
        terms: list[Term] = []
        for j, total in enumerate(totals):
            if total is None or not total.numel() or not self._reads[j]:
                continue
            terms += self._slope(k, j, definition, vector, total.detach())
        return terms

    def _slope(self, k: int, j: int, definition: Tensor, vector: Tensor, total: Tensor) -> list[Term]:
        """d definition / d leaf j; ``total`` is that derivative, transposed, times ``vector``, to hold it against."""
        leaf, shape = self._leaves[j], definition.shape
        dims = self.event_dims.get((k, j), 0)
        while leaf.numel() > SMALL and dims < len(shape):
            columns = prod(shape[len(shape) - dims :])
            rows = shape.numel() // columns
            if columns > WIDEST:
                break
            if leaf.numel() % rows == 0 and leaf.numel() // rows <= WIDEST:
                terms = self._slope_by_rows(j, definition, rows, columns)
                nothing = torch.zeros_like(leaf).view(-1)
                found = sum((add_transposed(self.cache, nothing, t, vector) for t in terms), start=0 * vector.sum())
                if not refutes(found.view(total.shape), total, PROOF):
                    self.event_dims[k, j] = dims
                    return terms
            dims += 1
        if leaf.numel() > FULL:
            raise LiftFailed(f"a tensor of shape {tuple(shape)} depends on one of shape {tuple(leaf.shape)} at large")
        multiplier = torch.zeros_like(definition).requires_grad_()
        (linear,) = grad(definition, leaf, multiplier, create_graph=True)
        if not linear.requires_grad:
            return []
        columns_ = [self._grad(entry, multiplier, materialize=True)[0] for entry in linear.reshape(-1).unbind()]
        places = reshaped(self.cache, leaf, torch.Size((leaf.numel(),)))
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
                index = reshaped(self.cache, leaf, definition.shape)
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
                index = reshaped(self.cache, leaf, definition.shape)
                terms.append(Entry(j, index, whole.diagonal().reshape(definition.shape)))
                continue
            places = reshaped(self.cache, leaf, torch.Size((leaf.numel(),)))
            terms.append(Matrix(j, places, whole.reshape(*definition.shape, leaf.numel())))
        return terms

    def _piece(self, second: Second, maps: list[list[Term]]) -> Piece:
        left = right = [restricted(self.cache, term, second.left) for term in maps[second.u]]
        if second.u != second.v or second.left is not second.right:
            right = [restricted(self.cache, term, second.right) for term in maps[second.v]]
        return Piece(second.weights, left, right, second.mirrored)
