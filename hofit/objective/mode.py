"""The inner problem of a marginal: the mode of the integrated latents, the others held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.structure import Curvature
from ..errors import ModelError, StepImpossible
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Factor, Operator
from ..linear.sparse import Sparse, SparseFactor
from ..optim.acceptance import rounding
from ..optim.trust_region import TrustRegion
from ..point import Params, Point, Site
from .density import DensityObjective

MAX_ITERATIONS = 200

SLOW = 0.02
"""Foretold seconds of a factorisation from which one nearby serves for steps."""

FOLLOWED, SHRINKS = 12, 0.3
"""Such steps at most, and what each must divide the one before to."""

NO_MODE = "no proper mode"


class NoMode(Exception):
    """The integrated latents have no proper mode here; the message names the site and the row."""


@dataclass
class ModeFinder:
    """Newton's method in a trust region, from a warm start; what it learned of the structure serves the next mode."""

    objective: DensityObjective
    curvature: Curvature
    operator: Operator | None = None
    """The last Hessian that a mode was found by, with its factor; whoever takes it says None, to free that."""

    def find(self, start: Params, nearby: Factor | None = None) -> Params:
        """The mode, from ``start``: within about eps of it where the last steps converge quadratically.

        ``nearby`` is the factor of a Hessian that may not be far from the one at the mode.

        A start that is within √eps of the mode, in units of the curvature, comes back as it is.
        Raises: NoMode; ModelError where no structure makes the determinant affordable, or the claimed one is refuted.
        """
        names, self.operator = list(start), None
        part = TrustRegion()
        part.curvature = self.curvature
        part.bind(names)
        point: Point = self.objective.at(start)
        if point.failure is not None or not isfinite(point.value):
            raise NoMode(point.failure or self.objective.explain_non_finite(start) or "the density is not finite")
        own = Coordinates.of(start)
        slope = own.flatten(point.gradient())
        if not bool(torch.isfinite(slope).all()):  # no step can be taken from here, however often it is tried
            place = place_of((~torch.isfinite(slope)).to(slope), own, self.objective.sites)
            raise NoMode(f"{NO_MODE}: the slope is not finite in {place}")
        eps = torch.finfo(point.loss.dtype).eps
        if nearby is not None and is_slow(nearby):
            point, settled = self._followed(point, nearby)
            if settled:
                return point.params
        for iteration in range(MAX_ITERATIONS):
            self.objective.evaluations.inner += 1
            try:
                proposal = part.propose(point)
            except StepImpossible as refused:
                raise ModelError(f"of what is integrated: {refused}") from refused
            operator = part.operator
            if isinstance(operator, MatrixFree):
                raise ModelError(part.curvature.why_no_determinant(names, operator.size))
            self.operator = operator
            solution = proposal.step
            assert solution is not None
            size = float(solution.step.abs().max()) if solution.step.numel() else 0.0
            if solution.shift == 0 and not solution.on_boundary:
                if iteration == 0 and size <= eps**0.5:
                    return point.params
                if size <= eps ** (1 / 3):
                    return proposal.params
            candidate, predicted = proposal.point, proposal.predicted_reduction
            assert candidate is not None and predicted is not None
            gained = point.value - candidate.value
            if part.accept(point, proposal, candidate):
                point = candidate
                inside = solution.shift == 0 and not solution.on_boundary
                if inside and size * abs(gained - predicted) <= eps ** (2 / 3) * predicted:
                    return point.params  # as good as quadratic: the next step would be as short as that
                if inside and isinstance(operator, Sparse) and is_slow(operator.factor()):
                    point, settled = self._followed(point, operator.factor())
                    if settled:
                        return point.params
            elif part.exhausted():
                break
        assert isinstance(operator, Operator)
        raise NoMode(self._why(point, operator, iteration + 1))

    def _followed(self, point: Point, factor: Factor) -> tuple[Point, bool]:
        """Where Newton's steps lead with a factor that stays, and whether they settle: as long as they get shorter.

        Each is about as much shorter as the one before, so it is soon seen whether they will settle.
        """
        own, here, before = Coordinates.of(point.params), point, inf
        wanted = 0.01 * torch.finfo(point.loss.dtype).eps ** 0.5
        for left in reversed(range(FOLLOWED)):
            gradient = own.flatten(here.gradient())
            step = factor.solve(gradient)
            size = max(float(step @ gradient), 0.0) ** 0.5
            if size <= wanted:
                return (here, True) if here.value <= point.value + rounding(point) else (point, False)
            ratio = size / before
            if not ratio <= SHRINKS or size * ratio**left > wanted:
                break
            self.objective.evaluations.inner += 1
            there = self.objective.at(own.unflatten(own.flatten(here.params) - step))
            if there.failure is not None or not isfinite(there.value):
                break
            here, before = there, size
        return (here, False) if here.value < point.value else (point, False)

    def _why(self, point: Point, operator: Operator, steps: int) -> str:
        coordinates, sites, factor = Coordinates.of(point.params), self.objective.sites, operator.factor()
        if not factor.positive and factor.direction is not None:
            return f"{NO_MODE}: the curvature is not positive along {place_of(factor.direction, coordinates, sites)}"
        where = place_of(coordinates.flatten(point.gradient()), coordinates, sites)
        return f"{NO_MODE} was reached in {steps} Newton steps; the slope is largest in {where}"


def is_slow(factor: Factor) -> bool:
    """Whether a factorisation takes so long that one should serve for several steps."""
    return isinstance(factor, SparseFactor) and factor.sparsity.seconds > SLOW


def place_of(direction: Tensor, coordinates: Coordinates, sites: Mapping[str, Site]) -> str:
    """The site, and its row, that a flat vector (d,) is largest in."""
    name, index, in_plates = coordinates.row(int(direction.abs().argmax()), sites)
    if not in_plates:
        return f"{name!r}" + (f" [{index}]" if index else "")
    return f"{name!r}, row {index}"
