"""Columns of a table → keyword arguments of the model, as ``data.columns`` of a config asks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import DataError
from .arguments import native
from .table import Table, is_missing
from .text import EXACT, Array, Column, Integers, Text, taken


class ColumnRequest(Protocol):
    """One entry of ``data.columns``; the config's schema has this shape."""

    @property
    def column(self) -> str | list[str]: ...
    @property
    def codes(self) -> bool | str: ...
    @property
    def levels(self) -> str | None: ...
    @property
    def order(self) -> list[Any] | None: ...
    @property
    def dtype(self) -> str | None: ...


DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
"""A number as it is written where a comma stands before the decimals."""

DTYPES = {
    "float": None,  # the run's own dtype
    "float32": torch.float32,
    "float64": torch.float64,
    "long": torch.int64,
    "int": torch.int64,
    "bool": torch.bool,
}


@dataclass
class Arguments:
    """What columns became, by argument, with all that is wrong and what deserves a warning.

    ``floating`` names the columns of whole numbers that became floating for want of a dtype. ``levels`` gives, when
    asked, the levels of an argument that is codes, in their order.
    """

    values: dict[str, Any] = field(default_factory=dict)
    errors: list[DataError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    floating: list[str] = field(default_factory=list)
    levels: dict[str, Callable[[], list[object]]] = field(default_factory=dict)

    def refuse(self, error: DataError, argument: str) -> None:
        self.errors.append(DataError(str(error), ("data", "columns", argument)))


def columns_to_arguments(table: Table, requests: Mapping[str, ColumnRequest], missing: str) -> Arguments:
    """One tensor of shape (rows,) an entry, and the number of levels where one is asked for.

    Wrong is a column that is not there, text without codes, an empty cell; each error names column and row.
    """
    made = Arguments()
    columns: dict[str, Column] = {}
    keep = np.ones(len(next(iter(table.columns.values()))), dtype=bool)
    for argument, request in requests.items():
        try:
            for name in names_of(request):
                columns[name] = table.column(name)
                keep &= present_rows(table, name, missing)
        except DataError as error:
            made.refuse(error, argument)
    rows = np.flatnonzero(keep)
    if not len(rows) and not made.errors:
        made.errors.append(DataError(f"{table.path}: no row is left when rows with missing cells are dropped"))
    wrong = {error.key[-1] for error in made.errors if error.key}
    coded: dict[str, list[_Coded]] = {}
    for argument, request in requests.items():
        if argument in wrong or not len(rows):
            continue
        cells = [taken(columns[name], rows) for name in names_of(request)]
        try:
            if request.codes:
                one = _Coded(table, argument, request, cells, rows)
                coded.setdefault(kind_of(argument, request), []).append(one)
            else:
                made.values[argument] = _numbers(table, request, cells[0], rows)
                if request.dtype is None and not isinstance(cells[0], Text) and cells[0].dtype.kind in "iu":
                    made.floating.append(str(request.column))
        except DataError as error:
            made.refuse(error, argument)
    for members in coded.values():
        try:
            codes = _codes_of(members)
            made.values.update(codes)
            order = next((one.request.order for one in members if one.request.order is not None), None)
            numbered = [(one.cells, codes[one.argument]) for one in members]  # and not the whole table, to be kept
            made.levels.update({one.argument: partial(_levels_of, order, numbered) for one in members})
        except DataError as error:
            made.refuse(error, members[0].argument)
    for argument, request in requests.items():
        kinds = {kind_of(a, other) for a, other in requests.items() if other.codes and other.levels == request.levels}
        if request.levels and (request.levels in requests or len(kinds) > 1):
            made.refuse(DataError(f"levels: {request.levels!r} is given twice"), argument)
    made.warnings = [text for one, other in combinations(coded.values(), 2) for text in _overlap(one[0], other[0])]
    return made


@dataclass(frozen=True)
class _Coded:
    """A request for codes, with the cells of its columns in the rows that are kept."""

    table: Table
    argument: str
    request: ColumnRequest
    cells: list[Column]
    rows: Array

    def __post_init__(self) -> None:
        if any(not isinstance(column, Text) and column.ndim > 1 for column in self.cells):
            raise DataError(
                f"{self.table.path}: {self.request.column!r} has several numbers a row: codes are for single values"
            )


def kind_of(argument: str, request: ColumnRequest) -> str:
    """What is numbered: arguments of one kind share their numbers."""
    if isinstance(request.codes, str):
        return f"codes {request.codes}"
    return f"levels {request.levels}" if request.levels else f"argument {argument}"


def _codes_of(members: list[_Coded]) -> dict[str, Any]:
    """The codes of all arguments of one kind, and how many there are wherever that is asked for."""
    orders = [one.request.order for one in members if one.request.order is not None]
    if any(len(one.cells) != len(members[0].cells) for one in members):
        names = ", ".join(repr(one.argument) for one in members)
        raise DataError(f"{names} share their codes, and so need as many columns each")
    if any(order != orders[0] for order in orders):
        raise DataError(f"order: {members[0].argument!r} shares its codes with another of another order")
    if orders:
        codes, count = [_places_in(orders[0], one) for one in members], len(orders[0])
    else:
        joint = _joint([_ranks(parts) for parts in zip(*(one.cells for one in members), strict=True)])
        count = int(joint.max()) + 1
        codes = np.split(joint, np.cumsum([len(one.rows) for one in members])[:-1])
    values: dict[str, Any] = {}
    for one, own in zip(members, codes, strict=True):
        values[one.argument] = torch.from_numpy(own)
        if one.request.levels:
            values[one.request.levels] = count
    return values


def _levels_of(order: list[Any] | None, numbered: list[tuple[list[Column], torch.Tensor]]) -> list[object]:
    """The levels by their number, of cells with their codes; several columns' are one word, with colons between."""
    if order is not None:
        return list(order)
    found: dict[int, object] = {}
    for cells, codes in numbered:
        numbers, rows = np.unique(codes.numpy(), return_index=True)
        parts = [[_plain(column, row) for row in rows.tolist()] for column in cells]
        words = parts[0] if len(parts) == 1 else [":".join(map(str, several)) for several in zip(*parts, strict=True)]
        found |= dict(zip(numbers.tolist(), words, strict=True))
    return [found[number] for number in sorted(found)]


def _plain(column: Column, row: int) -> object:
    """A cell as Python has it."""
    cell = column.cell(row) if isinstance(column, Text) else column[row]
    return cell.item() if isinstance(cell, np.generic) else cell


def _overlap(one: _Coded, other: _Coded) -> Iterator[str]:
    """A warning where two kinds have some levels in common, and not all: they may be one kind."""
    if isinstance(one.request.codes, str) or isinstance(other.request.codes, str) or len(one.cells) != len(other.cells):
        return
    of_one, of_other = _occurring(one.cells), _occurring(other.cells)
    common = len(of_one & of_other)
    counted = bool(one.request.levels and other.request.levels) and _is_count(of_one) and _is_count(of_other)
    if common and of_one != of_other and not counted:
        yield (
            f"codes: columns {one.request.column!r} and {other.request.column!r} have {common} levels in common, and "
            "each is numbered by itself, so that one level has two numbers. Where they are of one kind, let them share "
            "their levels: the same `codes: NAME` (or `levels: NAME`) for both; else give each a name of its own"
        )


def names_of(request: ColumnRequest) -> list[str]:
    return [request.column] if isinstance(request.column, str) else list(request.column)


def present_rows(table: Table, name: str, missing: str) -> Array:
    """True where the column holds something. Raises: DataError where it does not, unless such rows are dropped."""
    empty = is_missing(table.column(name))
    if missing == "error" and empty.any():
        row = int(np.flatnonzero(empty)[0])
        raise DataError(
            f"{table.where(row)}: column {name!r} is missing or NaN "
            f"({int(empty.sum())} of {len(empty)} rows); `data.missing: drop` leaves such rows out"
        )
    return ~empty


def _numbers(table: Table, request: ColumnRequest, cells: Column, rows: Array) -> torch.Tensor:
    name = request.column
    kind = request.dtype or "float"
    if isinstance(cells, Integers):
        try:
            cells = cells.whole() if kind in ("long", "int") else cells.rounded()
        except (OverflowError, ValueError) as error:
            raise DataError(f"{table.path}: column {name!r} holds numbers that no 64-bit integer can") from error
    if isinstance(cells, Text) or cells.dtype == object:
        place = _first_text(cells)
        example = cells.cell(place) if isinstance(cells, Text) else cells[place]
        edit = "write codes: true, or mend the file"
        if DECIMAL_COMMA.fullmatch(str(example).strip()):
            edit = "a number has a point, not a comma: mend the file (pandas: read_csv(…, decimal=',').to_csv(…))"
        raise DataError(f"{table.where(int(rows[place]))}: column {name!r} holds text ({example!r:.60}): {edit}")
    if cells.dtype.kind not in "fiub":
        raise DataError(f"{table.path}: column {name!r} is {cells.dtype}; a column holds numbers, booleans or text")
    if np.issubdtype(cells.dtype, np.floating) and np.isinf(cells).any():
        first = int(rows[np.argwhere(np.isinf(cells))[0][0]])
        raise DataError(f"{table.where(first)}: column {name!r} is infinite")
    if kind in ("long", "int", "bool") and not np.array_equal(cells, np.trunc(cells.astype(np.float64))):
        raise DataError(f"{table.path}: column {name!r} holds fractions, but dtype is {kind}")
    if (
        kind in ("long", "int")
        and cells.dtype.kind in "fu"
        and cells.size
        and float(np.abs(cells.astype(np.float64)).max()) >= 2.0**63
    ):
        raise DataError(f"{table.path}: column {name!r} holds numbers that no 64-bit integer can")
    target = DTYPES[kind] or torch.get_default_dtype()
    return torch.from_numpy(native(cells)).to(target)


def _first_text(cells: Column) -> int:
    """The row of the first cell that is no number, else of the first cell."""
    if isinstance(cells, Text):
        words = ~np.array([_is_number(level) for level in cells.levels], dtype=bool)
        return int(words[cells.places].argmax())
    return next((row for row, cell in enumerate(cells) if not _is_number(cell)), 0)


def _is_count(levels: set[tuple[object, ...]]) -> bool:
    """Whether levels are 0, 1, 2, … or 1, 2, …: then each kind has been numbered already, and has its own 1."""
    numbers = {level for (level, *_) in levels}
    return numbers in (set(range(len(levels))), set(range(1, len(levels) + 1)))


def _places_in(order: list[Any], one: _Coded) -> Array:
    """0..K-1 by the place in a list of levels."""
    request, cells = one.request, one.cells
    if len(cells) > 1:
        raise DataError(f"{one.table.path}: `order` goes with one column, not with {request.column}")
    places = {_key(level): place for place, level in enumerate(order)}
    if len(places) < len(order):
        raise DataError(f"order names a level twice: {order!r:.200}")
    levels, inverse = _distinct(cells[0])
    codes: Array = np.array([places.get(_key(level), -1) for level in levels], dtype=np.int64)[inverse]
    if (codes < 0).any():
        row = int((codes < 0).argmax())
        cell = cells[0].cell(row) if isinstance(cells[0], Text) else cells[0][row]
        raise DataError(
            f"{one.table.where(int(one.rows[row]))}: column {request.column!r} has {cell!r}, "
            f"which is not in order {order!r:.200}"
        )
    return codes


def _ranks(parts: tuple[Column, ...]) -> Array:
    """0..K-1 by sorted level, for one part after the other: by number when all are numbers, else by code point."""
    plain = [part for part in parts if not isinstance(part, Text)]
    if len(plain) == len(parts) and len({part.dtype.kind for part in plain}) == 1:
        ranks: Array = np.unique(np.concatenate(plain), return_inverse=True)[1]
        return ranks
    found = [_distinct(part) for part in parts]
    ranks = np.unique(_sortable(np.concatenate([levels.astype(object) for levels, _ in found])), return_inverse=True)[1]
    own = np.split(ranks, np.cumsum([len(levels) for levels, _ in found])[:-1])
    return np.concatenate([ranks[inverse] for ranks, (_, inverse) in zip(own, found, strict=True)])


def _joint(numbered: list[Array]) -> Array:
    """0..K-1 of the combinations that occur, by the first column's number, then the second's, and so on."""
    joint = numbered[0].astype(np.int64)
    for numbers in numbered[1:]:
        joint = np.unique(joint * (int(numbers.max()) + 1) + numbers, return_inverse=True)[1].astype(np.int64)
    return joint


def _occurring(cells: list[Column]) -> set[tuple[object, ...]]:
    """The combinations of levels that occur."""
    found = [_distinct(column) for column in cells]
    rows = np.unique(_joint([inverse for _, inverse in found]), return_index=True)[1]
    keys = [list(map(_key, levels)) for levels, _ in found]
    places = [inverse[rows].tolist() for _, inverse in found]
    return set(zip(*([own[p] for p in at] for own, at in zip(keys, places, strict=True)), strict=True))


def _distinct(column: Column) -> tuple[Array, Array]:
    """The levels that occur, told apart by their bits (0 and -0 are two), and which one each row has."""
    if isinstance(column, Text):
        occurring = column.occurring()
        return occurring.levels, occurring.places
    bits = np.ascontiguousarray(column).view(f"V{column.itemsize}" if column.itemsize > 8 else f"u{column.itemsize}")
    levels, inverse = np.unique(bits, return_inverse=True)
    return levels.view(column.dtype), inverse


def sorted_levels(levels: list[str]) -> list[str]:
    """Distinct words in the order in which they are numbered."""
    words = np.array(levels, dtype=object)
    ordered: list[str] = words[np.argsort(_sortable(words), kind="stable")].tolist()
    return ordered


def _sortable(levels: Array) -> Array:
    if all(_is_number(level) for level in levels):
        numbers = np.array([float(level) for level in levels])
        return (
            numbers if (np.abs(numbers) < EXACT).all() else np.array([_exact(level) for level in levels], dtype=object)
        )
    return np.array([str(level) for level in levels])


def _is_number(cell: object) -> bool:
    try:
        return math.isfinite(float(cell))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _key(cell: object) -> object:
    if isinstance(cell, (bool, np.bool_)):
        return bool(cell)
    return _exact(cell) if _is_number(cell) else str(cell)


def _exact(cell: Any) -> int | float:
    """A number as Python compares it: whole ones have every digit."""
    if isinstance(cell, (int, np.integer)):
        return int(cell)
    try:
        return int(cell) if isinstance(cell, str) else float(cell)
    except ValueError:
        return float(cell)
