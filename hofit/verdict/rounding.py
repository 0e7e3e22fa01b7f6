"""How much of a loss is rounding, measured where it is asked for, and at a place once.

An evaluation of an evidence solves an inner problem: a verdict on a boundary spends its time here, so nothing is
measured any further than the question needs.
"""

from __future__ import annotations

from math import inf, isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..objective.base import Objective
from ..point import Params, Point

LOSS_ROUNDING = 64.0
"""Units of eps · |loss| within which a difference of two losses is rounding."""

NUDGE = 1e-10
"""A change of a parameter, relative to it, along which a loss bends by nothing but its own rounding."""

NUDGES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""How many times NUDGE the loss is traced at to measure its rounding: often, for roundings are equal by luck."""

BENDS = 2
"""The last of them on which what is alike on both sides may be rounding: it tells how much of it is bent."""

FEWEST = 2
"""Of them at least that tell that a change is larger …"""

CLEARLY = 100.0
"""… by this factor than the rounding on each: one that is hidden by luck on all is not as large as that."""

BORNE_OUT = (0.01, 0.03, 0.1)
"""Parts of a way over which a change of the loss is held against the slopes at both ends; on the longest that errs by
a ten thousandth of what an e⁻ᵘ has left to fall."""


def least_rounding(value: float, dtype: torch.dtype) -> float:
    """Of any loss of this size."""
    return LOSS_ROUNDING * torch.finfo(dtype).eps * abs(value)


def loss_at(objective: Objective, params: Params) -> float:
    """The loss on the full plates; inf where there is none."""
    point = objective.at_full(params)
    return point.value if point.failure is None and isfinite(point.value) else inf


class Rounding:
    """Of one objective's loss. Places are flat vectors (d,) in the order of ``coordinates``."""

    def __init__(self, objective: Objective, coordinates: Coordinates) -> None:
        self._objective, self._coordinates = objective, coordinates
        self._of_loss: dict[bytes, float] = {}
        self._along: dict[bytes, tuple[float, float]] = {}

    def at(self, where: Tensor, point: Point | None = None, beside: float | None = None) -> float:
        """Of the loss at a place, whose ``point`` may be known; inf where there is no loss.

        With ``beside``, a change of the loss, no nearer than it takes to tell which of the two is larger.
        """
        key = _bits(where)
        if key in self._of_loss:
            return self._of_loss[key]
        found, whole = self._measured(where, point or self._point(where), beside)
        if whole:
            self._of_loss[key] = found
        return found

    def _measured(self, where: Tensor, point: Point, beside: float | None) -> tuple[float, bool]:
        """By how much a loss changes, on the smallest ways to both sides, that its slope does not explain.

        And whether that is all of it: see ``at``.
        """
        if point.failure is not None or not isfinite(point.value):
            return inf, True
        least = least_rounding(point.value, where.dtype)
        if beside is not None and beside <= least:
            return least, False
        slope = self._coordinates.flatten(point.gradient())
        generator = torch.Generator().manual_seed(31)
        size = torch.clamp(where.abs(), min=NUDGE**0.5) * NUDGE
        odd, even = [], []
        for times in NUDGES:
            signs = (2.0 * torch.randint(0, 2, where.shape, generator=generator) - 1).to(size)
            move = times * size * signs
            ends = [loss_at(self._objective, self._coordinates.unflatten(where + m)) for m in (move, -move)]
            there, back = (end - point.value - float(slope @ m) for end, m in zip(ends, (move, -move), strict=True))
            odd += [abs(0.5 * (there - back))] if isfinite(there - back) else []
            even.append(0.5 * (there + back))
            spread = 4.0 * max(odd, default=0.0)
            if beside is not None and spread >= beside:
                return spread, False
            largest = max(spread, 4.0 * max(map(abs, even)))
            if beside is not None and len(odd) >= FEWEST and beside > CLEARLY * largest:
                return max(least, spread), False
        if len(odd) < FEWEST:
            return inf, True  # beside the place there is no loss: what it is here is chance
        # What bends does so by the square of the way.
        bend = even[BENDS] / NUDGES[BENDS] ** 2
        alike = [abs(one - times**2 * bend) for times, one in zip(NUDGES[:BENDS], even, strict=False)]
        return max(least, spread, *(4.0 * one for one in alike if isfinite(one))), True

    def along(self, where: Tensor, way: Tensor, most: float = inf) -> tuple[float, float]:
        """The slope (d,) · ``way`` at a place, and the rounding of the loss along it: what slopes do not bear out.

        On the longer way of a number that has gone far out no rounding is hidden by luck. inf where there is no loss,
        or where it is the same to the last digit. No more is measured once both together are more than ``most``.
        """
        key = _bits(where, way)
        if key in self._along:
            return self._along[key]
        value, slope = self._traced(where, way)
        off, changes = 0.0, slope != 0.0
        for part in (side * size for size in BORNE_OUT for side in (1.0, -1.0)):
            if abs(slope) + 4.0 * off > most or not isfinite(off):
                return slope, 4.0 * off
            there, steep = self._traced(where + part * way, way)
            apart = abs(there - value - 0.5 * part * (slope + steep))
            off, changes = max(off, apart) if isfinite(apart) else inf, changes or there != value
        self._along[key] = slope, 4.0 * off if changes and isfinite(off) else inf
        return self._along[key]

    def _point(self, where: Tensor) -> Point:
        return self._objective.at_full(self._coordinates.unflatten(where))

    def _traced(self, where: Tensor, way: Tensor) -> tuple[float, float]:
        """The loss at a place and its slope along a way; inf where there is none."""
        point = self._point(where)
        if point.failure is not None or not isfinite(point.value):
            return inf, inf
        return point.value, float(self._coordinates.flatten(point.gradient()) @ way)


def _bits(*vectors: Tensor) -> bytes:
    """What tells places apart to the last bit."""
    return b"".join(vector.cpu().numpy().tobytes() for vector in vectors)
