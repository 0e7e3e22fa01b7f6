"""Tables written to a file by its ending, or as .csv to the screen."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..model.text import Column, Text
from ..run.files import write_whole

ENDINGS = (".csv", ".parquet")


def check_output(path: Path | None) -> None:
    """Raises: DataError where a table cannot be written there, before anything is computed."""
    if path is None:
        return
    if path.suffix not in ENDINGS:
        raise DataError(f"--out {path}: a table is written to a file that ends in {' or '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise DataError(f"--out {path}: there is no directory {path.parent}")
    if path.suffix == ".parquet":
        _pandas(path)


def csv_of(columns: Mapping[str, Column]) -> str:
    """Numbers to their last digit; nothing where a cell has none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*map(_cells, columns.values()), strict=True))
    return text.getvalue()


def write_table(path: Path, columns: Mapping[str, Column]) -> None:
    """Raises: DataError."""
    if path.suffix == ".csv":
        content = csv_of(columns).encode()
    else:
        buffer = io.BytesIO()
        _pandas(path).DataFrame({name: _cells(column) for name, column in columns.items()}).to_parquet(buffer)
        content = buffer.getvalue()
    try:
        write_whole(path, content)
    except OSError as error:
        raise DataError(f"--out {path} cannot be written: {error.strerror or error}") from error


def _cells(column: Column) -> Sequence[Any]:
    if isinstance(column, Text):
        cells: list[Any] = column.levels[column.places].tolist()
        return cells
    cells = column.tolist()
    if np.issubdtype(column.dtype, np.floating):
        return [None if cell != cell else cell for cell in cells]
    return cells


def _pandas(path: Path) -> Any:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise DataError(f"--out {path}: parquet needs pandas and pyarrow: pip install 'hofit[parquet]'") from error
    return pandas
