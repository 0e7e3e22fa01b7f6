"""What may be said of a point: is it a minimum? Every claim rests on derivatives computed anew at the point itself.

Where the structure makes the Hessian affordable, `converged` also needs positive curvature and a confirming step: a
full Newton step divides the decrement by at least 100, or is itself ≤ 1e-8 · max(1, |u|) in every coordinate. A plateau
or an escape to infinity has a small gradient and fails it. Where only products with the Hessian can be had, a few of
them look for a way down: they can refute a minimum, not prove one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ..coordinates import NAMED, Coordinates
from ..curvature.structure import Curvature
from ..errors import ModelError
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..objective.base import Objective
from ..point import Params, Point, max_norm
from ..status import Status
from .checks import Check, Finding, StopRules, StopState, Verdict
from .edges import UNBOUNDED_EDGE, names_at_edge, settled_on_boundary
from .refute import LOSS_ROUNDING, PROBES, confirming_step, matters, refuted_by_probes, refuted_by_walks
from .signs import Signs

NEAR = 100.0
"""Where the curvature is not known, a fit is nearly there within this factor of the gradient's tolerance."""

HOPELESS = 1e4
"""Beyond this factor of the gradient's tolerance no curvature is computed: it could not make a minimum of the point."""

FAR = 1e-6
"""A minimum is not further below than this part of max(1, |loss|), by the quadratic model."""

DECREMENT = 1e-12
"""The decrement's tolerance where the config gives none, relative to max(1, |loss|)."""

EDGE_DECREMENT = 1e-10
"""As DECREMENT, on the way to the edge of a support, where Newton's steps are short."""


def judge(objective: Objective, params: Params, curvature: Curvature, stop: StopRules, state: StopState) -> Verdict:
    """Look at ``params`` on the full plates, with a trace and a gradient of its own.

    ``curvature`` is the verdict's own, over all parameters, and keeps what it learned from one verdict to the next.
    """
    point = objective.at_full(params)
    if point.failure is not None or not isfinite(point.value):
        explained = point.failure or objective.explain_non_finite(params)
        check = Check("loss", False, point.value, explained)
        return Verdict(Status.NON_FINITE, float("nan"), point.value, checks=[check])
    gradient = point.gradient()
    norm = max_norm(gradient)
    verdict = Verdict(None, norm, point.value, point=point)
    if not isfinite(norm):
        bad = [name for name, g in gradient.items() if not bool(torch.isfinite(g).all())]
        check = Check("gradient", False, norm, f"the gradient is not finite in {', '.join(bad)}")
        verdict.take(Finding(check, Status.NON_FINITE))
        return verdict
    small = norm <= stop.gradient
    verdict.take(Finding(Check("gradient", small, norm, f"max-norm {norm:.3g}, tolerance {stop.gradient:.3g}")))
    at_edge = names_at_edge(objective, point)
    unused = [
        name
        for name, g in gradient.items()
        if g.numel() and name not in at_edge and not bool(g.any()) and not matters(objective, point, name)
    ]
    for name in unused:
        message = f"the loss does not depend on {name!r}"
        verdict.take(Finding(Check("used", False, 0.0, message), remark=f"unused: {message}"))
    if not small and not state.stalled and norm > HOPELESS * stop.gradient:
        verdict.take(Finding(Check("curvature", None, None, "not checked: the gradient is far from small")))
        return verdict
    minimum = Status.FLAT_DIRECTION if unused else Status.CONVERGED
    try:
        verdict.hessian = curvature.at(point, list(point.params))
    except ModelError as error:
        verdict.take(Finding(Check("curvature", None, None, f"not checked: {error}")))
        if small and not at_edge:
            remark = f"curvature was not checked ({error}): the verdict rests on the gradient alone"
            verdict.take(Finding(status=minimum, remark=remark))
        return verdict
    questions = _Questions(objective, point, stop, state, norm, at_edge)
    if isinstance(verdict.hessian, MatrixFree):
        findings = questions.by_products(minimum)
    else:
        findings = questions.by_curvature(curvature, verdict.hessian)
    for finding in findings:
        verdict.take(finding)
    return verdict


@dataclass(frozen=True)
class _Questions:
    """What is asked of the curvature at a point whose gradient is known, in order, until the answer is settled."""

    objective: Objective
    point: Point
    stop: StopRules
    state: StopState
    norm: float
    at_edge: list[str]

    @property
    def small(self) -> bool:
        return self.norm <= self.stop.gradient

    def by_curvature(self, curvature: Curvature, hessian: Operator) -> Iterator[Finding]:
        """Where the Hessian is affordable."""
        point, state = self.point, self.state
        if not isfinite(hessian.largest()):
            yield Finding(Check("curvature", None, None, "not checked: the Hessian is not finite"))
            return
        coordinates, unit = Coordinates.of(point.params), max(1.0, abs(point.value))
        signs = Signs(hessian)
        yield Finding(signs.check())
        gradient = coordinates.flatten(point.gradient())
        step = signs.newton_step(gradient)
        decrement = float(-0.5 * gradient @ step)
        tolerance = self.stop.decrement if self.stop.decrement is not None else DECREMENT * unit
        within = 0 <= decrement <= tolerance
        yield Finding(Check("decrement", within, decrement, f"a Newton step lowers the loss by {decrement:.3g}"))
        confirming = confirming_step(self.objective, curvature, point, hessian, step, decrement)
        yield Finding(confirming)
        if not self.small and not (state.stalled and within):
            return
        if decrement > FAR * unit:
            return  # however small the gradient: the parameter's unit is
        if signs.negative.shape[1]:
            if state.ends:  # before that, the optimizer may still leave it
                remark = f"saddle: the curvature is negative along {coordinates.label(signs.negative)}"
                yield Finding(status=Status.SADDLE, remark=remark)
        elif not confirming.ok:
            if self.at_edge and state.stalled and decrement <= max(tolerance, EDGE_DECREMENT * unit):
                yield settled_on_boundary(self.objective, point, self.at_edge)
        elif not self.small and not state.rounding:
            yield Finding(nearly=True)
        elif signs.zero.shape[1]:
            yield self._of_flat(coordinates, signs.zero, gradient, tolerance)
        else:
            rounding = LOSS_ROUNDING * torch.finfo(gradient.dtype).eps * unit
            faint = signs.faint(coordinates.flatten(point.params), rounding)
            refuted = refuted_by_walks(self.objective, point, faint, state) if faint.shape[1] else None
            yield refuted or self._converged(decrement)

    def _of_flat(self, coordinates: Coordinates, flat: Tensor, gradient: Tensor, tolerance: float) -> Finding:
        """Of directions (d, k) of no curvature at a confirmed point."""
        directions = coordinates.label(flat)
        named = {coordinates.entry(place)[0] for place in coordinates.heavy(flat)[:NAMED]}
        if named and named <= {*self.at_edge}:
            # Saturated: the transform itself no longer moves with the parameter.
            return settled_on_boundary(self.objective, self.point, self.at_edge)
        slope = float((flat / flat.abs().amax(dim=0)).T.matmul(gradient).abs().max())
        if not self.small and slope > tolerance**0.5:
            return Finding(Check("flat", False, slope, f"the loss slopes by {slope:.3g} along {directions}"))
        remark = f"flat direction (singular): the loss has no curvature along {directions}"
        refuted = refuted_by_walks(self.objective, self.point, flat, self.state)
        return refuted or Finding(status=Status.FLAT_DIRECTION, remark=remark)

    def _converged(self, decrement: float) -> Finding:
        if self.small:
            return Finding(status=Status.CONVERGED)
        remark = (
            f"precision: rounding limits the gradient to {self.norm:.3g}; "
            f"a Newton step could lower the loss by {decrement:.3g} only"
        )
        return Finding(status=Status.CONVERGED, remark=remark)

    def by_products(self, minimum: Status) -> Iterator[Finding]:
        """Where no structure makes the Hessian affordable. ``minimum`` is how a fit ends that nothing refutes."""
        state, size = self.state, sum(p.numel() for p in self.point.params.values())
        message = f"not checked: {size} unknowns, and no structure that would make their Hessian affordable"
        yield Finding(Check("curvature", None, None, message))
        gone = names_at_edge(self.objective, self.point, UNBOUNDED_EDGE)
        if not self.small:
            yield Finding(nearly=state.stalled and not state.rounding and self.norm <= NEAR * self.stop.gradient)
        elif not gone:
            refuted = refuted_by_probes(self.point)
            check = Check("probes", refuted is None, None, refuted or "no probe found a way down")
            if refuted is None:
                remark = f"curvature was {message}; the verdict rests on the gradient and {2 * PROBES} probes"
                yield Finding(check, minimum, remark)
            else:
                yield Finding(check, Status.NO_PROGRESS if state.ends else None)
        elif state.stalled:
            yield settled_on_boundary(self.objective, self.point, gone)
