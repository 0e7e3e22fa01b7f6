"""Columns of a table → keyword arguments of the model, as ``data.columns`` of a config asks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import DataError
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
    for argument, request in requests.items():
        try:
            columns.update({name: table.column(name) for name in _names(request)})
        except DataError as error:
            errors.append(DataError(str(error), ("data", "columns", argument)))
    try:
        keep = _kept_rows(table, columns, missing)
    except DataError as error:
        return {}, [*errors, error]
    for argument, request in requests.items():
        if not all(name in columns for name in _names(request)):
            continue
        try:
            arguments.update(_arguments_of(table, argument, request, [columns[n][keep] for n in _names(request)]))
        except DataError as error:
            errors.append(DataError(str(error), ("data", "columns", argument)))
    for argument, request in requests.items():
        doubled = [a for a, other in requests.items() if other.levels == request.levels]
        if request.levels and (request.levels in requests or len(doubled) > 1):
            errors.append(DataError(f"levels: {request.levels!r} is given twice", ("data", "columns", argument)))
    return arguments, errors


def _arguments_of(table: Table, argument: str, request: ColumnRequest, cells: list[Array]) -> dict[str, Any]:
    if not request.codes:
        return {argument: _numbers(table, request, cells[0])}
    codes, count = _codes(table, request, cells)
    return {argument: torch.from_numpy(codes)} | ({request.levels: count} if request.levels else {})


def _names(request: ColumnRequest) -> list[str]:
    return [request.column] if isinstance(request.column, str) else list(request.column)


def _kept_rows(table: Table, columns: Mapping[str, Array], missing: str) -> Array:
    rows = len(next(iter(table.columns.values())))
    keep = np.ones(rows, dtype=bool)
    for name, column in columns.items():
        empty = is_missing(column)
        if missing == "error" and empty.any():
            row = int(np.flatnonzero(empty)[0])
            raise DataError(
                f"{table.where(row)}: column {name!r} is missing or NaN "
                f"({int(empty.sum())} of {rows} rows); `data.missing: drop` leaves such rows out"
            )
        keep &= ~empty
    if not keep.any():
        raise DataError(f"{table.path}: no row is left when rows with missing cells are dropped")
    return keep


def _numbers(table: Table, request: ColumnRequest, cells: Array) -> torch.Tensor:
    name = request.column
    if cells.dtype == object:
        example = next((cell for cell in cells if not _is_number(cell)), cells[0])
        raise DataError(f"{table.path}: column {name!r} holds text ({example!r}): write codes: true, or mend the file")
    if np.issubdtype(cells.dtype, np.floating) and np.isinf(cells).any():
        raise DataError(f"{table.where(int(np.flatnonzero(np.isinf(cells))[0]))}: column {name!r} is infinite")
    kind = request.dtype or "float"
    if kind in ("long", "int", "bool") and not np.array_equal(cells, np.trunc(cells.astype(np.float64))):
        raise DataError(f"{table.path}: column {name!r} holds fractions, but dtype is {kind}")
    target = DTYPES[kind] or torch.get_default_dtype()
    return torch.from_numpy(np.ascontiguousarray(cells)).to(target)


def _codes(table: Table, request: ColumnRequest, cells: list[Array]) -> tuple[Array, int]:
    """0..K-1 by sorted level: by number when all are numbers, else by code point."""
    if request.order is not None:
        if len(cells) > 1:
            raise DataError(f"{table.path}: `order` goes with one column, not with {request.column}")
        places = {_key(level): place for place, level in enumerate(request.order)}
        keys = [_key(cell) for cell in cells[0]]
        for row, key in enumerate(keys):
            if key not in places:
                raise DataError(
                    f"{table.path}: column {request.column!r} has {cells[0][row]!r}, not in order {request.order}"
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
    return float(cell) if _is_number(cell) and not isinstance(cell, bool) else str(cell)  # type: ignore[arg-type]
