"""One part of a mix: propose a step from a point, then hear how it went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.optim.multi import MultiOptimizer
from torch import Tensor

from ..coordinates import Coordinates
from ..point import Params, Point, TracedPoint
from ..record import PartReport
from .subproblem.step import Step

State = dict[str, Any]


@dataclass
class Proposal:
    """Where an optimizer would go: new values of its own parameters.

    ``predicted_reduction`` is what it expects the loss to fall by, for an optimizer that judges its steps.
    ``point`` is set when the optimizer has evaluated the new place already, ``step`` when it wants to hear of how far
    that is.
    """

    params: Params
    predicted_reduction: float | None = None
    point: Point | None = None
    step: Step | None = None


class Optimizer(MultiOptimizer):
    """One part of a mix; also usable from plain Pyro code by ``step`` and ``get_step``.

    ``second_order`` says whether it reads the gradient's graph; ``judges`` whether it may refuse its step, by the loss
    at the candidate, and so needs a loss that is no estimate; ``reads_model`` whether it reads the loss's own graph, or
    the model's distributions, which an integral does not have.
    """

    name: str = "optimizer"
    second_order: bool = False
    judges: bool = False
    reads_model: bool = False
    rewinds: bool = False
    """Whether ``load_state_dict`` puts it back to where it was in the middle of a fit: it keeps nothing else."""

    names: Sequence[str] | None = None
    """The parameters it was bound to; None where it was bound to none in particular, as from plain Pyro code."""
    _own: Coordinates | None = None

    def bind(self, names: Sequence[str]) -> None:
        """Take the parameters that are this part's own, or none; called once, before the first step."""
        self.names, self._own = list(names), None

    def own(self, point: Point) -> Coordinates:
        """The parameters that this part moves: those it was bound to, all of the point's if it never was."""
        if self._own is None or self.names is None:
            self._own = Coordinates.of(point.params, self.names)
        return self._own

    def begin_at(self, point: Point) -> None:
        """See the first point before its gradient is taken: ``second_order`` may depend on how large the model is."""

    def propose(self, point: Point) -> Proposal:
        """New values for the part's parameters, of which there are some; neither the point nor anything that another
        part reads is written."""
        raise NotImplementedError

    def accept(self, point: Point, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        """Keep the step, or take it back. ``others`` is gᵀs over the moves of the other parts of a mix."""
        return True

    def advance(self, point: Point) -> tuple[Point, bool]:
        """One iteration: the next point, and whether the step was accepted. A part that owns nothing stays."""
        if not self.own(point).names:
            return point, True
        proposal = self.propose(point)
        candidate = proposal.point or point.at({**point.params, **proposal.params})
        if self.accept(point, proposal, candidate):
            return candidate, True
        return point, False

    def restart(self) -> None:
        """Forget how the last steps turned out: the fit goes on from elsewhere."""
        return None

    def exhausted(self) -> bool:
        """Whether every step is refused because of rounding alone: there is nothing left to gain."""
        return False

    def describe(self, point: Point) -> str | None:
        """What curvature it will read at ``point`` and what that takes, for ``hofit check``; None for a gradient alone.

        Raises: StepImpossible, as a step would.
        """
        return None

    def reports(self) -> list[PartReport]:
        return [PartReport(self.name)]

    def remarks(self) -> list[str]:
        """What the user should know of how the part went: a sentence each."""
        return []

    def state_dict(self) -> State:
        """All that must be kept for the next step to be the same: tensors, numbers, strings, containers of these."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        return None

    # Pyro's interface -------------------------------------------------------------------------------------------

    def get_step(self, loss: Tensor, params: Params) -> Params:
        """The updated values of ``params``, one step down from ``loss``."""
        return self.propose(TracedPoint({n: p.detach() for n, p in params.items()}, loss, params)).params

    def prepare(self, loss: Tensor, params: Params) -> Callable[[], None]:
        """Read every derivative now; the callable that comes back writes. A mix prepares all before any writes."""
        updated = self.get_step(loss, params)

        def write() -> None:
            with torch.no_grad():
                for name, value in params.items():
                    value.copy_(updated[name].detach())

        return write

    def step(self, loss: Tensor, params: Params) -> None:
        self.prepare(loss, params)()
