"""Joint Newton steps inside a trust region, on whatever structure the Hessian has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..curvature.choice import STRUCTURES
from ..curvature.structure import Curvature
from ..linear.diagonal import Diagonal
from ..linear.matrix_free import MatrixFree
from ..linear.operator import ROUNDING, Operator, above_rounding
from ..point import Point
from .acceptance import POOR, InsideRadius, forcing, rounding, without_leap
from .base import Proposal, State
from .options import option
from .spec import OptimizerSpec
from .subproblem.solve import solve


@dataclass(frozen=True)
class Options:
    structure: str = option("auto", f"of the Hessian: {', '.join(STRUCTURES)}", STRUCTURES)
    initial_radius: float | None = option(None, "a positive number; found from the first step when left out")


OPTIMIZER = OptimizerSpec.own(
    "trust_region",
    "Newton steps over all parameters of the entry jointly, inside a trust region",
    Options,
    lambda options: TrustRegion(options.structure, options.initial_radius),
)

CORRECTION = 0.05
"""Length of a correction relative to its step: short, so that it goes back to the floor of the valley, not along it."""


class TrustRegion(InsideRadius):
    """Newton's method over all parameters of the entry jointly, inside a trust region.

    The step minimises m(p) = gᵀp + ½ pᵀHp subject to ‖Dp‖₂ ≤ Δ, by Moré and Sorensen's method on the structure of the
    exact Hessian H. D² is the largest |h_ii| that each parameter has shown (Moré 1978), so the units of the parameters
    do not matter and Δ is measured in the loss's own: ½Δ² is about what a full step may gain. The first Δ is the length
    of the full Newton step where H is positive definite, else see ``first_step``.

    A step is accepted when the loss falls by at least a ten thousandth of what the model predicted. One that falls
    short of a quarter of it has mostly left the floor of a curved valley: a short second step from its end, on the
    gradient there and the same H, is tried before the radius is cut (second-order correction).

    Args:
        structure: ``auto``, or what is claimed of H: diagonal, rows, arrowhead, dense, matrix_free.
        initial_radius: Δ at the start, or None.
    Shapes: p, g (d,); H (d, d), never formed unless dense.
    Cost: one Hessian and two or three factorisations; a correction adds a gradient, a loss and as many factorisations.
    Ends with: model_error if the claimed structure is refuted.
    Raises: OptionError.
    Source: Moré & Sorensen (1983); Nocedal & Wright (2006), Alg. 4.1 and section 15.6 (second-order correction, there
    for constraints); Transtrum & Sethna (2012), "Improvements to the Levenberg-Marquardt algorithm" (of valleys);
    Conn, Gould & Toint (2000), section 17.4.
    """

    name = OPTIMIZER.name

    def __init__(
        self, structure: str = Options.structure, initial_radius: float | None = Options.initial_radius
    ) -> None:
        super().__init__(initial_radius)
        self.curvature = Curvature(structure)
        self._scale: Tensor | None = None
        self.operator: Operator | MatrixFree | None = None
        """The Hessian at the last point that a step was proposed from."""
        self._at: Point | None = None
        self._still: Tensor | None = None
        """Numbers that stay at this point (d,), as the Hessian has them; None where none does."""
        self._shift = 0.0
        self._steepest = 0.0
        """The largest entry of any gradient so far."""

    @property
    def second_order(self) -> bool:  # type: ignore[override]
        """Whether Hessian-vector products are needed; not where the linear maps could be lifted."""
        return not self.curvature.lifts

    def begin_at(self, point: Point) -> None:
        self.curvature.choose_method(point, self.own(point).names)

    def propose(self, point: Point) -> Proposal:
        own = self.own(point)
        gradient = own.flatten(point.gradient()).clone()
        if self._at is not point:
            self.operator = self._hessian(point, own.names)
            self._at = point
            scale = self.operator.sizes()
            if scale is None:
                # No curvature to be had here: straight downhill, as far as the radius goes.
                scale = torch.zeros_like(gradient)
                self.operator = Diagonal(scale)
            self._scale = scale if self._scale is None else torch.maximum(self._scale, scale)
            self._steepest = max(self._steepest, float(gradient.abs().max()) if gradient.numel() else 0.0)
            self._hold_what_is_rounding(gradient)
        assert self._scale is not None and self.operator is not None
        root = above_rounding(self._scale).sqrt()
        if self._still is not None:  # what stays has a curvature of one, beside which no other may be lost
            gradient[self._still], root[self._still] = 0.0, 1.0
        scaled = self.operator.scaled(root.reciprocal())
        unit = 1.0 if point.source is None else point.source.unit
        solution, self.radius.value = solve(
            scaled, gradient / root, self.radius.value, self._shift, forcing(point), unit
        )
        self._shift = solution.shift
        # Where the loss has neither slope nor curvature a step may be of any length: it is none.
        solution = replace(solution, step=torch.where((gradient == 0) & (self._scale == 0), 0.0, solution.step))
        solution = without_leap(own, point, solution, gradient / root, scaled.matvec, root)
        proposal = Proposal(self.moved(point, solution.step / root), solution.predicted, step=solution)
        if point.source is not None and len(own.names) == len(point.params):
            # Alone on the loss: the trial point is the candidate. In a mix the other parts move too.
            proposal.point = point.at({**point.params, **proposal.params})
            self._correct(point, proposal, scaled, root)
        return proposal

    def _hold_what_is_rounding(self, gradient: Tensor) -> None:
        """Where slope and curvature are both rounding of the largest there were, no step is taken on their strength."""
        assert self._scale is not None
        self._still = None
        if isinstance(self.operator, MatrixFree) or self.operator is None:
            return
        tiny = ROUNDING * torch.finfo(gradient.dtype).eps
        still = (self._scale <= tiny * self._scale.max()) & (gradient.abs() <= tiny * self._steepest)
        if bool(still.any()) and not bool(still.all()):
            self.operator, self._still = self.operator.held(still), still

    def _correct(self, point: Point, proposal: Proposal, scaled: Operator | MatrixFree, root: Tensor) -> None:
        """Put a second step behind one that falls short, where the two together do not; not one of products alone."""
        solution, trial = proposal.step, proposal.point
        assert solution is not None and trial is not None
        if solution.products or trial.failure is not None or not isfinite(trial.value):
            return
        if solution.predicted <= rounding(point) or point.value - trial.value >= POOR * solution.predicted:
            return
        gradient = self.own(point).flatten(trial.gradient()) / root
        if not bool(torch.isfinite(gradient).all()):
            return
        second, _ = solve(scaled, gradient, CORRECTION * solution.length, 0.0, forcing(point))
        params = self.moved(point, (solution.step + second.step) / root)
        corrected = point.at({**point.params, **params})
        if corrected.failure is None and point.value - corrected.value > POOR * solution.predicted:
            proposal.params, proposal.point = params, corrected

    def restart(self) -> None:
        super().restart()
        self._shift, self._scale, self._at = 0.0, None, None

    def describe(self, point: Point) -> str | None:
        return self.curvature.describe(self._hessian(point, self.own(point).names))

    def remarks(self) -> list[str]:
        return self.curvature.remarks()

    def state_dict(self) -> State:
        state = {"curvature": self.curvature.state_dict(), **super().state_dict(), "shift": self._shift}
        state["steepest"] = self._steepest
        return state if self._scale is None else {**state, "scale": self._scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.curvature.load_state_dict(state["curvature"])
        self._scale, self._shift, self._at = state.get("scale"), float(state["shift"]), None
        self._steepest = float(state.get("steepest", 0.0))

    def _hessian(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        return self.curvature.at(point, names)
