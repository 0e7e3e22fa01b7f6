"""A large .csv file by pyarrow, where that gives exactly what `csv_exact.py` gives: the same bits, levels and lines.

pyarrow splits the file into cells; the meaning of a cell stays that of `csv_exact.py`. Its own differs: it takes
`"a"b` for ab, 0x1F for 31 and nan(3) for nan. So only files on whose cells both agree are taken, and only characters
of plain decimal numbers are given to its converter, which rounds correctly, as Python's does. What else a column holds
is decided by the exact reader on the column's distinct cells.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .csv_exact import MISSING, CsvTable, from_text, open_bytes
from .text import EXACT, Array, Column, Text

if TYPE_CHECKING:
    import pyarrow

LARGE = 1 << 21
"""Bytes from which pyarrow is worth its import: the exact one takes as long for them (tests/benchmarks/tables.py)."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
INTEGER = b"0123456789-"
WHOLE = INTEGER + b"+"
NUMBER = WHOLE + b".eE"
HOLES = NUMBER + b" \t" + "".join(MISSING).encode()
"""What a column of numbers is made of that has empty cells, or spaces around its numbers."""

COMMA, QUOTE, NEWLINE, RETURN = b',"\n\r'


def read_fast(path: Path, large: int = LARGE) -> CsvTable | None:
    """The table, or None where the file is small, unusual or wrong, or pyarrow is not installed."""
    try:
        with open_bytes(path) as file:
            content = file.read(large)
            if len(content) < large:
                return None
            content += file.read()
        return _read(content.removeprefix(BYTE_ORDER_MARK))
    except DataError:
        raise
    except Exception:  # whatever is wrong, the exact reader says it, and where
        return None


def _read(content: bytes) -> CsvTable | None:
    lines = _lines(content)
    if lines is None:
        return None
    end = content.index(b"\n") + 1
    (header,) = csv.reader([content[:end].decode()], strict=True)
    names = [name.strip() for name in header]
    if len(set(names)) < len(names) or content.startswith(BYTE_ORDER_MARK, end):  # pyarrow drops it there, too
        return None
    cells = _cells(memoryview(content)[end:], len(names))
    if len(cells) != len(lines):
        return None
    return CsvTable({name: _column(column) for name, column in zip(names, cells.columns, strict=True)}, lines)


def _lines(content: bytes) -> Array | None:
    """The line on which each row begins; None where the two readers may not split the file alike. Shape (rows,)."""
    if b"\0" in content or (b"\r" in content and content.count(b"\r") != content.count(b"\r\n")):
        return None
    raw = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero(raw == NEWLINE)
    if not content.endswith(b"\n"):
        ends = np.append(ends, len(raw))
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= csv.field_size_limit() or not _quotes_are_plain(raw, ends):
        return None
    holds = (ends > starts) & (raw[starts] != RETURN)
    return np.flatnonzero(holds)[1:] + 1 if holds[0] else None


def _quotes_are_plain(raw: Array, ends: Array) -> bool:
    """Whether each pair of quotes encloses a whole cell on one line, or part of one up to a doubled quote."""
    quotes = np.flatnonzero(raw == QUOTE)
    if len(quotes) % 2:
        return False
    if not len(quotes):
        return True
    opening, closing = quotes[::2], quotes[1::2]
    doubled = closing[:-1] + 1 == opening[1:]
    before = np.where(opening > 0, raw[opening - 1], NEWLINE)
    after = np.where(closing + 1 < len(raw), raw[np.minimum(closing + 1, len(raw) - 1)], NEWLINE)
    opens = np.isin(before, (COMMA, NEWLINE)) | np.concatenate([[False], doubled])
    closes = np.isin(after, (COMMA, NEWLINE, RETURN)) | np.append(doubled, False)
    inside = np.searchsorted(quotes, ends) % 2
    return bool(opens.all() and closes.all() and not inside.any())


def _cells(content: memoryview, width: int) -> pyarrow.Table:
    import pyarrow
    from pyarrow import csv as arrow_csv

    names = [str(column) for column in range(width)]
    return arrow_csv.read_csv(
        pyarrow.BufferReader(content),
        read_options=arrow_csv.ReadOptions(column_names=names, use_threads=False),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string())),
    )


def _column(cells: pyarrow.ChunkedArray) -> Column:
    """What `from_text` makes of the cells."""
    import pyarrow

    numbers = _full(cells)
    if numbers is None and _is_made_of(cells, HOLES):
        numbers = _with_holes(cells)
    if numbers is not None:
        return numbers
    coded = cells.combine_chunks().dictionary_encode()  # chunk by chunk, each would hash the levels of all before it
    levels = from_text(coded.dictionary.to_pylist())
    places = _array(pyarrow.chunked_array([coded.indices]), np.int32)
    return levels.at(places) if isinstance(levels, Text) else levels[places]


def _full(cells: pyarrow.ChunkedArray) -> Array | None:
    """A column where every cell is a number, and nothing but that."""
    import pyarrow

    with suppress(pyarrow.ArrowInvalid):  # a date, an empty cell, a number too large for 64 bits
        if _is_made_of(cells, INTEGER):
            return _array(cells.cast(pyarrow.int64()), np.int64)
        if _is_made_of(cells, NUMBER) and not _is_made_of(cells, WHOLE):  # +1 is whole, but to pyarrow a float only
            return _array(cells.cast(pyarrow.float64()), np.float64)
    return None


def _with_holes(cells: pyarrow.ChunkedArray) -> Array | None:
    """The same with spaces around the numbers, and empty cells."""
    import pyarrow
    from pyarrow import compute

    trimmed = compute.utf8_trim(cells, " \t")
    missing = compute.is_in(trimmed, _missing_words())
    if not compute.any(missing).as_py():
        return _full(trimmed)
    present = trimmed.filter(compute.invert(missing))
    if not len(present) or not _is_made_of(present, NUMBER):
        return None
    with suppress(pyarrow.ArrowInvalid):
        column = np.full(len(cells), np.nan)
        column[_array(missing.cast(pyarrow.uint8()), np.uint8) == 0] = _array(
            present.cast(pyarrow.float64()), np.float64
        )
        rounded = bool((np.abs(column) >= EXACT).any()) and _is_made_of(present, WHOLE)
        return None if rounded else column
    return None


def _array(cells: pyarrow.ChunkedArray, dtype: type[np.generic]) -> Array:
    """An array of cells none of which is null. `to_numpy` gives the same, and imports pandas first."""
    width = np.dtype(dtype).itemsize
    return np.concatenate(
        [
            np.frombuffer(chunk.buffers()[1], dtype=dtype, count=len(chunk), offset=chunk.offset * width)
            for chunk in cells.chunks
            if len(chunk)
        ]
    )


def _missing_words() -> pyarrow.StringArray:
    """MISSING for pyarrow; `pyarrow.array` gives the same, and imports pandas first."""
    import pyarrow

    words = [word.encode() for word in MISSING]
    ends = np.cumsum([0, *map(len, words)], dtype=np.int32)
    return pyarrow.StringArray.from_buffers(len(words), pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(words)))


def _is_made_of(cells: pyarrow.ChunkedArray, allowed: bytes) -> bool:
    return not any(text.translate(None, allowed) for text in _characters(cells))


def _characters(cells: pyarrow.ChunkedArray) -> Iterator[bytes]:
    """All cells of a chunk, end to end."""
    for chunk in cells.chunks:
        _, offsets, characters = chunk.buffers()
        if characters is not None and len(chunk):
            ends: Any = np.frombuffer(offsets, dtype=np.int32)[chunk.offset :]
            yield characters[int(ends[0]) : int(ends[len(chunk)])].to_pybytes()
