"""How long a fit will still take, where its gradient falls steadily enough to tell."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from ..record import Progress

KEPT = 50
"""Rows that the trend is taken over: one for each fiftieth of the time so far, so that they span half of the run."""

ENOUGH_ROWS, ENOUGH_SECONDS = 8, 2.0
"""Rows and seconds before which nothing is said."""

STEADY = 0.8
"""Correlation of seconds and log gradient from which on the fall is a trend."""


class _Row(NamedTuple):
    iteration: int
    seconds: float
    log_norm: float


class Remaining:
    """Hears every iteration, and gives the seconds until the gradient is at its target, or the fit is cut short.

    ``gradient`` is None where the gradient is that of a minibatch, which nothing is asked of: such a fit runs all its
    iterations.
    """

    def __init__(self, gradient: float | None, max_iterations: int, max_seconds: float | None) -> None:
        self.gradient, self.max_iterations, self.max_seconds = gradient, max_iterations, max_seconds
        self._rows: deque[_Row] = deque(maxlen=KEPT)
        self._iteration, self._seconds = 0, 0.0

    def hear(self, record: Progress) -> None:
        """Keep a row of the trend, if it is time for one."""
        self._iteration, self._seconds, norm = record.iteration, record.seconds, record.gradient_norm
        if not (math.isfinite(norm) and norm > 0):
            return
        if self._rows and record.seconds < self._rows[-1].seconds + record.seconds / KEPT:
            return
        self._rows.append(_Row(record.iteration, record.seconds, math.log(norm)))

    def seconds(self) -> float | None:
        """Until the end; None where nothing can be said, or it is less than one."""
        rows = list(self._rows)
        if len(rows) < ENOUGH_ROWS or self._seconds < ENOUGH_SECONDS:
            return None
        first, last = rows[0], rows[-1]
        pace = (last.seconds - first.seconds) / max(1, last.iteration - first.iteration)
        bounds = [pace * (self.max_iterations - self._iteration)]
        if self.max_seconds is not None:
            bounds.append(self.max_seconds - self._seconds)
        if self.gradient is not None:
            by_trend = self._by_trend(rows, self.gradient)
            if by_trend is None:
                return None
            bounds.append(by_trend)
        left = min(bounds)
        return left if left >= 1.0 else None

    def _by_trend(self, rows: list[_Row], target: float) -> float | None:
        """Until the line through the log gradients reaches the target's; None where they do not fall along one."""
        if target <= 0:
            return None
        times, logs = [row.seconds for row in rows], [row.log_norm for row in rows]
        middle, level = sum(times) / len(times), sum(logs) / len(logs)
        spread = sum((time - middle) ** 2 for time in times)
        scatter = sum((log - level) ** 2 for log in logs)
        product = sum((time - middle) * (log - level) for time, log in zip(times, logs, strict=True))
        if product >= -STEADY * math.sqrt(spread * scatter) or not spread:
            return None
        slope = product / spread
        now = level + slope * (self._seconds - middle)
        return (math.log(target) - now) / slope


def in_words(seconds: float) -> str:
    """Two digits at most, in the largest unit that leaves a whole number."""
    if seconds < 90:
        return f"{round(seconds)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"
