"""Whether fits are of the same data, so that what they say of it can be held against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import isclose
from typing import Any

from ..errors import HofitError
from .outcome import Outcome

SECTIONS = ("columns", "missing", "options")
"""Of a config's data: what says which numbers are read from a file."""


EQUAL = 1e-6
"""Relative difference within which two sums are of the same numbers, in whatever precision and order."""


def refuse_other_data(outcomes: Sequence[Outcome]) -> None:
    """Raises: HofitError naming two fits and what differs, where they are not of the same data, or one of them is of a
    restricted likelihood that is not that of the other's."""
    fitted = [one for one in outcomes if one.problem is None]
    for first, other in ((fitted[0], other) for other in fitted[1:]):
        differs = _data_differs(first, other) or _restriction_differs(first, other)
        if differs:
            raise HofitError(f"{first.label} and {other.label} cannot be compared: {differs}")


def _data_differs(one: Outcome, other: Outcome) -> str | None:
    files = [sorted(outcome.data_files.values()) for outcome in (one, other)]
    if files[0] != files[1]:
        return f"their data differ: {_files(one)} against {_files(other)}"
    if not files[0] and one.arguments_digest != other.arguments_digest:
        return "their data differ: the models' arguments have other SHA-256, and there is no data file to go by"
    if None not in (one.observations, other.observations) and one.observations != other.observations:
        return f"they are of {one.observations} and {other.observations} observations"
    pairs = list(zip(one.sums, other.sums, strict=False))
    if any(not isclose(mine, theirs, rel_tol=EQUAL, abs_tol=EQUAL) for mine, theirs in pairs):
        return f"they observe other values, whose sum is {pairs[0][0]:.6g} against {pairs[0][1]:.6g}"
    for key in SECTIONS:
        differing = _differing(one.data_section.get(key), other.data_section.get(key))
        if differing:
            return f"data.{key} differs: {differing}"
    return None


def other_columns(outcomes: Sequence[Outcome]) -> str | None:
    """A remark where two models of one file each read a column that the other does not, and what they observe is not
    known: it may be that."""
    read = {one.label: _columns(one) for one in outcomes if not one.sums}
    for (one, mine), (other, theirs) in combinations(read.items(), 2):
        if mine - theirs and theirs - mine:
            ours, others = (", ".join(sorted(own)) for own in (mine - theirs, theirs - mine))
            return (
                f"{one} reads the column {ours}, {other} {others}: "
                "if that is what they observe, log L, aic and bic are of other data and say nothing of each other"
            )
    return None


def _columns(one: Outcome) -> set[str]:
    columns = one.data_section.get("columns")
    found: set[str] = set()
    for request in columns.values() if isinstance(columns, Mapping) else ():
        name = request.get("column") if isinstance(request, Mapping) else request
        found.update(map(str, name) if isinstance(name, list) else [str(name)])
    return found


def _files(one: Outcome) -> str:
    return ", ".join(f"{path} ({digest[:8]})" for path, digest in one.data_files.items()) or "no file"


def _differing(one: Any, other: Any) -> str | None:
    """What two sections say differently of the same key; a key that only one has is another model's argument."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return None if one == other or None in (one, other) else f"{one!r} against {other!r}"
    for key in one.keys() & other.keys():
        if one[key] != other[key]:
            return f"{key} is {_short(one[key])} against {_short(other[key])}"
    return None


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        said = ", ".join(f"{key}: {_short(item)}" for key, item in value.items() if item not in (None, False))
        return f"{{{said}}}"
    return f"{value}"


def _restriction_differs(one: Outcome, other: Outcome) -> str | None:
    if one.log_likelihood is None or other.log_likelihood is None or one.restricted == other.restricted:
        return None
    words = [", ".join(f"{name} ({count})" for name, count in each.restricted.items()) for each in (one, other)]
    if all(words):
        return (
            f"their restricted likelihoods (REML) integrate out other fixed effects, {words[0]} against {words[1]}: "
            "they are of other contrasts of the data; fit both by maximum likelihood"
        )
    restricted, plain = (one, other) if words[0] else (other, one)
    return (
        f"the likelihood of {restricted.label} is restricted (REML: {words[0] or words[1]} is integrated out), that of "
        f"{plain.label} is not; fit both by maximum likelihood"
    )
