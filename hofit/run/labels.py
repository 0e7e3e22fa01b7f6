"""What the rows of a plate are called: the levels of the column that it is numbered by, where names tell which one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..config.schema import Column
from ..export.arviz import Labels
from ..point import Site

Levels = Mapping[str, Callable[[], list[object]]]


def plate_labels(sites: Mapping[str, Site], columns: Mapping[str, Column], levels: Levels) -> Labels:
    """Plate → its levels, where it has the name of a coded argument, of its column or of its count, and their number.

    A name may differ in case, in signs, and by being the plural.
    """
    sizes = {plate.name: plate.size for site in sites.values() for plate in site.plates}
    found: dict[str, list[object]] = {}
    for plate, size in sizes.items():
        alike = [argument for argument in levels if stems(plate) & _names(argument, columns[argument])]
        fitting = [own for own in (levels[argument]() for argument in alike) if len(own) == size]
        if fitting and all(own == fitting[0] for own in fitting):
            found[plate] = fitting[0]
    return found


def _names(argument: str, request: Column) -> set[str]:
    """What a plate of these levels may be called."""
    column = [request.column] if isinstance(request.column, str) else []
    kind = [request.codes] if isinstance(request.codes, str) else []
    count = [] if request.levels is None else [counted(request.levels) or request.levels]
    return {stem for name in (argument, *column, *kind, *count) for stem in stems(name)}


COUNTS = re.compile(r"(?:n|num|nb|number_of)_(\w+)|(\w+)_(?:count|levels)")
"""A name of how many there are of something."""


def counted(name: str) -> str | None:
    """What a name says that it counts: ``subjects`` of ``n_subjects``; None where it counts nothing."""
    found = COUNTS.fullmatch(name)
    return None if found is None else found[1] or found[2]


def stems(name: str) -> set[str]:
    """A name without signs and case, as it is and as a singular."""
    plain = re.sub(r"[\W_]", "", name).casefold()
    endings = (("ies", "y"), ("es", ""), ("s", ""))
    return {plain} | {plain.removesuffix(many) + one for many, one in endings if plain.endswith(many)}
