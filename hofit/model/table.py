"""A data file → one array a column: .csv, .csv.gz, .json, .npz, .parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..patterns import near_misses
from .arguments import native
from .csv_exact import read_exactly
from .csv_fast import read_fast
from .expansion import refuse_bomb
from .module import did_you_mean
from .text import EXACT, Column, Integers, Text

BATCH = 2**20
"""Rows of a parquet file that are read at once where not all are wanted."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length by name. Numbers are numeric arrays; everything else is Text.

    ``lines`` says on which line of the file each row begins, so that an error can name it.
    """

    path: Path
    columns: Mapping[str, Column]
    lines: Sequence[int] | np.ndarray[Any, Any] | None = None

    def column(self, name: str) -> Column:
        if name not in self.columns:
            raise DataError(f"{self.path} has no column {name!r}{did_you_mean(name, list(self.columns))}{self._hint()}")
        return self.columns[name]

    def _hint(self) -> str:
        """What to do where the file is a table of another kind."""
        other = next((mark for mark in ";\t|" if len(self.columns) == 1 and mark in next(iter(self.columns))), None)
        return "" if other is None else f". Its cells stand between {other!r}: write commas, and points in numbers"

    def where(self, row: int) -> str:
        return f"{self.path}, row {row}" + (f" (line {self.lines[row]})" if self.lines is not None else "")


def read_table(path: Path) -> Table:
    """Read a table by its file's ending.

    Raises: DataError when the file is missing, empty, malformed or of another kind.
    """
    if not path.is_file():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        tables = sorted(one.name for one in beside if one.name.lower().endswith(tuple(_READERS)))
        raise DataError(f"no data file {path}{near_misses(path.name, tables) if tables else ''}")
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


def is_missing(column: Column) -> np.ndarray[Any, Any]:
    """True where a cell holds nothing. Shape (rows,)."""
    if isinstance(column, Text):
        empty: np.ndarray[Any, Any] = np.array([level is None for level in column.levels], dtype=bool)
        return empty[column.places]
    if np.issubdtype(column.dtype, np.floating):
        nan = np.isnan(column)
        rows: np.ndarray[Any, Any] = np.asarray(nan if nan.ndim == 1 else nan.reshape(len(nan), -1).any(axis=1))
        return rows
    return np.zeros(len(column), dtype=bool)


def _read_csv(path: Path) -> Table:
    table = read_fast(path) or read_exactly(path)
    return Table(path, table.columns, table.lines)


def _read_json(path: Path) -> Table:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_key_once)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: cannot be read: {error.msg}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: cannot be read: it is not UTF-8 text ({error.reason})") from error
    except RecursionError as error:
        raise DataError(f"{path} cannot be read: it is nested too deep for a table") from error
    except ValueError as error:  # a key twice, or a number of thousands of digits
        raise DataError(f"{path} cannot be read: {error}") from error
    if isinstance(loaded, list):
        if not all(isinstance(record, dict) for record in loaded):
            raise DataError(f"{path}: a list must hold records, one mapping a row")
        names = list(dict.fromkeys(key for record in loaded for key in record))
        loaded = {name: [record.get(name) for record in loaded] for name in names}
    if not isinstance(loaded, dict) or not all(isinstance(column, list) for column in loaded.values()):
        raise DataError(f"{path}: write a list of records, or a mapping from column to list")
    return _of_equal_length(path, {name: _from_objects(column) for name, column in loaded.items()})


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        doubled = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {doubled!r} stands twice in one place")
    return found


def _from_objects(cells: list[Any]) -> Column:
    present = [cell for cell in cells if cell is not None]
    if present and all(isinstance(cell, (int, float)) and not isinstance(cell, bool) for cell in present):
        if all(isinstance(cell, int) for cell in present):
            if len(present) == len(cells) and all(-(2**63) <= cell < 2**63 for cell in present):
                return np.array(cells, dtype=np.int64)
            if any(abs(cell) >= EXACT for cell in present):
                return Integers.of([None if cell is None else str(cell) for cell in cells])
        return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)
    if present and all(isinstance(cell, bool) for cell in cells):
        return np.array(cells, dtype=bool)
    return Text.of([None if cell is None else str(cell) for cell in cells])


def _read_npz(path: Path) -> Table:
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is one array: a table is written by numpy.savez, a column each by name")
        refuse_bomb(path, _expanded(arrays), path.stat().st_size)
        doubled = [name for name, count in Counter(arrays.files).items() if count > 1]
        if doubled:
            raise DataError(f"{path} has the column {doubled[0]!r} twice")
        loaded = {name: _array_of(path, arrays, name) for name in arrays.files}
    columns: dict[str, Column] = {}
    for name, column in loaded.items():
        if column.ndim == 0:
            raise DataError(f"{path}: {name!r} is a scalar; a column has one entry a row")
        if column.dtype.kind == "S":
            column = np.char.decode(column, "utf-8")
        if column.dtype.kind == "U":
            columns[name] = Text.of(column.tolist()) if column.ndim == 1 else column.astype(object)
        else:
            columns[name] = native(column) if column.dtype.kind in "fiub" else column
    return _of_equal_length(path, columns)


def _expanded(arrays: Any) -> int:
    """Bytes of all members of an archive, by its directory."""
    return sum(member.file_size for member in arrays.zip.infolist())


def _array_of(path: Path, arrays: Mapping[str, Any], name: str) -> np.ndarray[Any, Any]:
    try:
        found: np.ndarray[Any, Any] = arrays[name]
        return found
    except ValueError as error:
        raise DataError(f"{path}: {name!r} cannot be read: {error}") from error


def _read_parquet(path: Path) -> Table:
    try:
        import pandas
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pandas: pip install hofit[parquet]") from error
    # Of numpy's nullable types, for else integers beside an empty cell are rounded.
    return _of_frame(path, pandas.read_parquet(path, dtype_backend="numpy_nullable"))


def read_batches(path: Path, names: Sequence[str]) -> Iterator[Table]:
    """Some columns of a table in batches of rows, where its file has them: parquet; else all at once.

    Raises: DataError as ``read_table``.
    """
    if not path.name.lower().endswith(".parquet") or not path.is_file():
        yield read_table(path)
        return
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path}: reading parquet needs pandas: pip install hofit[parquet]") from error
    try:
        with parquet.ParquetFile(path) as file:
            known = [name for name in dict.fromkeys(names) if name in file.schema_arrow.names]
            if len(known) < len(set(names)):  # read whole, the table says what is missing, and what is alike
                yield read_table(path)
                return
            for batch in file.iter_batches(BATCH, columns=known):
                frame = pyarrow.Table.from_batches([batch]).to_pandas(types_mapper=_nullable, ignore_metadata=True)
                yield _of_frame(path, frame)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read as .parquet: {error}") from error


def _nullable(kind: Any) -> Any:
    """What `pandas.read_parquet` takes a number or truth value of pyarrow's for; None of what it leaves alone."""
    import pandas
    import pyarrow

    return {
        pyarrow.bool_(): pandas.BooleanDtype(),
        pyarrow.int8(): pandas.Int8Dtype(),
        pyarrow.int16(): pandas.Int16Dtype(),
        pyarrow.int32(): pandas.Int32Dtype(),
        pyarrow.int64(): pandas.Int64Dtype(),
        pyarrow.uint8(): pandas.UInt8Dtype(),
        pyarrow.uint16(): pandas.UInt16Dtype(),
        pyarrow.uint32(): pandas.UInt32Dtype(),
        pyarrow.uint64(): pandas.UInt64Dtype(),
        pyarrow.float32(): pandas.Float32Dtype(),
        pyarrow.float64(): pandas.Float64Dtype(),
    }.get(kind)


def _of_frame(path: Path, frame: Any) -> Table:
    import pandas

    doubled = frame.columns[frame.columns.duplicated()]
    if len(doubled):
        raise DataError(f"{path} has the column {doubled[0]!r} twice")
    columns: dict[str, Column] = {}
    for name in frame.columns:
        series = frame[name]
        if series.dtype.kind in "iub" and not series.isna().any():
            columns[str(name)] = series.to_numpy(dtype=series.dtype.numpy_dtype)
        elif series.dtype.kind in "iu" and (series.abs() >= EXACT).any():
            columns[str(name)] = Integers.of([None if cell is pandas.NA else str(cell) for cell in series])
        elif series.dtype.kind in "iufb":
            columns[str(name)] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        else:
            columns[str(name)] = _from_objects([None if pandas.isna(cell) else cell for cell in series])
    return _of_equal_length(path, columns)


def _of_equal_length(path: Path, columns: dict[str, Column]) -> Table:
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
