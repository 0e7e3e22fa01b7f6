"""Joint Newton steps inside a trust region, on whatever structure the Hessian has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.structure import Curvature
from ..errors import OptionError
from ..linear.diagonal import Diagonal
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..point import Params, Point
from ..record import PartReport
from .acceptance import POOR, Acceptance, TrustRadius, below_rounding, forcing
from .base import Optimizer, Proposal, State
from .subproblem.exact import trust_region_step
from .subproblem.solve import solve

CORRECTION = 0.05
"""Length of a correction relative to its step: short, so that it goes back to the floor of the valley, not along it."""

ROUNDING = 64.0
"""Units of eps, relative to the largest |h_ii|, below which a diagonal entry is rounding and no scale."""


class TrustRegion(Optimizer):
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

    name = "trust_region"
    judges = True

    def __init__(self, structure: str = "auto", initial_radius: float | None = None) -> None:
        if initial_radius is not None and not initial_radius > 0:
            raise OptionError(f"initial_radius must be a positive number, not {initial_radius!r}")
        self.curvature = Curvature(structure)
        self.acceptance = Acceptance()
        self.radius = TrustRadius(initial_radius)
        self._scale: Tensor | None = None
        self._root: Tensor | None = None
        self._operator: Operator | MatrixFree | None = None
        self._at: Point | None = None
        self._shift = 0.0
        self._accepted: bool | None = None

    @property
    def operator(self) -> Operator | MatrixFree | None:
        """The Hessian at the last point that a step was proposed from."""
        return self._operator

    @property
    def second_order(self) -> bool:  # type: ignore[override]
        """Whether Hessian-vector products are needed; not where the linear maps could be lifted."""
        return not self.curvature.lifts

    def begin_at(self, point: Point) -> None:
        self.curvature.choose_method(point, self.own(point).names)

    def propose(self, point: Point) -> Proposal:
        own = self.own(point)
        gradient = own.flatten(point.gradient())
        if self._at is not point:
            self._operator = self._hessian(point, own.names)
            self._at = point
            if isinstance(self._operator, MatrixFree):
                scale = torch.ones_like(gradient)  # its diagonal would cost a product for each unknown
            elif isfinite(self._operator.largest()):
                scale = _scale(self._operator, self._operator.diagonal().abs())
            else:
                # No curvature to be had here: straight downhill, as far as the radius goes.
                self._operator, scale = Diagonal(torch.zeros_like(gradient)), torch.zeros_like(gradient)
            self._scale = scale if self._scale is None else torch.maximum(self._scale, scale)
            self._root = _positive(self._scale).sqrt()
        assert self._root is not None and self._scale is not None and self._operator is not None
        g = gradient / self._root
        scaled = (
            self._operator if isinstance(self._operator, MatrixFree) else self._operator.scaled(self._root.reciprocal())
        )
        solution, self.radius.value = solve(
            scaled, g, self.radius.value, self._shift, lambda norm: forcing(norm, point)
        )
        self._shift = solution.shift
        # Where the loss has neither slope nor curvature a step may be of any length: it is none.
        step = torch.where((gradient == 0) & (self._scale == 0), 0.0, solution.step)
        params = self._moved(point, own, step)
        proposal = Proposal(params, solution.predicted, origin=point, step=solution)
        if point.source is not None and len(own.names) == len(point.params):
            # Alone on the loss: the trial point is the candidate. In a mix the other parts move too.
            proposal.point = point.at({**point.params, **params})
            self._correct(proposal, scaled, own)
        return proposal

    def _moved(self, point: Point, own: Coordinates, scaled_step: Tensor) -> Params:
        assert self._root is not None
        step = own.unflatten(scaled_step / self._root)
        return {name: point.params[name] + step[name] for name in own.names}

    def _correct(self, proposal: Proposal, scaled: Operator | MatrixFree, own: Coordinates) -> None:
        """Put a second step behind one that falls short, where the two together do not."""
        point, solution, trial = proposal.origin, proposal.step, proposal.point
        assert point is not None and solution is not None and trial is not None and self._root is not None
        if isinstance(scaled, MatrixFree) or trial.failure is not None or not isfinite(trial.value):
            return
        if below_rounding(point, solution.predicted):
            return
        if point.value - trial.value >= POOR * solution.predicted:
            return
        gradient = own.flatten(trial.gradient()) / self._root
        if not bool(torch.isfinite(gradient).all()):
            return
        second = trust_region_step(scaled, gradient, CORRECTION * solution.length)
        params = self._moved(point, own, solution.step + second.step)
        corrected = point.at({**point.params, **params})
        if corrected.failure is None and point.value - corrected.value > POOR * solution.predicted:
            proposal.params, proposal.point = params, corrected

    def accept(self, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        point, step = proposal.origin, proposal.step
        assert point is not None and step is not None
        ratio = self.acceptance.ratio(point, candidate, proposal, others)
        self.radius.update(ratio, step, point)
        self._accepted = self.acceptance.accepts(ratio)
        return self._accepted

    def exhausted(self) -> bool:
        """Whether rounding refuses every step there is."""
        return self.acceptance.exhausted

    def describe(self, point: Point) -> str | None:
        operator = self._hessian(point, self.own(point).names)
        return self.curvature.describe(operator)

    def reports(self) -> list[PartReport]:
        return [PartReport(self.name, self.radius.value, self._accepted)]

    def remarks(self) -> list[str]:
        return self.curvature.remarks()

    def state_dict(self) -> State:
        state: State = {
            "curvature": self.curvature.state_dict(),
            "judge": self.acceptance.state_dict(),
            "shift": self._shift,
        }
        if self.radius.value is not None:
            state["radius"] = self.radius.value
        if self._scale is not None:
            state["scale"] = self._scale
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.curvature.load_state_dict(state["curvature"])
        self.acceptance.load_state_dict(state["judge"])
        self.radius, self._scale = TrustRadius(state.get("radius")), state.get("scale")
        self._shift, self._at = float(state["shift"]), None

    def _hessian(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        return self.curvature.at(point, names)


def _scale(operator: Operator, diagonal: Tensor) -> Tensor:
    """|h_ii|; where that is rounding, what the parameter's coupling to the others says of its unit.

    A parameter without curvature of its own, coupled to others by h_ij, is scaled so that h_ij / D_i D_j is one, as
    equilibration does it (Ruiz 2001): the sum over j with random signs stands for the largest of them.
    """
    positive = _positive(diagonal)
    empty = diagonal < positive
    if not bool(empty.any()):
        return diagonal
    signs = torch.randint(0, 2, diagonal.shape, generator=torch.Generator().manual_seed(5))
    others = torch.where(empty, torch.zeros_like(diagonal), (2 * signs - 1).to(diagonal) / positive.sqrt())
    coupling: Tensor = torch.where(empty, operator.matvec(others).square(), diagonal)
    return torch.where(torch.isfinite(coupling), coupling, diagonal)


def _positive(diagonal: Tensor) -> Tensor:
    """|h_ii|, or where that is rounding of the largest, the rounding; one where all are zero."""
    largest = float(diagonal.max()) if diagonal.numel() else 0.0
    floor = ROUNDING * torch.finfo(diagonal.dtype).eps * largest
    return torch.clamp(diagonal, min=floor) if floor > 0 else torch.ones_like(diagonal)
