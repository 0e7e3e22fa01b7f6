"""The tables that people have: what becomes of the column ``y``, or what the refusal must say."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BIG, NEXT = 9007199254740992, 9007199254740993
"""Two integers that float64 takes for one."""
WIDE, WIDER = 2**64 + 1, 2**64 + 2
"""Two beyond 64 bits that float64 takes for one."""


@dataclass(frozen=True)
class Table:
    """A file and the column ``y`` of it: numbers, codes of its levels, or words that the refusal holds."""

    name: str
    content: bytes
    numbers: Sequence[float] | None = None
    codes: Sequence[int] | None = None
    says: tuple[str, ...] = ()
    dtype: str | None = None
    missing: str = "error"


def csv(text: str | bytes, *says: str, name: str = "a.csv", **more: Any) -> Table:
    return Table(name, text if isinstance(text, bytes) else text.encode(), says=says, **more)


def as_json(value: object, *says: str, **more: Any) -> Table:
    text = value if isinstance(value, str) else json.dumps(value)
    return Table("a.json", text.encode(), says=says, **more)


def npz(*says: str, numbers: Any = None, codes: Any = None, dtype: Any = None, **arrays: Any) -> Table:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return Table("a.npz", buffer.getvalue(), numbers, codes, says, dtype)


def parquet(columns: Any, *says: str, **more: Any) -> Table:
    import pyarrow
    from pyarrow import parquet as arrow_parquet

    buffer = io.BytesIO()
    arrow_parquet.write_table(pyarrow.table(columns), buffer)
    return Table("a.parquet", buffer.getvalue(), says=says, **more)


def of_csv() -> dict[str, Table]:
    two, bom = (1.5, 2.0), b"\xef\xbb\xbf"
    return {
        "plain": csv("y,x\n1.5,a\n2,b\n", numbers=two),
        "byte order mark": csv(bom + b"y,x\n1.5,a\n2,b\n", numbers=two),
        "CRLF": csv("y,x\r\n1.5,a\r\n2,b\r\n", numbers=two),
        "CR": csv("y,x\r1.5,a\r2,b\r", numbers=two),
        "no last newline": csv("y\n1.5\n2", numbers=two),
        "blank lines": csv("\ny\n1.5\n\n2\n\n", numbers=two),
        "blank lines between": csv("y\n1.5\n\n2\n\n", numbers=two),
        "quotes": csv('"y","x"\n"1.5","a, b"\n"2","c ""d"""\n', numbers=two),
        "a newline in a cell": csv('y,x\n1.5,"a\nb"\n2,c\n', numbers=two),
        "spaces": csv(" y , x\n 1.5 , a\n 2 , b\n", numbers=two),
        "plus and exponent": csv("y\n+1.5\n2e0\n", numbers=two),
        "whole numbers": csv("y\n-1\n2\n", numbers=(-1, 2)),
        "semicolons": csv("y;x\n1.5;2\n", "'y'", "';'", "commas"),
        "semicolons and decimal commas": csv("y;x\n1,5;2\n2,5;3\n", "2"),
        "tabs": csv("y\tx\n1.5\t2\n", "'y'", "commas"),
        "decimal commas in quotes": csv('y,x\n"1,5",2\n', "'y'", "line 2", "'1,5'"),
        "thousands": csv('y\n"1,000"\n', "'y'", "line 2"),
        "underscores": csv("y\n1_000\n", "'y'", "line 2"),
        "per cent": csv("y\n1\n5%\n", "'y'", "line 3", "'5%'"),
        "currency": csv("y\n$5\n", "'y'", "line 2"),
        "hexadecimal": csv("y\n0x1F\n", "'y'", "line 2"),
        "dates": csv("y\n2001-01-01\n", "'y'", "line 2"),
        "true and false": csv("y\ntrue\nfalse\n", "'y'", "line 2"),
        "a word among numbers": csv("y\n1\n2\nthree\n", "'y'", "line 4", "'three'"),
        "an empty cell": csv("y,x\n1,1\n,2\n", "'y'", "line 3", "drop"),
        "NA dropped": csv("y\n1\nNA\n2\n", numbers=(1, 2), missing="drop"),
        "NaN": csv("y\n1\nNaN\n", "'y'", "line 3"),
        "another word for nothing": csv("y\n1\n#N/A\n", "'y'", "line 3"),
        "inf": csv("y\n1\ninf\n", "'y'", "line 3", "infinite"),
        "1e400": csv("y\n1\n1e400\n", "'y'", "line 3", "infinite"),
        "1e-400": csv("y\n1e-400\n", numbers=(0,)),
        "too few cells": csv("y,x\n1,2\n3\n", "line 3", "1 cells"),
        "too many cells": csv("y,x\n1,2\n3,4,5\n", "line 3", "3 cells"),
        "a comma at the end": csv("y,x\n1,2,\n", "line 2"),
        "a name twice": csv("y,y\n1,2\n", "'y'", "twice"),
        "a name twice but for spaces": csv("y, y\n1,2\n", "'y'", "twice"),
        "no header": csv("1.5,2\n2,3\n", "'y'", "no column"),
        "another case": csv("Y\n1\n", "'y'", "Y"),
        "a header alone": csv("y\n", "empty"),
        "nothing": csv("", "empty"),
        "spaces alone": csv(" \n \n", "'y'"),
        "Latin-1": csv("y,x\n1,a\n2,é\n".encode("latin-1"), "line 3", "UTF-8"),
        "UTF-16": csv("y\n1\n".encode("utf-16"), "UTF-8"),
        "a zero byte": csv("y\n1\n2\0\n", "line 3"),
        "an open quote": csv('y\n1\n"2\n', "line"),
        "text after a quote": csv('y\n1\n"2"3\n', "line 3"),
        "binary": csv(bytes(range(256)), "a.csv"),
        "a cell of 131,073 characters": csv("y,x\n1," + "x" * 131_073 + "\n", "line 2"),
        "dtype long of fractions": csv("y\n1.5\n", "'y'", "fractions", dtype="long"),
        "dtype long of a large number": csv(f"y\n{NEXT}\n{BIG}\n", numbers=(NEXT, BIG), dtype="long"),
        "dtype long beside an empty cell": csv(
            f"y,x\n{NEXT},\n{BIG},\n,\n", numbers=(NEXT, BIG), dtype="long", missing="drop"
        ),
        "dtype long beyond 64 bits": csv(f"y\n{WIDE}\n", "'y'", "64-bit", dtype="long"),
        "a large whole number as a float": csv(f"y\n{10**30}\n1\n", numbers=(1e30, 1)),
        "a number of thousands of digits": csv("y\n" + "9" * 5000 + "\n", "'y'", "infinite"),
        "codes": csv("y\nb\na\nb\n", codes=(1, 0, 1)),
        "codes by number": csv("y\n10\n9\n", codes=(1, 0)),
        "codes of large ids": csv(f"y\n{NEXT}\n{BIG}\n", codes=(1, 0)),
        "codes of large ids beside an empty cell": csv(f"y,x\n{NEXT},\n,\n{BIG},\n", codes=(1, 0), missing="drop"),
        "codes of ids beyond 64 bits": csv(f"y\n{WIDER}\n{WIDE}\n5\n", codes=(2, 1, 0)),
        "codes of ids of thousands of digits": csv("y\n" + "9" * 5000 + "\n" + "8" * 5000 + "\n", codes=(1, 0)),
        "codes of large ids and a word": csv(f"y\n{NEXT}\n{BIG}\nnone\n", codes=(1, 0, 2)),
        "gzip": csv(gzip.compress(b"y\n1.5\n2\n"), name="a.csv.gz", numbers=two),
        "no gzip": csv("y\n1\n", "a.csv.gz", name="a.csv.gz"),
        "a torn gzip": csv(gzip.compress(b"y\n1.5\n2\n" * 100)[:-9], "a.csv.gz", name="a.csv.gz"),
        "a gzip of nothing": csv(gzip.compress(b""), "empty", name="a.csv.gz"),
    }


def of_json() -> dict[str, Table]:
    two = (1.5, 2.0)
    return {
        "records": as_json([{"y": 1.5}, {"y": 2}], numbers=two),
        "columns": as_json({"y": [1.5, 2]}, numbers=two),
        "byte order mark": Table("a.json", b'\xef\xbb\xbf{"y": [1.5, 2]}', numbers=two),
        "a key twice": as_json('{"y": [1], "y": [2]}', "'y'", "twice"),
        "a key twice in a record": as_json('[{"y": 1, "y": 2}]', "'y'", "twice"),
        "a record without it": as_json([{"y": 1}, {"x": 2}], "'y'", "row 1"),
        "null": as_json([{"y": 1}, {"y": None}], "'y'", "row 1"),
        "null dropped": as_json([{"y": 1}, {"y": None}], numbers=(1,), missing="drop"),
        "NaN": as_json('{"y": [1, NaN]}', "'y'", "row 1"),
        "1e400": as_json('{"y": [1, 1e400]}', "'y'", "row 1", "infinite"),
        "text": as_json({"y": ["1"]}, "'y'", "row 0", "text"),
        "lists": as_json({"y": [[1], [2]]}, "'y'", "row 0"),
        "ragged": as_json({"y": [1], "x": [1, 2]}, "lengths"),
        "true and false": as_json({"y": [True, False]}, numbers=(1, 0)),
        "true and a number": as_json({"y": [True, 2]}, "'y'"),
        "a number": as_json(3, "records"),
        "nothing": as_json("", "line 1"),
        "torn": as_json('{"y":\n [1,', "line 2"),
        "Latin-1": Table("a.json", '{"y": [1],\n "é": [2]}'.encode("latin-1"), says=("line 2", "UTF-8")),
        "UTF-16": Table("a.json", '{"y": [1]}'.encode("utf-16"), says=("UTF-8",)),
        "deep": as_json("[" * 100_000, "deep"),
        "deep and closed": as_json('{"y": ' + "[" * 10_000 + "]" * 10_000 + "}", "deep"),
        "a number of thousands of digits": as_json('{"y": [' + "9" * 5000 + "]}", "a.json"),
        "no names": as_json([[1], [2]], "records"),
        "codes of large ids beside null": as_json({"y": [NEXT, None, BIG]}, codes=(1, 0), missing="drop"),
        "codes of ids beyond 64 bits": as_json({"y": [WIDER, WIDE, 5]}, codes=(2, 1, 0)),
        "dtype long beyond 64 bits": as_json({"y": [WIDE]}, "'y'", "64-bit", dtype="long"),
        "a large whole number as a float": as_json({"y": [10**30, 1]}, numbers=(1e30, 1)),
    }


def of_npz() -> dict[str, Table]:
    two, plain = (1.5, 2.0), np.array([1.5, 2.0])
    return {
        "floats": npz(numbers=two, y=plain),
        "single precision": npz(numbers=two, y=plain.astype(np.float32)),
        "another byte order": npz(numbers=two, y=plain.astype(">f8")),
        "wide floats": npz(numbers=two, y=plain.astype(np.longdouble)),
        "integers": npz(numbers=(1, 2), y=np.array([1, 2], dtype=np.int8)),
        "booleans": npz(numbers=(1, 0), y=np.array([True, False])),
        "text": npz("'y'", "text", y=np.array(["a", "b"])),
        "codes of text": npz(codes=(1, 0), y=np.array(["b", "a"])),
        "bytes": npz(codes=(1, 0), y=np.array([b"b", b"a"])),
        "bytes that are not UTF-8": npz("a.npz", y=np.array([b"\xff"])),
        "objects": npz("'y'", "Object", y=np.array([{"a": 1}, None], dtype=object)),
        "complex": npz("'y'", "complex", y=plain + 1j),
        "dates": npz("'y'", "datetime", y=np.array(["2001-01-01"], dtype="M8[D]")),
        "records": npz("'y'", y=np.zeros(2, dtype=[("a", float), ("b", int)])),
        "a scalar": npz("'y'", "scalar", y=np.float64(1)),
        "ragged": npz("lengths", y=plain, x=np.zeros(3)),
        "empty": npz("empty", y=np.zeros(0)),
        "no column": npz("'y'", "are: Y", Y=plain),
        "NaN": npz("'y'", "row 1", y=np.array([1, np.nan])),
        "infinite": npz("'y'", "row 1", "infinite", y=np.array([1, np.inf])),
        "codes of large ids": npz(codes=(1, 0), y=np.array([NEXT, BIG])),
        "codes of unsigned ids": npz(codes=(1, 0), y=np.array([2**64 - 1, 2**64 - 2], dtype=np.uint64)),
        "dtype long of unsigned": npz("'y'", "64-bit", dtype="long", y=np.array([2**64 - 1], dtype=np.uint64)),
        "dtype long of the largest": npz(numbers=(2**63 - 1,), dtype="long", y=np.array([2**63 - 1])),
        "not a zip": Table("a.npz", b"nothing", says=("a.npz",)),
        "one array": Table("a.npz", _npy(plain), says=("a.npz", "savez")),
        "torn": Table("a.npz", npz(y=np.zeros(1000)).content[:-100], says=("a.npz",)),
        "a header that claims terabytes": Table("a.npz", _claims((10**12,)), says=("a.npz",)),
        "a header that overflows": Table("a.npz", _claims((2**62, 2**62)), says=("a.npz",)),
        "a pickle by that name": Table("a.npz", b"\x80\x04cposix\nsystem\n(S'touch broken'\ntR.", says=("a.npz",)),
        "a member with two names": Table("a.npz", _twice(), says=("a.npz", "twice")),
    }


def of_parquet() -> dict[str, Table]:
    import pyarrow

    two = (1.5, 2.0)
    return {
        "floats": parquet({"y": [1.5, 2.0]}, numbers=two),
        "integers": parquet({"y": [1, 2]}, numbers=(1, 2)),
        "booleans": parquet({"y": [True, False]}, numbers=(1, 0)),
        "nulls": parquet({"y": [1, None]}, "'y'", "row 1"),
        "nulls dropped": parquet({"y": [1.5, None, 2.0]}, numbers=two, missing="drop"),
        "NaN": parquet({"y": [1.5, float("nan")]}, "'y'", "row 1"),
        "text": parquet({"y": ["a", "b"]}, "'y'", "text"),
        "codes of text": parquet({"y": ["b", "a", None]}, codes=(1, 0), missing="drop"),
        "codes of a dictionary": parquet({"y": pyarrow.array(["b", "a"]).dictionary_encode()}, codes=(1, 0)),
        "dates": parquet({"y": pyarrow.array([1, 2], pyarrow.timestamp("s"))}, "'y'"),
        "lists": parquet({"y": [[1], [2]]}, "'y'"),
        "all null": parquet({"y": pyarrow.nulls(2)}, "'y'"),
        "no rows": parquet({"y": pyarrow.array([], pyarrow.float64())}, "empty"),
        "no column": parquet({"Y": [1]}, "'y'", "are: Y"),
        "codes of large ids beside null": parquet({"y": [NEXT, None, BIG]}, codes=(1, 0), missing="drop"),
        "dtype long beside null": parquet({"y": [NEXT, None]}, numbers=(NEXT,), dtype="long", missing="drop"),
        "codes of unsigned ids": parquet({"y": pyarrow.array([2**64 - 1, 2**64 - 2], pyarrow.uint64())}, codes=(1, 0)),
        "a name twice": Table("a.parquet", _doubled(), says=("a.parquet",)),
        "not parquet": Table("a.parquet", b"nothing", says=("a.parquet",)),
        "torn": Table("a.parquet", parquet({"y": [1.5, 2.0]}).content[:-20], says=("a.parquet",)),
    }


def large(folder: Path) -> dict[str, Path]:
    """Files whose size is the trouble, written into a folder."""
    files = {
        "20,000 columns": ("b.csv", (",".join(f"c{n}" for n in range(20_000)) + "\n" + "1," * 19_999 + "1\n").encode()),
        "100,000 columns": (
            "c.csv",
            (",".join(f"c{n}" for n in range(100_000)) + "\n" + "1," * 99_999 + "1\n").encode(),
        ),
        "a gzip bomb of newlines": ("d.csv.gz", _bomb(b"y\n", b"\n")),
        "a gzip bomb of one cell": ("e.csv.gz", _bomb(b"y\n", b"1")),
        "a gzip bomb of a header": ("f.csv.gz", _bomb(b"y", b",")),
        "an npz bomb": ("g.npz", _npz_bomb()),
    }
    for name, content in files.values():
        (folder / name).write_bytes(content)
    return {what: folder / name for what, (name, _) in files.items()}


def _bomb(head: bytes, repeated: bytes, size: int = 300_000_000) -> bytes:
    """``size`` bytes, compressed member by member."""
    piece = gzip.compress(repeated * 10_000_000)
    return gzip.compress(head) + piece * (size // 10_000_000)


def _npz_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("y.npy", "w") as member:
        member.write(_head((40_000_000,)))
        for _ in range(32):
            member.write(bytes(10_000_000))
    return buffer.getvalue()


def _head(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _claims(shape: tuple[int, ...]) -> bytes:
    return _zip({"y.npy": _head(shape) + bytes(80)})


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _twice() -> bytes:
    return _zip({"y.npy": _npy(np.ones(2)), "y": _npy(np.zeros(2))})


def _doubled() -> bytes:
    import pyarrow
    from pyarrow import parquet as arrow_parquet

    buffer = io.BytesIO()
    arrow_parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], ["y", "y"]), buffer)
    return buffer.getvalue()
