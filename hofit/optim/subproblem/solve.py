"""The subproblem on whatever is known of the Hessian: exactly where it can be factorised, else by its products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, isfinite

from torch import Tensor

from ...linear.matrix_free import MatrixFree
from ...linear.operator import Operator
from .exact import trust_region_step
from .step import Step
from .truncated import PRODUCTS, truncated_step

INITIAL = 1.0
"""The first radius where the Hessian is not positive definite: a step that changes the loss by about ½."""

REACH = 0.4
"""Power of the way downhill that the first radius is. Of 0 to 1 in tenths, those from 0.5 on miss a classic problem or
one of NIST's, or lead the item response model to another mode; 0 takes it six iterations more."""


def solve(
    operator: Operator | MatrixFree,
    gradient: Tensor,
    radius: float | None,
    shift: float,
    tolerance: Callable[[float], float],
    unit: float = 1.0,
) -> tuple[Step, float]:
    """The step inside a radius, and that radius: without one, as long as the loss's own curvature says.

    Args:
        shift: a guess of λ, as from the step before.
        tolerance: see ``truncated_step``.
        unit: the loss's.
    Shapes: gradient (d,), finite.
    """
    if isinstance(operator, MatrixFree):
        products = min(PRODUCTS, 2 * operator.size)
        found = truncated_step(
            operator.matvec, gradient, inf if radius is None else radius, lambda v: v, tolerance, products
        )
        found = replace(found, length=float(found.step.norm()))
        return found, found.length if radius is None else radius
    if radius is None:
        return first_step(operator, gradient, unit)
    return trust_region_step(operator, gradient, radius, shift), radius


def first_step(operator: Operator, gradient: Tensor, unit: float = 1.0) -> tuple[Step, float]:
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
            return Step(step, fall, False, length), length
    curvature = float(gradient @ operator.matvec(gradient))
    downhill = float(gradient.norm()) ** 3 / curvature if curvature > 0 else 0.0
    root = unit**0.5
    radius = root * (max(INITIAL, (downhill / root) ** REACH) if isfinite(downhill) else INITIAL)
    return trust_region_step(operator, gradient, radius), radius
