"""What becomes of a linear map under torch's functions: a rule for each function that keeps it one, but products.

A rule takes (who watches, the function, its name, args, kwargs) and returns the result, a tensor whose map is known, or
NotImplemented where the function is not linear in what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .functions import ADDS, COPIES, DIVIDES, GATHERS, MAY_GROW, NEGATES, TIMES, VIEWS
from .maps import Affine, Entry, Matrix, Term, broadcast_shape
from .watch import SMALL, Rule, Watch

UNBOUND = 8
"""Entries of a sum over a dimension that become terms of their own."""

WHOLE = 4096
"""Entries that one number may be a sum of, to be a row of a matrix."""


def move(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    tensor, *rest = args
    if watch.tracks(rest, kwargs) or (name == "view" and any(isinstance(one, torch.dtype) for one in rest)):
        return NotImplemented
    if watch.is_opaque(tensor):
        gathers = name in GATHERS and (name != "__getitem__" or _holds_tensor(rest))
        if not gathers and not (name in MAY_GROW and func(tensor.detach(), *rest, **kwargs).numel() > tensor.numel()):
            return NotImplemented
        tensor = watch.cut(tensor)
    arguments = (*rest, *sorted(kwargs.items()))
    return watch.moved(tensor, name, lambda t: func(t, *rest, **kwargs), arguments)


def _split(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Functions that return several parts of one tensor."""
    tensor, *rest = args
    if watch.affine(tensor) is None or watch.tracks(rest, kwargs):
        return NotImplemented
    count = len(func(tensor.detach(), *rest, **kwargs))
    arguments = (*rest, *sorted(kwargs.items()))

    def part(k: int) -> Tensor:
        return watch.moved(tensor, name, lambda t: func(t, *rest, **kwargs)[k], (k, *arguments))

    return tuple(part(k) for k in range(count))


def _broadcast_tensors(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    tensors = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    shape = broadcast_shape(*(t.shape for t in tensors))
    return tuple(watch.at_shape(t, shape) if watch.tracked(t) else t.expand(shape) for t in tensors)


def _same(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Casts and copies, where they change nothing."""
    tensor, value = args[0], func(args[0].detach(), *args[1:], **kwargs)
    same = isinstance(value, Tensor) and value.dtype == tensor.dtype and value.device == tensor.device
    return tensor if same and watch.affine(tensor) is not None else NotImplemented


def add(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    alpha = kwargs.get("alpha", 1)
    if len(args) != 2 or set(kwargs) - {"alpha"} or not isinstance(alpha, (int, float)):
        return NotImplemented
    left, right = args
    if not all(is_real(one) for one in args):
        return NotImplemented
    signs = (1.0, float(alpha))
    if name in ("sub", "subtract", "__sub__"):
        signs = (1.0, -float(alpha))
    elif name in ("rsub", "__rsub__"):
        signs = (-float(alpha), 1.0)
    shape = broadcast_shape(*(t.shape for t in args if isinstance(t, Tensor)))
    for one in args:
        if watch.is_opaque(one) and one.shape == shape:
            return NotImplemented
    terms: list[Term] = []
    values = []
    for one, sign in zip((left, right), signs, strict=True):
        if watch.is_opaque(one):
            one = watch.cut(one)
        if watch.affine(one) is not None:
            one = watch.kept(one, prod(shape))
        affine = watch.affine(one)
        if affine is not None:
            terms += _terms_at(watch, affine, shape, sign)
        values.append(one.detach() if isinstance(one, Tensor) else one)
    with torch.no_grad():
        return watch.known_as(func(*values, **kwargs), terms)


def multiply(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    if len(args) != 2 or kwargs:
        return NotImplemented
    left, right = args
    divides = name in DIVIDES
    if (watch.tracked(left) and watch.tracked(right)) or not (is_real(left) and is_real(right)):
        return NotImplemented
    tensor, other = (left, right) if watch.tracked(left) else (right, left)
    if divides and tensor is right:
        return NotImplemented
    shape = broadcast_shape(tensor.shape, other.shape) if isinstance(other, Tensor) else tensor.shape
    if watch.is_opaque(tensor):
        if tensor.shape == shape:
            return NotImplemented
        tensor = watch.cut(tensor)
    kept = watch.kept(tensor, prod(shape))
    affine = watch.affine(kept)
    assert affine is not None
    with torch.no_grad():
        value = func(tensor.detach(), other) if tensor is not right else func(left, tensor.detach())
        if not isinstance(other, Tensor) or other.dim() == 0:
            number = float(other)
            if divides and number == 0.0:
                return NotImplemented
            return watch.known_as(value, _terms_at(watch, affine, shape, 1.0 / number if divides else number))
        other = other.to(value.dtype)
        scale = (other.reciprocal() if divides else other).expand(shape)
        terms: list[Term] = []
        for term in _terms_at(watch, affine, shape, 1.0):
            if isinstance(term, Entry):
                coefficient = scale if term.coefficient is None else term.coefficient * scale
                terms.append(Entry(term.source, term.index, coefficient, term.factor))
            else:
                terms.append(Matrix(term.source, term.places, term.matrix * scale[..., None], term.factor))
    return watch.known_as(value, terms)


def _negate(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    affine = watch.affine(args[0])
    if affine is None:
        return NotImplemented
    return watch.known_as(func(args[0].detach()), _terms_at(watch, affine, affine.shape, -1.0))


def total(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Sums over dimensions: a matrix where every entry reads the same places, else a term an entry."""
    affine = watch.affine(args[0])
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
        index = watch.cache.moved(summands_last, term.index, "summands", (tuple(dims),))
        coefficient = None if term.coefficient is None else summands_last(term.coefficient)
        if (count <= WHOLE or value.numel() <= SMALL) and all(
            d == 0 for d, n in zip(index.stride()[:-1], shape, strict=True) if n > 1
        ):
            if index.numel():
                places = watch.cache.moved(lambda t: t.reshape(-1)[:count], index, "first row", (count,))
                whole = value.new_ones(index.shape) if coefficient is None else coefficient
                terms.append(Matrix(term.source, places, whole.reshape(*value.shape, count), factor))
            continue
        if count > UNBOUND:
            return NotImplemented
        for k in range(count):
            part = watch.cache.moved(
                lambda t, k=k: t[..., k].reshape(value.shape), index, "summand", (k, tuple(value.shape))
            )
            terms.append(
                Entry(term.source, part, None if coefficient is None else coefficient[..., k].view(value.shape), factor)
            )
    return watch.known_as(value, terms)


def _diff(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Differences of neighbours, n times."""
    given = dict(zip(("input", "n", "dim"), args, strict=False)) | kwargs
    tensor, dim = given.pop("input"), given.pop("dim", -1)
    times = given.pop("n", 1)
    if watch.affine(tensor) is None or len(args) > 3 or any(one is not None for one in given.values()):
        return NotImplemented
    for _ in range(times):
        last = tensor.shape[dim] - 1
        after, before = (move(watch, torch.narrow, "narrow", (tensor, dim, start, last), {}) for start in (1, 0))
        tensor = add(watch, torch.sub, "sub", (after, before), {})
    return tensor


def _pad(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Zeros before and after."""
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    tensor, pads = given["input"], list(given["pad"])
    if (
        watch.affine(tensor) is None
        or given.get("mode", "constant") != "constant"
        or given.get("value")
        or min(pads) < 0
    ):
        return NotImplemented
    for number, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        dim, shape = tensor.dim() - 1 - number, list(tensor.shape)
        parts = [tensor]
        for count, place in ((before, 0), (after, len(parts) + 1)):
            if count:
                shape[dim] = count
                parts.insert(place, tensor.detach().new_zeros(shape))
        if len(parts) > 1:
            tensor = _cat(watch, torch.cat, "cat", (parts, dim), {})
    return tensor


def _cat(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Tensors one after the other: terms that read the same source become one, and 0 where a tensor has none."""
    tensors = list(args[0])
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if len(args) > 2 or set(kwargs) - {"dim"} or any(watch.is_opaque(t) for t in tensors):
        return NotImplemented
    if name == "stack":
        known = [watch.affine(t) is not None for t in tensors]
        tensors = [
            watch.moved(t, "unsqueeze", lambda t: t.unsqueeze(dim), (dim,)) if k else t.unsqueeze(dim)
            for t, k in zip(tensors, known, strict=True)
        ]
    if len({t.dim() for t in tensors}) > 1:  # only an empty vector may join others, and torch leaves it out
        return NotImplemented
    value = torch.cat([t.detach() for t in tensors], dim)
    parts: dict[Any, dict[int, Term]] = {}
    for k, tensor in enumerate(tensors):
        affine = watch.affine(tensor)
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
            else _cat_entries(watch, first, own, tensors, value, dim)
        )
    return watch.known_as(value, terms)


def _cat_matrices(first: Matrix, own: Mapping[int, Term], tensors: list[Tensor], value: Tensor, dim: int) -> Matrix:
    matrices = [value.new_zeros(*tensor.shape, len(first.places)) for tensor in tensors]
    for k, term in own.items():
        if isinstance(term, Matrix):
            matrices[k] = term.matrix * term.factor
    return Matrix(first.source, first.places, torch.cat(matrices, dim % value.dim()))


def _cat_entries(
    watch: Watch, first: Entry, own: Mapping[int, Term], tensors: list[Tensor], value: Tensor, dim: int
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
        else:  # Times zero any place will do. The first term's, where they fit, say of no row that it meets another.
            nowhere = watch.cache.identity(torch.Size((1,)), tensor.device).expand(tensor.shape)
            indices.append(first.index if first.index.shape == tensor.shape else nowhere)
            coefficients.append(value.new_zeros(tensor.shape))
    index = watch.cache.of("cat", (indices, dim), lambda: torch.cat(indices, dim))
    if plain:
        return Entry(first.source, index, None, first.factor)
    return Entry(first.source, index, torch.cat(coefficients, dim))


def _terms_at(watch: Watch, affine: Affine, shape: torch.Size, factor: float) -> list[Term]:
    """The terms broadcast to ``shape`` and times ``factor``."""
    terms: list[Term] = []
    for term in affine.terms:
        if isinstance(term, Entry):
            index, coefficient = term.index, term.coefficient
            if affine.shape != shape:
                index = watch.cache.moved(lambda t: t.expand(shape), index, "expand", (tuple(shape),))
                coefficient = None if coefficient is None else coefficient.expand(shape)
            terms.append(Entry(term.source, index, coefficient, term.factor * factor))
        else:
            matrix = term.matrix if affine.shape == shape else term.matrix.expand(*shape, term.matrix.shape[-1])
            terms.append(Matrix(term.source, term.places, matrix, term.factor * factor))
    return terms


def _holds_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(_holds_tensor(one) for one in value))


def is_real(value: Any) -> bool:
    """Whether a map can be made of it: a real number or tensor."""
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, (bool, int, float, np.number)) and not isinstance(value, np.complexfloating)


ELEMENTARY: dict[str, Rule] = {
    **dict.fromkeys(GATHERS | MAY_GROW | VIEWS, move),
    **dict.fromkeys(("unbind", "split", "chunk", "tensor_split", "split_with_sizes"), _split),
    **dict.fromkeys(ADDS, add),
    **dict.fromkeys(TIMES | DIVIDES, multiply),
    **dict.fromkeys(NEGATES, _negate),
    **dict.fromkeys(("sum", "mean"), total),
    **dict.fromkeys(COPIES | {"real"}, _same),
    **dict.fromkeys(("cat", "concat", "stack"), _cat),
    "diff": _diff,
    "pad": _pad,
    "broadcast_tensors": _broadcast_tensors,
}
