"""Compressed files: a small one that expands beyond all reason is refused before it has the memory."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, cast

from ..errors import DataError

RATIO = 200
"""Bytes that one byte may expand to. Tables expand three- to twentyfold, one byte repeated a thousandfold."""

HARMLESS = 1 << 26
"""Bytes that a file may expand to in any case."""


def open_gzip(path: Path) -> IO[bytes]:
    """The content of a .gz file. Raises: DataError when reading comes to what is no table."""
    return io.BufferedReader(cast(io.RawIOBase, _Expanding(path)), 1 << 20)


def refuse_bomb(path: Path, expanded: int, compressed: int) -> None:
    """Raises: DataError where a file of so many bytes expands to so many."""
    if expanded > max(HARMLESS, RATIO * compressed):
        raise DataError(f"{path} expands to more than {RATIO} times its size: that is no table")


class _Expanding(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._path, self._size, self._expanded = path, path.stat().st_size, 0
        self._file = gzip.open(path, "rb")  # noqa: SIM115 (closed by close)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer)
        self._expanded += count
        refuse_bomb(self._path, self._expanded, self._size)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
