"""The expected information of a density, as an objective of its own around a point.

At θ₀ the function Σ KL(p(y | θ₀) ‖ p(y | θ)) − log p(latents) has the Hessian JᵀFJ + the prior's: F is the Fisher
information of each observed distribution in its own parameters and J their derivative. For a Gaussian likelihood that
is Gauss and Newton's matrix; for an exponential family the expected information. Its other values mean nothing: this
is for curvature alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..point import Evaluations, Params, Point, Site

if TYPE_CHECKING:
    from .density import DensityObjective


class InformationObjective:
    """The divergence from the distributions that ``objective`` has at one point, and the priors."""

    def __init__(self, objective: DensityObjective, around: Point) -> None:
        self.evaluations: Evaluations = objective.evaluations
        self.sites: Mapping[str, Site] = objective.sites
        self._objective, self._full = objective, around.full
        with objective.written(around, ()):
            # Copied: what a model hands to a distribution as it is would be the leaf itself, and move with it.
            self._reference = deepcopy(objective.program.observed_distributions(full=self._full))

    @property
    def entries(self) -> int:
        return self._objective.entries

    def at(self, params: Params) -> Point:
        nothing = next(iter(params.values())).new_zeros(())
        point = Point(params, nothing, self._objective.program.leaves, self, full=self._full)
        point.loss = self.retrace(point)
        return point

    def retrace(self, point: Point) -> Tensor:
        with self._objective.written(point):
            loss = self._loss()
        self._objective.make_current(point)
        return loss

    def evaluate(self, point: Point, names: Sequence[str], watching: AbstractContextManager[Any]) -> Tensor:
        with self._objective.written(point, names), watching:
            return self._loss()

    def losses_by_row(self, params: Params, plates: Sequence[str]) -> Tensor | None:
        return None

    def information(self, point: Point) -> Point:
        return self._objective.information(point)

    def is_current(self, point: Point) -> bool:
        return self._objective.is_current(point)

    def invalidate(self) -> None:
        self._objective.invalidate()

    def _loss(self) -> Tensor:
        self.evaluations.loss += 1
        return -self._objective.program.expected_log_density(self._reference, self._objective.jacobian, self._full)
