"""The expected information of a density, as an objective of its own around a point.

At θ₀ the function Σ KL(p(y | θ₀) ‖ p(y | θ)) − log p(latents) has the Hessian JᵀFJ + the prior's: F is the Fisher
information of each observed distribution in its own parameters and J their derivative. For a Gaussian likelihood that
is Gauss and Newton's matrix; for an exponential family the expected information. Its other values mean nothing: this
is for curvature alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy

from torch import Tensor

from ..model.program import Program
from ..point import Evaluations, Params, Point, Site, TracedPoint
from .leaves import Leaves


class InformationObjective:
    """The divergence from the distributions that the program has at ``around``, and the priors.

    ``jacobian`` names the latents whose transforms count.
    """

    def __init__(
        self, program: Program, leaves: Leaves, jacobian: Collection[str], evaluations: Evaluations, around: TracedPoint
    ) -> None:
        self.evaluations = evaluations
        self.sites: Mapping[str, Site] = program.sites
        self._program, self._leaves, self._jacobian, self._full = program, leaves, jacobian, around.full
        with leaves.holding(around, ()):
            # Copied: what a model hands to a distribution as it is would be the leaf itself, and move with it.
            self._reference = deepcopy(program.observed_distributions(full=self._full))

    @property
    def unit(self) -> float:
        return self._program.unit

    @property
    def entries(self) -> int:
        return self._program.entries

    def at(self, params: Params) -> TracedPoint:
        nothing = next(iter(params.values())).new_zeros(())
        point = TracedPoint(params, nothing, self._leaves.tensors, source=self, full=self._full)
        point.loss = self.retrace(point)
        return point

    def retrace(self, point: TracedPoint) -> Tensor:
        with self._leaves.holding(point, point.params):
            loss = self._loss()
        self._leaves.make_current(point)
        return loss

    def evaluate(self, point: TracedPoint, names: Sequence[str], watching: AbstractContextManager[object]) -> Tensor:
        with self._leaves.holding(point, names), watching:
            return self._loss()

    def is_current(self, point: Point) -> bool:
        return self._leaves.is_current(point)

    def hear_of_differences(self, point: TracedPoint) -> None:
        return None

    def invalidate(self) -> None:
        self._leaves.invalidate()

    def _loss(self) -> Tensor:
        self.evaluations.loss += 1
        return -self._program.expected_log_density(self._reference, self._jacobian, self._full)
