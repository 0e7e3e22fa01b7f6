"""torch's L-BFGS, one iteration at a time, never led astray by a loss that is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..errors import OptionError
from ..point import Params, Point
from .acceptance import ACCEPT, ROUNDING, Acceptance
from .base import Optimizer, Proposal, State
from .options import option
from .spec import OptimizerSpec


@dataclass(frozen=True)
class Options:
    history_size: int = option(20, "pairs of steps and gradients that are remembered")


OPTIMIZER = OptimizerSpec.own(
    "lbfgs",
    "torch.optim.LBFGS with its strong-Wolfe line search, made safe against losses that are not finite",
    Options,
    lambda options: LBFGS(options.history_size),
)

TRIALS = 25
"""Points that one line search evaluates at most: torch's own default."""

CLIFF = 1e8
"""A trial whose loss lies above the start by more than this many times the fall that the slope promised is refused
like one without a loss: an interpolation through it would overflow, or go nowhere."""

SHRINK = 0.25
"""What a step that was refused beside other parts of a mix is multiplied by."""

SCALE = {torch.float64: 2.0**66, torch.float32: 2.0**20}
"""What torch is handed the loss multiplied by: it forgets pairs with sᵀy ≤ 1e-10, whatever the size of the loss, and
so would stop learning where the loss falls by as little. A power of two changes no digit of anything else."""

FLATTER = 0.9
"""Where rounding hides what happens to the loss, a step must bring the gradient to this part of what it was."""


class LBFGS(Optimizer):
    """Limited-memory BFGS with a strong-Wolfe line search: ``torch.optim.LBFGS``, its own tolerances off.

    The first step tried is −g / max(1, ‖g‖₂), as in L-BFGS-B; torch's own, with ‖g‖₁, is shorter the more unknowns
    there are, and costs a trial or two.

    One iteration is one direction and its line search, which evaluates trial points with their gradients. A trial
    whose loss or gradient is not finite is handed to torch as the parabola that has its minimum a quarter of the way
    there, so the search turns back; −inf ends the fit as unbounded. Where losses differ by rounding, torch is handed
    the difference that the gradients give, ½(g + g₊)ᵀs. A step that raises the loss is never taken: the history is
    dropped and the steepest descent searched instead, and when that finds nothing either there is nothing to gain.

    Beside other parts that move at the same time, a step that was refused takes torch's memory back with it and the
    next is a quarter as long. ``step(loss, params)`` from plain Pyro code hands over a bare loss and raises TypeError:
    trial points cannot be evaluated.

    Args:
        history_size: pairs (s, y) that are remembered.
    Shapes: g, s, y (d,); the history (history_size, d) twice.
    Cost: one loss and gradient a trial, of which the accepted one is not evaluated again; usually one an iteration.
    Raises: OptionError; TypeError for a bare loss.
    Source: Liu & Nocedal (1989); Nocedal & Wright (2006), Alg. 7.5, 3.5 and 3.6; Hager & Zhang (2005), section 4, for
    losses within rounding.
    """

    name = OPTIMIZER.name
    judges = True

    def __init__(self, history_size: int = Options.history_size) -> None:
        if isinstance(history_size, bool) or not isinstance(history_size, int) or history_size < 1:
            raise OptionError(f"history_size must be a positive whole number, not {history_size!r}")
        self.history_size = history_size
        self.acceptance = Acceptance()
        self._memory: State = {}
        self._before: State = {}
        self._shrink = 1.0
        self._stuck = False

    def propose(self, point: Point) -> Proposal:
        own = self.own(point)
        self._before = _copied(self._memory)
        found = self._search(point, own)
        if found is None and self._before:
            self._memory = {}
            found = self._search(point, own)
        self._stuck = found is None
        if found is None:
            self._memory = {}
            return Proposal({name: point.params[name] for name in own.names}, 0.0, point)
        fall = point.value - found.value
        params = {name: found.params[name] for name in own.names}
        if self._shrink == 1.0 or fall == inf:
            return Proposal(params, fall, found)
        before = point.params
        params = {name: before[name] + self._shrink * (params[name] - before[name]) for name in own.names}
        self._memory["t"] = self._memory["t"] * self._shrink
        return Proposal(params, fall * self._shrink)

    def accept(self, point: Point, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        if candidate is proposal.point:
            self._shrink = 1.0
            return candidate is not point
        if proposal.point is point:
            return True  # it has not moved, and has nothing to take back
        if proposal.predicted_reduction == inf and candidate.value == -inf:
            return True  # unbounded, as the loop will say
        if self.acceptance.ratio(point, candidate, proposal, others) > ACCEPT:
            self._shrink = min(1.0, self._shrink / SHRINK)
            return True
        self._memory, self._shrink = self._before, self._shrink * SHRINK
        return False

    def restart(self) -> None:
        self._memory, self._shrink, self._stuck, self.acceptance = {}, 1.0, False, Acceptance()

    def exhausted(self) -> bool:
        """Whether not even the steepest descent leads down any more."""
        return self._stuck or self.acceptance.exhausted

    def get_step(self, loss: Tensor, params: Params) -> Params:
        raise TypeError("lbfgs evaluates trial points: it needs a hofit objective, not a bare loss")

    def state_dict(self) -> State:
        return {
            "memory": _copied(self._memory),
            "judge": self.acceptance.state_dict(),
            "shrink": self._shrink,
            "stuck": self._stuck,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._memory = _copied(state["memory"])
        self.acceptance.load_state_dict(state["judge"])
        self._shrink, self._stuck = float(state["shrink"]), bool(state["stuck"])

    def _search(self, point: Point, own: Coordinates) -> Point | None:
        """One iteration of torch's: where it leads, or None where that is not down."""
        search = _LineSearch(point, own)
        inner = torch.optim.LBFGS(
            [search.flat],
            lr=search.first_length() if not self._memory.get("n_iter") else 1.0,
            max_iter=1,
            max_eval=TRIALS + 1,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=self.history_size,
            line_search_fn="strong_wolfe",
        )
        inner.state[search.flat] = self._memory
        try:
            inner.step(search.closure)
        except _UnboundedError as found:
            self._memory = self._before
            return found.point
        self._memory.pop("al", None)  # a scratch pad
        return search.reached()


class _UnboundedError(Exception):
    def __init__(self, point: Point) -> None:
        self.point = point


class _LineSearch:
    """What torch asks of the loss during one step, with all own parameters as one flat leaf (d,)."""

    def __init__(self, point: Point, own: Coordinates) -> None:
        self._point, self._own = point, own
        self._start = own.flatten(point.params)
        self._gradient = own.flatten(point.gradient()).detach()
        self._trials: list[tuple[Tensor, Point]] = []
        self._unit = 1.0 if point.source is None else point.source.unit
        self._scale = SCALE.get(self._start.dtype, 1.0) / self._unit
        self.flat = torch.nn.Parameter(self._start.clone())

    def first_length(self) -> float:
        """The ``lr`` that makes torch's first step, −g / ‖g‖₁ under SCALE, −g / max(1, ‖g‖₂)."""
        norm = float(self._gradient.double().norm())
        return float(self._gradient.abs().sum()) / max(self._unit, norm) if isfinite(norm) else 1.0

    def closure(self) -> float:
        """The loss at the leaf, and its gradient in ``flat.grad``."""
        where = self.flat.detach().clone()
        if torch.equal(where, self._start):
            return self._hand(self._point.value, self._gradient)
        promised = abs(float(self._gradient @ (where - self._start)))
        trial = self._evaluate(where)
        if trial is not None and trial.value - self._point.value <= CLIFF * promised:
            gradient = self._own.flatten(trial.gradient())
            if bool(torch.isfinite(gradient).all()):
                self._trials.append((where, trial))
                value = trial.value
                if abs(value - self._point.value) <= self._noise():
                    slopes = float((gradient + self._gradient) @ (where - self._start))
                    value = self._point.value + 0.5 * slopes
                return self._hand(value, gradient)
        # Refused: the parabola through the start, with its slope there, whose minimum is a quarter of the way.
        value = self._point.value + promised
        return self._hand(
            value if isfinite(value) else torch.finfo(where.dtype).max / self._scale, -3.0 * self._gradient
        )

    def reached(self) -> Point | None:
        """The trial that torch has ended at, if it is no worse than the start."""
        where = self.flat.detach()
        for place, trial in reversed(self._trials):
            if torch.equal(place, where):
                return trial if self._is_down(trial) else None
        return None

    def _evaluate(self, where: Tensor) -> Point | None:
        """The point there; None if it has no finite loss."""
        if not bool(torch.isfinite(where).all()):
            return None
        trial = self._point.at({**self._point.params, **self._own.unflatten(where)})
        if trial.failure is None and trial.value == -inf:
            raise _UnboundedError(trial)
        return trial if trial.failure is None and isfinite(trial.value) else None

    def _is_down(self, trial: Point) -> bool:
        if trial.value < self._point.value:
            return True
        before, after = self._gradient.abs().max(), self._own.flatten(trial.gradient()).abs().max()
        return trial.value - self._point.value <= self._noise() and bool(after <= FLATTER * before)

    def _noise(self) -> float:
        return float(ROUNDING * torch.finfo(self._start.dtype).eps * abs(self._point.value))

    def _hand(self, value: float, gradient: Tensor) -> float:
        self.flat.grad = gradient * self._scale
        return value * self._scale


def _copied(memory: Mapping[str, Any]) -> State:
    """Torch's state, so that its next step writes to no part of it."""
    copied = {key: list(value) if isinstance(value, list) else value for key, value in memory.items()}
    if isinstance(written := copied.get("prev_flat_grad"), Tensor):
        copied["prev_flat_grad"] = written.clone()
    return copied
