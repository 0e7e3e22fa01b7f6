"""Estimates of more numbers than a CSV is read with: a parquet file a site, beside estimates.csv."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..fitting.result import FitResult

MANY = 1_000_000
"""Numbers of a site in pieces of the data from which on they have a file of their own."""


def large_sites(result: FitResult) -> list[str]:
    """Sites whose estimates have a file of their own."""
    return [name for name in result.sites if result.in_pieces and result.values[name].numel() > MANY]


def write_large(result: FitResult, name: str, folder: Path) -> Path:
    """Write the estimates of a site: a row a number, with the columns of estimates.csv and one for each index."""
    import pyarrow
    from pyarrow import parquet

    value = result.values[name]
    places = torch.unravel_index(torch.arange(value.numel()), value.shape)
    columns = {f"index_{k}": place.to(torch.int32).numpy() for k, place in enumerate(places)}
    of_value = {"std_error": result.std_errors, "lower": result.lower, "upper": result.upper}
    columns["estimate"] = value.reshape(-1).numpy()
    columns |= {column: found[name].reshape(-1).numpy() for column, found in of_value.items() if name in found}
    if result.params[name].shape == value.shape:
        columns["unconstrained"] = result.params[name].reshape(-1).numpy()
    path = folder / f"estimates-{re.sub(r'[^A-Za-z0-9_.]', '_', name)}.parquet"
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    parquet.write_table(pyarrow.table(columns), temporary)
    temporary.replace(path)
    return path
