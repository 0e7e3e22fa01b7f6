"""A data file → one array a column: .csv, .csv.gz, .json, .npz, .parquet."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .arguments import native
from .module import did_you_mean

MISSING = ("", "NA", "NaN", "nan", "N/A", "null")
"""What an empty cell of a text file looks like."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name. Numbers are numeric arrays; everything else is an array of str or None.

    ``lines`` says on which line of the file each row begins, so that an error can name it.
    """

    path: Path
    columns: Mapping[str, np.ndarray[Any, Any]]
    lines: Sequence[int] | None = None

    def column(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self.columns:
            raise DataError(f"{self.path} has no column {name!r}{did_you_mean(name, list(self.columns))}")
        return self.columns[name]

    def where(self, row: int) -> str:
        return f"{self.path}, row {row}" + (f" (line {self.lines[row]})" if self.lines is not None else "")


def read_table(path: Path) -> Table:
    """Read a table by its file's ending.

    Raises: DataError when the file is missing, empty, malformed or of another kind.
    """
    if not path.is_file():
        raise DataError(f"no data file {path}")
    name = path.name.lower()
    for ending, reader in _READERS.items():
        if name.endswith(ending):
            try:
                table = reader(path)
            except DataError:
                raise
            except Exception as error:
                raise DataError(f"{path} cannot be read as {ending}: {error}") from error
            if not table.columns or len(next(iter(table.columns.values()))) == 0:
                raise DataError(f"{path} is empty: it has no rows")
            return table
    raise DataError(f"{path}: a data file ends in {', '.join(_READERS)}")


def is_missing(column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """True where a cell holds nothing. Shape (rows,)."""
    if column.dtype == object:
        return np.array([cell is None for cell in column], dtype=bool)
    if np.issubdtype(column.dtype, np.floating):
        nan = np.isnan(column)
        rows: np.ndarray[Any, Any] = nan if nan.ndim == 1 else nan.reshape(len(nan), -1).any(axis=1)
        return rows
    return np.zeros(len(column), dtype=bool)


def _read_csv(path: Path) -> Table:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rt", newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, None)
        if header is None:
            raise DataError(f"{path} is empty: it has no header line")
        header = [cell.strip() for cell in header]
        doubled = sorted({cell for cell in header if header.count(cell) > 1})
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
    return Table(path, {name: _from_text(cells) for name, cells in zip(header, columns, strict=True)}, lines)


def _from_text(cells: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """Numbers where every cell that holds something is one, text otherwise."""
    stripped = [cell.strip() for cell in cells]
    present = [cell for cell in stripped if cell not in MISSING]
    if present and not any("_" in cell for cell in present):  # 1_000 is a number to Python only
        if len(present) == len(stripped) and all(_is_integer(cell) for cell in stripped):
            with suppress(OverflowError):  # too large for 64 bits: a float, then
                return np.array([int(cell) for cell in stripped], dtype=np.int64)
        with suppress(ValueError):
            return np.array([np.nan if cell in MISSING else float(cell) for cell in stripped], dtype=np.float64)
    return np.array([None if cell in MISSING else cell for cell in stripped], dtype=object)


def _is_integer(cell: str) -> bool:
    return cell.lstrip("+-").isdecimal()


def _read_json(path: Path) -> Table:
    loaded = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(loaded, list):
        if not all(isinstance(record, dict) for record in loaded):
            raise DataError(f"{path}: a list must hold records, one mapping a row")
        names = list(dict.fromkeys(key for record in loaded for key in record))
        loaded = {name: [record.get(name) for record in loaded] for name in names}
    if not isinstance(loaded, dict) or not all(isinstance(column, list) for column in loaded.values()):
        raise DataError(f"{path}: write a list of records, or a mapping from column to list")
    return _of_equal_length(path, {name: _from_objects(column) for name, column in loaded.items()})


def _from_objects(cells: list[Any]) -> np.ndarray[Any, Any]:
    present = [cell for cell in cells if cell is not None]
    if present and all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in present):
        if len(present) == len(cells) and all(isinstance(cell, int) for cell in cells):
            return np.array(cells, dtype=np.int64)
        return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)
    if present and all(isinstance(cell, bool) for cell in cells):
        return np.array(cells, dtype=bool)
    return np.array([None if cell is None else str(cell) for cell in cells], dtype=object)


def _read_npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in arrays.files}
    for name, column in columns.items():
        if column.ndim == 0:
            raise DataError(f"{path}: {name!r} is a scalar; a column has one entry a row")
        if column.dtype.kind == "S":
            column = np.char.decode(column, "utf-8")
        if column.dtype.kind == "U":
            columns[name] = np.array([str(cell) for cell in column.reshape(-1)], dtype=object).reshape(column.shape)
        elif column.dtype.kind in "fiub":
            columns[name] = native(column)
    return _of_equal_length(path, columns)


def _read_parquet(path: Path) -> Table:
    try:
        import pandas
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pandas: pip install hofit[parquet]") from error
    frame = pandas.read_parquet(path)
    columns = {}
    for name in frame.columns:
        series = frame[name]
        if series.dtype.kind in "iub" and not series.isna().any():
            columns[str(name)] = series.to_numpy()
        elif series.dtype.kind in "iufb":
            columns[str(name)] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            columns[str(name)] = _from_objects([None if pandas.isna(cell) else cell for cell in series])
    return _of_equal_length(path, columns)


def _of_equal_length(path: Path, columns: dict[str, np.ndarray[Any, Any]]) -> Table:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: the columns have different lengths: {lengths}")
    return Table(path, columns)


_READERS = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".json": _read_json,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
