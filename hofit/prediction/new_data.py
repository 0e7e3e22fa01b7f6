"""The model's arguments for rows that the fit has not seen, with the levels of the fit's own data.

A level that the fit knows keeps its number; levels that it does not know get the numbers after these, and the count of
levels grows. Both tables are numbered as one by `model/columns.py`, so that a level is what it was to the fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.schema import Data
from ..errors import DataError
from ..model.columns import Arguments, ColumnRequest, columns_to_arguments, kind_of, names_of
from ..model.parts import read_parts
from ..model.table import Table, is_missing
from ..model.text import Array, Column, Text, taken


@dataclass(frozen=True)
class NewArguments:
    """What comes from columns: argument → value, ``rows`` of each; ``levels`` are pairs of counts, before and now."""

    values: dict[str, Any]
    rows: int
    rows_before: int
    levels: list[tuple[int, int]]


def new_arguments(data: Data, before: Table, new: Table, responses: Collection[str]) -> NewArguments:
    """The arguments of ``new``'s rows.

    Args:
        responses: arguments whose values do not matter, being what is predicted: their columns may be empty or absent.
    Raises: DataError, with the row where it is one's.
    """
    requests: Mapping[str, ColumnRequest] = data.columns
    kept = complete_rows(before, requests, data.missing)
    count = len(next(iter(new.columns.values())))
    columns: dict[str, Column] = {}
    for argument, request in requests.items():
        for name in names_of(request):
            own = taken(before.column(name), kept)
            if argument in responses:
                columns[name] = _joined(new, name, _filled(new, name, own), own)
            else:
                columns[name] = _joined(new, name, new.column(name), own)
    both = _of(Table(new.path, columns, new.lines), requests)
    alone = _of(Table(before.path, {name: taken(before.column(name), kept) for name in columns}), requests)
    values = {name: value[:count] if isinstance(value, Tensor) else value for name, value in both.values.items()}
    levels = []
    kinds: dict[str, list[str]] = {}
    for argument, request in requests.items():
        if request.codes:
            kinds.setdefault(kind_of(argument, request), []).append(argument)
    for members in kinds.values():
        joint = torch.cat([both.values[one] for one in members])
        of_fit = torch.cat([both.values[one][count:] for one in members])
        codes = torch.cat([alone.values[one] for one in members])
        size = 1 + int(codes.max())
        counted = [request.levels for one in members if (request := requests[one]).levels]
        if counted:
            size = int(alone.values[counted[0]])
        place = torch.full((1 + int(joint.max()),), -1)
        place[of_fit] = codes
        fresh = torch.tensor([level for level in joint.unique().tolist() if place[level] < 0], dtype=torch.long)
        fresh = fresh[torch.isin(fresh, torch.cat([values[one] for one in members]))]
        place[fresh] = size + torch.arange(len(fresh))
        for one in members:
            values[one] = place[values[one]]
        for name in counted:
            values[name] = size + len(fresh)
        levels.append((size, size + len(fresh)))
    return NewArguments(values, count, len(kept), levels)


def _of(table: Table, requests: Mapping[str, ColumnRequest]) -> Arguments:
    made = columns_to_arguments(table, requests, "error")
    if made.errors:
        raise made.errors[0]
    return made


def complete_rows(table: Table, requests: Mapping[str, ColumnRequest], missing: str) -> Array:
    """The rows that the fit has had."""
    keep = np.ones(len(next(iter(table.columns.values()))), dtype=bool)
    for request in requests.values() if missing == "drop" else ():
        for name in names_of(request):
            keep &= ~is_missing(table.column(name))
    return np.flatnonzero(keep)


def _filled(new: Table, name: str, own: Column) -> Column:
    """A response with a value of the fit's wherever it has none."""
    count = len(next(iter(new.columns.values())))
    column = new.columns.get(name)
    if column is None or is_missing(column).all():
        return taken(own, np.zeros(count, dtype=np.int64))
    return taken(_joined(new, name, column, own), np.where(is_missing(column), count, np.arange(count)))


def _joined(new: Table, name: str, column: Column, own: Column) -> Column:
    """The new cells, then the fit's."""
    if isinstance(column, Text) and isinstance(own, Text):
        levels = np.concatenate([column.levels, own.levels])
        distinct = {level: place for place, level in reversed(list(enumerate(levels.tolist())))}
        places = np.array([distinct[level] for level in levels.tolist()], dtype=np.int64)
        joined = np.concatenate([column.places, own.places + len(column.levels)])
        return Text(levels, places[joined]).occurring()
    if isinstance(column, Text) or isinstance(own, Text):
        kinds = ("text", "numbers") if isinstance(column, Text) else ("numbers", "text")
        raise DataError(f"{new.path}: column {name!r} holds {kinds[0]}, where the fit's data hold {kinds[1]}")
    return np.concatenate([column, own])


def table_of(data: Data) -> Table:
    """The fit's own table. Raises: DataError where its arguments do not come from one."""
    if data.path is None or not data.columns:
        raise DataError(
            "the model's arguments do not come from a table's columns (data.columns), so other rows cannot be made "
            "into arguments: leave --data out for the fit's own rows, or write load_data(path, like=None), where "
            "`like` is the fit's file, by whose levels those of `path` are numbered"
        )
    return read_parts(Path(data.path))


def own_rows(data: Data) -> Table | None:
    """The rows of the fit's own table that it has had; None where its arguments come from none."""
    if data.path is None or not data.columns:
        return None
    table = read_parts(Path(data.path))
    rows = complete_rows(table, data.columns, data.missing)
    return Table(table.path, {name: taken(column, rows) for name, column in table.columns.items()})
