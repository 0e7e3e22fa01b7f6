"""Joint Newton steps inside a trust region, on whatever structure the Hessian has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
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
from .acceptance import CUT, GOOD, POOR, Judge, below_rounding
from .base import Optimizer, Proposal, State
from .newton_cg import PRODUCTS, forcing
from .subproblem.exact import TrustStep, trust_region_step
from .subproblem.truncated import truncated_step

CORRECTION = 0.05
"""Length of a correction relative to its step: short, so that it goes back to the floor of the valley, not along it."""

INITIAL = 1.0
"""The first radius where the Hessian is not positive definite: a step that changes the loss by about ½."""

REACH = 0.4
"""Power of the way downhill that the first radius is. Of 0 to 1 in tenths, those from 0.5 on miss a classic problem or
one of NIST's, or lead the item response model to another mode; 0 takes it six iterations more."""

ROUNDING = 64.0
"""Units of eps, relative to the largest |h_ii|, below which a diagonal entry is rounding and no scale."""


class TrustRegion(Optimizer):
    """Newton's method over all parameters of the entry jointly, inside a trust region.

    The step minimises m(p) = gᵀp + ½ pᵀHp subject to ‖Dp‖₂ ≤ Δ, by Moré and Sorensen's method on the structure of the
    exact Hessian H. D² is the largest |h_ii| that each parameter has shown (Moré 1978), so the units of the parameters
    do not matter and Δ is measured in the loss's own: ½Δ² is about what a full step may gain. The first Δ is the length
    of the full Newton step where H is positive definite, else see ``_first_step``.

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
        self.judge = Judge()
        self._radius = initial_radius
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
        return self.curvature.needs_products

    def begin_at(self, point: Point) -> None:
        self.curvature.look(point, self.own(point).names)

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
        if isinstance(self._operator, MatrixFree):
            scaled: Operator | MatrixFree = self._operator
            solution = _truncated(self._operator, g, inf if self._radius is None else self._radius, point)
            self._radius = float(solution.step.norm()) if self._radius is None else self._radius
        else:
            scaled = self._operator.scaled(self._root.reciprocal())
            if self._radius is None:
                solution, self._radius = _first_step(scaled, g)
            else:
                solution = trust_region_step(scaled, g, self._radius, self._shift)
            self._shift = solution.shift
        # Where the loss has neither slope nor curvature a step may be of any length: it is none.
        step = torch.where((gradient == 0) & (self._scale == 0), 0.0, solution.step)
        params = self._moved(point, own, step)
        proposal = Proposal(params, solution.predicted, details=(point, solution))
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
        point, solution = proposal.details
        trial = proposal.point
        assert trial is not None and self._root is not None
        if isinstance(scaled, MatrixFree) or trial.failure is not None or not isfinite(trial.value):
            return
        if below_rounding(point, solution.predicted):
            return
        if point.value - trial.value >= POOR * solution.predicted:
            return
        gradient = own.flatten(trial.gradient()) / self._root
        if not bool(torch.isfinite(gradient).all()):
            return
        second = trust_region_step(scaled, gradient, CORRECTION * float(solution.step.norm()))
        params = self._moved(point, own, solution.step + second.step)
        corrected = point.at({**point.params, **params})
        if corrected.failure is None and point.value - corrected.value > POOR * solution.predicted:
            proposal.params, proposal.point = params, corrected

    def accept(self, proposal: Proposal, candidate: Point, others: float = 0.0) -> bool:
        point, solution = proposal.details
        assert self._radius is not None and isinstance(solution, TrustStep)
        ratio = self.judge.ratio(point, candidate, proposal, others)
        length = float(solution.step.norm())
        if ratio < POOR and solution.on_boundary and below_rounding(point, solution.predicted):
            # So short a step cannot be judged; a shorter one even less. Only a longer one leads out of here.
            self._radius = 4.0 * self._radius
        elif ratio < POOR and length > 0:
            self._radius = CUT * length
        elif ratio > GOOD and solution.on_boundary:
            self._radius = 2.0 * self._radius
        self._accepted = self.judge.accepts(ratio)
        return self._accepted

    def exhausted(self) -> bool:
        """Whether rounding refuses every step there is."""
        return self.judge.exhausted

    def describe(self, point: Point) -> str | None:
        operator = self._hessian(point, self.own(point).names)
        return self.curvature.describe(operator)

    def reports(self) -> list[PartReport]:
        return [PartReport(self.name, self._radius, self._accepted)]

    def remarks(self) -> list[str]:
        return self.curvature.remarks()

    def state_dict(self) -> State:
        state: State = {
            "curvature": self.curvature.state_dict(),
            "judge": self.judge.state_dict(),
            "shift": self._shift,
        }
        if self._radius is not None:
            state["radius"] = self._radius
        if self._scale is not None:
            state["scale"] = self._scale
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.curvature.load_state_dict(state["curvature"])
        self.judge.load_state_dict(state["judge"])
        self._radius, self._scale = state.get("radius"), state.get("scale")
        self._shift, self._at = float(state["shift"]), None

    def _hessian(self, point: Point, names: Sequence[str]) -> Operator | MatrixFree:
        return self.curvature.at(point, names)


def _first_step(operator: Operator, gradient: Tensor) -> tuple[TrustStep, float]:
    """The full Newton step and its length, where the Hessian is positive definite; else one within a first radius.

    That is INITIAL, or a part of the way straight downhill to the lowest point of the quadratic, where that is longer:
    with a loss of many terms a step that gains about ½ is many doublings too short.
    """
    factor = operator.factor()
    if factor.positive:
        step = -factor.solve(gradient)
        fall = -float(gradient @ step) - 0.5 * float(step @ operator.matvec(step))
        length = float(step.norm())
        if 0 < fall < inf and 0 < length < inf:
            return TrustStep(step, fall, 0.0, False), length
    curvature = float(gradient @ operator.matvec(gradient))
    downhill = float(gradient.norm()) ** 3 / curvature if curvature > 0 else 0.0
    radius = max(INITIAL, downhill**REACH) if isfinite(downhill) else INITIAL
    return trust_region_step(operator, gradient, radius), radius


def _truncated(operator: MatrixFree, gradient: Tensor, radius: float, point: Point) -> TrustStep:
    """Conjugate gradients in the place of factorisations, where only products can be had."""

    def tolerance(norm: float) -> float:
        return forcing(norm, point)

    found = truncated_step(operator.matvec, gradient, radius, lambda v: v, tolerance, min(PRODUCTS, 2 * operator.size))
    return TrustStep(found.step, found.predicted, 0.0, found.on_boundary)


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
