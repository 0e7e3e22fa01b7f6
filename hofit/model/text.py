"""Text of a column: its distinct levels, and which of them each row holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Text:
    """A column of text. A million rows hold a few strings, so what is asked of a cell is asked once of each level.

    ``levels`` are str, None where a cell holds nothing, distinct, in the order of their first row;
    ``places`` says which one a row holds. Shapes: levels (levels,); places (rows,).
    """

    levels: Array
    places: Array

    @classmethod
    def of(cls, cells: Sequence[str | None]) -> Text:
        numbers = dict(zip(dict.fromkeys(cells), count()))
        places = np.fromiter(map(numbers.__getitem__, cells), dtype=np.int64, count=len(cells))
        return cls(np.array(list(numbers), dtype=object), places)

    def __len__(self) -> int:
        return len(self.places)

    def at(self, rows: Array) -> Text:
        """The same levels in some of the rows."""
        return type(self)(self.levels, self.places[rows])

    def cell(self, row: int) -> str | None:
        found: str | None = self.levels[self.places[row]]
        return found

    def occurring(self) -> Text:
        """Without the levels that no row holds."""
        occurs = np.zeros(len(self.levels), dtype=bool)
        occurs[self.places] = True
        return type(self)(self.levels[occurs], (np.cumsum(occurs) - 1)[self.places])


EXACT = 2**53
"""From here on float64 takes two integers for one."""


class Integers(Text):
    """Whole numbers that float64 would round, or 64 bits not hold: the digits of each. As codes they stay apart."""

    def whole(self) -> Array:
        """Each as it is. Raises: OverflowError or ValueError where 64 bits do not hold them."""
        held = self.occurring()
        return np.array([int(level) for level in held.levels], dtype=np.int64)[held.places]

    def rounded(self) -> Array:
        """As floating numbers."""
        held = self.occurring()
        return np.array([float(level) for level in held.levels])[held.places]


Column = Array | Text
"""Numbers, booleans, or text; text of several cells a row, which only .npz has, is an array of str."""


def taken(column: Column, rows: Array) -> Column:
    """A column in some of the rows."""
    return column.at(rows) if isinstance(column, Text) else column[rows]
