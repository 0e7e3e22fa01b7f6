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

CANCELLED = 16.0
"""By how much more a loss may be rounded than its size says: its terms are larger than their sum."""

FALL, RISE = 0.9, 0.5
"""What part of the gradient must be left where the loss falls, or rises, within rounding: so no fit goes in circles."""

PATIENCE = 4
"""Refusals in a row within rounding after which no better step is to be had."""


class Judge:
    """Compares losses. A step whose promise is below the loss's rounding is judged by the gradient too: it must not
    raise the loss beyond rounding, and must make the gradient smaller (Conn, Gould & Toint, section 17.4.2).
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
        if candidate.failure is None and candidate.value == -inf:
            return inf  # unbounded, as the loop will say
        if candidate.failure is not None or not isfinite(candidate.value):
            return -inf
        actual = point.value - candidate.value
        noise = ROUNDING * torch.finfo(point.loss.dtype).eps * abs(point.value)
        own = abs(proposal.predicted_reduction or 0.0)
        if (own <= noise or actual == 0.0) and abs(actual) <= CANCELLED * noise + abs(others):
            better = _flattens(point, candidate, list(proposal.params), FALL if actual > 0 else RISE)
            better |= actual > 0 and others != 0.0  # who moves besides has changed the gradient too
            self._refusals = 0 if better else self._refusals + 1
            return 0.5 if better else 0.0
        ratio = actual / predicted if predicted > 0 else (1.0 if actual > 0 else -inf)
        if ratio > ACCEPT:
            self._refusals = 0
        elif own <= noise:  # the loss is rounder still than its size says
            self._refusals += 1
        return ratio

    def accepts(self, ratio: float) -> bool:
        return ratio > ACCEPT

    def state_dict(self) -> State:
        return {"refusals": self._refusals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._refusals = int(state["refusals"])


def _flattens(point: Point, candidate: Point, names: list[str], part: float) -> bool:
    before, after = point.gradient(), candidate.gradient()
    return max_norm({n: after[n] for n in names}) <= part * max_norm({n: before[n] for n in names})


def below_rounding(point: Point, predicted: float) -> bool:
    """Whether a promise is so small that the loss cannot show whether it was kept."""
    return predicted <= ROUNDING * torch.finfo(point.loss.dtype).eps * abs(point.value)
