"""What becomes of a linear map in a product with a constant matrix, and all rules together.

A matrix whose rows are mostly zero (differences, a precision, a basis of splines) is taken entry by entry: each of a
row's few entries is an index map with a coefficient, so that what the rows couple stays known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .maps import Entry, Matrix, Term, composed
from .rules import ELEMENTARY, add, is_real, move, multiply, total
from .watch import Rule, Watch

FEW_IN_ROW = 32
"""Entries of a row of a constant matrix, at most, that become terms of their own."""

MOSTLY_ZERO = 0.125
"""Part of a row of a constant matrix, at most, that is not zero where its entries become terms of their own."""


def _matmul(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A constant matrix times a vector of parameters, or rows of parameters times a constant vector."""
    left, right = args[0], args[1]
    if len(args) != 2 or kwargs or (watch.tracked(left) and watch.tracked(right)):
        return NotImplemented
    if (name == "inner" and (left.dim() != 1 or right.dim() != 1)) or not (is_real(left) and is_real(right)):
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
            product = multiply(watch, torch.mul, "mul", (turned, left), {})
            return total(watch, torch.sum, "sum", (product,), {"dim": -1, "keepdim": True})
        if right.shape[-1] == 1:
            column = watch.moved(right, "squeeze", lambda t: t.squeeze(-1))
            return watch.moved(_matrix_vector(watch, left, column), "unsqueeze", lambda t: t.unsqueeze(-1), (-1,))
        return NotImplemented
    if left.dim() == 1 and right.dim() == 2:
        return _matrix_vector(watch, watch.cache.of("transposed", (right,), lambda: right.T), left)
    if right.dim() == 1:
        product = multiply(watch, torch.mul, "mul", (left, right), {})
        return total(watch, torch.sum, "sum", (product,), {"dim": -1})
    return NotImplemented


def _sparse_mm(watch: Watch, func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A sparse constant matrix times a column of parameters; ``torch.sparse.mm`` and what calls it."""
    if len(args) != 2 or kwargs or watch.tracked(args[0]) or not watch.tracked(args[1]) or args[1].shape[-1] != 1:
        return NotImplemented
    return _matmul(watch, torch.matmul, "matmul", args, {})


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
    return value if bias is None else add(watch, torch.add, "add", (value, bias), {})


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
        value = _matrix_vector(watch, matrix, move(watch, torch.reshape, "reshape", (tensor, (-1,)), {}))
        over = list(range(len(out), value.dim()))
        return total(watch, torch.sum, "sum", (value, over), {}) if over else value
    order = [*out, *summed]

    def aligned(t: Tensor, own: str) -> Tensor:
        places = [own.index(one) for one in order if one in own]
        return t.permute(places).reshape([size[one] if one in own else 1 for one in order])

    turned = watch.moved(tensor, "align", lambda t: aligned(t, letters[1]), (letters[1], tuple(order)))
    product = multiply(watch, torch.mul, "mul", (turned, aligned(constant, letters[0])), {})
    for _ in summed:
        if product is NotImplemented:
            return NotImplemented
        product = total(watch, torch.sum, "sum", (product, -1), {})
    return product


RULES: dict[str, Rule] = {
    **ELEMENTARY,
    **dict.fromkeys(("matmul", "__matmul__", "mv", "mm", "dot", "inner"), _matmul),
    "_sparse_mm": _sparse_mm,
    "einsum": _einsum,
    "linear": _linear,
}
