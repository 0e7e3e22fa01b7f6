"""Draws as a table: a row a draw, a column a number, called as the summary calls it (``b[3,0]``)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import HofitError
from ..point import Params
from ..record import as_csv, indices, labelled

PARQUET_HINT = "a parquet file needs pandas and pyarrow: pip install 'hofit[parquet]'"


def columns(draws: Params) -> list[str]:
    """The names of the numbers, in the order of the sites."""
    return [labelled(name, index) for name, values in draws.items() for index in indices(values.shape[1:])]


def as_table(draws: Params) -> torch.Tensor:
    """Shape (draws, numbers)."""
    return torch.cat([values.reshape(len(values), -1) for values in draws.values()], 1)


def csv_of(draws: Params) -> str:
    """Numbers to 17 digits."""
    rows = as_table(draws).tolist()
    return as_csv([columns(draws), *([format(number, ".17g") for number in row] for row in rows)])


def write_parquet(path: Path, draws: Params) -> None:
    """Raises: HofitError without pandas and pyarrow."""
    path.write_bytes(parquet_of(dict(zip(columns(draws), as_table(draws).cpu().numpy().T, strict=True))))


def parquet_of(table: Mapping[str, Any]) -> bytes:
    """A parquet file's content, of columns by name. Raises: HofitError without pandas and pyarrow."""
    content = io.BytesIO()
    need_parquet().DataFrame(table).to_parquet(content, index=False)
    return content.getvalue()


def need_parquet() -> Any:
    """pandas, which writes such files. Raises: HofitError without it and pyarrow."""
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise HofitError(PARQUET_HINT) from error
    return pandas
