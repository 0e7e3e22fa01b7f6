"""Watch a model compute its loss, and cut the computation at the linear maps through which it reads its parameters.

A likelihood reads its latents through maps that are linear and known: an index (``theta[person]``), a constant matrix
(``X @ beta``), a broadcast over a plate, sums and multiples of these. Behind such a map stands a fresh leaf: a *node*
z = Σ c · source[index] + constant. What the loss makes of its nodes falls apart entry by entry, so that one probe a
node gives the second derivatives of every observation at once; the maps are known and need no derivatives.

Source: Griewank & Toint (1982), "On the unconstrained optimization of partially separable functions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...point import Params

UNBOUND = 8
"""Entries of a sum over a dimension that become terms of their own."""

SMALL = 8
"""Nodes of at most so many entries are probed entry by entry: whatever they touch, of whatever shape, is found."""

TOGETHER = 64
"""Operands of an elementwise function with at most so many results stay what they are: their entries may interact."""

WHOLE = 4096
"""Entries that one number may be a sum of, to be a row of a matrix."""

# How an opaque tensor depends on the entries of the nodes that are not small; each kind includes the ones before it.
CONSTANT = 0  # not at all
ENTRIES = 1  # its k-th entry on the k-th entries
SINGLE = 2  # each entry on the k-th entries, for some k
ADDITIVE = 3  # each entry is a sum of functions of k-th entries
MIXED = 4  # in any way


class LiftFailed(BaseException):
    """The model computes in a way that cannot be followed; the reason in a few words.

    No Exception: it is raised inside the model, whose own handlers must not take it for theirs.
    """


@dataclass(frozen=True, eq=False)
class Entry:
    """z gets factor · coefficient · source.flat[index], entry by entry.

    Shapes: index and coefficient that of z; both may be expanded views, and a stride of 0 says: constant there.
    """

    source: int
    index: Tensor
    coefficient: Tensor | None = None
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class Matrix:
    """z gets matrix @ source.flat[places]. Shapes: places (K,); matrix (*z.shape, K)."""

    source: int
    places: Tensor
    matrix: Tensor
    factor: float = 1.0


Term = Entry | Matrix


@dataclass(eq=False)
class Affine:
    """What is known of a tensor that is linear in nodes, up to a constant. ``node`` is set where it *is* a node."""

    shape: torch.Size
    terms: list[Term]
    node: int | None = None


@dataclass(eq=False)
class Node:
    """A leaf of the computation: a parameter (``name``), an affine map of earlier nodes (``terms``), or any function of
    earlier nodes (``definition``, which autograd differentiates)."""

    leaf: Tensor
    name: str | None = None
    terms: list[Term] = field(default_factory=list)
    definition: Tensor | None = None


class IndexCache:
    """What is derived from index maps, from one trace to the next: the same question is answered by the same object.

    Maps do not change while the data do not; tensors are told apart by identity and version, and kept alive.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
        self._used: set[Any] = set()
        self._identities: dict[torch.Size, Tensor] = {}

    def identity(self, shape: torch.Size, device: torch.device) -> Tensor:
        if shape not in self._identities:
            self._identities[shape] = torch.arange(prod(shape), device=device).view(shape)
        return self._identities[shape]

    def of(self, label: str, arguments: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """``compute()``, remembered by the label and the arguments."""
        key = (label, _fingerprint(arguments))
        self._used.add(key)
        if key not in self._kept:
            self._kept[key] = (compute(), arguments)
        return self._kept[key][0]

    def moved(self, move: Callable[..., Tensor], index: Tensor, label: str, arguments: tuple[Any, ...]) -> Tensor:
        """``move(index)``, remembered by what the move is and which tensors it takes."""
        moved: Tensor = self.of(label, (index, *arguments), lambda: move(index))
        return moved

    def begin(self) -> None:
        """Forget what was not asked for since the last call: an index that is built anew at every trace."""
        self._kept = {key: value for key, value in self._kept.items() if key in self._used}
        self._used = set()


class Lift(TorchFunctionMode):
    """Use as a context around one evaluation of the loss; then ``nodes`` holds what was found, in order of making.

    ``separable``: what was computed shows that second derivatives stand between equal places of nodes only, whatever
    the numbers are; else a probe has to tell, at each point. ``calls`` are the names of all functions called.
    Raises: LiftFailed, out of the model, where a tensor is written in place in a way that cannot be followed.
    """

    def __init__(self, leaves: Params, cache: IndexCache | None = None) -> None:
        super().__init__()
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
        self.separable = self.separable and self._kind(loss) <= ADDITIVE
        loss = self._plain(loss)
        self._known, self._cuts, self._expanded = {}, {}, {}
        return loss

    # what torch calls --------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name == "__get__":
            name = func.__self__.__name__
            if name == "requires_grad" and id(args[0]) in self._known:
                return True
            if name not in _PROPERTIES:
                return func(*args, **kwargs)
        self.calls.append(name)
        try:
            tracks = self._tracks(args, kwargs)
            if name in _VALUES_ONLY or not tracks:
                return func(*args, **kwargs)
            if name in _IN_PLACE or (name.endswith("_") and not name.endswith("__")) or "out" in kwargs:
                return self._in_place(func, name, args, kwargs)
            if not torch.is_grad_enabled():
                return func(*args, **kwargs)
            return self._call(func, name, args, kwargs)
        except LiftFailed as failure:
            self._failure = failure
            raise

    def _call(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        handler = _HANDLERS.get(name)
        if handler is not None:
            result = handler(self, func, name, args, kwargs)
            if result is not NotImplemented:
                return result
        return self._opaque(func, name, args, kwargs)

    def _in_place(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """a += b, where nothing else looks at a's memory; what autograd follows by itself is left to it."""
        if name in ("requires_grad_", "retain_grad_"):
            return args[0]
        target = args[0]
        affine = self._affine(target)
        if affine is not None:
            function = _IN_PLACE.get(name)
            place = target.untyped_storage().data_ptr()
            known = sum(tensor.untyped_storage().data_ptr() == place for tensor, _ in self._known.values())
            leaves = [node.leaf for k, node in enumerate(self.nodes) if k != affine.node or node.name is not None]
            read = any(leaf.untyped_storage().data_ptr() == place for leaf in leaves)
            if function is None or known > 1 or read or not torch.is_grad_enabled():
                raise LiftFailed(f"{name} writes in place what parameters are read through")
            result = self._call(function, function.__name__, args, kwargs)
            made = self._affine(result)
            if made is None or result.shape != target.shape or result.dtype != target.dtype:
                raise LiftFailed(f"{name} makes of a linear map what is none")
            target.data = result.detach()  # another memory: what has read the old one goes on reading it
            del self._known[id(result)]
            self._known[id(target)] = (target, made)
            self._expanded = {key: kept for key, kept in self._expanded.items() if key[0] != id(target)}
            return target
        cut = {tensor.untyped_storage().data_ptr() for tensor, _ in self._cuts.values()}
        if not isinstance(target, Tensor) or "out" in kwargs or target.untyped_storage().data_ptr() in cut:
            raise LiftFailed(f"{name} writes in place what has been read")
        if self._kind_of_result(name.rstrip("_"), args, kwargs, target) > self._kind(target):
            self.separable = False
        return func(*(self._plain(a) for a in args), **{key: self._plain(a) for key, a in kwargs.items()})

    # nodes -------------------------------------------------------------------------------------------------------

    def _new_node(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _register(self, tensor: Tensor, node: int) -> None:
        index = self.cache.identity(tensor.shape, tensor.device)
        self._known[id(tensor)] = (tensor, Affine(tensor.shape, [Entry(node, index)], node))

    def _affine(self, tensor: Any) -> Affine | None:
        found = self._known.get(id(tensor))
        return found[1] if found is not None else None

    def _is_opaque(self, tensor: Any) -> bool:
        return isinstance(tensor, Tensor) and id(tensor) not in self._known and tensor.requires_grad

    def _tracks(self, args: Any, kwargs: Any) -> bool:
        return any(self._tracked(a) for a in args) or any(self._tracked(a) for a in kwargs.values())

    def _tracked(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return id(value) in self._known or value.requires_grad
        return isinstance(value, (list, tuple)) and any(self._tracked(one) for one in value)

    def _made(self, value: Tensor, terms: list[Term]) -> Tensor:
        self._known[id(value)] = (value, Affine(value.shape, terms))
        return value

    def _cut(self, tensor: Tensor) -> Tensor:
        """An opaque tensor as a node of its own: a tensor that is known."""
        if id(tensor) not in self._cuts:
            kind = self._kind(tensor)
            if kind > ADDITIVE or (kind > ENTRIES and tensor.numel() > SMALL):
                self.separable = False
            leaf = tensor.detach().requires_grad_()
            self._register(leaf, self._new_node(Node(leaf, definition=tensor)))
            self._cuts[id(tensor)] = (tensor, leaf)
        return self._cuts[id(tensor)][1]

    def _plain(self, value: Any) -> Any:
        """What autograd may work with: known tensors become leaves, and so does what has been cut."""
        if isinstance(value, Tensor) and id(value) in self._cuts:
            value = self._cuts[id(value)][1]
        affine = self._affine(value)
        if affine is not None:
            if affine.node is None:
                leaf = value.detach().requires_grad_()
                affine.node = self._new_node(Node(leaf, terms=affine.terms))
            return self.nodes[affine.node].leaf
        if isinstance(value, (list, tuple)) and self._tracked(value):
            items = [self._plain(one) for one in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        return value

    def _opaque(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Any function: what it reads becomes leaves, operands of an elementwise one as large as the result."""
        if name in _ELEMENTWISE:
            shape = broadcast_shape(*(a.shape for a in (*args, *kwargs.values()) if isinstance(a, Tensor)))
            if prod(shape) > TOGETHER:
                args = tuple(self._at_shape(a, shape) for a in args)
                kwargs = {key: self._at_shape(a, shape) for key, a in kwargs.items()}
        result = func(*(self._plain(a) for a in args), **{key: self._plain(a) for key, a in kwargs.items()})
        kind = self._kind_of_result(name, args, kwargs, result)
        if kind < MIXED:
            for one in result if isinstance(result, (list, tuple)) else (result,):
                if isinstance(one, Tensor):
                    one._hofit_kind = kind  # type: ignore[attr-defined]
        return result

    def _kind(self, value: Any) -> int:
        """How a value depends on the nodes."""
        if isinstance(value, (list, tuple)):
            return max((self._kind(one) for one in value), default=CONSTANT)
        if not isinstance(value, Tensor) or not self._tracked(value):
            return CONSTANT
        if id(value) in self._known or id(value) in self._cuts:
            return CONSTANT if value.numel() <= SMALL else ENTRIES
        return getattr(value, "_hofit_kind", MIXED)

    def _kind_of_result(self, name: str, args: Any, kwargs: Any, result: Any) -> int:
        inputs = [a for a in (*args, *kwargs.values()) if self._kind(a) > CONSTANT]
        if not inputs:
            return CONSTANT
        kind = max(self._kind(a) for a in inputs)
        alone = len(inputs) == 1 and bool(args) and inputs[0] is args[0]
        if kind > ADDITIVE:
            return MIXED
        if name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack"):
            return max(kind, SINGLE)
        if name in ("sum", "mean") and alone:
            return ADDITIVE
        if name in _MOVES and alone:
            keeps = name in _IDENTITY_MOVES and isinstance(result, Tensor) and result.numel() == inputs[0].numel()
            return kind if keeps else max(kind, SINGLE)
        if not isinstance(result, Tensor) or (name not in _ELEMENTWISE and name not in _UNARY):
            return MIXED
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
        if result.shape != broadcast_shape(*(t.shape for t in tensors)):
            return MIXED
        if kind == ENTRIES and all(a.numel() == result.numel() for a in inputs):
            return ENTRIES
        if kind <= SINGLE and len(inputs) == 1:
            return SINGLE
        linear = name in _LINEAR or (len(inputs) == 1 and (name in _TIMES or (name in _DIVIDES and alone)))
        return ADDITIVE if linear else MIXED

    def _at_shape(self, value: Any, shape: torch.Size) -> Any:
        if not isinstance(value, Tensor) or not self._tracked(value) or value.shape == shape:
            return value
        if value.numel() == prod(shape):
            return value if id(value) not in self._known else self._moved(value, "expand", lambda t: t.expand(shape))
        key = (id(value), shape)
        if key not in self._expanded:
            known = value if id(value) in self._known else self._cut(value)
            expanded = self._moved(known, "expand", lambda t: t.expand(shape), (tuple(shape),))
            self._expanded[key] = (value, expanded)
        return self._expanded[key][1]

    def _moved(self, tensor: Tensor, label: str, move: Callable[[Tensor], Tensor], arguments: Any = ()) -> Tensor:
        """A known tensor after a move of its entries."""
        affine = self._affine(tensor)
        assert affine is not None
        with torch.no_grad():
            value = move(tensor.detach())
            if value is tensor or (value.shape == affine.shape and label in _IDENTITY_MOVES):
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
        return self._made(value, terms)


# handlers: (lift, function, name, args, kwargs) → the result, or NotImplemented where the function is not linear ------


def _move(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    tensor, *rest = args
    if lift._tracks(rest, kwargs) or (name == "view" and any(isinstance(one, torch.dtype) for one in rest)):
        return NotImplemented
    if lift._is_opaque(tensor):
        if (name in _GATHERS and (name != "__getitem__" or _holds_tensor(rest))) or _grows(
            func, tensor, rest, kwargs, name
        ):
            tensor = lift._cut(tensor)
        else:
            return NotImplemented
    arguments = (*rest, *sorted(kwargs.items()))
    return lift._moved(tensor, name, lambda t: func(t, *rest, **kwargs), arguments)


def _split(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Functions that return several parts of one tensor."""
    tensor, *rest = args
    if lift._affine(tensor) is None or lift._tracks(rest, kwargs):
        return NotImplemented
    count = len(func(tensor.detach(), *rest, **kwargs))
    arguments = (*rest, *sorted(kwargs.items()))

    def part(k: int) -> Tensor:
        return lift._moved(tensor, name, lambda t: func(t, *rest, **kwargs)[k], (k, *arguments))

    return tuple(part(k) for k in range(count))


def _iterate(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    parts = _split(lift, torch.Tensor.unbind, "unbind", (args[0], 0), {})
    return iter(lift._opaque(torch.unbind, "unbind", args, kwargs) if parts is NotImplemented else parts)


def _broadcast_tensors(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    tensors = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    shape = broadcast_shape(*(t.shape for t in tensors))
    return tuple(lift._at_shape(t, shape) if lift._tracked(t) else t.expand(shape) for t in tensors)


def _embedding(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    index, weight = args[0], args[1]
    if len(args) > 2 or any(value not in (None, False) for value in kwargs.values()):
        return NotImplemented
    return _move(lift, torch.Tensor.__getitem__, "__getitem__", (weight, index), {})


def _same(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Casts and copies, where they change nothing."""
    value = func(args[0].detach(), *args[1:], **kwargs)
    if (
        isinstance(value, Tensor)
        and value.dtype == args[0].dtype
        and value.device == args[0].device
        and lift._affine(args[0]) is not None
    ):
        return args[0]
    return NotImplemented


def _add(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    alpha = kwargs.get("alpha", 1)
    if len(args) != 2 or set(kwargs) - {"alpha"} or not isinstance(alpha, (int, float)):
        return NotImplemented
    left, right = args
    if not all(_is_real(one) for one in args):
        return NotImplemented
    signs = (1.0, float(alpha))
    if name in ("sub", "subtract", "__sub__"):
        signs = (1.0, -float(alpha))
    elif name in ("rsub", "__rsub__"):
        signs = (-float(alpha), 1.0)
    shape = broadcast_shape(*(t.shape for t in args if isinstance(t, Tensor)))
    for one in args:
        if lift._is_opaque(one) and one.shape == shape:
            return NotImplemented
    terms: list[Term] = []
    values = []
    for one, sign in zip((left, right), signs, strict=True):
        if lift._is_opaque(one):
            one = lift._cut(one)
        affine = lift._affine(one)
        if affine is not None:
            terms += _terms_at(lift, affine, shape, sign)
        values.append(one.detach() if isinstance(one, Tensor) else one)
    with torch.no_grad():
        return lift._made(func(*values, **kwargs), terms)


def _multiply(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    if len(args) != 2 or kwargs:
        return NotImplemented
    left, right = args
    divides = name in _DIVIDES
    if (lift._tracked(left) and lift._tracked(right)) or not (_is_real(left) and _is_real(right)):
        return NotImplemented
    tensor, other = (left, right) if lift._tracked(left) else (right, left)
    if divides and tensor is right:
        return NotImplemented
    shape = broadcast_shape(tensor.shape, other.shape) if isinstance(other, Tensor) else tensor.shape
    if lift._is_opaque(tensor):
        if tensor.shape == shape:
            return NotImplemented
        tensor = lift._cut(tensor)
    affine = lift._affine(tensor)
    assert affine is not None
    with torch.no_grad():
        value = func(tensor.detach(), other) if tensor is not right else func(left, tensor.detach())
        if not isinstance(other, Tensor) or other.dim() == 0:
            number = float(other)
            if divides and number == 0.0:
                return NotImplemented
            return lift._made(value, _terms_at(lift, affine, shape, 1.0 / number if divides else number))
        other = other.to(value.dtype)
        scale = (other.reciprocal() if divides else other).expand(shape)
        terms: list[Term] = []
        for term in _terms_at(lift, affine, shape, 1.0):
            if isinstance(term, Entry):
                coefficient = scale if term.coefficient is None else term.coefficient * scale
                terms.append(Entry(term.source, term.index, coefficient, term.factor))
            else:
                terms.append(Matrix(term.source, term.places, term.matrix * scale[..., None], term.factor))
    return lift._made(value, terms)


def _negate(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    affine = lift._affine(args[0])
    if affine is None:
        return NotImplemented
    return lift._made(func(args[0].detach()), _terms_at(lift, affine, affine.shape, -1.0))


def _sum(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Sums over dimensions: a matrix where every entry reads the same places, else a term an entry."""
    affine = lift._affine(args[0])
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    if affine is None or len(args) > 2 or set(kwargs) - {"dim", "keepdim"}:
        return NotImplemented
    order = len(affine.shape)
    dims = [dims] if isinstance(dims, int) else list(dims or range(order))
    if not dims or order == 0:
        return NotImplemented
    dims = [dim % order for dim in dims]
    count = prod(affine.shape[dim] for dim in dims)
    rest = [dim for dim in range(order) if dim not in dims]
    value = func(args[0].detach(), *args[1:], **kwargs)
    shape = torch.Size(affine.shape[dim] for dim in rest)

    def summands_last(t: Tensor) -> Tensor:
        """Shapes: affine.shape → (*shape, count), an expanded view where it can be one."""
        turned = t.permute(*rest, *dims)
        return turned if len(dims) == 1 else turned.reshape(*shape, count)

    terms: list[Term] = []
    scale = 1.0 / count if name == "mean" and count else 1.0
    for term in affine.terms:
        factor = term.factor * scale
        if isinstance(term, Matrix):
            terms.append(Matrix(term.source, term.places, term.matrix.sum(dims).view(*value.shape, -1), factor))
            continue
        index = lift.cache.moved(summands_last, term.index, "summands", (tuple(dims),))
        coefficient = None if term.coefficient is None else summands_last(term.coefficient)
        if count <= WHOLE and all(d == 0 for d, n in zip(index.stride()[:-1], shape, strict=True) if n > 1):
            if index.numel():
                places = lift.cache.moved(lambda t: t.reshape(-1)[:count], index, "first row", (count,))
                whole = value.new_ones(index.shape) if coefficient is None else coefficient
                terms.append(Matrix(term.source, places, whole.reshape(*value.shape, count), factor))
            continue
        if count > UNBOUND:
            return NotImplemented
        for k in range(count):
            part = lift.cache.moved(
                lambda t, k=k: t[..., k].reshape(value.shape), index, "summand", (k, tuple(value.shape))
            )
            terms.append(
                Entry(term.source, part, None if coefficient is None else coefficient[..., k].view(value.shape), factor)
            )
    return lift._made(value, terms)


def _matmul(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A constant matrix times a vector of parameters, or rows of parameters times a constant vector."""
    left, right = args[0], args[1]
    if len(args) != 2 or kwargs or (lift._tracked(left) and lift._tracked(right)):
        return NotImplemented
    if (name == "inner" and (left.dim() != 1 or right.dim() != 1)) or not (_is_real(left) and _is_real(right)):
        return NotImplemented
    if name == "__rmatmul__":
        left, right = right, left
    tracked = left if lift._tracked(left) else right
    if lift._is_opaque(tracked):
        tracked = lift._cut(tracked)
        left, right = (tracked, right) if lift._tracked(left) else (left, tracked)
    if tracked is right:
        if right.dim() == 1:
            return _matrix_vector(lift, left, right)
        if right.shape[-1] == 1 and right.dim() > 2:
            turned = lift._moved(right, "mT", lambda t: t.transpose(-1, -2))
            product = _multiply(lift, torch.mul, "mul", (turned, left), {})
            return _sum(lift, torch.sum, "sum", (product,), {"dim": -1, "keepdim": True})
        if right.shape[-1] == 1:
            column = lift._moved(right, "squeeze", lambda t: t.squeeze(-1))
            return lift._moved(_matrix_vector(lift, left, column), "unsqueeze", lambda t: t.unsqueeze(-1), (-1,))
        return NotImplemented
    if left.dim() == 1 and right.dim() == 2:
        return _matrix_vector(lift, right.T, left)
    if right.dim() == 1:
        product = _multiply(lift, torch.mul, "mul", (left, right), {})
        return _sum(lift, torch.sum, "sum", (product,), {"dim": -1})
    return NotImplemented


def _matrix_vector(lift: Lift, matrix: Tensor, vector: Tensor) -> Tensor:
    affine = lift._affine(vector)
    assert affine is not None
    with torch.no_grad():
        value = matrix @ vector.detach()
        terms: list[Term] = []
        for term in affine.terms if matrix.numel() else ():
            if isinstance(term, Entry):
                whole = matrix if term.coefficient is None else matrix * term.coefficient
                terms.append(Matrix(term.source, term.index.reshape(-1), whole, term.factor))
            else:
                terms.append(Matrix(term.source, term.places, matrix @ term.matrix, term.factor))
    return lift._made(value, terms)


def _linear(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    inputs, weight, bias = given["input"], given["weight"], given.get("bias")
    if lift._tracked(inputs) or weight.dim() != 2 or weight.shape[0] != 1 or not lift._tracked(weight):
        return NotImplemented
    if lift._is_opaque(weight):
        weight = lift._cut(weight)
    row = lift._moved(weight, "squeeze", lambda t: t.squeeze(0), (0,))
    value = lift._moved(_matrix_vector(lift, inputs, row), "unsqueeze", lambda t: t.unsqueeze(-1), (-1,))
    return value if bias is None else _add(lift, torch.add, "add", (value, bias), {})


def _einsum(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A product of one constant and one tensor of parameters, summed over some letters."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    if kwargs or not isinstance(equation, str) or "->" not in equation or "." in equation or len(operands) != 2:
        return NotImplemented
    inputs, out = equation.replace(" ", "").split("->")
    letters = inputs.split(",")
    if lift._tracked(operands[0]):
        operands, letters = operands[::-1], letters[::-1]
    constant, tensor = operands
    if lift._tracked(constant) or any(len(set(one)) < len(one) for one in (*letters, out)):
        return NotImplemented
    if lift._is_opaque(tensor):
        tensor = lift._cut(tensor)
    size = dict(zip("".join(letters), (*constant.shape, *tensor.shape), strict=True))
    summed = [one for one in size if one not in out]
    if set(letters[1]) <= set(summed) and set(letters[0]) == set(size):
        order = [*out, *(one for one in summed if one not in letters[1]), *letters[1]]
        matrix = constant.permute([letters[0].index(one) for one in order]).reshape(
            *(size[one] for one in order if one not in letters[1]), -1
        )
        value = _matrix_vector(lift, matrix, _move(lift, torch.reshape, "reshape", (tensor, (-1,)), {}))
        over = list(range(len(out), value.dim()))
        return _sum(lift, torch.sum, "sum", (value, over), {}) if over else value
    order = [*out, *summed]

    def aligned(t: Tensor, own: str) -> Tensor:
        places = [own.index(one) for one in order if one in own]
        return t.permute(places).reshape([size[one] if one in own else 1 for one in order])

    turned = lift._moved(tensor, "align", lambda t: aligned(t, letters[1]), (letters[1], tuple(order)))
    product = _multiply(lift, torch.mul, "mul", (turned, aligned(constant, letters[0])), {})
    for _ in summed:
        if product is NotImplemented:
            return NotImplemented
        product = _sum(lift, torch.sum, "sum", (product, -1), {})
    return product


def _cat(lift: Lift, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Tensors one after the other: terms that read the same source become one, and 0 where a tensor has none."""
    tensors = list(args[0])
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if len(args) > 2 or set(kwargs) - {"dim"} or any(lift._is_opaque(t) for t in tensors):
        return NotImplemented
    if name == "stack":
        known = [lift._affine(t) is not None for t in tensors]
        tensors = [
            lift._moved(t, "unsqueeze", lambda t: t.unsqueeze(dim), (dim,)) if k else t.unsqueeze(dim)
            for t, k in zip(tensors, known, strict=True)
        ]
    if len({t.dim() for t in tensors}) > 1:  # torch leaves empty vectors out
        return NotImplemented
    value = torch.cat([t.detach() for t in tensors], dim)
    parts: dict[Any, dict[int, Term]] = {}
    for k, tensor in enumerate(tensors):
        affine = lift._affine(tensor)
        count: dict[Any, int] = {}
        for term in affine.terms if affine is not None else ():
            key = (term.source, id(term.places) if isinstance(term, Matrix) else None)
            count[key] = count.get(key, 0) + 1
            parts.setdefault((key, count[key]), {})[k] = term
    terms: list[Term] = []
    for own in parts.values():
        first = next(iter(own.values()))
        terms.append(
            _cat_matrices(first, own, tensors, value, dim)
            if isinstance(first, Matrix)
            else _cat_entries(lift, first, own, tensors, value, dim)
        )
    return lift._made(value, terms)


def _cat_matrices(first: Matrix, own: Mapping[int, Term], tensors: list[Tensor], value: Tensor, dim: int) -> Matrix:
    matrices = []
    for k, tensor in enumerate(tensors):
        term = own.get(k)
        if isinstance(term, Matrix):
            matrices.append(term.matrix * term.factor)
        else:
            matrices.append(value.new_zeros(*tensor.shape, len(first.places)))
    return Matrix(first.source, first.places, torch.cat(matrices, dim % value.dim()))


def _cat_entries(
    lift: Lift, first: Entry, own: Mapping[int, Term], tensors: list[Tensor], value: Tensor, dim: int
) -> Entry:
    indices, coefficients = [], []
    plain = len(own) == len(tensors)
    for k, tensor in enumerate(tensors):
        term = own.get(k)
        if isinstance(term, Entry):
            indices.append(term.index)
            plain = plain and term.coefficient is None and term.factor == first.factor
            coefficient = value.new_ones(()) if term.coefficient is None else term.coefficient
            coefficients.append((coefficient * term.factor).expand(tensor.shape))
        else:  # any place will do; of the same shape, the other tensor's keep rows together
            nowhere = lift.cache.identity(torch.Size((1,)), tensor.device).expand(tensor.shape)
            indices.append(first.index if first.index.shape == tensor.shape else nowhere)
            coefficients.append(value.new_zeros(tensor.shape))
    index = lift.cache.of("cat", (indices, dim), lambda: torch.cat(indices, dim))
    if plain:
        return Entry(first.source, index, None, first.factor)
    return Entry(first.source, index, torch.cat(coefficients, dim))


def _terms_at(lift: Lift, affine: Affine, shape: torch.Size, factor: float) -> list[Term]:
    """The terms broadcast to ``shape`` and times ``factor``."""
    terms: list[Term] = []
    for term in affine.terms:
        if isinstance(term, Entry):
            index, coefficient = term.index, term.coefficient
            if affine.shape != shape:
                index = lift.cache.moved(lambda t: t.expand(shape), index, "expand", (tuple(shape),))
                coefficient = None if coefficient is None else coefficient.expand(shape)
            terms.append(Entry(term.source, index, coefficient, term.factor * factor))
        else:
            matrix = term.matrix if affine.shape == shape else term.matrix.expand(*shape, term.matrix.shape[-1])
            terms.append(Matrix(term.source, term.places, matrix, term.factor * factor))
    return terms


def _grows(func: Any, tensor: Tensor, rest: Sequence[Any], kwargs: Mapping[str, Any], name: str) -> bool:
    if name not in _MAY_GROW:
        return False
    grown: Tensor = func(tensor.detach(), *rest, **kwargs)
    return grown.numel() > tensor.numel()


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(_holds_tensor(one) for one in value))


def _is_real(value: Any) -> bool:
    """Whether a map can be made of it: a real number or tensor."""
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, (bool, int, float, np.number)) and not isinstance(value, np.complexfloating)


def is_identity(cache: IndexCache, index: Tensor) -> bool:
    """Whether an index map is 0, 1, 2, …"""
    if index is cache.identity(index.shape, index.device):
        return True
    flat = cache.identity(torch.Size((index.numel(),)), index.device)
    return bool(cache.of("identity", (index,), lambda: bool((index.reshape(-1) == flat).all())))


def broadcast_shape(*shapes: torch.Size) -> torch.Size:
    """What the shapes broadcast to; torch's own function imports a second's worth of modules at its first call."""
    sizes = [1] * max((len(shape) for shape in shapes), default=0)
    for shape in shapes:
        for d, size in enumerate(reversed(shape), start=1):
            if sizes[-d] == 1:
                sizes[-d] = size
            elif size not in (1, sizes[-d]):
                raise RuntimeError(f"shapes {', '.join(map(str, map(tuple, shapes)))} do not broadcast")
    return torch.Size(sizes)


def _fingerprint(value: Any) -> Any:
    """What tells one argument of a move from another; tensors by identity and version."""
    if isinstance(value, Tensor):
        return ("tensor", id(value), value._version)
    if isinstance(value, (list, tuple)):
        return tuple(_fingerprint(one) for one in value)
    if isinstance(value, np.ndarray):
        return ("array", value.shape, value.dtype.str, value.tobytes())
    if isinstance(value, slice):
        return ("slice", _fingerprint(value.start), _fingerprint(value.stop), _fingerprint(value.step))
    return repr(value)


_GATHERS = {"__getitem__", "index_select", "gather", "take", "take_along_dim", "flip", "roll", "repeat_interleave"}
_MAY_GROW = {"expand", "expand_as", "broadcast_to", "repeat", "tile"}
_IDENTITY_MOVES = {
    *("expand", "expand_as", "broadcast_to", "reshape", "reshape_as", "view", "view_as", "contiguous", "flatten"),
    *("unsqueeze", "squeeze", "unflatten", "ravel"),
}
_VIEWS = {
    *("reshape", "view", "view_as", "reshape_as", "unsqueeze", "squeeze", "transpose", "swapaxes", "permute"),
    *("movedim", "moveaxis", "flatten", "unflatten", "T", "mT", "t", "narrow", "select", "diagonal", "ravel"),
}
_MOVES = _GATHERS | _MAY_GROW | _VIEWS | {"unbind", "split", "chunk", "tensor_split", "split_with_sizes", "contiguous"}
_ADDS = {"add", "__add__", "__radd__", "sub", "subtract", "__sub__", "rsub", "__rsub__"}
_TIMES = {"mul", "multiply", "__mul__", "__rmul__"}
_DIVIDES = {"div", "divide", "true_divide", "__truediv__"}
_COPIES = {"to", "double", "float", "type", "type_as", "contiguous", "clone", "positive", "__pos__"}
_NEGATES = {"neg", "negative", "__neg__"}
_LINEAR = {*_ADDS, *_COPIES, *_NEGATES, "where", "masked_fill"}
_IN_PLACE = {
    **{"__iadd__": torch.add, "__isub__": torch.sub, "__imul__": torch.mul, "__itruediv__": torch.div},
    **{"add_": torch.add, "sub_": torch.sub, "mul_": torch.mul, "div_": torch.div},
    **dict.fromkeys(("__setitem__", "__set__", "__ipow__", "__imod__", "__ifloordiv__")),
}
_PROPERTIES = {"T", "mT", "H", "mH", "data", "real", "imag"}
_ELEMENTWISE = {
    *_ADDS,
    *_TIMES,
    *_DIVIDES,
    *("__rtruediv__", "rtruediv", "pow", "__pow__", "__rpow__", "where", "maximum", "minimum", "max", "min", "clamp"),
    *("atan2", "hypot", "lerp", "xlogy", "xlog1py", "logaddexp", "logaddexp2", "addcmul", "addcdiv", "fmod"),
    *("binary_cross_entropy_with_logits", "remainder", "clip", "float_power", "masked_fill", "special_xlogy"),
    *("special_xlog1py", "fmax", "fmin"),
}
_UNARY = {
    *_COPIES,
    *_NEGATES,
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "abs"),
    *("absolute", "__abs__", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh"),
    *(
        "atanh",
        "arcsin",
        "arccos",
        "arctan",
        "arcsinh",
        "arccosh",
        "arctanh",
        "sigmoid",
        "logsigmoid",
        "log_sigmoid",
        "softplus",
    ),
    *("relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "leaky_relu", "hardtanh", "logit", "erf", "erfc"),
    *("erfinv", "lgamma", "digamma", "polygamma", "i0", "sinc", "nan_to_num", "clamp_min", "clamp_max", "softsign"),
    *("special_expit", "special_logit", "special_gammaln", "special_digamma", "special_psi", "special_erf"),
    *("special_erfc", "special_erfcx", "special_erfinv", "special_ndtr", "special_ndtri", "special_log_ndtr"),
    *("special_i0", "special_i0e", "special_i1", "special_i1e", "special_log1p", "special_expm1", "special_exp2"),
    *("special_polygamma", "special_entr", "real"),
}
_VALUES_ONLY = {
    *("detach", "data", "item", "tolist", "numpy", "size", "dim", "numel", "stride", "storage_offset", "data_ptr"),
    *("__float__", "__int__", "__bool__", "__index__", "__len__", "__format__", "__repr__", "__hash__", "__str__"),
    *("is_floating_point", "is_complex", "is_contiguous", "isnan", "isfinite", "isinf", "get_device", "element_size"),
    *("gt", "ge", "lt", "le", "eq", "ne", "__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__", "greater"),
    *("all", "any", "argmax", "argmin", "argsort", "allclose", "equal", "sign", "zeros_like", "ones_like"),
    *("empty_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_empty", "new_full"),
    *("new_tensor", "result_type", "broadcast_shapes", "is_tensor", "__contains__", "ndimension", "nelement"),
    *("is_nonzero", "bool", "long", "int", "round", "floor", "ceil", "trunc", "searchsorted", "bucketize"),
}
_HANDLERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_GATHERS | _MAY_GROW | _VIEWS, _move),
    **dict.fromkeys(("unbind", "split", "chunk", "tensor_split", "split_with_sizes"), _split),
    **dict.fromkeys(_ADDS, _add),
    **dict.fromkeys(_TIMES | _DIVIDES, _multiply),
    **dict.fromkeys(_NEGATES, _negate),
    **dict.fromkeys(("sum", "mean"), _sum),
    **dict.fromkeys(("matmul", "__matmul__", "__rmatmul__", "mv", "mm", "dot", "inner"), _matmul),
    **dict.fromkeys(_COPIES | {"real"}, _same),
    **dict.fromkeys(("cat", "concat", "stack"), _cat),
    "einsum": _einsum,
    "__iter__": _iterate,
    "broadcast_tensors": _broadcast_tensors,
    "embedding": _embedding,
    "linear": _linear,
}
