"""Joint Newton steps inside a trust region, on whatever structure the Hessian has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..curvature.dense import flatten, unflatten
from ..curvature.operator import Operator
from ..curvature.structure import Curvature
from ..curvature.trust import TrustStep, trust_region_step
from ..errors import OptionError
from ..point import PartReport, Point
from .base import Optimizer, Proposal, State
from .judging import Judge, below_rounding

RADII_KEPT = 1e-14
"""A radius below this part of the scaled parameters moves nothing any more in double precision."""


class TrustRegion(Optimizer):
    """Newton's method over all parameters of the entry jointly, inside a trust region.

    The step minimises m(p) = gᵀp + ½ pᵀHp subject to ‖Dp‖₂ ≤ Δ, by Moré and Sorensen's method on the structure of the
    exact Hessian H. D² is the largest |h_ii| that each parameter has shown, so the units of the parameters do not
    matter and Δ is measured in the loss's own: ½Δ² is about what a full step may gain. The first Δ is the length of the
    full Newton step where H is positive definite, else INITIAL.

    A step is accepted when the loss falls by at least a ten thousandth of what the model predicted.

    Args:
        structure: ``auto``, or what is claimed of H: diagonal, rows, arrowhead, dense, matrix_free.
        initial_radius: Δ at the start, or None.
    Shapes: p, g (d,); H (d, d), never formed unless dense.
    Cost: one Hessian and two or three factorisations.
    Ends with: model_error if the claimed structure is refuted.
    Raises: OptionError.
    Source: Moré & Sorensen (1983); Nocedal & Wright (2006), Alg. 4.1; Conn, Gould & Toint (2000), section 17.4.
    """

    name = "trust_region"
    judges = True

    def __init__(self, structure: str = "auto", initial_radius: float | None = None) -> None:
        if initial_radius is not None and not initial_radius > 0:
            raise OptionError(f"initial_radius must be a positive number, not {initial_radius!r}")
        self.curvature = Curvature(structure)
        self.judge = Judge()
        self._radius = initial_radius
        self._scale: Tensor | None = None
        self._operator: Any = None
        self._at: Point | None = None
        self._accepted: bool | None = None

    @property
    def second_order(self) -> bool:  # type: ignore[override]
        """Whether Hessian-vector products are needed; not where the linear maps could be lifted."""
        return self.curvature.needs_products

    def propose(self, point: Point) -> Proposal:
        names = self.__dict__.get("names") or list(point.params)
        gradient = flatten(point.gradient(), names)
        if self._at is not point:
            self._operator = self._hessian(point, names)
            self._at = point
            diagonal = self._operator.diagonal().abs()
            if not bool(torch.isfinite(diagonal).all()):
                return Proposal({name: torch.full_like(point.params[name], torch.nan) for name in names}, 0.0)
            self._scale = diagonal if self._scale is None else torch.maximum(self._scale, diagonal)
        assert self._scale is not None
        root = torch.where(self._scale > 0, self._scale, torch.ones_like(self._scale)).sqrt()
        scaled = self._operator.scaled(root.reciprocal())
        g = gradient / root
        if self._radius is None:
            self._radius = self._first_radius(scaled, g)
        solution = trust_region_step(scaled, g, self._radius)
        step = unflatten(solution.step / root, point.params, names)
        params = {name: point.params[name] + step[name] for name in names}
        return Proposal(params, solution.predicted, details=(point, solution))

    def accept(self, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        point, solution = proposal.details
        assert self._radius is not None and isinstance(solution, TrustStep)
        ratio = self.judge.ratio(point, candidate, proposal, others)
        length = float(solution.step.norm())
        if ratio < 0.25 and solution.on_boundary and below_rounding(point, solution.predicted):
            # So short a step cannot be judged; a shorter one even less. Only a longer one leads out of here.
            self._radius = 4.0 * self._radius
        elif ratio < 0.25 and length > 0:
            self._radius = 0.25 * length
        elif ratio > 0.75 and solution.on_boundary:
            self._radius = 2.0 * self._radius
        self._accepted = self.judge.accepts(ratio)
        return self._accepted

    def exhausted(self) -> bool:
        """Whether rounding refuses every step there is."""
        return self.judge.exhausted

    def found(self, point: Point) -> str | None:
        operator = self._hessian(point, self.names)
        return self.curvature.describe(operator)

    def reports(self) -> list[PartReport]:
        return [PartReport(self.name, self._radius, self._accepted)]

    def remarks(self) -> list[str]:
        return self.curvature.remarks()

    def state_dict(self) -> State:
        state: State = {"curvature": self.curvature.state_dict(), "judge": self.judge.state_dict()}
        if self._radius is not None:
            state["radius"] = self._radius
        if self._scale is not None:
            state["scale"] = self._scale
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.curvature.load_state_dict(state["curvature"])
        self.judge.load_state_dict(state["judge"])
        self._radius, self._scale = state.get("radius"), state.get("scale")
        self._at = None

    def _hessian(self, point: Point, names: Sequence[str]) -> Operator:
        return self.curvature.at(point, names)

    def _first_radius(self, operator: Any, gradient: Tensor) -> float:
        factor = operator.factor()
        if factor.positive:
            length = float(factor.solve(gradient).norm())
            if length > 0:
                return length
        return INITIAL


INITIAL = 1.0
"""The first radius where the Hessian is not positive definite: a step that changes the loss by about ½."""
