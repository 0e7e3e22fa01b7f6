"""What a fit asks of an objective, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from ..model.trace import Program
from ..point import Params, Point, PointSource


class Objective(PointSource, Protocol):
    """A loss over the parameters that are optimised. Use inside ``program.scope()``."""

    type: str
    program: Program

    @property
    def stochastic(self) -> bool:
        """Whether the loss is an estimate."""

    def start(self) -> Params:
        """The start point: what the model's own starts and the config's make of each parameter."""

    def at_full(self, params: Params) -> Point:
        """The loss on the full plates, with distributions validated: what a verdict is taken on."""

    def values(self, params: Params) -> Params:
        """The constrained value of every site, fixed and integrated ones included."""

    def explain_non_finite(self, params: Params) -> str:
        """Which sites make the loss non-finite at ``params``, or why they cannot be computed."""
