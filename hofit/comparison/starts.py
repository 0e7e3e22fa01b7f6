"""What is to be said of the starts of one fit: how many reached the best mode, and where the others ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .modes import best_of, places_of, same_loss
from .outcome import Outcome

OTHERS = 6
"""Other ends that are named; the rest is counted."""


def sentence_of(outcomes: Sequence[Outcome]) -> str:
    """How many of the starts reached the best mode, and how the others ended."""
    count, places, best = len(outcomes), places_of(outcomes), best_of(outcomes)
    if best is None:
        return f"none of {count} starts could be fitted: {_failures(outcomes)}"
    lowest = outcomes[best].loss
    assert lowest is not None
    if not outcomes[best].converged:
        ends = Counter(one.status if one.problem is None else "failed" for one in outcomes)
        where = f"the lowest loss is {lowest:.10g} ({outcomes[best].label})"
        return f"none of {count} starts converged; {where}: {_counted(ends)}"
    reached = [p for p in places if p.mode == 1 and p.relation != "same loss, other estimates"]
    relabelled = sum(1 for p in reached if p.relation.startswith("labels"))
    labels = f"; {relabelled} of them with the components in another order" if relabelled else ""
    text = f"{len(reached)} of {count} starts reached the best mode (loss {lowest:.10g}{labels})"
    others: Counter[str] = Counter()
    losses: dict[int, float] = {}
    for one, place in zip(outcomes, places, strict=True):
        if place.mode is not None and one.converged and one.loss is not None:
            losses[place.mode] = min(losses.get(place.mode, one.loss), one.loss)
    for one, place in zip(outcomes, places, strict=True):
        if one.problem is not None:
            others[f"failed ({one.problem})"] += 1
        elif place.mode == 1 and place.relation == "same loss, other estimates":
            others["its loss with other estimates (a symmetry, or a ridge)"] += 1
        elif place.mode is None:
            others[one.status] += 1
        elif place.mode > 1:
            others[f"a mode of loss {losses[place.mode]:.10g}"] += 1
    if others:
        text += f"; the others: {_counted(others)}"
    lower = [one for one in outcomes if one.loss is not None and one.loss < lowest and not one.converged]
    lower = [one for one in lower if not same_loss(one, outcomes[best])]
    if lower:
        named = ", ".join(f"{one.label} ({one.status}, loss {one.loss:.10g})" for one in lower[:OTHERS])
        text += f". Lower, but no minimum: {named}"
    return text


def _counted(ends: Counter[str]) -> str:
    most = ends.most_common()
    named = ", ".join(f"{number} {what}" for what, number in most[:OTHERS])
    rest = sum(number for _, number in most[OTHERS:])
    return named + (f", and {rest} more" if rest else "")


def _failures(outcomes: Sequence[Outcome]) -> str:
    return next((one.problem for one in outcomes if one.problem is not None), outcomes[0].status)
