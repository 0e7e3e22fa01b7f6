"""Tables written to a file by its ending, or as .csv to the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..export.tables import need_parquet, parquet_of
from ..model.text import Column, Text
from ..record import as_csv
from ..run.files import write_whole

ENDINGS = (".csv", ".parquet")


def check_output(path: Path | None) -> None:
    """Raises: DataError, HofitError where a table cannot be written there, before anything is computed."""
    if path is None:
        return
    if path.suffix not in ENDINGS:
        raise DataError(f"--out {path}: a table is written to a file that ends in {' or '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise DataError(f"--out {path}: there is no directory {path.parent}")
    if path.suffix == ".parquet":
        need_parquet()


def csv_of(columns: Mapping[str, Column]) -> str:
    """Numbers to their last digit; nothing where a cell has none."""
    return as_csv([columns, *zip(*map(_cells, columns.values()), strict=True)])


def plain_of(columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    """For JSON: the cells of each column by its name, None where a cell has none."""
    return {name: list(_cells(column)) for name, column in columns.items()}


def write_table(path: Path, columns: Mapping[str, Column]) -> None:
    """Raises: DataError, HofitError."""
    if path.suffix == ".csv":
        content = csv_of(columns).encode()
    else:
        content = parquet_of({name: _cells(column) for name, column in columns.items()})
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
