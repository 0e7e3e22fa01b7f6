"""Rows of a table in parts, shared out by their groups: every row in one piece, and numbers that go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from hofit.config.schema import Column
from hofit.errors import DataError
from hofit.model.columns import columns_to_arguments
from hofit.model.parts import read_parts
from hofit.model.pieces import Pieces, even_bounds, share_out

pandas = pytest.importorskip("pandas")

REQUESTS = {
    "y": Column(column="y"),
    "group": Column(column="g", codes=True, levels="n_groups"),
    "item": Column(column="item", codes=True, levels="n_items"),
}


@pytest.fixture(params=["numbers", "words"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """2,000 rows of 97 groups in four files, two of each kind; no group is in one file alone."""
    random = np.random.default_rng(0)
    numbers = 3 * random.integers(0, 97, 2000) + 5
    group = numbers if request.param == "numbers" else [f"s{number}" for number in numbers]
    items = [f"i{item}" for item in random.integers(0, 12, 2000)]
    frame = pandas.DataFrame({"y": random.standard_normal(2000), "g": group, "item": items})
    for k in range(4):
        part = frame.iloc[500 * k : 500 * (k + 1)]
        if k % 2:
            part.to_csv(tmp_path / f"part-{k}.csv", index=False)
        else:
            part.to_parquet(tmp_path / f"part-{k}.parquet")
    return tmp_path / "part-*"


def rows(values: Mapping[str, torch.Tensor], first: int = 0) -> list[tuple[float, ...]]:
    return sorted(zip(values["y"].tolist(), (values["group"] + first).tolist(), values["item"].tolist(), strict=True))


@pytest.mark.parametrize("count", [1, 3, 97])
def test_every_row_is_in_one_piece_and_the_numbers_are_those_of_the_whole_table(parts: Path, count: int) -> None:
    whole = columns_to_arguments(read_parts(parts), REQUESTS, "error").values
    pieces, found = share_out(parts, REQUESTS, "g", "error", count), []
    for k in range(count):
        own = pieces.arguments(k)
        assert not own.errors and own.values["n_items"] == whole["n_items"]
        assert own.values["n_groups"] == pieces.groups(k) == len(own.values["group"].unique())
        found += rows(own.values, int(pieces.bounds[k]))
    assert sorted(found) == rows(whole)
    assert pieces.level_words() == columns_to_arguments(read_parts(parts), REQUESTS, "error").levels["group"]()


def test_pieces_have_about_as_many_rows_each(parts: Path) -> None:
    pieces = share_out(parts, REQUESTS, "g", "error", 4)
    lengths = [len(pieces.arguments(k).values["y"]) for k in range(4)]
    assert sum(lengths) == 2000 and max(lengths) - min(lengths) < 60


def test_bounds_leave_no_piece_empty_where_one_group_has_nearly_all_rows() -> None:
    assert even_bounds(np.array([1000, 1, 1, 1]), 4).tolist() == [0, 1, 2, 3, 4]
    assert even_bounds(np.array([1, 1, 1, 1000]), 3).tolist() == [0, 2, 3, 4]


def test_rows_are_shared_out_by_themselves_where_nothing_groups_them(parts: Path) -> None:
    requests = {"y": Column(column="y")}
    pieces = share_out(parts, requests, None, "error", 3)
    values = torch.cat([pieces.arguments(k).values["y"] for k in range(3)])
    assert torch.equal(values, columns_to_arguments(read_parts(parts), requests, "error").values["y"])


def test_rows_with_missing_cells_are_left_out_before_levels_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("y,g\n1,1\n2,2\n,3\n4,4\n")
    requests = {"y": Column(column="y"), "group": Column(column="g", codes=True, levels="n")}
    pieces = share_out(tmp_path / "a.csv", requests, "g", "drop", 3)
    assert [pieces.arguments(k).values["y"].tolist() for k in range(3)] == [[1.0], [2.0], [4.0]]


def test_a_batch_is_read_only_for_pieces_that_have_rows_in_it(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.csv").write_text(
            "y,g\n" + "".join(f"{k},{10 * k + i}\n" for i in range(4)) + k * f"{k},{10 * k}\n"
        )
    pieces = share_out(tmp_path / "?.csv", {a: REQUESTS[a] for a in ("y", "group")}, None, "error", 3)
    low, high = pieces.bounds[:-1], pieces.bounds[1:]
    wanted = [((low < 4 * k + 4) & (high > 4 * k)).tolist() for k in range(3)]
    assert pieces.by == "g" and pieces.holders.tolist() == wanted and not pieces.holders.all()


@pytest.mark.parametrize(
    ("changes", "by", "said"),
    [
        ({}, None, r"several columns with codes \(g, item\): name the one"),
        ({}, "itm", r"no argument of data.columns reads the column 'itm'; did you mean \"item\"\?"),
        ({"group": Column(column="g")}, "g", "write {column: g, codes: true, levels: NAME}"),
        ({"group": Column(column="g", codes="all"), "item": Column(column="item", codes="all")}, "g", "two pieces"),
        ({"item": Column(column=["item", "g"], codes=True)}, "g", "combinations of several columns"),
        ({"group": Column(column="g", codes=True, order=[5, 8])}, "g", "an order of its own"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(
    parts: Path, changes: dict[str, Column], by: str | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        share_out(parts, REQUESTS | changes, by, "error", 2)


def test_more_pieces_than_groups_are_refused(parts: Path) -> None:
    with pytest.raises(DataError, match=r"97 levels of 'g' for 98 pieces: .* Take 97 at most"):
        share_out(parts, REQUESTS, "g", "error", 98)


def test_parts_of_different_kinds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("g\n1\n")
    (tmp_path / "2.csv").write_text("g\na\n")
    (tmp_path / "3.csv").write_text("h\n1\n")
    with pytest.raises(DataError, match=r"2\.csv: column 'g' is text in some parts"):
        read_parts(tmp_path / "[12].csv")
    with pytest.raises(DataError, match=r"3\.csv: the parts of a table have the same columns"):
        read_parts(tmp_path / "[13].csv")
    with pytest.raises(DataError, match="no data file matches"):
        read_parts(tmp_path / "none-*.csv")


def test_numbers_of_parquet_are_read_in_batches_as_they_are_read_whole(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"y": [1.5, None, 2.0], "g": pandas.array([2**60 + 1, None, 3], dtype="Int64")})
    frame.to_parquet(tmp_path / "part-1.parquet")
    requests = {"y": Column(column="y"), "g": Column(column="g", codes=True, levels="n")}
    pieces: Pieces = share_out(tmp_path / "part-*.parquet", requests, "g", "drop", 2)
    assert [str(level) for level in pieces.level_words()] == ["3", str(2**60 + 1)]
