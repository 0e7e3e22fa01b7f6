"""What speaks against a minimum where the gradient is small: a step, a walk or a probe that finds something else."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.probed import product as products
from ..curvature.structure import Curvature
from ..linear.krylov import conjugate_gradients, extreme_ritz_values
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..objective.base import Objective
from ..point import Point
from ..status import Status
from .checks import Check, Finding, StopState
from .signs import Signs

CONFIRM_FACTOR = 100.0
"""What the confirming step divides the decrement by, at least: Newton's method at a minimum converges quadratically."""

CONFIRM_STEP = 1e-8
"""A Newton step of no more than this part of max(1, |u|) confirms a minimum without being taken."""

QUADRATIC = 0.1
"""How far the loss after the confirming step may lie from the quadratic model's, relative to the decrement. Where the
decrement falls a hundredfold the error is below 0.07; on the way to infinity along 1/x or e⁻ˣ, and at a minimum of
fourth order, it is 0.2 to 0.33."""

LOSS_ROUNDING = 64.0
"""Units of eps · |loss| within which a difference of two losses is rounding."""

WALK_NOISE = 1e-13
"""A change of the loss along a walk, relative to max(1, |loss|), that is rounding."""

WALKS = (0.003, 0.03, 0.1, 1.0, 10.0)
"""How far a walk goes along a direction whose largest entry is one; and to the origin, and as far again."""

MIXTURES = 8
"""Random mixtures of the directions that are walked along, and as many of the directions themselves at most."""

PROBES = 8
"""Hessian-vector products, from a random start and from the gradient each, that look at a model without a Hessian."""

CLEARLY_NEGATIVE = 1e3
"""Units of eps · the largest Ritz value below which one from PROBES products proves a negative curvature."""


def matters(objective: Objective, point: Point, name: str) -> bool:
    """Whether moving one parameter changes the loss at all: from here, to its origin, and with all others moved too."""
    generator = torch.Generator().manual_seed(3)
    others = {n: p + 0.5 + torch.rand(p.shape, generator=generator).to(p) for n, p in point.params.items()}
    for base in (point.params, others):
        values = []
        for value in (base[name], base[name] + 0.5, 0.1 + torch.zeros_like(base[name])):
            there = objective.at_full({**base, name: value})
            if there.failure is not None or not isfinite(there.value):
                return True
            values.append(there.value)
        if len(set(values)) > 1:
            return True
    return False


def confirming_step(
    objective: Objective, curvature: Curvature, point: Point, hessian: Operator, step: Tensor, decrement: float
) -> Check:
    """Whether a Newton step from ``point`` does what it would do near a minimum.

    ``hessian`` is that of ``point``, ``curvature`` has it elsewhere; the step (d,) lowers the quadratic model by
    ``decrement``.
    """

    def answer(ok: bool, message: str) -> Check:
        return Check("confirming step", ok, float(step.abs().max()), message)

    coordinates, eps = Coordinates.of(point.params), torch.finfo(step.dtype).eps
    here = coordinates.flatten(point.params)
    relative = float((step.abs() / torch.clamp(here.abs(), min=1.0)).max())
    if relative <= max(CONFIRM_STEP, 8 * eps):
        return answer(True, f"the Newton step is {relative:.3g} of max(1, |u|)")
    if not bool(torch.isfinite(step).all()) or decrement <= 0:
        return answer(False, f"the Newton step is {relative:.3g} of max(1, |u|), and does not lower the model")
    there = objective.at_full(coordinates.unflatten(here + step))
    if there.failure is not None or not isfinite(there.value):
        return answer(False, "the loss is not finite after the confirming step")
    gradient = coordinates.flatten(there.gradient())
    hessian_there = curvature.at(there, coordinates.names)
    if isinstance(hessian_there, MatrixFree):
        return answer(False, "no structure makes the Hessian affordable after the confirming step")
    if not isfinite(hessian_there.largest()) or not bool(torch.isfinite(gradient).all()):
        return answer(False, "the curvature is not finite after the confirming step")
    actual = point.value - there.value
    rounding = LOSS_ROUNDING * eps * max(abs(point.value), abs(there.value))
    if abs(actual - decrement) > QUADRATIC * decrement + rounding:
        return answer(
            False, f"a Newton step lowers the loss by {actual:.3g}, not by the {decrement:.3g} of a quadratic"
        )
    signs = Signs(hessian_there)
    if signs.negative.shape[1]:
        return answer(False, "the curvature is negative after the confirming step")
    second = signs.newton_step(gradient)
    # On the way to infinity the decrement falls because the curvature does: the next step is no shorter. So its length
    # is measured in the curvature of both points.
    lengths = torch.stack([-0.5 * gradient @ second, 0.5 * second @ hessian.matvec(second)]).abs()
    remaining = float(lengths.max())
    ratio = decrement / remaining if remaining > 0 else float("inf")
    message = f"a Newton step divides the decrement by {ratio:.3g} ({CONFIRM_FACTOR:.0f} are needed)"
    return answer(ratio >= CONFIRM_FACTOR, message)


def refuted_by_walks(objective: Objective, point: Point, directions: Tensor, state: StopState) -> Finding | None:
    """What walks along directions (d, k) of no curvature found that a flat minimum does not have; None if nothing.

    No curvature may also be a plateau, an inflection, a maximum of fourth order, or the far end of an escape: there
    the loss falls somewhere, or changes on one side only. Walks are along each direction and random mixtures of all.
    """
    coordinates = Coordinates.of(point.params)
    here = coordinates.flatten(point.params)
    noise = WALK_NOISE * max(1.0, abs(point.value))
    generator = torch.Generator().manual_seed(1)
    signs = 2.0 * torch.randint(0, 2, (directions.shape[1], MIXTURES), generator=generator) - 1
    walked = torch.cat([directions[:, :MIXTURES], directions @ signs.to(directions)], dim=1)

    def change(move: Tensor) -> float:
        there = objective.at_full(coordinates.unflatten(here + move))
        finite = there.failure is None and isfinite(there.value)
        return there.value - point.value if finite else float("inf")

    for direction in (walked / walked.abs().amax(dim=0)).unbind(1):
        to_origin = float((here @ direction).abs() / direction.square().sum())
        for distance in (*WALKS, to_origin, 2 * to_origin):
            changes = [change(sign * distance * direction) for sign in (1.0, -1.0)]
            if min(changes) < -noise:
                found = "the loss has no curvature but falls"
            elif min(changes) <= noise < max(changes):
                found = "the loss has no curvature but changes on one side only (a plateau or an escape to infinity)"
            else:
                continue
            check = Check("flat", False, None, f"{found} along {coordinates.label(directions)}")
            return Finding(check, Status.NO_PROGRESS if state.ends else None)
    return None


def refuted_by_probes(point: Point) -> str | None:
    """What a few Hessian-vector products say against a minimum, for a model without a Hessian; None if nothing.

    Lanczos from a random start finds a clearly negative curvature; conjugate gradients from the gradient give a step
    after which the quadratic model's gradient must be the true one, which an escape to infinity or a plateau refutes.
    """
    coordinates = Coordinates.of(point.params, point.gradient())

    def product(vector: Tensor) -> Tensor:
        return products(point, coordinates, vector[None])[0]

    g = coordinates.flatten(point.gradient())
    eps = torch.finfo(g.dtype).eps
    signs = torch.randint(0, 2, g.shape, generator=torch.Generator().manual_seed(2))
    lowest, largest = extreme_ritz_values(product, (2.0 * signs - 1).to(g), PROBES)
    if lowest < -CLEARLY_NEGATIVE * eps * largest:
        return f"the curvature is negative along a direction ({lowest:.3g}): a saddle or a maximum"
    found = conjugate_gradients(product, -g, largest, PROBES)
    if found.indefinite:
        return "the curvature is negative along the gradient"
    step = found.solution
    here = coordinates.flatten(point.params)
    if float((step.abs() / torch.clamp(here.abs(), min=1.0)).max()) <= max(CONFIRM_STEP, 8 * eps):
        return None
    there = point.at({**point.params, **coordinates.unflatten(here + step)})
    if there.failure is not None or not isfinite(there.value):
        return "the loss is not finite after the confirming step"
    true = coordinates.flatten(there.gradient())
    if float((true + found.residual).norm()) > CONFIRM_FACTOR**-0.5 * float(g.norm()):
        return "a Newton step does not divide the gradient as a minimum's would (a plateau or an escape to infinity)"
    return None
