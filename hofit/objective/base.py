"""What a fit asks of an objective, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from ..model.program import Program
from ..point import Params, Point, Source
from .leaves import Leaves


class Objective(Source, Protocol):
    """A loss over the parameters that are optimised. Use inside ``program.scope()``."""

    type: str
    program: Program
    leaves: Leaves

    @property
    def stochastic(self) -> bool:
        """Whether the loss is an estimate."""

    @property
    def settles(self) -> bool:
        """Whether the loss on the full plates is no estimate, so that a verdict can be taken on it."""

    def remarks(self, params: Params) -> list[str]:
        """What is to be said of the loss itself at the end of a fit."""

    def start(self) -> Params:
        """The start point: what the model's own starts and the config's make of each parameter."""

    def resume_from(self, params: Params, inner: Params) -> None:
        """Hear what was found inside the point at ``params``, before the process ended: see ``Point.inner``."""

    def take_start_loss(self) -> float | None:
        """The loss at the start as ``at_full`` has it, where it is known already; asked once."""

    def at_full(self, params: Params) -> Point:
        """The loss on the full plates, with distributions validated: what a verdict is taken on."""

    def values(self, params: Params) -> Params:
        """The constrained value of every site, fixed and integrated ones included."""

    def explain_non_finite(self, params: Params) -> str:
        """Which sites make the loss non-finite at ``params``, or why they cannot be computed."""
