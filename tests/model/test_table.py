"""A data file → columns → arguments of the model."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hofit.config.schema import Column
from hofit.errors import DataError
from hofit.model.columns import columns_to_arguments
from hofit.model.table import Table, read_table

Reader = Callable[..., dict[str, Any]]


def csv(path: Path, text: str) -> Table:
    path.write_text(text, encoding="utf-8")
    return read_table(path)


def taken(table: Table, missing: str = "error", **requests: Any) -> dict[str, Any]:
    """The arguments made of the columns; the first error, if there is one, is raised."""
    columns = {name: Column(**({"column": r} if isinstance(r, str) else r)) for name, r in requests.items()}
    made = columns_to_arguments(table, columns, missing)
    arguments, errors = made.values, made.errors
    if errors:
        raise errors[0]
    return arguments


# reading ----------------------------------------------------------------------------------------------------------

RECORDS = [{"x": 1.5, "n": 3, "g": "b"}, {"x": -2.0, "n": 10, "g": "a"}, {"x": 1e-3, "n": 9, "g": "b"}]
COLUMNS = {name: [record[name] for record in RECORDS] for name in ("x", "n", "g")}
CSV = "x,n,g\n1.5,3,b\n-2.0,10,a\n1e-3,9,b\n"


def _write(path: Path, kind: str) -> Path:
    if kind == "csv":
        path.write_text(CSV)
    elif kind == "csv.gz":
        with gzip.open(path, "wt") as file:
            file.write(CSV)
    elif kind == "npz":
        arrays: dict[str, Any] = {name: np.array(column) for name, column in COLUMNS.items()}
        np.savez(path, **arrays)
    elif kind == "parquet":
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(COLUMNS).to_parquet(path)
    else:
        path.write_text(json.dumps(RECORDS if kind == "records.json" else COLUMNS))
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "records.json", "columns.json", "npz", "parquet"])
def test_every_format_holds_the_same_table(tmp_path: Path, kind: str) -> None:
    table = read_table(_write(tmp_path / f"table.{kind}", kind))
    codes = {"column": "g", "codes": True, "levels": "k"}
    arguments = taken(table, x="x", n={"column": "n", "dtype": "long"}, g=codes)
    assert torch.equal(arguments["x"], torch.tensor([1.5, -2.0, 1e-3]))
    assert torch.equal(arguments["n"], torch.tensor([3, 10, 9]))
    assert torch.equal(arguments["g"], torch.tensor([1, 0, 1]))
    assert (arguments["x"].dtype, arguments["n"].dtype, arguments["g"].dtype) == (
        torch.float64,
        torch.int64,
        torch.int64,
    )
    assert arguments["k"] == 2


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "empty"),
        ("a.csv", b"x,y\n", "empty"),
        ("a.csv", b"x,y\n1,2\n3\n", "line 3"),
        ("a.csv", b"x,x\n1,2\n", "'x' twice"),
        ("a.csv", b'x,y\n"1,2\n3,4\n', "cannot be read"),
        ("a.csv", b"x\n\xff\n", "cannot be read"),
        ("a.csv.gz", b"x\n1\n", "cannot be read"),
        ("a.json", b'[{"x": 1},', "cannot be read"),
        ("a.json", b"[]", "empty"),
        ("a.json", b"{}", "empty"),
        ("a.json", b"[1, 2]", "records"),
        ("a.json", b'{"x": 1}', "mapping from column to list"),
        ("a.json", b'{"x": [1, 2], "y": [1]}', "different lengths"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.npz", b"nothing", "cannot be read"),
        ("a.parquet", b"nothing", "cannot be read"),
        ("a.xlsx", b"nothing", ".parquet"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no data file .*none\.csv"):
        read_table(tmp_path / "none.csv")


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([object()], dtype=object))
    with pytest.raises(DataError, match=r"a\.npz"):
        read_table(tmp_path / "a.npz")


def test_columns_of_npz_of_different_lengths_and_scalars_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(3), y=np.ones(2))
    np.savez(tmp_path / "b.npz", x=np.ones(3), y=np.array(2.0))
    with pytest.raises(DataError, match="different lengths"):
        read_table(tmp_path / "a.npz")
    with pytest.raises(DataError, match="'y' is a scalar"):
        read_table(tmp_path / "b.npz")


def test_a_byte_order_mark_spaces_and_blank_lines_are_no_part_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf x , y\r\n1 , 2\r\n\r\n3,4\r\n")
    arguments = taken(read_table(tmp_path / "a.csv"), x="x", y="y")
    assert arguments["x"].tolist() == [1.0, 3.0]
    assert arguments["y"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("datetime64", np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")),
        ("complex", np.array([1j, 2.0])),
        ("longdouble", np.array([1, 2], dtype=np.longdouble)),
        ("big-endian", np.array([1.0, 2.0], dtype=">f8")),
        ("half", np.array([1.0, 2.0], dtype=np.float16)),
        ("uint32", np.array([1, 2], dtype=np.uint32)),
    ],
)
def test_any_dtype_of_an_npz_is_read_or_refused_by_name(tmp_path: Path, kind: str, column: Any) -> None:
    np.savez(tmp_path / "a.npz", when=column)
    table = read_table(tmp_path / "a.npz")
    try:
        found = taken(table, x="when")["x"]
    except DataError as error:
        assert "when" in str(error)
    else:
        assert kind not in ("datetime64", "complex")
        assert torch.equal(found, torch.tensor([1.0, 2.0]))


# numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "dtype", "expected"),
    [
        ("1,2,3", None, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        ("1,2,3", "float", torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)),
        ("1,2,3", "long", torch.tensor([1, 2, 3])),
        ("1.0,2.0,3.0", "int", torch.tensor([1, 2, 3])),
        ("1,0,1", "bool", torch.tensor([True, False, True])),
        ("9007199254740993,0,1", "long", torch.tensor([9007199254740993, 0, 1])),
        ("123456789012345678901,0,1", None, torch.tensor([123456789012345678901.0, 0.0, 1.0], dtype=torch.float64)),
    ],
)
def test_a_number_column_has_the_dtype_that_was_asked_for(
    tmp_path: Path, cells: str, dtype: str | None, expected: torch.Tensor
) -> None:
    table = csv(tmp_path / "a.csv", "x\n" + cells.replace(",", "\n") + "\n")
    found = taken(table, x={"column": "x", "dtype": dtype})["x"]
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_number_column_has_the_run_s_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    assert taken(csv(tmp_path / "a.csv", "x\n0.1\n"), x="x")["x"].dtype == dtype


@pytest.mark.parametrize(
    ("text", "request_", "says"),
    [
        ("x\n1\n", {"column": "y"}, "'y'"),
        ("Reaction\n1\n", {"column": "reaction"}, '"Reaction"'),
        ("x\n1\nb\n", {"column": "x"}, "'b'"),
        ("x\n1\nb\n", {"column": "x"}, "codes: true"),
        ("x\n1\nNA\n", {"column": "x"}, "line 3"),
        ("x\n1\n\nNA\n", {"column": "x"}, "line 4"),
        ("x,y\n1,1\n2,nan\n", {"column": "y"}, "row 1"),
        ("x,y\n1,1\n2,\n", {"column": "y"}, "drop"),
        ('t,x\n"a\nb",1\nc,NA\n', {"column": "x"}, "line 4"),
        ("x\n1\ninf\n", {"column": "x"}, "infinite"),
        ("x\n1\ninf\n", {"column": "x"}, "line 3"),
        ("x\n1\n1.5\n", {"column": "x", "dtype": "long"}, "fractions"),
        ("x\n1e30\n1\n", {"column": "x", "dtype": "long"}, "'x'"),
        ("x\na\n\n\nb\nNA\n", {"column": "x", "codes": True}, "line 6"),
        ("x\na\nc\n", {"column": "x", "codes": True, "order": ["a", "b"]}, "'c'"),
        ("x\na\nb\n", {"column": "x", "codes": True, "order": ["a", "a", "b"]}, "twice"),
        ("x,y\n1,2\n", {"column": ["x", "z"], "codes": True}, "'z'"),
    ],
)
def test_a_column_that_cannot_serve_is_refused_and_says_where(
    tmp_path: Path, text: str, request_: dict[str, Any], says: str
) -> None:
    table = csv(tmp_path / "a.csv", text)
    with pytest.raises(DataError) as caught:
        taken(table, arg=request_)
    assert says in str(caught.value)


def test_missing_drop_leaves_out_the_rows_with_a_hole_in_a_column_that_is_used(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "x,g,unused\n1,a,\n,b,1\nNaN,c,1\n4,NA,1\n5,d,N/A\n")
    arguments = taken(table, "drop", x="x", g={"column": "g", "codes": True, "levels": "k"})
    assert arguments["x"].tolist() == [1.0, 5.0]
    assert arguments["g"].tolist() == [0, 1]
    assert arguments["k"] == 2


def test_dropping_every_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row is left"):
        taken(csv(tmp_path / "a.csv", "x,y\n1,\n,1\n"), "drop", x="x", y="y")


def test_the_row_of_an_infinite_cell_is_that_of_the_file_when_rows_were_dropped(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 4"):
        taken(csv(tmp_path / "a.csv", "x,y\n1,1\n,1\n3,inf\n"), "drop", x="x", y="y")


def test_all_wrong_columns_come_at_once(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "x,y\n1,a\n2,b\n")
    columns = {"p": Column(column="nope"), "q": Column(column="y"), "r": Column(column="x")}
    errors = columns_to_arguments(table, columns, "error").errors
    assert [error.key for error in errors] == [("data", "columns", "p"), ("data", "columns", "q")]


# codes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "order", "expected", "count"),
    [
        ("10,9,100,9", None, [1, 0, 2, 0], 3),
        ("1.5,-2,0,0", None, [2, 0, 1, 1], 3),
        ("b10,b9,B1,é", None, [1, 2, 0, 3], 4),
        ("10,9,x,9", None, [0, 1, 2, 1], 3),
        ("yes,no,yes,no", ["yes", "no"], [0, 1, 0, 1], 2),
        ("a,c,a,c", ["c", "b", "a"], [2, 0, 2, 0], 3),
        ("2,1,2,1", [2, 1], [0, 1, 0, 1], 2),
        ("2,1,2,1", ["2", "1"], [0, 1, 0, 1], 2),
    ],
    ids=[
        "by number",
        "by decimal",
        "by code point",
        "mixed",
        "order",
        "a level that does not occur",
        "numbers",
        "text",
    ],
)
def test_codes_follow_the_sorted_levels_or_the_order(
    tmp_path: Path, cells: str, order: list[Any] | None, expected: list[int], count: int
) -> None:
    table = csv(tmp_path / "a.csv", "g\n" + cells.replace(",", "\n") + "\n")
    arguments = taken(table, g={"column": "g", "codes": True, "order": order, "levels": "k"})
    assert arguments["g"].tolist() == expected
    assert arguments["g"].dtype == torch.int64
    assert arguments["k"] == count
    assert type(arguments["k"]) is int


def test_codes_of_several_columns_number_the_pairs_that_occur(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "recipe,rep\nB,10\nA,9\nA,10\nB,10\nA,9\n")
    arguments = taken(table, cell={"column": ["recipe", "rep"], "codes": True, "levels": "k"})
    assert arguments["cell"].tolist() == [2, 0, 1, 2, 0]
    assert arguments["k"] == 3


def test_codes_of_three_columns_go_by_the_first_then_the_second_then_the_third(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "a,b,c\n2,x,0.5\n10,x,0.5\n2,w,7\n2,x,-1\n10,x,0.5\n")
    found = taken(table, cell={"column": ["a", "b", "c"], "codes": True, "levels": "k"})
    assert found["cell"].tolist() == [2, 3, 0, 1, 3]
    assert found["k"] == 4


def test_numbers_that_share_codes_with_text_are_numbered_as_text(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "home,away\n10,x\n9,10\n100,9\n")
    found = taken(table, home={"column": "home", "codes": "team"}, away={"column": "away", "codes": "team"})
    assert found["home"].tolist() == [0, 2, 1] and found["away"].tolist() == [3, 0, 2]  # "10" < "100" < "9" < "x"


def test_levels_of_rows_that_are_dropped_have_no_number(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "x,g\n1,b\n,a\n2,c\n")
    found = taken(table, "drop", x="x", g={"column": "g", "codes": True, "levels": "k"})
    assert found["g"].tolist() == [0, 1] and found["k"] == 2


def test_codes_of_a_boolean_column_follow_an_order_of_booleans(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"mined": [true, false, true]}')
    table = read_table(tmp_path / "a.json")
    assert taken(table, g={"column": "mined", "codes": True})["g"].tolist() == [1, 0, 1]
    assert taken(table, g={"column": "mined", "codes": True, "order": [True, False]})["g"].tolist() == [0, 1, 0]


def test_a_count_of_levels_under_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", "x,g\n1,a\n2,b\n")
    with pytest.raises(DataError, match="'x' is given twice"):
        taken(table, x="x", g={"column": "g", "codes": True, "levels": "x"})
    with pytest.raises(DataError, match="'k' is given twice"):
        columns: Any = {name: {"column": "g", "codes": name, "levels": "k"} for name in ("a", "b")}
        taken(table, **columns)


GAMES = "winner,loser,court\nb,a,north\nd,b,south\nb,c,north\n"


@pytest.mark.parametrize(
    "sharing",
    [({"codes": "player", "levels": "n"}, {"codes": "player"}), ({"codes": True, "levels": "n"},) * 2],
    ids=["codes", "levels"],
)
def test_columns_of_one_kind_share_their_levels(tmp_path: Path, sharing: Any) -> None:
    """By one name after `codes`, or by one name of their levels: 0..K-1 over what occurs in any of them."""
    table = csv(tmp_path / "a.csv", GAMES)
    winner, loser = ({"column": name, **own} for name, own in zip(("winner", "loser"), sharing, strict=True))
    found = taken(table, winner=winner, loser=loser)
    assert found["winner"].tolist() == [1, 3, 1] and found["loser"].tolist() == [0, 1, 2] and found["n"] == 4
    made = columns_to_arguments(table, {"w": Column(**winner), "l": Column(**loser)}, "error")
    assert not made.warnings


def test_levels_that_overlap_and_are_not_shared_are_warned_of(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", GAMES)
    columns = {name: Column(column=name, codes=True) for name in ("winner", "loser", "court")}
    (warning,) = columns_to_arguments(table, columns, "error").warnings
    assert "'winner' and 'loser' have 1 levels in common" in warning and "codes: NAME" in warning
    counts = csv(tmp_path / "b.csv", "herd,period\n1,1\n2,1\n3,2\n")
    numbered = {name: Column(column=name, codes=True, levels=f"n_{name}") for name in ("herd", "period")}
    assert not columns_to_arguments(counts, numbered, "error").warnings
    named = {name: Column(column=name, codes=name) for name in columns}
    assert not columns_to_arguments(table, named, "error").warnings


def test_columns_that_share_codes_share_one_order(tmp_path: Path) -> None:
    table = csv(tmp_path / "a.csv", GAMES)
    order = ["d", "c", "b", "a"]
    found = taken(
        table,
        winner={"column": "winner", "codes": "player", "order": order},
        loser={"column": "loser", "codes": "player"},
    )
    assert found["winner"].tolist() == [2, 0, 2] and found["loser"].tolist() == [3, 2, 1]
    with pytest.raises(DataError, match="another order"):
        taken(
            table,
            winner={"column": "winner", "codes": "player", "order": order},
            loser={"column": "loser", "codes": "player", "order": order[::-1]},
        )


def test_an_npz_column_of_vectors_keeps_its_shape_and_has_no_codes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(6.0).reshape(2, 3))
    table = read_table(tmp_path / "a.npz")
    assert taken(table, x="x")["x"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    with pytest.raises(DataError, match="'x'"):
        taken(table, x={"column": "x", "codes": True})
