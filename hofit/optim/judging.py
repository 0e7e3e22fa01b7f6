"""Whether a step kept its promise: actual over predicted reduction, with what rounding does to both."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Any

import torch

from ..point import Point, max_norm
from .base import Proposal, State

ACCEPT = 1e-4
"""The least ratio of an accepted step (Nocedal & Wright, algorithm 4.1: η in [0, ¼))."""

POOR, GOOD, CUT = 0.25, 0.75, 0.25
"""Below POOR the radius becomes CUT times the step, above GOOD a step on the boundary doubles it (the same)."""

ROUNDING = 64.0
"""Units of eps · |loss| within which a difference of two losses is rounding."""

PATIENCE = 4
"""Refusals in a row within rounding after which no better step is to be had."""


class Judge:
    """Compares losses. A step whose promise is below the loss's rounding is judged by the gradient instead: it must
    not raise the loss beyond rounding, and it must at least halve the gradient (Conn, Gould & Toint, section 17.4.2).
    """

    def __init__(self) -> None:
        self._refusals = 0

    @property
    def exhausted(self) -> bool:
        """Whether steps are refused again and again only because of rounding."""
        return self._refusals >= PATIENCE

    def ratio(self, point: Point, candidate: Point, proposal: Proposal, others: float) -> float:
        """Actual over predicted reduction; −inf where the candidate has no loss. ``others``: gᵀs of other parts."""
        predicted = (proposal.predicted_reduction or 0.0) - others
        if candidate.failure is not None or not isfinite(candidate.value):
            return -inf
        actual = point.value - candidate.value
        noise = ROUNDING * torch.finfo(point.loss.dtype).eps * abs(point.value)
        own = abs(proposal.predicted_reduction or 0.0)
        if (own <= noise or actual == 0.0) and abs(actual) <= noise + abs(others):
            better = actual > 0 or _halves(point, candidate, list(proposal.params))
            self._refusals = 0 if better else self._refusals + 1
            return 0.5 if better else 0.0
        ratio = actual / predicted if predicted > 0 else (1.0 if actual > 0 else -inf)
        self._refusals = 0 if ratio > ACCEPT else self._refusals
        return ratio

    def accepts(self, ratio: float) -> bool:
        return ratio > ACCEPT

    def state_dict(self) -> State:
        return {"refusals": self._refusals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._refusals = int(state["refusals"])


def _halves(point: Point, candidate: Point, names: list[str]) -> bool:
    before, after = point.gradient(), candidate.gradient()
    return max_norm({n: after[n] for n in names}) <= 0.5 * max_norm({n: before[n] for n in names})


def below_rounding(point: Point, predicted: float) -> bool:
    """Whether a promise is so small that the loss cannot show whether it was kept."""
    return predicted <= ROUNDING * torch.finfo(point.loss.dtype).eps * abs(point.value)
