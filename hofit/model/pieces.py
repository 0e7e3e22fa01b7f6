"""The rows of a table shared out by the groups that they belong to, so that nobody ever holds the whole.

Levels are gathered batch by batch; then each piece reads the rows of its own groups. A piece has a range of the sorted
levels, so that the numbers of its groups go on where those of the piece before end; the ranges have about as many rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..patterns import near_misses
from .columns import Arguments, ColumnRequest, columns_to_arguments, kind_of, names_of, present_rows, sorted_levels
from .parts import batches, joined, part_paths
from .table import Table
from .text import Array, Column, Text, taken

MERGED = 16
"""Batches whose distinct numbers are kept by themselves at most."""


class Request(ColumnRequest, Protocol):
    """A request that can be made anew with another order of its levels."""

    def model_copy(self, *, update: Mapping[str, Any]) -> Request: ...


@dataclass(frozen=True)
class Pieces:
    """How the rows of a table are shared out.

    ``levels`` are those of the column ``by`` in the order of their numbers: piece k has those from ``bounds[k]`` to
    ``bounds[k + 1]``, with all their rows. Without ``by`` the bounds are those of the rows. ``orders`` gives the levels
    of every other argument that is codes, which are the whole table's. ``holders`` (batches, count) says which pieces
    have rows in a batch.
    """

    paths: list[Path]
    requests: Mapping[str, Request]
    missing: str
    by: str | None
    levels: Column
    bounds: Array
    orders: Mapping[str, list[Any]]
    holders: Array

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def groups(self, piece: int) -> int | None:
        """How many levels of ``by`` a piece has; None where rows are shared out by themselves."""
        return None if self.by is None else int(self.bounds[piece + 1] - self.bounds[piece])

    def arguments(self, piece: int) -> Arguments:
        """The model's arguments of one piece. Levels of ``by`` are numbered from 0 in each, all others as a whole."""
        requests = {
            argument: one.model_copy(update={"order": self.orders[argument]}) if argument in self.orders else one
            for argument, one in self.requests.items()
        }
        if isinstance(self.levels, Text):  # in the order of all: a piece may hold only words that are numbers
            own = self.levels.levels[self.bounds[piece] : self.bounds[piece + 1]].tolist()
            coded = {a for a, one in requests.items() if one.codes and one.column == self.by}
            requests |= {argument: requests[argument].model_copy(update={"order": own}) for argument in coded}
        return columns_to_arguments(self._table(piece), requests, self.missing)

    def level_words(self) -> list[object]:
        """The levels of ``by``, in the order of their numbers."""
        found: list[object] = (self.levels.levels if isinstance(self.levels, Text) else self.levels).tolist()
        return found

    def _table(self, piece: int) -> Table:
        """The rows of one piece, in the order of the files."""
        low, high, start, found = self.bounds[piece], self.bounds[piece + 1], 0, []
        names = _all_names(self.requests)
        for batch, holders in zip(batches(self.paths, names), self.holders, strict=True):
            rows = _rows(batch)
            if holders[piece]:
                numbers = np.arange(start, start + rows) if self.by is None else self._numbers(batch.column(self.by))
                own = np.flatnonzero((low <= numbers) & (numbers < high))
                found.append(Table(batch.path, {name: taken(cells, own) for name, cells in batch.columns.items()}))
            start += rows
        return joined(self.paths[0], found)

    def _numbers(self, column: Column) -> Array:
        """The number of the group that each row belongs to, −1 where it has none; (rows,)."""
        if isinstance(column, Text):
            found: Array = np.array([self._places.get(level, -1) for level in column.levels], dtype=np.int64)
            return found[column.places]
        assert not isinstance(self.levels, Text)
        return numbers_among(self.levels, column)

    @cached_property
    def _places(self) -> dict[Any, int]:
        assert isinstance(self.levels, Text)
        return {level: number for number, level in enumerate(self.levels.levels.tolist())}


def numbers_among(levels: Array, column: Array) -> Array:
    """Where each number stands among sorted ones, −1 where it does not. Shapes: (levels,), (rows,) → (rows,)."""
    places = np.minimum(np.searchsorted(levels, column), len(levels) - 1)
    return np.where(levels[places] == column, places, -1)


def share_out(path: Path, requests: Mapping[str, Request], by: str | None, missing: str, count: int) -> Pieces:
    """Share the rows of a table, which may be many files, out into ``count`` pieces.

    Raises: DataError where there are fewer groups (or rows) than pieces, and for codes that cannot be shared out.
    """
    by = _column_to_share_by(requests, by)
    paths, kinds = part_paths(path), _kinds(requests, by)
    coded = list(dict.fromkeys(name for names in kinds.values() for name in names))
    names = _all_names(requests) if missing == "drop" or not (coded or by) else [*([by] if by else []), *coded]
    gathered: dict[str, _Levels] = {name: _Levels() for name in {*coded, *([by] if by else [])}}
    rows_of_batches = []
    for batch in batches(paths, list(dict.fromkeys(names))):
        keep = np.ones(_rows(batch), dtype=bool)
        for name in batch.columns:
            keep &= present_rows(batch, name, missing)
        kept = np.flatnonzero(keep)
        for name, own in gathered.items():
            own.take(taken(batch.columns[name], kept))
        rows_of_batches.append(len(keep))
    orders: dict[str, list[Any]] = {}
    for kind, members in kinds.items():
        distinct, _ = _Levels.of([gathered[name] for name in members]).sorted(members[0])
        words = (distinct.levels if isinstance(distinct, Text) else distinct).tolist()
        orders |= {a: words for a, one in requests.items() if one.codes and kind_of(a, one) == kind}
    levels: Column = np.zeros(0)
    if by is None:
        total = sum(rows_of_batches)
        bounds = told_apart(np.arange(count + 1) * total // count, np.ones(total, dtype=np.int64))
        ends = np.cumsum(rows_of_batches)
        starts = ends - rows_of_batches
        holders = (starts[:, None] < bounds[1:]) & (ends[:, None] > bounds[:-1])
        _refuse_too_few(total, "rows", count)
    else:
        levels, counts = gathered[by].sorted(by)
        _refuse_too_few(len(counts), f"levels of {by!r}", count)
        bounds = told_apart(even_bounds(counts, count), counts)
        holders = gathered[by].holders(levels, bounds)
    return Pieces(paths, requests, missing, by, levels, bounds, orders, holders)


def even_bounds(counts: Array, pieces: int) -> Array:
    """Bounds of consecutive ranges with about as many rows each, none of them empty. Shapes: (n,) → (pieces + 1,)."""
    ends = np.cumsum(counts)
    wanted = ends[-1] * np.arange(1, pieces) / pieces
    bounds = np.concatenate([[0], np.searchsorted(ends, wanted) + 1, [len(counts)]])
    for k in range(1, pieces):  # none is empty
        bounds[k] = min(max(bounds[k], bounds[k - 1] + 1), len(counts) - (pieces - k))
    return bounds.astype(np.int64)


def told_apart(bounds: Array, counts: Array) -> Array:
    """Bounds of pieces that do not all have as many rows: what depends on how many there are then differs."""
    ends = np.concatenate([[0], np.cumsum(counts)])[bounds]
    if len(bounds) > 2 and len(set(np.diff(ends).tolist())) == 1 and bounds[1] > 1:
        return np.concatenate([bounds[:1], bounds[1:2] - 1, bounds[2:]])
    return bounds


@dataclass
class _Levels:
    """The distinct levels of a column, and how many rows each has, gathered batch by batch."""

    words: dict[Any, int] = field(default_factory=dict)
    numbers: list[tuple[Array, Array]] = field(default_factory=list)
    of_batches: list[Column] = field(default_factory=list)

    @classmethod
    def of(cls, several: Sequence[_Levels]) -> _Levels:
        found = cls()
        for one in several:
            found.numbers += one.numbers
            for word, count in one.words.items():
                found.words[word] = found.words.get(word, 0) + count
        return found

    def take(self, column: Column) -> None:
        if isinstance(column, Text):
            own = column.occurring()
            for level, count in zip(own.levels.tolist(), np.bincount(own.places).tolist(), strict=True):
                self.words[level] = self.words.get(level, 0) + count
            self.of_batches.append(own)
            return
        self.numbers.append(np.unique(column, return_counts=True))
        self.of_batches.append(self.numbers[-1][0])
        if len(self.numbers) > MERGED:
            self.numbers = [self._merged()]

    def _merged(self) -> tuple[Array, Array]:
        levels, inverse = np.unique(np.concatenate([one for one, _ in self.numbers]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([count for _, count in self.numbers])).astype(np.int64)
        return levels, counts

    def sorted(self, name: str) -> tuple[Column, Array]:
        """The levels in the order of their numbers, with their counts of rows. Raises: DataError."""
        if bool(self.words) == bool(self.numbers):
            mixed = "is text in some parts of the table and numbers in others" if self.words else "has no level"
            raise DataError(f"column {name!r} {mixed}")
        if self.numbers:
            return self._merged()
        levels = sorted_levels(list(self.words))
        counts = np.array([self.words[level] for level in levels], dtype=np.int64)
        return Text(np.array(levels, dtype=object), np.arange(len(levels))), counts

    def holders(self, levels: Column, bounds: Array) -> Array:
        """Which pieces have rows in each batch; (batches, pieces)."""
        places = {word: k for k, word in enumerate(levels.levels.tolist())} if isinstance(levels, Text) else {}
        found = np.zeros((len(self.of_batches), len(bounds) - 1), dtype=bool)
        for batch, own in enumerate(self.of_batches):
            if isinstance(own, Text):
                numbers = np.array([places[word] for word in own.levels.tolist()], dtype=np.int64)
            else:
                assert not isinstance(levels, Text)
                numbers = numbers_among(levels, own)
            found[batch, np.searchsorted(bounds, numbers, side="right") - 1] = True
        return found


def _column_to_share_by(requests: Mapping[str, Request], by: str | None) -> str | None:
    """The column ``by``, or the only one with codes. Raises: DataError where there is none such."""
    coded = {argument: one for argument, one in requests.items() if one.codes}
    if by is None:
        if len(coded) > 1:
            listed = ", ".join(str(one.column) for one in coded.values())
            raise DataError(
                f"there are several columns with codes ({listed}): name the one that numbers the plate, by: COLUMN", BY
            )
        by = next((one.column for one in coded.values() if isinstance(one.column, str)), None)
        return by
    named = _all_names(requests)
    if by not in named:
        raise DataError(f"no argument of data.columns reads the column {by!r}{near_misses(by, named)}", BY)
    own = [argument for argument, one in coded.items() if one.column == by]
    if len(own) != 1:
        edit = f"write {{column: {by}, codes: true, levels: NAME}}" if not own else "leave one of them"
        raise DataError(f"{len(own)} arguments of data.columns are codes of the column {by!r}: {edit}", BY)
    kind = kind_of(own[0], coded[own[0]])
    others = [argument for argument, one in coded.items() if argument != own[0] and kind_of(argument, one) == kind]
    if others:
        raise DataError(
            f"{own[0]!r} shares its numbers with {others[0]!r}, and a row would belong to two pieces: such groups "
            "cannot be shared out",
            BY,
        )
    if coded[own[0]].order is not None:
        raise DataError(
            f"{own[0]!r} has an order of its own: leave it out, levels are shared out as they are sorted", BY
        )
    return by


BY = ("shard", "by")


def _kinds(requests: Mapping[str, Request], by: str | None) -> dict[str, list[str]]:
    """What is numbered besides ``by`` and has no order yet → the columns that it is numbered by."""
    found: dict[str, list[str]] = {}
    for argument, one in requests.items():
        if not one.codes or one.column == by or one.order is not None:
            continue
        if not isinstance(one.column, str):
            raise DataError(
                f"{argument!r} numbers the combinations of several columns, which cannot be told piece by piece: put "
                "the combination into a column of its own",
                ("data", "columns", argument),
            )
        found.setdefault(kind_of(argument, one), []).append(one.column)
    return found


def _refuse_too_few(found: int, what: str, pieces: int) -> None:
    if found < pieces:
        raise DataError(f"{found} {what} for {pieces} pieces: one would have no rows. Take {found} at most", ("shard",))


def _all_names(requests: Mapping[str, Request]) -> list[str]:
    return list(dict.fromkeys(name for one in requests.values() for name in names_of(one)))


def _rows(table: Table) -> int:
    return len(next(iter(table.columns.values())))
