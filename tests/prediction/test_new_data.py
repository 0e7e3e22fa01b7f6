"""Levels of new rows: the fit's own keep their numbers, others come after them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hofit.config.schema import Data
from hofit.errors import DataError
from hofit.model.table import Table, read_table
from hofit.prediction.new_data import NewArguments, new_arguments

BEFORE = "y,x,g,h\n1,0.5,b,7\n2,0.1,a,9\n3,0.2,d,7\n,0.3,c,8\n"
COLUMNS: dict[str, Any] = {
    "y": "y",
    "x": "x",
    "g": {"column": "g", "codes": True, "levels": "n_g"},
    "h": {"column": "h", "codes": True},
}


def table(path: Path, name: str, text: str) -> Table:
    (path / name).write_text(text)
    return read_table(path / name)


def made(path: Path, new: str, **other: Any) -> NewArguments:
    data = Data.model_validate({"path": "x.csv", "columns": COLUMNS, "missing": "drop", **other})
    return new_arguments(data, table(path, "before.csv", BEFORE), table(path, "new.csv", new), ["y"])


def test_known_levels_keep_their_numbers_and_new_ones_follow(tmp_path: Path) -> None:
    found = made(tmp_path, "x,g,h\n1,d,9\n2,zz,7\n3,a,1\n4,aa,9\n")
    assert found.values["g"].tolist()[0::2] == [2, 0] and found.values["h"].tolist() == [1, 0, 2, 1]
    assert sorted(found.values["g"].tolist()[1::2]) == [3, 4] and found.values["n_g"] == 5
    assert found.levels == [(3, 5), (2, 3)] and (found.rows_before, found.rows) == (3, 4)
    assert found.values["x"].tolist() == [1.0, 2.0, 3.0, 4.0] and len(found.values["y"]) == 4


def test_a_level_of_a_row_that_the_fit_dropped_is_new(tmp_path: Path) -> None:
    assert made(tmp_path, "x,g,h\n1,c,8\n").levels == [(3, 4), (2, 3)]


def test_columns_that_share_their_levels_share_the_new_ones(tmp_path: Path) -> None:
    before = table(tmp_path, "b.csv", "won,lost\nann,bob\nbob,cat\n")
    new = table(tmp_path, "n.csv", "won,lost\ncat,dan\ndan,ann\n")
    columns = {name: {"column": name, "codes": "player", "levels": "n"} for name in ("won", "lost")}
    data = Data.model_validate(
        {"path": "b.csv", "columns": {"won": columns["won"], "lost": {**columns["lost"], "levels": None}}}
    )
    found = new_arguments(data, before, new, [])
    assert found.values["won"].tolist() == [2, 3] and found.values["lost"].tolist() == [3, 0] and found.values["n"] == 4


def test_an_order_that_is_given_takes_no_new_level(tmp_path: Path) -> None:
    columns = {**COLUMNS, "g": {"column": "g", "codes": True, "order": ["d", "c", "b", "a"]}}
    assert made(tmp_path, "x,g,h\n1,a,7\n2,d,7\n", columns=columns).values["g"].tolist() == [3, 0]
    with pytest.raises(DataError, match=r"new.csv, row 1 .*'e', which is not in order"):
        made(tmp_path, "x,g,h\n1,a,7\n2,e,7\n", columns=columns)


@pytest.mark.parametrize(
    "response", ["y,x,g,h\n5,1,a,7\n,2,b,7\n", "y,x,g,h\n,1,a,7\n,2,b,7\n", "x,g,h\n1,a,7\n2,b,7\n"]
)
def test_a_response_may_be_empty_or_absent(response: str, tmp_path: Path) -> None:
    found = made(tmp_path, response)
    assert torch.isfinite(found.values["y"]).all() and found.values["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("x,g\n1,a\n", "no column 'h'"),
        ("x,g,h\n1,a,7\n,a,7\n", r"new.csv, row 1 .*'x' is missing"),
        ("x,g,h\nlow,a,7\n", "column 'x' holds text, where the fit's data hold numbers"),
    ],
)
def test_what_is_wrong_is_told_of_the_new_table(new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        made(tmp_path, new)
