"""Iterations of a first-order optimizer taken in one go, and looked at together: for small models the looking is dear.

Nothing else is reported for it: where one of them would have ended the fit, or asked for a verdict, the optimizer is
put back to how it was then.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..objective.base import Objective
from ..optim.base import Optimizer
from ..point import Params, Point

SECONDS = 0.02
"""Of work, after which one looks."""


class Burst:
    """So many iterations from a point; what is known of each is at its place, from 0.

    There are fewer where one raised: it is not taken, and raises again where it is taken alone. ``points`` are where
    they led, ``losses`` the losses there; ``norms`` and ``step_norms`` the max-norms of gradients and moves; ``ended``
    when each was done, by ``time.perf_counter``.
    """

    def __init__(self, objective: Objective, optimizer: Optimizer, start: Point, length: int) -> None:
        self._objective, self._optimizer, self._start = objective, optimizer, start
        self._state = _copied(optimizer.state_dict())
        self._counts = [objective.evaluations.copy()]
        self.points: list[Point] = []
        self.ended: list[float] = []
        began, point = time.perf_counter(), start
        for _ in range(length):
            try:
                point = optimizer.advance(point)[0]
                point.gradient()
            except Exception:
                self.put_back(len(self.points))
                break
            self.points.append(point)
            self._counts.append(objective.evaluations.copy())
            self.ended.append(time.perf_counter())
        self.length_next = max(1, int(length * min(2.0, SECONDS / (time.perf_counter() - began))))
        """How many iterations are to be taken next."""
        self.losses = [one.value for one in self.points]
        params = [start.params, *(one.params for one in self.points)]
        self.norms = _norms([one.gradient() for one in self.points])
        self.step_norms = _norms(params, differences=True)

    def put_back(self, count: int) -> None:
        """Let optimizer and counts be what they were after so many iterations."""
        self._optimizer.load_state_dict(self._state)
        for point in [self._start, *self.points][:count]:
            self._optimizer.propose(point)
        self._objective.evaluations.restore(self._counts[count])


def _norms(rows: Sequence[Params], differences: bool = False) -> list[float]:
    """The max-norm of each, or of what is between each and the next; nan if any entry is."""
    found: list[Tensor] = []
    for name in rows[0] if rows else ():
        values = torch.stack([row[name] for row in rows]).reshape(len(rows), -1)
        if values.shape[1]:
            found.append((values.diff(dim=0) if differences else values).abs().amax(1))
    if not found:
        return [0.0] * (len(rows) - differences)
    norms: list[float] = torch.stack(found).amax(0).tolist()
    return norms


def _copied(state: Any) -> Any:
    """A state with its tensors copied: what is left of it is not written to."""
    if isinstance(state, Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if type(state) is list else state
