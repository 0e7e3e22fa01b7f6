"""Watch a model compute its loss, and cut the computation at the linear maps through which it reads its parameters.

A likelihood reads its latents through maps that are linear and known: an index (``theta[person]``), a constant matrix
(``X @ beta``), a broadcast over a plate, sums and multiples of these. Behind such a map stands a fresh leaf: a *node*
z = Σ c · source[index] + constant. What the loss makes of its nodes falls apart entry by entry, so that one probe a
node gives the second derivatives of every observation at once; the maps are known and need no derivatives.

Source: Griewank & Toint (1982), "On the unconstrained optimization of partially separable functions".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...point import Params
from .functions import (
    DIVIDES,
    ELEMENTWISE,
    IDENTITY_MOVES,
    IN_PLACE,
    LINEAR,
    MOVES,
    PROPERTIES,
    TIMES,
    UNARY,
    VALUES_ONLY,
)
from .maps import Affine, Entry, IndexCache, LiftFailed, Matrix, Node, Term, broadcast_shape, is_identity

SMALL = 8
"""Nodes of at most so many entries are probed entry by entry: whatever they touch, of whatever shape, is found."""

WIDE = 64
"""Entries that one number is a sum of from which on it is kept as a sum: where it is broadcast, all would read all."""

TOGETHER = 64
"""Operands of an elementwise function with at most so many results stay what they are: their entries may interact."""

# How an opaque tensor depends on the entries of the nodes that are not small; each kind includes the ones before it.
CONSTANT = 0  # not at all
ENTRIES = 1  # its k-th entry on the k-th entries
SINGLE = 2  # each entry on the k-th entries, for some k
ADDITIVE = 3  # each entry is a sum of functions of k-th entries
MIXED = 4  # in any way

Rule = Callable[["Watch", Callable[..., Any], str, Any, Any], Any]
"""(who watches, a function of torch, its name, args, kwargs) → the result as a known tensor, or NotImplemented where
the function is not linear in what is known."""


class Watch(TorchFunctionMode):
    """Use as a context around one evaluation of the loss; then ``nodes`` holds what was found, in order of making.

    ``separable``: what was computed shows that second derivatives stand between equal places of nodes only, whatever
    the numbers are; else a probe has to tell, at each point. ``calls`` are the names of all functions called.
    ``rules`` say what becomes of a linear map under a function; whatever has none cuts the computation.
    Raises: LiftFailed, out of the model, where a tensor is written in place in a way that cannot be followed.
    """

    def __init__(self, leaves: Params, rules: Mapping[str, Rule], cache: IndexCache | None = None) -> None:
        super().__init__()
        self._rules = rules
        self.nodes: list[Node] = []
        self.cache = cache or IndexCache()
        self.cache.begin()
        self.separable = True
        self.calls: list[str] = []
        self._failure: LiftFailed | None = None
        self._known: dict[int, tuple[Tensor, Affine]] = {}
        self._cuts: dict[int, tuple[Tensor, Tensor]] = {}
        self._expanded: dict[tuple[int, torch.Size], tuple[Tensor, Tensor]] = {}
        for name, leaf in leaves.items():
            self._register(leaf, self._new_node(Node(leaf, name)))

    def finish(self, loss: Tensor) -> Tensor:
        """The loss as a function of the nodes' leaves; forgets all that was only needed while tracing.

        Raises: LiftFailed, again where the model has caught one.
        """
        if self._failure is not None:
            raise self._failure
        self.separable = self.separable and self._dependence(loss) <= ADDITIVE
        loss = self._plain(loss)
        self._known, self._cuts, self._expanded = {}, {}, {}
        return loss

    def signature(self) -> str:
        """What the trace was like, whatever its numbers were: the same in every process."""
        nodes = [
            (tuple(node.leaf.shape), node.definition is None, [(type(t).__name__, t.source) for t in node.terms])
            for node in self.nodes
        ]
        return hashlib.sha256(repr((self.calls, nodes)).encode()).hexdigest()

    # what torch calls --------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name == "__get__":
            name = func.__self__.__name__
            if name == "requires_grad" and id(args[0]) in self._known:
                return True
            if name not in PROPERTIES:
                return func(*args, **kwargs)
        self.calls.append(name)
        try:
            tracks = self.tracks(args, kwargs)
            if name in VALUES_ONLY or not tracks:
                return func(*args, **kwargs)
            if name in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or "out" in kwargs:
                return self._in_place(func, name, args, kwargs)
            if not torch.is_grad_enabled():
                return func(*args, **kwargs)
            return self._call(func, name, args, kwargs)
        except LiftFailed as failure:
            self._failure = failure
            raise

    def _call(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        rule = self._rules.get(name)
        if rule is not None:
            result = rule(self, func, name, args, kwargs)
            if result is not NotImplemented:
                return result
        return self.call_opaque(func, name, args, kwargs)

    def _in_place(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """a += b, where nothing else looks at a's memory; what autograd follows by itself is left to it."""
        if name in ("requires_grad_", "retain_grad_"):
            return args[0]
        target = args[0]
        affine = self.affine(target)
        if affine is not None:
            function = IN_PLACE.get(name)
            place = target.untyped_storage().data_ptr()
            known = sum(tensor.untyped_storage().data_ptr() == place for tensor, _ in self._known.values())
            leaves = [node.leaf for k, node in enumerate(self.nodes) if k != affine.node or node.name is not None]
            read = any(leaf.untyped_storage().data_ptr() == place for leaf in leaves)
            if function is None or known > 1 or read or not torch.is_grad_enabled():
                raise LiftFailed(f"{name} writes in place what parameters are read through")
            result = self._call(function, function.__name__, args, kwargs)
            made = self.affine(result)
            if made is None or result.shape != target.shape or result.dtype != target.dtype:
                raise LiftFailed(f"{name} makes of a linear map what is none")
            target.data = result.detach()  # in memory of its own, so that what has read the target keeps its numbers
            del self._known[id(result)]
            self._known[id(target)] = (target, made)
            self._expanded = {key: kept for key, kept in self._expanded.items() if key[0] != id(target)}
            return target
        cut = {tensor.untyped_storage().data_ptr() for tensor, _ in self._cuts.values()}
        if not isinstance(target, Tensor) or "out" in kwargs or target.untyped_storage().data_ptr() in cut:
            raise LiftFailed(f"{name} writes in place what has been read")
        if self._dependence_of_result(name.rstrip("_"), args, kwargs, target) > self._dependence(target):
            self.separable = False
        return self._on_leaves(func, args, kwargs)

    # nodes -------------------------------------------------------------------------------------------------------

    def _new_node(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _register(self, tensor: Tensor, node: int) -> None:
        index = self.cache.identity(tensor.shape, tensor.device)
        self._known[id(tensor)] = (tensor, Affine(tensor.shape, [Entry(node, index)], node))

    def affine(self, tensor: Any) -> Affine | None:
        """The map of a tensor that is known."""
        found = self._known.get(id(tensor))
        return found[1] if found is not None else None

    def is_opaque(self, tensor: Any) -> bool:
        """Whether a tensor depends on parameters in a way that is not known."""
        return isinstance(tensor, Tensor) and id(tensor) not in self._known and tensor.requires_grad

    def tracks(self, args: Any, kwargs: Any) -> bool:
        return any(self.tracked(a) for a in args) or any(self.tracked(a) for a in kwargs.values())

    def tracked(self, value: Any) -> bool:
        """Whether a value, or one in a list, depends on parameters."""
        if isinstance(value, Tensor):
            return id(value) in self._known or value.requires_grad
        return isinstance(value, (list, tuple)) and any(self.tracked(one) for one in value)

    def known_as(self, value: Tensor, terms: list[Term]) -> Tensor:
        """``value``, and what it is of the nodes from now on."""
        self._known[id(value)] = (value, Affine(value.shape, terms))
        return value

    def cut(self, tensor: Tensor) -> Tensor:
        """An opaque tensor as a node of its own: a tensor that is known."""
        if id(tensor) not in self._cuts:
            dependence = self._dependence(tensor)
            if dependence > ADDITIVE or (dependence > ENTRIES and tensor.numel() > SMALL):
                self.separable = False
            leaf = tensor.detach().requires_grad_()
            self._register(leaf, self._new_node(Node(leaf, definition=tensor)))
            self._cuts[id(tensor)] = (tensor, leaf)
        return self._cuts[id(tensor)][1]

    def _plain(self, value: Any) -> Any:
        """What autograd may work with: known tensors become leaves, and so does what has been cut."""
        if isinstance(value, Tensor) and id(value) in self._cuts:
            value = self._cuts[id(value)][1]
        affine = self.affine(value)
        if affine is not None:
            return self._leaf_of(value, affine)
        if isinstance(value, (list, tuple)) and self.tracked(value):
            items = [self._plain(one) for one in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    def _leaf_of(self, value: Tensor, affine: Affine) -> Tensor:
        if affine.node is None:
            leaf = value.detach().requires_grad_()
            affine.node = self._new_node(Node(leaf, terms=affine.terms))
        return self.nodes[affine.node].leaf

    def kept(self, tensor: Tensor, count: int) -> Tensor:
        """A known tensor that is to be broadcast to ``count`` numbers: where it is a wide sum, as a node of its own."""
        affine = self.affine(tensor)
        assert affine is not None
        if count <= tensor.numel() or not any(isinstance(t, Matrix) and len(t.places) >= WIDE for t in affine.terms):
            return tensor
        leaf = self._leaf_of(tensor, affine)
        assert affine.node is not None
        self._register(leaf, affine.node)
        return leaf

    def _on_leaves(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*(self._plain(a) for a in args), **{key: self._plain(a) for key, a in kwargs.items()})

    def call_opaque(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Any function: what it reads becomes leaves, operands of an elementwise one as large as the result."""
        if name in ELEMENTWISE:
            shape = broadcast_shape(*(a.shape for a in (*args, *kwargs.values()) if isinstance(a, Tensor)))
            if prod(shape) > TOGETHER:
                args = tuple(self.at_shape(a, shape) for a in args)
                kwargs = {key: self.at_shape(a, shape) for key, a in kwargs.items()}
        result = self._on_leaves(func, args, kwargs)
        dependence = self._dependence_of_result(name, args, kwargs, result)
        if dependence < MIXED:
            for one in result if isinstance(result, (list, tuple)) else (result,):
                if isinstance(one, Tensor):
                    one.hofit_dependence = dependence  # type: ignore[attr-defined]
        return result

    def _dependence(self, value: Any) -> int:
        """How a value depends on the nodes."""
        if isinstance(value, (list, tuple)):
            return max((self._dependence(one) for one in value), default=CONSTANT)
        if not isinstance(value, Tensor) or not self.tracked(value):
            return CONSTANT
        if id(value) in self._known or id(value) in self._cuts:
            return CONSTANT if value.numel() <= SMALL else ENTRIES
        return getattr(value, "hofit_dependence", MIXED)

    def _dependence_of_result(self, name: str, args: Any, kwargs: Any, result: Any) -> int:
        """How the result of a function depends on the nodes, by how its operands do."""
        inputs = [a for a in (*args, *kwargs.values()) if self._dependence(a) > CONSTANT]
        if not inputs:
            return CONSTANT
        dependence = max(self._dependence(a) for a in inputs)
        alone = len(inputs) == 1 and bool(args) and inputs[0] is args[0]
        if dependence > ADDITIVE:
            return MIXED
        if name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack"):
            return max(dependence, SINGLE)
        if name in ("sum", "mean") and alone:
            return ADDITIVE
        if name in MOVES and alone:
            keeps = name in IDENTITY_MOVES and isinstance(result, Tensor) and result.numel() == inputs[0].numel()
            return dependence if keeps else max(dependence, SINGLE)
        if not isinstance(result, Tensor) or (name not in ELEMENTWISE and name not in UNARY):
            return MIXED
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if result.shape != broadcast_shape(*(t.shape for t in tensors)):
            return MIXED
        if dependence == ENTRIES and all(a.numel() == result.numel() for a in inputs):
            return ENTRIES
        if dependence <= SINGLE and len(inputs) == 1:
            return SINGLE
        linear = name in LINEAR or (len(inputs) == 1 and (name in TIMES or (name in DIVIDES and alone)))
        return ADDITIVE if linear else MIXED

    def at_shape(self, value: Any, shape: torch.Size) -> Any:
        """A value as large as ``shape``, so that its entries meet others of as many; what is opaque is cut for it."""
        if not isinstance(value, Tensor) or not self.tracked(value) or value.shape == shape:
            return value
        if value.numel() == prod(shape):
            return value if id(value) not in self._known else self.moved(value, "expand", lambda t: t.expand(shape))
        key = (id(value), shape)
        if key not in self._expanded:
            known = value if id(value) in self._known else self.cut(value)
            expanded = self.moved(known, "expand", lambda t: t.expand(shape), (tuple(shape),))
            self._expanded[key] = (value, expanded)
        return self._expanded[key][1]

    def moved(self, tensor: Tensor, label: str, move: Callable[[Tensor], Tensor], arguments: Any = ()) -> Tensor:
        """A known tensor after a move of its entries."""
        with torch.no_grad():
            value = move(tensor.detach())
            tensor = self.kept(tensor, value.numel())
            affine = self.affine(tensor)
            assert affine is not None
            if value is tensor or (value.shape == affine.shape and label in IDENTITY_MOVES):
                return tensor
            terms: list[Term] = []
            for term in affine.terms:
                if isinstance(term, Entry):
                    index = self.cache.moved(move, term.index, label, (*arguments, tuple(value.shape)))
                    coefficient = None if term.coefficient is None else move(term.coefficient)
                    terms.append(Entry(term.source, index, coefficient, term.factor))
                else:
                    places = self.cache.identity(affine.shape, tensor.device)
                    rows = self.cache.moved(move, places, label, (*arguments, tuple(value.shape)))
                    flat = term.matrix.reshape(-1, term.matrix.shape[-1])
                    moved = flat if len(flat) == rows.numel() and is_identity(self.cache, rows) else flat[rows]
                    terms.append(Matrix(term.source, term.places, moved.view(*value.shape, -1), term.factor))
        return self.known_as(value, terms)
