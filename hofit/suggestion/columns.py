"""Which column of a table is which argument of a model: by their names.

An argument takes the column of its name, else the one column whose name differs in case and signs alone, begins as its
own does or it as that, or is very like it; where one argument and one column are left, each takes the other. An
argument ``n_subjects`` counts the levels of ``subject``, which is then numbered; a column of text is numbered, too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..model.table import Table
from ..model.text import Text
from ..run.labels import counted, stems

LIKE = 0.7
"""How alike two names must be, of 1, to be taken for one."""

BEGINNING = 3
"""Letters that two names must have in common where one is the beginning of the other."""

Request = str | dict[str, Any]
"""An entry of ``data.columns``."""


def match(needed: Sequence[str], optional: Sequence[str], table: Table) -> dict[str, Request]:
    """An entry of ``data.columns`` for each argument that a column was found for.

    Args: needed: arguments without a default; optional: those with one, which take a column of their very name only.
    """
    chosen: dict[str, str] = {}
    for similar in (_the_same, _but_for_signs, _beginning, _like):
        for argument in needed:
            free = [name for name in table.columns if name not in chosen.values()]
            close = [] if argument in chosen else [name for name in free if similar(argument, name)]
            if len(close) == 1:
                chosen[argument] = close[0]
    counts = _counts(needed, list(chosen))
    left = [argument for argument in needed if argument not in chosen and argument not in counts]
    free = [name for name in table.columns if name not in chosen.values()]
    if len(left) == 1 and len(free) == 1:
        chosen[left[0]] = free[0]
        counts = _counts(needed, list(chosen))
    for argument in optional:
        same = [name for name in table.columns if _but_for_signs(argument, name)]
        if len(same) == 1:
            chosen[argument] = same[0]
    levels = {argument: count for count, argument in counts.items()}
    found: dict[str, Request] = {}
    for argument in [*needed, *optional]:
        if argument in levels:
            found[argument] = {"column": chosen[argument], "codes": True, "levels": levels[argument]}
        elif argument in chosen:
            text = isinstance(table.column(chosen[argument]), Text)
            found[argument] = {"column": chosen[argument], "codes": True} if text else chosen[argument]
    return found


def unmatched(needed: Sequence[str], found: Mapping[str, Request]) -> list[str]:
    """The arguments that nothing was found for, but for those that would come with the levels of another of them."""
    levels = {request["levels"] for request in found.values() if isinstance(request, dict) and "levels" in request}
    left = [argument for argument in needed if argument not in found and argument not in levels]
    would_come = _counts(left, [argument for argument in left if counted(argument) is None])
    return [argument for argument in left if argument not in would_come]


def whole_numbers(found: Mapping[str, Request], table: Table) -> list[str]:
    """Arguments whose column holds whole numbers, and which may be meant as an index."""
    plain = {argument: table.column(request) for argument, request in found.items() if isinstance(request, str)}
    return [argument for argument, cells in plain.items() if not isinstance(cells, Text) and cells.dtype.kind in "iu"]


def _counts(needed: Sequence[str], matched: Sequence[str]) -> dict[str, str]:
    """Argument that counts levels → the argument whose levels they are."""
    found = {}
    for argument in needed:
        name = None if argument in matched else counted(argument)
        of = [] if name is None else [other for other in matched if stems(name) & stems(other)]
        if len(of) == 1:
            found[argument] = of[0]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _the_same(argument: str, column: str) -> bool:
    return argument == column


def _but_for_signs(argument: str, column: str) -> bool:
    return _plain(argument) == _plain(column)


def _beginning(argument: str, column: str) -> bool:
    one, other = _plain(argument), _plain(column)
    return min(len(one), len(other)) >= BEGINNING and (one.startswith(other) or other.startswith(one))


def _like(argument: str, column: str) -> bool:
    return difflib.SequenceMatcher(None, _plain(argument), _plain(column)).ratio() >= LIKE
