"""Columns of a table → keyword arguments of the model, as ``data.columns`` of a config asks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import DataError
from .arguments import native
from .table import Table, is_missing

Array = np.ndarray[Any, Any]


class ColumnRequest(Protocol):
    """One entry of ``data.columns``; the config's schema has this shape."""

    @property
    def column(self) -> str | list[str]: ...
    @property
    def codes(self) -> bool: ...
    @property
    def levels(self) -> str | None: ...
    @property
    def order(self) -> list[Any] | None: ...
    @property
    def dtype(self) -> str | None: ...


DTYPES = {
    "float": None,  # the run's own dtype
    "float32": torch.float32,
    "float64": torch.float64,
    "long": torch.int64,
    "int": torch.int64,
    "bool": torch.bool,
}


def columns_to_arguments(
    table: Table, requests: Mapping[str, ColumnRequest], missing: str
) -> tuple[dict[str, Any], list[DataError]]:
    """One tensor of shape (rows,) an entry, and the number of levels where one is asked for; and all that is wrong.

    Wrong is a column that is not there, text without codes, an empty cell; each error names column and row.
    """
    arguments: dict[str, Any] = {}
    errors: list[DataError] = []
    columns: dict[str, Array] = {}
    keep = np.ones(len(next(iter(table.columns.values()))), dtype=bool)
    for argument, request in requests.items():
        try:
            for name in _names(request):
                columns[name] = table.column(name)
                keep &= _present_rows(table, name, missing)
        except DataError as error:
            errors.append(DataError(str(error), ("data", "columns", argument)))
    rows = np.flatnonzero(keep)
    if not len(rows) and not errors:
        return {}, [DataError(f"{table.path}: no row is left when rows with missing cells are dropped")]
    wrong = {error.key[-1] for error in errors}
    for argument, request in requests.items():
        if argument in wrong or not len(rows):
            continue
        try:
            arguments.update(_arguments_of(table, argument, request, [columns[n][rows] for n in _names(request)], rows))
        except DataError as error:
            errors.append(DataError(str(error), ("data", "columns", argument)))
    for argument, request in requests.items():
        doubled = [a for a, other in requests.items() if other.levels == request.levels]
        if request.levels and (request.levels in requests or len(doubled) > 1):
            errors.append(DataError(f"levels: {request.levels!r} is given twice", ("data", "columns", argument)))
    return arguments, errors


def _arguments_of(
    table: Table, argument: str, request: ColumnRequest, cells: list[Array], rows: Array
) -> dict[str, Any]:
    if not request.codes:
        return {argument: _numbers(table, request, cells[0], rows)}
    if any(column.ndim > 1 for column in cells):
        raise DataError(f"{table.path}: {request.column!r} has several numbers a row: codes are for single values")
    codes, count = _codes(table, request, cells, rows)
    return {argument: torch.from_numpy(codes)} | ({request.levels: count} if request.levels else {})


def _names(request: ColumnRequest) -> list[str]:
    return [request.column] if isinstance(request.column, str) else list(request.column)


def _present_rows(table: Table, name: str, missing: str) -> Array:
    """True where the column holds something. Raises: DataError where it does not, unless such rows are dropped."""
    empty = is_missing(table.column(name))
    if missing == "error" and empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise DataError(
            f"{table.where(row)}: column {name!r} is missing or NaN "
            f"({int(empty.sum())} of {len(empty)} rows); `data.missing: drop` leaves such rows out"
        )
    return ~empty


def _numbers(table: Table, request: ColumnRequest, cells: Array, rows: Array) -> torch.Tensor:
    name = request.column
    if cells.dtype == object:
        example = next((cell for cell in cells if not _is_number(cell)), cells[0])
        raise DataError(f"{table.path}: column {name!r} holds text ({example!r}): write codes: true, or mend the file")
    if cells.dtype.kind not in "fiub":
        raise DataError(f"{table.path}: column {name!r} is {cells.dtype}; a column holds numbers, booleans or text")
    if np.issubdtype(cells.dtype, np.floating) and np.isinf(cells).any():
        first = int(rows[np.argwhere(np.isinf(cells))[0][0]])
        raise DataError(f"{table.where(first)}: column {name!r} is infinite")
    kind = request.dtype or "float"
    if kind in ("long", "int", "bool") and not np.array_equal(cells, np.trunc(cells.astype(np.float64))):
        raise DataError(f"{table.path}: column {name!r} holds fractions, but dtype is {kind}")
    if kind in ("long", "int") and cells.size and float(np.abs(cells.astype(np.float64)).max()) >= 2.0**63:
        raise DataError(f"{table.path}: column {name!r} holds numbers that no 64-bit integer can")
    target = DTYPES[kind] or torch.get_default_dtype()
    return torch.from_numpy(native(cells)).to(target)


def _codes(table: Table, request: ColumnRequest, cells: list[Array], rows: Array) -> tuple[Array, int]:
    """0..K-1 by sorted level: by number when all are numbers, else by code point."""
    if request.order is not None:
        if len(cells) > 1:
            raise DataError(f"{table.path}: `order` goes with one column, not with {request.column}")
        places = {_key(level): place for place, level in enumerate(request.order)}
        if len(places) < len(request.order):
            raise DataError(f"order names a level twice: {request.order}")
        keys = [_key(cell) for cell in cells[0]]
        for row, key in enumerate(keys):
            if key not in places:
                raise DataError(
                    f"{table.where(int(rows[row]))}: column {request.column!r} has {cells[0][row]!r}, "
                    f"which is not in order {request.order}"
                )
        return np.array([places[key] for key in keys], dtype=np.int64), len(request.order)
    inverses = []
    for column in cells:
        inverses.append(np.unique(_sortable(column), return_inverse=True)[1])
    codes, inverse = np.unique(np.stack(inverses, axis=1), axis=0, return_inverse=True)
    return inverse.reshape(-1).astype(np.int64), len(codes)


def _sortable(column: Array) -> Array:
    if column.dtype != object:
        return column
    if all(_is_number(cell) for cell in column):
        return np.array([float(cell) for cell in column])
    return np.array([str(cell) for cell in column])


def _is_number(cell: object) -> bool:
    try:
        return math.isfinite(float(cell))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _key(cell: object) -> object:
    if isinstance(cell, (bool, np.bool_)):
        return bool(cell)
    return float(cell) if _is_number(cell) else str(cell)  # type: ignore[arg-type]
