"""What becomes of a linear map under torch's functions: a rule for each function that keeps it one.

A rule takes (who watches, the function, its name, args, kwargs) and returns the result, a tensor whose map is known, or
NotImplemented where the function is not linear in what is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .functions import ADDS, COPIES, DIVIDES, GATHERS, MAY_GROW, NEGATES, TIMES, VIEWS
from .maps import Affine, Entry, Matrix, Term, broadcast_shape, composed
from .watch import Rule, Watch

UNBOUND = 8
"""Entries of a sum over a dimension that become terms of their own."""

WHOLE = 4096
"""Entries that one number may be a sum of, to be a row of a matrix."""

FEW_IN_ROW = 32
"""Entries of a row of a constant matrix, at most, that become terms of their own."""

MOSTLY_ZERO = 0.125
"""Part of a row of a constant matrix, at most, that is not zero where its entries become terms of their own."""


def _move(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
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


def _add(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
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
        if watch.is_opaque(one) and one.shape == shape:
            return NotImplemented
    terms: list[Term] = []
    values = []
    for one, sign in zip((left, right), signs, strict=True):
        if watch.is_opaque(one):
            one = watch.cut(one)
        affine = watch.affine(one)
        if affine is not None:
            terms += _terms_at(watch, affine, shape, sign)
        values.append(one.detach() if isinstance(one, Tensor) else one)
    with torch.no_grad():
        return watch.known_as(func(*values, **kwargs), terms)


def _multiply(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    if len(args) != 2 or kwargs:
        return NotImplemented
    left, right = args
    divides = name in DIVIDES
    if (watch.tracked(left) and watch.tracked(right)) or not (_is_real(left) and _is_real(right)):
        return NotImplemented
    tensor, other = (left, right) if watch.tracked(left) else (right, left)
    if divides and tensor is right:
        return NotImplemented
    shape = broadcast_shape(tensor.shape, other.shape) if isinstance(other, Tensor) else tensor.shape
    if watch.is_opaque(tensor):
        if tensor.shape == shape:
            return NotImplemented
        tensor = watch.cut(tensor)
    affine = watch.affine(tensor)
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


def _sum(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
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
        if count <= WHOLE and all(d == 0 for d, n in zip(index.stride()[:-1], shape, strict=True) if n > 1):
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


def _matmul(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A constant matrix times a vector of parameters, or rows of parameters times a constant vector."""
    left, right = args[0], args[1]
    if len(args) != 2 or kwargs or (watch.tracked(left) and watch.tracked(right)):
        return NotImplemented
    if (name == "inner" and (left.dim() != 1 or right.dim() != 1)) or not (_is_real(left) and _is_real(right)):
        return NotImplemented
    tracked = left if watch.tracked(left) else right
    if watch.is_opaque(tracked):
        tracked = watch.cut(tracked)
        left, right = (tracked, right) if watch.tracked(left) else (left, tracked)
    if tracked is right:
        if right.dim() == 1:
            return _matrix_vector(watch, left, right)
        if right.shape[-1] == 1 and right.dim() > 2:
            turned = watch.moved(right, "mT", lambda t: t.transpose(-1, -2))
            product = _multiply(watch, torch.mul, "mul", (turned, left), {})
            return _sum(watch, torch.sum, "sum", (product,), {"dim": -1, "keepdim": True})
        if right.shape[-1] == 1:
            column = watch.moved(right, "squeeze", lambda t: t.squeeze(-1))
            return watch.moved(_matrix_vector(watch, left, column), "unsqueeze", lambda t: t.unsqueeze(-1), (-1,))
        return NotImplemented
    if left.dim() == 1 and right.dim() == 2:
        return _matrix_vector(watch, watch.cache.of("transposed", (right,), lambda: right.T), left)
    if right.dim() == 1:
        product = _multiply(watch, torch.mul, "mul", (left, right), {})
        return _sum(watch, torch.sum, "sum", (product,), {"dim": -1})
    return NotImplemented


def _sparse_mm(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A sparse constant matrix times a column of parameters; ``torch.sparse.mm`` and what calls it."""
    if len(args) != 2 or kwargs or watch.tracked(args[0]) or not watch.tracked(args[1]) or args[1].shape[-1] != 1:
        return NotImplemented
    return _matmul(watch, torch.matmul, "matmul", args, {})


def _diff(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Differences of neighbours, n times."""
    given = dict(zip(("input", "n", "dim"), args, strict=False)) | kwargs
    tensor, dim = given.pop("input"), given.pop("dim", -1)
    times = given.pop("n", 1)
    if watch.affine(tensor) is None or len(args) > 3 or any(one is not None for one in given.values()):
        return NotImplemented
    for _ in range(times):
        last = tensor.shape[dim] - 1
        after, before = (
            watch.moved(tensor, "narrow", lambda t, start=start: t.narrow(dim, start, last), (dim, start, last))
            for start in (1, 0)
        )
        tensor = _add(watch, torch.sub, "sub", (after, before), {})
    return tensor


def _pad(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """Zeros before and after."""
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    tensor, pads = given["input"], list(given["pad"])
    if watch.affine(tensor) is None or given.get("mode", "constant") != "constant" or given.get("value") or min(pads) < 0:
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


@dataclass(frozen=True)
class _ByRow:
    """A constant matrix (N, K) by the entries of its rows that are not zero. Shapes: columns, values (width, N)."""

    columns: Tensor
    values: Tensor


def _few_in_row(watch: Watch, matrix: Tensor) -> _ByRow | None:
    """Where rows of a matrix (…, K) are mostly zero: what is not, a row filled up with zeros at a place that it has."""
    found: _ByRow | None = watch.cache.of("by row", (matrix,), lambda: _by_row(matrix))
    return found


def _by_row(matrix: Tensor) -> _ByRow | None:
    if matrix.layout is not torch.strided:
        entries = matrix.to_sparse_coo().coalesce()
        (rows, columns), values, count = entries.indices(), entries.values(), matrix.shape[0]
        widest = FEW_IN_ROW
    elif not matrix.numel():
        return None
    else:
        flat = matrix.reshape(-1, matrix.shape[-1])
        widest, count = min(FEW_IN_ROW, int(MOSTLY_ZERO * flat.shape[1])), len(flat)
        # Asked of the first rows before of all: a dense matrix is not looked through to its end.
        if any(int((flat[:some] != 0).sum(1).max()) > widest for some in (1, 64, count)):
            return None
        rows, columns = (flat != 0).nonzero().unbind(1)
        values = flat[rows, columns]
    each = torch.bincount(rows, minlength=count)
    width = int(each.max()) if count else 0
    if not 0 < width <= widest:
        return None
    number = torch.arange(len(rows)) - (each.cumsum(0) - each)[rows]
    first = columns.new_zeros(count).index_copy(0, rows[number == 0], columns[number == 0])
    places, filled = first.expand(width, -1).clone(), values.new_zeros(width, count)
    places[number, rows], filled[number, rows] = columns, values
    return _ByRow(places, filled)


def _matrix_vector(watch: Watch, matrix: Tensor, vector: Tensor) -> Tensor:
    affine = watch.affine(vector)
    assert affine is not None
    by_row = _few_in_row(watch, matrix)
    if by_row is not None:
        return _rows_times(watch, by_row, matrix, vector)
    if matrix.layout is not torch.strided:
        matrix = matrix.to_dense()
    with torch.no_grad():
        value = matrix @ vector.detach()
        terms: list[Term] = []
        for term in affine.terms if matrix.numel() else ():
            if isinstance(term, Entry):
                whole = matrix if term.coefficient is None else matrix * term.coefficient
                terms.append(Matrix(term.source, term.index.reshape(-1), whole, term.factor))
            else:
                terms.append(Matrix(term.source, term.places, matrix @ term.matrix, term.factor))
    return watch.known_as(value, terms)


def _rows_times(watch: Watch, by_row: _ByRow, matrix: Tensor, vector: Tensor) -> Tensor:
    affine = watch.affine(vector)
    assert affine is not None
    with torch.no_grad():
        value, terms = matrix @ vector.detach(), []
        shape = value.shape
        for number, (columns, values) in enumerate(zip(by_row.columns, by_row.values, strict=True)):
            index, scale = columns.reshape(shape), values.reshape(shape)
            for term in affine.terms:
                label = ("entries of the rows", number, tuple(shape))
                place = watch.cache.moved(lambda t, index=index: index, by_row.columns, "by row", label)
                terms.append(composed(watch.cache, Entry(-1, place, scale), term))
    return watch.known_as(value, terms)


def _linear(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    inputs, weight, bias = given["input"], given["weight"], given.get("bias")
    if watch.tracked(inputs) or weight.dim() != 2 or weight.shape[0] != 1 or not watch.tracked(weight):
        return NotImplemented
    if watch.is_opaque(weight):
        weight = watch.cut(weight)
    row = watch.moved(weight, "squeeze", lambda t: t.squeeze(0), (0,))
    value = watch.moved(_matrix_vector(watch, inputs, row), "unsqueeze", lambda t: t.unsqueeze(-1), (-1,))
    return value if bias is None else _add(watch, torch.add, "add", (value, bias), {})


def _einsum(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A product of one constant and one tensor of parameters, summed over some letters."""
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = list(operands[0])
    if kwargs or not isinstance(equation, str) or "->" not in equation or "." in equation or len(operands) != 2:
        return NotImplemented
    inputs, out = equation.replace(" ", "").split("->")
    letters = inputs.split(",")
    if watch.tracked(operands[0]):
        operands, letters = operands[::-1], letters[::-1]
    constant, tensor = operands
    if watch.tracked(constant) or any(len(set(one)) < len(one) for one in (*letters, out)):
        return NotImplemented
    if watch.is_opaque(tensor):
        tensor = watch.cut(tensor)
    size = dict(zip("".join(letters), (*constant.shape, *tensor.shape), strict=True))
    summed = [one for one in size if one not in out]
    if set(letters[1]) <= set(summed) and set(letters[0]) == set(size):
        order = [*out, *(one for one in summed if one not in letters[1]), *letters[1]]
        matrix = constant.permute([letters[0].index(one) for one in order]).reshape(
            *(size[one] for one in order if one not in letters[1]), -1
        )
        value = _matrix_vector(watch, matrix, _move(watch, torch.reshape, "reshape", (tensor, (-1,)), {}))
        over = list(range(len(out), value.dim()))
        return _sum(watch, torch.sum, "sum", (value, over), {}) if over else value
    order = [*out, *summed]

    def aligned(t: Tensor, own: str) -> Tensor:
        places = [own.index(one) for one in order if one in own]
        return t.permute(places).reshape([size[one] if one in own else 1 for one in order])

    turned = watch.moved(tensor, "align", lambda t: aligned(t, letters[1]), (letters[1], tuple(order)))
    product = _multiply(watch, torch.mul, "mul", (turned, aligned(constant, letters[0])), {})
    for _ in summed:
        if product is NotImplemented:
            return NotImplemented
        product = _sum(watch, torch.sum, "sum", (product, -1), {})
    return product


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


def _is_real(value: Any) -> bool:
    """Whether a map can be made of it: a real number or tensor."""
    if isinstance(value, Tensor):
        return not value.is_complex()
    return isinstance(value, (bool, int, float, np.number)) and not isinstance(value, np.complexfloating)


RULES: dict[str, Rule] = {
    **dict.fromkeys(GATHERS | MAY_GROW | VIEWS, _move),
    **dict.fromkeys(("unbind", "split", "chunk", "tensor_split", "split_with_sizes"), _split),
    **dict.fromkeys(ADDS, _add),
    **dict.fromkeys(TIMES | DIVIDES, _multiply),
    **dict.fromkeys(NEGATES, _negate),
    **dict.fromkeys(("sum", "mean"), _sum),
    **dict.fromkeys(("matmul", "__matmul__", "mv", "mm", "dot", "inner"), _matmul),
    **dict.fromkeys(COPIES | {"real"}, _same),
    **dict.fromkeys(("cat", "concat", "stack"), _cat),
    "einsum": _einsum,
    "diff": _diff,
    "pad": _pad,
    "_sparse_mm": _sparse_mm,
    "broadcast_tensors": _broadcast_tensors,
    "linear": _linear,
}
