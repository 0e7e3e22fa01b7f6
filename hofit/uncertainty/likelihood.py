"""Whether minus the loss is a log likelihood, and of how many observations.

A factor says nothing of itself: it may be the likelihood, or a penalty on parameters. It is taken for the likelihood
where nothing else is one, or where the user has said how many observations there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..objective.base import Objective
from ..verdict.checks import Check
from .errors import Uncertainty

KEY = "`data: {observations: …}`"


@dataclass(frozen=True)
class Likelihood:
    """``value`` is the log likelihood, ``observations`` the number that it is of; None where there is none.

    ``restricted`` names what is integrated out under a flat prior, as the fixed effects of REML. ``sums`` are the sum
    and the sum of squares of what is observed: fits of other values have likelihoods that say nothing of each other.
    """

    value: float | None
    observations: int | None
    restricted: list[str] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


def likelihood_of(objective: Objective, known: Uncertainty, loss: float, given: int | None) -> Likelihood:
    """What minus the ``loss`` is. ``given`` is the number of observations that the config has."""
    reading, value = known.reading, -loss if objective.is_likelihood else None
    if reading is None:
        return Likelihood(value, given)
    found = Likelihood(value, reading.observations if given is None else given, reading.unshaped, reading.sums)
    if value is None or given is not None or not reading.factors:
        return found
    if reading.observations:
        if not reading.penalties:
            return found
        named = _listed({name: reading.factors[name] for name in reading.penalties})
        return replace(
            found, value=None, remarks=[f"likelihood: none is given, as {named} may be a penalty: else say {KEY}"]
        )
    counted = sum(count for count in reading.factors.values() if count > 1)
    taken = f"{_listed(reading.factors)} is taken for the log likelihood"
    if counted:
        remark = f"likelihood: {taken}, and {counted} observations are counted; {KEY} says otherwise"
        return replace(found, observations=counted, remarks=[remark])
    unknown = f"{taken}; the number of observations, for bic, is not known: say {KEY}"
    return replace(found, observations=None, checks=[Check("likelihood", True, -loss, unknown)])


def _listed(factors: Mapping[str, int], most: int = 6) -> str:
    names = [f"{name!r} ({count} {'entry' if count == 1 else 'entries'})" for name, count in factors.items()]
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return " with ".join(names[:most]) + rest
