"""Do the pieces belong together? What they share must be the same in all, and what all have is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ModelError
from .message import Message
from .team import Team

ROUNDING = 1e-6
"""Relative, within which the log densities of one site are the same: in single precision, too."""

LONG = 10
"""Rows of a plate from which on a parameter of as many numbers is none by chance."""


def agreed(team: Team) -> tuple[list[str], list[str]]:
    """Which sites all pieces but the first must leave out, for they are the same in all; and what is to be said of it.

    Raises: ModelError that names what the pieces could disagree on, with the edit that helps.
    """
    own = team.own
    facts = team.ask("facts", {"params": own.outer.flatten(own.objective.start())})
    first = facts[0]
    for number, one in enumerate(facts):
        where = f"piece {number} of {len(facts)}"
        for path, digest in one["digests"].items():
            if first["digests"].get(path, digest) != digest:
                raise ModelError(f"{path} is another file for {where} than for the first")
        if one["groups"] is not None and one["size"] is not None and one["groups"] != one["size"]:
            raise ModelError(
                f"the plate {one['plate']!r} has {one['size']} rows in {where}, and {one['groups']} levels of the "
                f"column {one['by']!r} are there: let its size come from `levels: NAME` of the column "
                "that numbers it (`by`)"
            )
    _check_shared(facts)
    _check_discrete(facts)
    once = _counted_once(facts)
    alike = len(facts) > 1 and all(one["lengths"] == first["lengths"] for one in facts)
    factors = [name for name in once if first["outside"].get(name, {}).get("kind") == "factor"]
    if not (alike and factors):
        return once, []
    return once, [
        f"pieces: the factor {', '.join(factors)} is the same in all pieces, which have as many rows each, and counts "
        "once: if each has its own, as -len(y) * sigma.log(), put it into a plate"
    ]


def _check_shared(facts: Sequence[Message]) -> None:
    first = facts[0]
    for number, one in enumerate(facts):
        if list(one["outer"]) != list(first["outer"]):
            odd = ", ".join(sorted({*one["outer"]} ^ {*first["outer"]})) or "their order"
            raise ModelError(f"piece {number} of {len(facts)} has other parameters than the first: {odd}")
        for name, (shape, constraint, start) in one["outer"].items():
            if constraint != first["outer"][name][1]:
                raise ModelError(
                    f"{name!r} is {constraint} in piece {number} of {len(facts)}, and {first['outer'][name][1]} in "
                    "the first: its support may not depend on the data of a piece; give its ends by data.arguments"
                )
            if shape != first["outer"][name][0]:
                raise ModelError(
                    f"{name!r} has the shape {tuple(shape)} in piece {number} of {len(facts)} and "
                    f"{tuple(first['outer'][name][0])} in the first: what is of each piece's own rows stands in the "
                    "plate that is shared out; all else must not depend on the data"
                )
            if start != first["outer"][name][2] and name in one["parameters"]:
                raise ModelError(
                    f"{name!r} starts elsewhere in piece {number} of {len(facts)} than in the first: give it a start, "
                    f"init: {{values: {{{name}: …}}}}"
                )
    for name, (shape, *_) in first["outer"].items():
        as_long = any(all(one["outer"][name][0][d] == one["size"] for one in facts) for d in range(len(shape)))
        if len(facts) > 1 and as_long and (first["size"] or 0) >= LONG:
            raise ModelError(
                f"{name!r} has as many numbers as the plate has rows in each piece, and stands outside of it: if it is "
                "theirs, put it into the plate; else take another number of pieces"
            )


def _check_discrete(facts: Sequence[Message]) -> None:
    """A discrete latent that all pieces share could not be summed out in each."""
    for name in facts[0]["discrete"]:
        if all(name in one["outside"] and not _is_of_rows(one, name) for one in facts):
            raise ModelError(
                f"the discrete latent {name!r} stands outside of the plate that is shared out: all pieces have the "
                "same one, and none can sum it out by itself"
            )


def _counted_once(facts: Sequence[Message]) -> list[str]:
    """Priors of what is shared, and observed sites and factors that are the same in all pieces.

    Raises: ModelError where it cannot be told whose they are.
    """
    first = facts[0]
    for name in first["outer"]:
        if not _same_density(facts, name):
            raise ModelError(
                f"the prior of {name!r} is another in other pieces: what all share may not depend on the data of one "
                "(y.mean(), len(y)). Give such numbers by data.arguments"
            )
    alike = []
    for name, one in first["outside"].items():
        if name in first["discrete"]:
            continue
        same = _same_density(facts, name) and all(fact["outside"].get(name) == one for fact in facts)
        of_rows = all(_is_of_rows(fact, name) for fact in facts)
        if same and of_rows and len(facts) > 1:
            raise ModelError(
                f"{name!r} is the same in all pieces, and as long as their data: it cannot be told whether it is of "
                "all, or each has its own. Take another number of pieces"
            )
        if not same and one["kind"] == "observed" and not one["sizes"]:
            raise ModelError(
                f"{name!r} observes one number outside of every plate, another in each piece: a sum over the data is "
                "none of a piece. Give it by data.arguments, if it is of all, or observe its terms"
            )
        alike += [name] if same else []
    return [*first["outer"], *alike]


def _same_density(facts: Sequence[Message], name: str) -> bool:
    """Whether a site's log density is the same in all pieces wherever it was looked at, up to rounding."""
    first, *others = (fact["densities"].get(name, []) for fact in facts)
    return all(
        len(one) == len(first) and all(_is_same(a, b) for a, b in zip(first, one, strict=True)) for one in others
    )


def _is_same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (one != one and other != other) or abs(one - other) <= ROUNDING * max(abs(one), abs(other))


def _is_of_rows(fact: Message, name: str) -> bool:
    """Whether a site has a dimension that the piece's own arrays have."""
    site: dict[str, Any] = fact["outside"].get(name, {"sizes": []})
    return bool({*site["sizes"]} & {length for length in fact["lengths"] if length > 1})
