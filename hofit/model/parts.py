"""A table in several files: read one after the other, or as one."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .table import Table, read_batches, read_table
from .text import Column, Text


def part_paths(path: Path) -> list[Path]:
    """The files that a path names, which may have ``*``, ``?`` or ``[…]`` in its name, sorted.

    Raises: DataError where a pattern matches no file.
    """
    if path.exists() or not glob.has_magic(path.name):
        return [path]
    found = sorted(one for one in path.parent.glob(path.name) if one.is_file())
    if not found:
        raise DataError(f"no data file matches {path}")
    return found


def read_parts(path: Path) -> Table:
    """All files that a path names as one table, the rows of one after those of the other."""
    parts = part_paths(path)
    return read_table(parts[0]) if len(parts) == 1 else joined(path, [read_table(part) for part in parts])


def joined(path: Path, tables: Sequence[Table]) -> Table:
    """One table of several with the same columns. Raises: DataError where they differ."""
    names = list(tables[0].columns)
    for table in tables:
        if set(table.columns) != set(names):
            odd = sorted({*table.columns} ^ {*names})[0]
            raise DataError(f"{table.path}: the parts of a table have the same columns, and {odd!r} is not in all")
    return Table(path, {name: _joined(name, tables) for name in names})


def _joined(name: str, tables: Sequence[Table]) -> Column:
    columns = [table.columns[name] for table in tables]
    texts = [column for column in columns if isinstance(column, Text)]
    numeric = [column for column in columns if not isinstance(column, Text)]
    if not texts:
        return np.concatenate(numeric)
    if numeric:
        odd = next(t for t in tables if isinstance(t.columns[name], Text) != isinstance(columns[0], Text))
        raise DataError(f"{odd.path}: column {name!r} is text in some parts of the table and numbers in others")
    numbers: dict[Any, int] = {}
    places = [
        np.array([numbers.setdefault(level, len(numbers)) for level in text.levels], dtype=np.int64)[text.places]
        for text in texts
    ]
    return type(texts[0])(np.array(list(numbers), dtype=object), np.concatenate(places))


def batches(paths: Sequence[Path], names: Sequence[str]) -> Iterator[Table]:
    """The rows of some files in batches that fit into memory, with the columns ``names`` alone.

    Raises: DataError as ``read_table``, and where a column is not there.
    """
    for path in paths:
        for table in read_batches(path, names):
            yield Table(table.path, {name: table.column(name) for name in names}, table.lines)
