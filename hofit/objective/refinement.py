"""From near a mode to it: Newton's steps, each with an expansion of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ..linear.operator import Operator
from ..point import Point
from .at_mode import AtMode
from .mode import NO_MODE, NoMode

REFINEMENTS = 5
"""Newton steps at most, until the mode is within √eps."""

NEAR, SHORTENED = 3.0, 0.3
"""Standard deviations that a mode may be away to be near, and what each step must then divide the one before to."""

P = TypeVar("P", bound=Point)


def refined(
    point: P, expand: Callable[[P, Operator | None], AtMode], alike: Operator | None = None, near: bool = False
) -> AtMode:
    """The expansion at the mode, to which ``point.inner`` is moved.

    ``expand`` gives that at a point, and may move it; ``alike`` is a Hessian nearby, whose factor may serve. ``near``
    says that nothing has searched for the mode: it must not be far, and each step much shorter than the one before.
    Raises: NoMode.
    """
    allowed = NEAR if near else torch.inf
    for refinement in range(REFINEMENTS + 1):
        known = expand(point, alike)
        alike = known.expansion.operator
        size = float((known.step * known.scale).abs().max()) if known.step.numel() else 0.0
        eps = torch.finfo(known.step.dtype).eps
        if size <= 0.25 * eps**0.5:
            return known
        if refinement == REFINEMENTS or not size <= allowed:
            break
        allowed = SHORTENED * size if near else torch.inf
        moved = known.u.unflatten(known.step)
        point.inner = {name: point.inner[name] - moved[name] for name in point.inner}
    if near or not size <= eps**0.25:
        raise NoMode(f"{NO_MODE}: {refinement} Newton steps more still move by {size:.2g} of a standard deviation")
    return known
