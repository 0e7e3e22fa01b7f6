"""A .csv file cell by cell: what a cell means, and where exactly a bad one stands. `csv_fast.py` is held against it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import DataError
from .expansion import open_gzip
from .text import EXACT, Column, Integers, Text

MISSING = ("", "NA", "NaN", "nan", "N/A", "null")
"""What an empty cell of a text file looks like."""


@dataclass(frozen=True)
class CsvTable:
    """The columns by name, and on which line of the file each row begins. Shape of lines: (rows,)."""

    columns: dict[str, Column]
    lines: Sequence[int] | np.ndarray[Any, Any]


def open_bytes(path: Path) -> IO[bytes]:
    return open_gzip(path) if path.name.lower().endswith(".gz") else path.open("rb")


def read_exactly(path: Path) -> CsvTable:
    """Raises: DataError for a file that is no table, with the line where it can be told."""
    with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            return _read(path, reader)
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {_line_not_utf8(path)}: cannot be read: it is not UTF-8 text ({error.reason})"
            ) from error


def _line_not_utf8(path: Path) -> int:
    with open_bytes(path) as file:
        content = file.read()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 1  # only the decoder with a byte order mark refused it


def _read(path: Path, reader: Any) -> CsvTable:
    header = next((row for row in reader if row), None)
    if header is None:
        raise DataError(f"{path} is empty: it has no header line")
    header = [cell.strip() for cell in header]
    doubled = sorted(cell for cell, count in Counter(header).items() if count > 1)
    if doubled:
        raise DataError(f"{path} has the column {doubled[0]!r} twice")
    rows, lines, line = [], [], reader.line_num + 1
    for row in reader:
        began, line = line, reader.line_num + 1
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, line {began}: {len(row)} cells, but the header has {len(header)}")
        rows.append(row)
        lines.append(began)
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in header]
    return CsvTable({name: from_text(cells) for name, cells in zip(header, columns, strict=True)}, lines)


def from_text(cells: Sequence[str]) -> Column:
    """Numbers where every cell that holds something is one, text otherwise. Which, only the distinct cells decide."""
    stripped = [cell.strip() for cell in cells]
    present = [cell for cell in stripped if cell not in MISSING]
    if present and not any("_" in cell for cell in present):  # 1_000 is a number to Python only
        if len(present) == len(stripped) and all(_is_integer(cell) for cell in stripped):
            with suppress(OverflowError, ValueError):
                return np.array([int(cell) for cell in stripped], dtype=np.int64)
        with suppress(ValueError):
            numbers = np.array([np.nan if cell in MISSING else float(cell) for cell in stripped], dtype=np.float64)
            if (np.abs(numbers) >= EXACT).any() and all(_is_integer(cell) for cell in present):
                return Integers.of([None if cell in MISSING else cell for cell in stripped])
            return numbers
    return Text.of([None if cell in MISSING else cell for cell in stripped])


def _is_integer(cell: str) -> bool:
    return cell.lstrip("+-").isdecimal()
