"""Draws as tables, read back by the csv module and by pandas."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

import pytest
import torch

from hofit.errors import HofitError
from hofit.export.tables import csv_of, write_parquet

DRAWS = {
    "a": torch.tensor([1.5, 0.1], dtype=torch.float64),
    "b,c": torch.arange(8, dtype=torch.float64).reshape(2, 2, 2) / 3,
    "none": torch.zeros(2, 0, dtype=torch.float64),
}
NAMES = ["a", "b,c[0,0]", "b,c[0,1]", "b,c[1,0]", "b,c[1,1]"]


def test_a_csv_has_a_row_a_draw_to_the_last_digit() -> None:
    head, *rows = csv.reader(io.StringIO(csv_of(DRAWS)))
    assert head == NAMES
    assert [float(row[0]) for row in rows] == [1.5, 0.1]
    assert [[float(cell) for cell in row[1:]] for row in rows] == DRAWS["b,c"].reshape(2, 4).tolist()


def test_a_parquet_file_is_the_same_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write_parquet(tmp_path / "d.parquet", DRAWS)
    read = pandas.read_parquet(tmp_path / "d.parquet")
    assert list(read.columns) == NAMES and read.shape == (2, 5)
    assert read["b,c[1,1]"].tolist() == DRAWS["b,c"][:, 1, 1].tolist()


def test_without_pyarrow_the_hint_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HofitError, match=r"pip install 'hofit\[parquet\]'"):
        write_parquet(tmp_path / "d.parquet", DRAWS)
