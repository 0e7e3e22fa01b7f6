"""The fast reader of .csv files is held against the exact one: the same bits, levels, lines and errors, or none at all.

Reference: `csv_exact.py`, which is Python's own csv, int and float.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hofit.config.schema import Column as Request
from hofit.errors import DataError
from hofit.model import table
from hofit.model.columns import columns_to_arguments
from hofit.model.csv_exact import CsvTable, read_exactly
from hofit.model.csv_fast import LARGE, read_fast
from hofit.model.table import read_table
from hofit.model.text import Text

pytest.importorskip("pyarrow")

at_once = partial(read_fast, large=0)
"""The fast reader, for files of any size."""


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def assert_same(fast: CsvTable, exact: CsvTable) -> None:
    assert list(fast.columns) == list(exact.columns)
    assert list(fast.lines) == list(exact.lines)
    for name, expected in exact.columns.items():
        found = fast.columns[name]
        if isinstance(expected, Text):
            assert type(found) is type(expected), name
            assert found.levels.tolist() == expected.levels.tolist(), name
            assert found.places.tolist() == expected.places.tolist(), name
        else:
            assert not isinstance(found, Text), name
            assert found.dtype == expected.dtype, name
            assert found.tobytes() == expected.tobytes(), name
            assert found.flags.writeable


# a zoo of columns and files ---------------------------------------------------------------------------------------

COLUMNS = {
    "integers": ["3", "-14", "0", "123456"],
    "zeros before": ["007", "-007", "00000000000000000000000000000000012", "0"],
    "signed integers": ["+1", "-2", "3", "+0"],
    "minus zero among integers": ["-0", "0", "1", "-1"],
    "the ends of 64 bits": ["9223372036854775807", "-9223372036854775808", "0", "1"],
    "beyond 64 bits": ["9223372036854775808", "1", "-9223372036854775809", "2"],
    "unsigned 64 bits": ["18446744073709551615", "1", "2", "3"],
    "huge": ["123456789012345678901234567890", "1", "2", "3"],
    "beyond 53 bits": ["9007199254740993", "1", "9007199254740995", "3"],
    "beyond 53 bits, and a hole": ["9007199254740993", "", "9007199254740995", "3"],
    "decimals": ["1.5", "-0.25", ".5", "5."],
    "signed decimals": ["+1.5", "-1.5", "+.5", "-5."],
    "exponents": ["1e3", "1E3", "1e+3", "-1.5E-3"],
    "exponents on a bare point": ["1.e3", ".1e3", "2", "3"],
    "signed zeros": ["-0.0", "0.0", "+0.0", "-0"],
    "signed zeros and a hole": ["-0", "0", "NA", "1"],
    "ends of the range": ["1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "-5e-324"],
    "past the range": ["1e400", "-1e400", "1e-400", "-1e-400"],
    "halfway": ["2.4703282292062328e-324", "1.7976931348623159e308", "9007199254740993.0", "0.1"],
    "many digits": ["0.1000000000000000055511151231257827021181583404541015625", "3.14159265358979323846", "1", "2"],
    "nan": ["1", "nan", "NaN", "2"],
    "nan in other spellings": ["NAN", "-nan", "+nan", "1.5"],
    "nan in other spellings, and a hole": ["-nan", "NA", "1.5", "NAN"],
    "nan that is none": ["nan(1)", "1", "2", "3"],
    "infinite": ["inf", "-inf", "Infinity", "1"],
    "infinite in other spellings": ["INF", "+iNf", "-INFINITY", "1.5"],
    "infinite and a hole": ["inf", "", "NA", "-0.0"],
    "holes among integers": ["1", "NA", "3", ""],
    "holes among decimals": ["1.5", "N/A", "null", ""],
    "spaced holes": [" NA ", "1.5", "\t", " 2"],
    "only holes": ["", "NA", "nan", "null"],
    "holes that are none": ["Null", "na", "None", "NULL"],
    "holes among text": ["a", "NA", "", "b"],
    "spaced integers": [" 1", "2 ", "\t3", " 4 "],
    "spaced decimals": [" 1.5", "2.5 ", "\t3.5", " 4.5 "],
    "other spaces": ["\u00a01", "2\u2003", "\x0b3", "\x1c4"],
    "text in other spaces": ["a\u00a0", "a", " a", "\x1fb"],
    "hexadecimal": ["0x1F", "1", "2", "3"],
    "underscores": ["1_000", "1", "1000", "2"],
    "digits of other scripts": ["١٢", "3", "４", "5"],
    "decimals of other scripts": ["١.٥", "3", "４", "5"],
    "signs that no integer has": ["--5", "+-5", "1", "2"],
    "more digits than Python reads": ["1" * 5000, "2" * 5000, "1", "2"],
    "superscripts": ["²", "3", "4", "5"],
    "booleans": ["true", "false", "true", "true"],
    "Booleans": ["True", "False", "TRUE", "0"],
    "dates": ["2020-01-02", "2020-01-03", "2020-01-02", "2021-01-01"],
    "times": ["2020-01-02T03:04:05", "2020-01-02 03:04:05Z", "03:04", "3:4"],
    "ranges": ["1-2", "3-4", "1-2", "1"],
    "versions": ["1.2.3", "1.2", "1", "1.2.3"],
    "numbers cut short": ["1e", ".", "-", "e5"],
    "comma as a point": ['"1,5"', '"2,5"', "3", '"1,5"'],
    "levels that are text": ["b10", "b9", "B1", "é"],
    "levels that are numbers": ["10", "9", "100", "9"],
    "levels of both": ["10", "9", "x", "9"],
    "scripts": ["ß", "日本", "🙂", "e\u0301"],
    "a byte order mark within": ["1", "\ufeff1", "2", "3"],
    "separators of lines to Unicode": ["a\u2028b", "a\u0085b", "a\x0cb", "a\x1db"],
    "quoted": ['"a"', "a", '"b"', "b"],
    "quoted numbers": ['"1.5"', "2.5", '"NA"', '""'],
    "quoted commas and spaces": ['"a, b"', '" a"', '"a "', '","'],
    "doubled quotes": ['"say ""a"""', '""""', '"""a"', '"a"""'],
    "apostrophes": ["it's", "'a'", "#b", "\\n"],
    "long": ["x" * 60_000, "y", "", "z"],
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_column_is_the_same_by_either_reader(tmp_path: Path, kind: str, end: str) -> None:
    """Among others, as the last one and alone."""
    cells = COLUMNS[kind]
    beside = [f"{cell},{row},{cell}{end}" for row, cell in enumerate(cells)]
    for name, content in {"a": f"x,n,y{end}" + "".join(beside), "b": end.join(["x", *cells, "1", ""])}.items():
        path = written(tmp_path, content, f"{name}.csv")
        found = at_once(path)
        assert found is not None
        assert_same(found, read_exactly(path))


ROWS = "1,a\n2.5,b\n"
FILES: dict[str, str | bytes] = {
    "a byte order mark": b"\xef\xbb\xbfx,g\n1,a\n",
    "a byte order mark and quotes": b'\xef\xbb\xbf"x","g"\n1,a\n',
    "a quoted header": '"x","g, h"\n' + ROWS,
    "a spaced header": " x , g\n" + ROWS,
    "a column without a name": ",g\n" + ROWS,
    "a header in another script": "größe,日本\n" + ROWS,
    "no end of the last line": "x,g\n1,a\n2,b",
    "no end of the last line, in quotes": 'x,g\n1,a\n2,"b"',
    "no end of the last line, and no cell": "x,g\n1,a\n2,",
    "empty lines": "x,g\n\n\n1,a\n\n2,b\n\n\n",
    "empty lines after CRLF": "x,g\r\n\r\n1,a\r\n\r\n\r\n2,b\r\n\r\n",
    "LF and CRLF": "x,g\n1,a\r\n\n\r\n2,b\n",
    "empty lines in one column": "x\n\n1\n\n2\n",
    "spaces on a line in one column": "x\n1\n  \n2\n",
    "an empty cell in quotes in one column": 'x\n1\n""\n2\n',
    "one row": "x\n1\n",
    "many columns": ",".join(f"c{n}" for n in range(300)) + "\n" + ",".join("1" * 300) + "\n",
    "text of later chunks": "x,y,z\n" + "1,2,3\n" * 400_000 + "1.5,b,NA\n",
    "long rows": "x,y\n" + ("a" * 50_000 + "," + "b" * 50_000 + "\n") * 30,
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_a_file_is_the_same_by_either_reader(tmp_path: Path, kind: str, ending: str) -> None:
    path = written(tmp_path, FILES[kind], f"a.{ending}")
    found = at_once(path)
    assert found is not None
    assert_same(found, read_exactly(path))


LEFT: dict[str, str | bytes] = {
    "nothing": "",
    "no rows": "x,y\n",
    "no rows and no end": "x,y",
    "no rows but empty lines": "x,y\n\n\n",
    "a byte order mark after the header": "x,y\n\ufeff1,2\n",
    "an empty first line": "\nx,y\n1,2\n",
    "a short row": "x,y\n1,2\n\n3\n",
    "a long row": "x,y\n1,2\n3,4,5\n",
    "spaces on a line": "x,y\n1,2\n  \n3,4\n",
    "a name twice": "x,y, x\n1,2,3\n",
    "a quote that does not end": 'x,y\n1,"2\n3,4\n',
    "a quote that does not end on the last line": 'x,y\n1,2\n3,"4',
    "text after a quote": 'x,y\n"a"b,1\n',
    "a quote within text": 'x,y\na"b,1\n',
    "two quotes within text": 'x,y\na"b"c,1\n',
    "a quote after a space": 'x,y\n1, "a"\n',
    "a space after a quote": 'x,y\n1,"a" \n',
    "quotes that pair across cells": 'x,y\n"a,b"c",1\n',
    "a line end in quotes": 'x,y\n"a\nb",1\nc,NA\n',
    "a CRLF in quotes": 'x,y\r\n"a\r\nb",1\r\nc,NA\r\n',
    "a line end in the quotes of a header": 'x,"y\nz"\n1,2\n',
    "CR": "x,y\r1,2\r3,4\r",
    "CR and LF": "x,y\r1,2\n3,4\r\n",
    "CR before CRLF": "x,y\n1,2\r\r\n3,4\n",
    "Latin-1": "x,y\n1,é\n".encode("latin-1"),
    "Latin-1 in the header": "é,y\n1,2\n".encode("latin-1"),
    "UTF-16": "x,y\n1,2\n".encode("utf-16"),
    "half a surrogate pair": b"x,y\n1,\xed\xa0\x80\n",
    "an overlong sequence": b"x,y\n1,\xc0\xaf\n",
    "a cut sequence": b"x,y\n1,\xe6\x97\n",
    "a null character": b"x,y\n1,a\0\n",
    "a cell that is too long": "x,y\n1," + "a" * 140_000 + "\n",
    "another separator": "x;y\n1;2\n3,5;4\n",
}


@pytest.mark.parametrize("kind", LEFT)
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_what_is_unusual_or_wrong_is_left_to_the_exact_reader(tmp_path: Path, kind: str, ending: str) -> None:
    assert at_once(written(tmp_path, LEFT[kind], f"a.{ending}")) is None


@pytest.mark.parametrize("content", [b"nothing", gzip.compress(b"x\n1\n")[:-9], b""], ids=["text", "cut", "empty"])
def test_a_gz_that_is_none_is_left_to_the_exact_reader(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(content)
    assert at_once(path) is None


# errors -----------------------------------------------------------------------------------------------------------


def says(path: Path, missing: str = "error", **request: Any) -> tuple[str, ...]:
    """What is wrong with a file or with a column of it, in words."""
    try:
        made = columns_to_arguments(read_table(path), {"argument": Request(**request)}, missing)
    except DataError as error:
        return (str(error),)
    return tuple(map(str, made.errors))


def by_either(monkeypatch: pytest.MonkeyPatch, path: Path, **request: Any) -> tuple[str, ...]:
    """The same by the exact reader, and held against the fast one."""
    exact = says(path, **request)
    with monkeypatch.context() as patched:
        patched.setattr(table, "read_fast", at_once)
        assert says(path, **request) == exact
    return exact


@pytest.mark.parametrize("kind", LEFT)
def test_a_bad_file_is_refused_in_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    by_either(monkeypatch, written(tmp_path, LEFT[kind]), column="y")


@pytest.mark.parametrize(
    ("text", "request_", "expected"),
    [
        ("x\n1\nb\n", {"column": "x"}, "'b'"),
        ("x\n1_0\n2_0\n", {"column": "x"}, "'1_0'"),
        ("x\n1\nNA\n", {"column": "x"}, "row 1 (line 3)"),
        ("x\n1\n\n\nNA\n", {"column": "x"}, "row 1 (line 5)"),
        ("x,y\r\n1,1\r\n\r\n2,nan\r\n", {"column": "y"}, "row 1 (line 4)"),
        ("x,y\n1,a\n2,\n3,\n", {"column": "y", "codes": True}, "2 of 3 rows"),
        ("x,y\n1,\n2,\n", {"column": "y", "missing": "drop"}, "no row is left"),
        ("x,y\n1,1\n,1\n3,inf\n", {"column": "y", "missing": "drop"}, "row 2 (line 4)"),
        ("x\n1\n\n1e400\n", {"column": "x"}, "row 1 (line 4)"),
        ("x\n1\n1.5\n", {"column": "x", "dtype": "long"}, "fractions"),
        ("x\n9223372036854775808\n1\n", {"column": "x", "dtype": "long"}, "64-bit"),
        ("x\na\n\nc\n", {"column": "x", "codes": True, "order": ["a", "b"]}, "row 1 (line 4): column 'x' has 'c'"),
        ("x\n1\n\n2\n", {"column": "x", "codes": True, "order": [1]}, "row 1 (line 4): column 'x' has"),
        ("x\na\n", {"column": "X"}, "there are: x"),
    ],
)
def test_a_bad_column_is_refused_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, request_: dict[str, Any], expected: str
) -> None:
    (error,) = by_either(monkeypatch, written(tmp_path, text), **request_)
    assert expected in error


# all at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_a_drawn_table_is_the_same_by_either_reader(tmp_path: Path, seed: int) -> None:
    """Columns of the zoo and mixtures of them, quoted here and there, between empty lines."""
    drawn = np.random.default_rng(seed)
    every = [cell for kind, cells in COLUMNS.items() if kind != "long" for cell in cells]
    kinds = [*COLUMNS.values(), every, every]
    pools = [kinds[drawn.integers(len(kinds))] for _ in range(drawn.integers(1, 6))]
    end = ["\n", "\r\n"][seed % 2]
    lines = [",".join(f"c{n}" for n in range(len(pools)))]
    for _ in range(drawn.integers(1, 60)):
        cells = [pool[drawn.integers(len(pool))] for pool in pools]
        quoted = [cell if '"' in cell or drawn.random() < 0.7 else f'"{cell}"' for cell in cells]
        lines += ["" for _ in range(drawn.integers(4) // 3)] + [",".join(quoted)]
    mark = b"\xef\xbb\xbf" if drawn.random() < 0.3 else b""
    path = written(tmp_path, mark + end.join(lines).encode() + (end.encode() if drawn.random() < 0.7 else b""))
    found = at_once(path)
    if found is None:  # one column whose last cell is empty ends in what is no line
        assert lines[-1] == ""
    else:
        assert_same(found, read_exactly(path))


@pytest.mark.parametrize("seed", range(300))
def test_damage_changes_both_readers_alike_or_the_fast_one_leaves_it(tmp_path: Path, seed: int) -> None:
    """Some bytes replaced, dropped or doubled: the fast reader takes nothing that the exact one refuses."""
    drawn = np.random.default_rng(seed)
    content = bytearray(b'x,y,g\n1,2.5,a\n-3,1e5,"b, c"\n\n4,NA,"d"\n5,7,"e""f"\n' * 2)
    for _ in range(drawn.integers(1, 4)):
        at = int(drawn.integers(len(content)))
        content[at : at + int(drawn.integers(2))] = bytes(drawn.choice(list(b'",\r\n\0 \xc3\xa91x_+-.eN'), 2)[:2])
    path = written(tmp_path, bytes(content))
    found = at_once(path)
    if found is not None:
        assert_same(found, read_exactly(path))


# when -------------------------------------------------------------------------------------------------------------


def test_a_large_table_is_read_fast_and_its_levels_are_numbered_alike(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    groups = drawn.integers(0, 500, 100_000)
    numbers = drawn.normal(size=100_000).tolist()
    path = written(tmp_path, "x,g\n" + "".join(f"{x},g{g}\n" for x, g in zip(numbers, groups, strict=True)))
    assert path.stat().st_size > LARGE
    found = read_fast(path)
    assert found is not None
    assert_same(found, read_exactly(path))
    columns = {"x": Request(column="x"), "g": Request(column="g", codes=True, levels="k")}
    made = columns_to_arguments(read_table(path), columns, "error").values
    names = sorted({f"g{g}" for g in groups})
    assert made["k"] == len(names)
    assert made["g"].tolist() == [names.index(f"g{g}") for g in groups]
    assert torch.equal(made["x"], torch.tensor(numbers))


def test_a_small_table_is_not_worth_an_import(tmp_path: Path) -> None:
    path = written(tmp_path, "x,g\n" + "1.5,a\n" * 100)
    assert read_fast(path) is None
    code = (
        "import sys; from pathlib import Path; from hofit.model.table import read_table; "
        f"read_table(Path({str(path)!r})); print([m for m in ('pyarrow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_large_table_is_read_without_pyarrow_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = written(tmp_path, "x\n1\n")
    assert at_once(path) is None
    monkeypatch.setattr(table, "read_fast", at_once)
    assert np.array_equal(np.asarray(read_table(path).columns["x"]), [1])
