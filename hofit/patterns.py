"""Patterns of parameter names: a glob, a list of globs, or ``re:`` and a regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """Whether ``name`` is meant: literally, by glob, or (``re:…``) by a regular expression found in it."""
    if pattern.startswith("re:"):
        return re.search(pattern[3:], name) is not None
    return pattern == name or fnmatchcase(name, pattern)


def select(patterns: str | Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that any of the patterns matches, in the order of ``names``."""
    several = [patterns] if isinstance(patterns, str) else patterns
    return [name for name in names if any(matches(pattern, name) for pattern in several)]


LONGEST = 1000
"""Characters of a pattern."""
REPEATS = 5
"""Of a regular expression: Python tries until it matches, and each repeat multiplies the tries by a name's length."""


def invalid(pattern: str) -> str | None:
    """Why a pattern cannot be used; None if it can."""
    if len(pattern) > LONGEST:
        return f"a pattern has at most {LONGEST} characters, and {pattern[:20]!r}… has {len(pattern)}"
    if not pattern.startswith("re:"):
        return "an empty pattern matches nothing" if not pattern else None
    try:
        re.compile(pattern[3:])
    except (re.error, OverflowError, RecursionError) as error:
        return f"{pattern!r} is no regular expression: {error}"
    if _takes_ages(pattern[3:]):
        return (
            f"{pattern!r} may take for ever: write at most {REPEATS} repeats (* + ? {{}}), and none of a group that "
            "holds a repeat or a choice (|); a list of patterns, or a glob, says the same"
        )
    return None


def _takes_ages(expression: str) -> bool:
    """Whether the tries to match it may be exponential in the length of a name, or a high power of it."""
    plain = re.sub(r"\\.", "x", expression, flags=re.DOTALL)
    plain = re.sub(r"\[\^?\]?[^]]*\]", "x", plain).replace("(?", "(")
    plain = re.sub(r"([*+?}])[?+]", r"\1", plain)  # lazy or possessive: no repeat of its own
    repeats, closed = 0, False
    varying = [False]
    """Of each open group, whether it may match in several ways so far; ``closed`` of the one closed last."""
    for character in plain:
        if character in "*+?{":
            repeats += 1
            if closed and character != "?":
                return True
            varying[-1] = True
        closed = False
        if character == "|":
            varying[-1] = True
        elif character == "(":
            varying.append(False)
        elif character == ")" and len(varying) > 1:
            closed = varying.pop()
            varying[-1] |= closed
    return repeats > REPEATS


def near_miss(pattern: str, names: Iterable[str]) -> list[str]:
    """Up to three names that are spelt nearly so."""
    return get_close_matches(pattern.removeprefix("re:").strip("*^$"), list(names), n=3, cutoff=0.5)


def near_misses(pattern: str, names: Iterable[str]) -> str:
    """``; did you mean "x"?``, or the list of the names there are."""
    names = list(names)
    near = near_miss(pattern, names)
    if near:
        return "; did you mean " + " or ".join(f'"{n}"' for n in near) + "?"
    if not names:
        return "; there are none"
    return f"; there are: {', '.join(names[:12])}" + (", …" if len(names) > 12 else "")


@dataclass
class Ownership:
    """Which entry has which names, and what no entry has."""

    owners: list[list[str]]
    orphans: list[str]


def assign(entries: Sequence[Sequence[str]], names: Iterable[str]) -> Ownership:
    """Top to bottom, the first entry that matches a name has it."""
    owners: list[list[str]] = [[] for _ in entries]
    orphans = []
    for name in names:
        for owned, patterns in zip(owners, entries, strict=True):
            if select(patterns, [name]):
                owned.append(name)
                break
        else:
            orphans.append(name)
    return Ownership(owners, orphans)


def speaking_pattern(values: Mapping[str, object], name: str) -> str | None:
    """The pattern of ``values`` that speaks for ``name``: its own name if it is there, else the first that matches."""
    if name in values:
        return name
    return next((pattern for pattern in values if matches(pattern, name)), None)
