"""What torch computes while a loss is evaluated: every operation on what depends on the leaves, entry by entry.

Every entry of every tensor has a number. Operations that only take entries (an index, a view, an expansion) are done to
the numbers, and leave no trace; so only what computes is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...internals import version
from ...point import Params
from ..lifting.functions import (
    ADDS,
    COPIES,
    DIVIDES,
    ELEMENTWISE,
    IN_PLACE,
    MOVES,
    PROPERTIES,
    TIMES,
    UNARY,
)
from ..lifting.maps import broadcast_shape

COMPARISONS = {
    *("gt", "ge", "lt", "le", "eq", "ne", "__gt__", "__ge__", "__lt__", "__le__", "__eq__", "__ne__", "greater"),
    *("isnan", "isfinite", "isinf", "sign", "round", "floor", "ceil", "trunc", "bool", "long", "int", "zeros_like"),
    *("ones_like", "full_like", "logical_and", "logical_or", "logical_not", "logical_xor", "__and__", "__or__"),
    *("__invert__", "__xor__", "bitwise_and", "bitwise_or", "bitwise_not", "less", "less_equal", "greater_equal"),
}
"""Entry by entry, with results that have no derivative."""

EACH = (ELEMENTWISE | UNARY | COMPARISONS) - {"contiguous"}
ARITHMETIC = ADDS | TIMES | DIVIDES
"""Functions whose numbers are taken for tensors, so that those with other numbers are of one kind."""

ASKS = {
    *("size", "dim", "numel", "stride", "__len__", "is_floating_point", "is_complex", "ndimension", "nelement"),
    *("is_contiguous", "get_device", "element_size", "result_type", "is_tensor", "storage_offset", "data_ptr"),
    *("broadcast_shapes", "__hash__", "_is_view", "is_same_size", "untyped_storage", "_version"),
}
"""Ask what does not depend on the numbers."""

ESCAPES = {
    *("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__index__", "__complex__"),
    *("__format__", "__repr__", "__str__", "__contains__", "equal", "allclose", "nonzero", "argwhere"),
    *("unique", "unique_consecutive", "masked_select", "bincount", "histc", "backward", "register_hook"),
}
"""Let the numbers decide what is computed next, or what shape it has."""

DECIDES = {"__bool__", "is_nonzero"}
"""Let one number decide what is computed next: what was recorded holds where it decides the same."""

RANDOM = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "dropout", "rand_like"),
    *("randn_like", "randint_like", "_standard_gamma", "_sample_dirichlet", "binomial", "rrelu", "normal_", "uniform_"),
    *("bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_", "random_"),
}

LARGEST_COPIED = 4096
"""Entries of a constant that is kept as it is now; of a larger one it is held against its version at the end."""


class RecordingFailed(BaseException):
    """The loss is computed in a way that cannot be written down; the reason in a few words.

    No Exception: it is raised inside the model, whose own handlers must not take it for theirs.
    """


@dataclass(frozen=True)
class Slot:
    """Where an operand stands among the arguments of a call."""

    number: int


@dataclass(eq=False)
class Call:
    """One operation. ``kind``: ``each`` computes entry by entry, ``sum`` adds ``operands[0]`` (terms, entries) up over
    its first dimension, ``whole`` is any other function.

    ``operands`` are the numbers of the entries of each, for ``each`` those of the broadcast operands, flat. Results
    have the numbers from ``start`` on. ``constant``: no derivative goes through it.
    """

    kind: str
    func: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[Tensor]
    dtypes: tuple[torch.dtype, ...]
    start: int
    shapes: list[torch.Size]
    out_dtypes: list[torch.dtype]
    constant: bool

    @property
    def size(self) -> int:
        """Entries of all results."""
        return sum(shape.numel() for shape in self.shapes)


class Recording(TorchFunctionMode):
    """Use as a context around one evaluation of the loss; then ``calls`` hold it.

    Entries are numbered: those of the leaves first, in order. ``constants`` are (first number, values), ``decisions``
    (number, what it was taken for).
    Raises: RecordingFailed, out of the model.
    """

    def __init__(self, leaves: Params) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.constants: list[tuple[int, Tensor]] = []
        self.decisions: list[tuple[int, bool]] = []
        self.size = 0
        """Entries so far."""
        self._known: dict[int, tuple[Tensor, Tensor]] = {}
        self._kept: dict[int, tuple[Tensor, int, Tensor]] = {}
        """Of a constant its version, and the numbers of its entries."""
        self._numbers: dict[tuple[torch.dtype, float], Tensor] = {}
        self._failure: RecordingFailed | None = None
        for leaf in leaves.values():
            self._known[id(leaf)] = (leaf, self._new(leaf.shape))

    def finish(self, result: Tensor) -> Tensor:
        """The numbers of the entries of what was computed, flat. Raises: RecordingFailed."""
        if self._failure is not None:
            raise self._failure
        changed = [kept for kept, before, _ in self._kept.values() if version(kept) != before]
        if any(kept.numel() > LARGEST_COPIED for kept in changed):
            raise RecordingFailed("a constant was written while it was read")
        if id(result) not in self._known:
            raise RecordingFailed("the result does not depend on any parameter")
        numbers = self._known[id(result)][1].reshape(-1)
        self._known, self._kept = {}, {}
        return numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.__name__
        if name == "__get__":
            name = func.__self__.__name__
            if name not in PROPERTIES:
                return func(*args, **kwargs)
        try:
            return self._seen(func, name, args, kwargs)
        except RecordingFailed as failure:
            self._failure = failure
            raise

    def _seen(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in RANDOM and kwargs.get("generator") is None:
            raise RecordingFailed(f"{name} draws")
        tensors = list(_tensors((*args, *kwargs.values())))
        if not any(id(tensor) in self._known for tensor in tensors):
            if any(tensor.requires_grad for tensor in tensors):
                raise RecordingFailed(f"{name} takes what was not seen")
            return func(*args, **kwargs)
        if name in ASKS or (name == "type" and len(args) == 1):
            return func(*args, **kwargs)
        if name in DECIDES and id(args[0]) in self._known:
            decision = bool(func(*args, **kwargs))
            self.decisions.append((int(self._known[id(args[0])][1].reshape(())), decision))
            return decision
        if name in ESCAPES:
            raise RecordingFailed(f"{name} reads what depends on parameters")
        if "out" in kwargs:
            raise RecordingFailed(f"{name} writes in place")
        if name in IN_PLACE or (name.endswith("_") and not name.endswith("__")):
            return self._in_place(func, name, args, kwargs)
        result = func(*args, **kwargs)
        if not self._is_same(name, args, kwargs, result):
            self._record(func, name, args, kwargs, result)
        return result

    def _in_place(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """What is written are the numbers of other entries, to the target and to all that look at its memory."""
        target, *rest = args
        if name in ("requires_grad_", "retain_grad_"):
            return func(*args, **kwargs)
        own = self._numbers_of(target)
        if name == "__setitem__":
            where, value = rest
            if any(id(tensor) in self._known for tensor in _tensors((where,))):
                raise RecordingFailed("an index depends on parameters")
            made = own.clone()
            tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=target.dtype)
            made[where] = self._numbers_of(tensor)
            if tensor.dtype != target.dtype:
                raise RecordingFailed("what is written is of another type")
        else:
            function: Any = IN_PLACE.get(name) or getattr(Tensor, name[:-1], None)
            if function is None or (name.startswith("__") and name not in IN_PLACE):
                raise RecordingFailed(f"{name} writes in place")
            result = function(*args, **kwargs)
            if not isinstance(result, Tensor) or result.shape != target.shape or result.dtype != target.dtype:
                raise RecordingFailed(f"{name} changes what it writes to")
            self._record(function, function.__name__, args, kwargs, result)
            made = self._known[id(result)][1]
        written = func(*args, **kwargs)
        self._write(target, own, made)
        return written

    def _write(self, target: Tensor, before: Tensor, after: Tensor) -> None:
        changed = (before != after).reshape(-1)
        self._known[id(target)] = (target, after)
        if not bool(changed.any()):
            return
        place = target.untyped_storage().data_ptr()
        cells = _cells(target).reshape(-1)[changed]
        low, high = int(cells.min()), int(cells.max())
        new: dict[int, int] | None = None
        for key, (other, index) in list(self._known.items()):
            if other is target or other.untyped_storage().data_ptr() != place or not other.numel():
                continue
            if other.storage_offset() > high or (other.numel() == 1 and other.storage_offset() < low):
                continue
            new = new or dict(zip(cells.tolist(), after.reshape(-1)[changed].tolist(), strict=True))
            seen = zip(_cells(other).reshape(-1).tolist(), index.reshape(-1).tolist(), strict=True)
            moved = torch.tensor([new.get(cell, number) for cell, number in seen]).view(index.shape)
            self._known[key] = (other, moved)

    def _is_same(self, name: str, args: Any, kwargs: Any, result: Any) -> bool:
        """Whether the result is an operand itself, or a copy of it."""
        if not isinstance(result, Tensor) or not isinstance(args[0], Tensor) or id(args[0]) not in self._known:
            return False
        if result is args[0]:
            return True
        if name in COPIES and result.dtype == args[0].dtype and result.device == args[0].device:
            self._know(result, self._known[id(args[0])][1])
            return True
        return False

    def _record(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if name in MOVES and self._move(func, name, args, kwargs, result):
            return
        if name in ("cat", "concat", "concatenate", "stack", "hstack", "vstack") and self._joined(
            func, args, kwargs, result
        ):
            return
        if name == "broadcast_tensors":
            operands = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
            for one, made in zip(operands, result, strict=True):
                if id(one) in self._known:
                    self._know(made, self._known[id(one)][1].expand(made.shape))
            return
        if name in ("sum", "mean") and self._sum(name, args, kwargs, result):
            return
        if name in EACH and isinstance(result, Tensor) and self._each(func, name, args, kwargs, result):
            return
        self._whole(func, name, args, kwargs, result)

    def _move(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> bool:
        tensor, *rest = args
        if id(tensor) not in self._known or any(id(t) in self._known for t in _tensors((*rest, *kwargs.values()))):
            return False
        if name == "view" and rest and isinstance(rest[0], torch.dtype):
            return False
        if name == "data":
            return False
        moved = func(self._known[id(tensor)][1], *rest, **kwargs)
        results = result if isinstance(result, (list, tuple)) else (result,)
        for one, index in zip(results, moved if isinstance(moved, (list, tuple)) else (moved,), strict=True):
            self._know(one, index)
        return True

    def _joined(self, func: Any, args: Any, kwargs: Any, result: Tensor) -> bool:
        if len({tensor.dtype for tensor in args[0]}) > 1:
            return False
        self._know(result, func([self._numbers_of(tensor) for tensor in args[0]], *args[1:], **kwargs))
        return True

    def _sum(self, name: str, args: Any, kwargs: Any, result: Tensor) -> bool:
        tensor = args[0]
        dims = args[1] if len(args) > 1 else kwargs.get("dim")
        if len(args) > 2 or set(kwargs) - {"dim", "keepdim", "axis"} or "axis" in kwargs or not tensor.numel():
            return False
        if result.dtype != tensor.dtype:
            return False
        order = tensor.dim()
        dims = [dims] if isinstance(dims, int) else list(dims or range(order))
        dims = [dim % order for dim in dims]
        rest = [dim for dim in range(order) if dim not in dims]
        terms = prod(tensor.shape[dim] for dim in dims)
        index = self._known[id(tensor)][1].permute((*dims, *rest)).reshape(terms, result.numel())
        if terms == 1:
            self._know(result, index.reshape(result.shape))
            return True
        made = self._call("sum", torch.sum, "sum", (), {}, [index], (tensor.dtype,), [result])
        if name == "mean":
            share = self._number(1.0 / terms, result.dtype).expand(result.shape)
            made = self._call(
                "each",
                torch.mul,
                "mul",
                (Slot(0), Slot(1)),
                {},
                [made[0], share.reshape(-1)],
                (result.dtype,) * 2,
                [result],
            )
        self._know(result, made[0].view(result.shape))
        return True

    def _each(self, func: Any, name: str, args: Any, kwargs: Any, result: Tensor) -> bool:
        given = [*args, *kwargs.values()]
        if any(isinstance(one, (list, tuple)) for one in given):
            return False
        tensors = [one for one in given if isinstance(one, Tensor)]
        if result.shape != broadcast_shape(*(one.shape for one in tensors)):
            return False
        numbers = name in ARITHMETIC and not kwargs and result.dtype.is_floating_point
        operands: list[Tensor] = []
        dtypes: list[torch.dtype] = []

        def slot(one: Any) -> Any:
            if isinstance(one, Tensor):
                index, dtype = self._numbers_of(one), one.dtype
            elif numbers and type(one) in (int, float):
                index, dtype = self._number(float(one), result.dtype), result.dtype
            else:
                return one
            operands.append(index.expand(result.shape).reshape(-1))
            dtypes.append(dtype)
            return Slot(len(operands) - 1)

        template = tuple(slot(one) for one in args), {key: slot(one) for key, one in kwargs.items()}
        made = self._call("each", func, name, *template, operands, tuple(dtypes), [result])
        self._know(result, made[0].view(result.shape))
        return True

    def _whole(self, func: Any, name: str, args: Any, kwargs: Any, result: Any) -> None:
        operands: list[Tensor] = []
        dtypes: list[torch.dtype] = []

        def slot(one: Any) -> Any:
            if isinstance(one, Tensor):
                operands.append(self._numbers_of(one))
                dtypes.append(one.dtype)
                return Slot(len(operands) - 1)
            if isinstance(one, (list, tuple)):
                return type(one)(*map(slot, one)) if hasattr(one, "_fields") else type(one)(map(slot, one))
            return one

        template = tuple(slot(one) for one in args), {key: slot(one) for key, one in kwargs.items()}
        results = [result] if isinstance(result, Tensor) else list(result) if isinstance(result, (list, tuple)) else []
        if not results or not all(isinstance(one, Tensor) for one in results):
            raise RecordingFailed(f"{name} gives no tensors")
        made = self._call("whole", func, name, *template, operands, tuple(dtypes), results)
        for one, index in zip(results, made, strict=True):
            self._know(one, index)

    def _call(
        self,
        kind: str,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        operands: list[Tensor],
        dtypes: tuple[torch.dtype, ...],
        results: list[Tensor],
    ) -> list[Tensor]:
        """The numbers of the results, of their shapes."""
        start, constant = self.size, not torch.is_grad_enabled()
        shapes, out = [one.shape for one in results], [one.dtype for one in results]
        self.calls.append(Call(kind, func, name, args, kwargs, operands, dtypes, start, shapes, out, constant))
        return [self._new(shape) for shape in shapes]

    def _new(self, shape: torch.Size) -> Tensor:
        start, self.size = self.size, self.size + shape.numel()
        return torch.arange(start, self.size).view(shape)

    def _know(self, tensor: Tensor, index: Tensor) -> None:
        if tensor.shape != index.shape:
            raise RecordingFailed("an operation on indices has another shape")
        self._known[id(tensor)] = (tensor, index)

    def _numbers_of(self, tensor: Tensor) -> Tensor:
        """The numbers of an operand's entries; of a constant, they are given now."""
        known = self._known.get(id(tensor))
        if known is not None:
            return known[1]
        if tensor.requires_grad:
            raise RecordingFailed("what depends on parameters was not seen")
        if tensor.numel() == 1 and tensor.dtype.is_floating_point:
            return self._number(float(tensor), tensor.dtype).expand(tensor.shape)
        kept = self._kept.get(id(tensor))
        if kept is None or version(tensor) != kept[1]:
            index = self._new(tensor.shape)
            values = tensor.clone() if tensor.numel() <= LARGEST_COPIED else tensor
            self.constants.append((int(index.reshape(-1)[0]) if index.numel() else self.size, values))
            kept = self._kept[id(tensor)] = (tensor, version(tensor), index)
        return kept[2]

    def _number(self, value: float, dtype: torch.dtype) -> Tensor:
        """The number of a constant's only entry; equal constants have the same."""
        key = (dtype, value)
        if value != value:
            raise RecordingFailed("a constant is not a number")
        if value == 0.0:
            key = (dtype, str(value))  # type: ignore[assignment]  # the zero that is negative is another
        if key not in self._numbers:
            index = self._numbers[key] = self._new(torch.Size(()))
            self.constants.append((int(index), torch.tensor(value, dtype=dtype)))
        return self._numbers[key]


def _cells(tensor: Tensor) -> Tensor:
    """Where each entry stands in the tensor's memory."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.arange(size).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _tensors(value: Any) -> Iterator[Tensor]:
    for one in value:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from _tensors(one)
