"""Do the pieces belong together? What they share must be the same in all, and what all have is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import ModelError
from .message import Message
from .team import Team

LONG = 10
"""Rows of a plate from which on a parameter of as many numbers is none by chance."""


def agreed(team: Team) -> list[str]:
    """Which sites all pieces but the first must leave out, for they are the same in all.

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
                f"the plate has {one['size']} rows in {where}, and {one['groups']} levels of its column are there: let "
                "the size of the plate come from `levels: NAME` of the column, which counts those of a piece"
            )
    _check_shared(facts)
    _check_discrete(facts)
    return _counted_once(facts)


def _check_shared(facts: Sequence[Message]) -> None:
    first = facts[0]
    for number, one in enumerate(facts):
        if list(one["outer"]) != list(first["outer"]):
            odd = ", ".join(sorted({*one["outer"]} ^ {*first["outer"]})) or "their order"
            raise ModelError(f"piece {number} of {len(facts)} has other parameters than the first: {odd}")
        for name, (shape, constraint, start) in one["outer"].items():
            if [shape, constraint] != first["outer"][name][:2]:
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
    """Priors of what is shared, and observed sites and factors that are the same in all pieces."""
    first = facts[0]
    alike = [
        name
        for name, one in first["outside"].items()
        if name not in first["discrete"]
        and not all(_is_of_rows(fact, name) for fact in facts)
        and all(fact["outside"].get(name) == one for fact in facts)
    ]
    return [*first["outer"], *alike]


def _is_of_rows(fact: Message, name: str) -> bool:
    """Whether a site has a dimension that the piece's own arrays have."""
    site: dict[str, Any] = fact["outside"].get(name, {"sizes": []})
    return bool({*site["sizes"]} & {length for length in fact["lengths"] if length > 1})
