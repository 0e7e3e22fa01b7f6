"""What can be said of a fit before its first step."""

from __future__ import annotations

from collections.abc import Iterator

from ..curvature.structure import Curvature
from ..errors import ModelError, StartError, StepImpossible
from ..fitting.loop import Clock
from ..fitting.state import LoopState
from ..point import Point
from .session import Session


def traced_start(session: Session) -> Point:
    """The point that a fit would begin at.

    Raises: StartError where nothing can be fitted from there; ModelError for a random loss.
    """
    loop = session.loop([], lambda: False, Clock(0.0), LoopState())
    end = loop.begin(session.start, session.given)
    if end is not None:
        raise StartError("; ".join(end.remarks))
    return session.objective.at(loop.point.params)


def structures(session: Session, start: Point) -> Iterator[tuple[str, str]]:
    """What each part of the mix finds of the Hessian there, then the verdict, by name.

    Raises: ModelError where the Hessian refutes what the config claims of it.
    """
    for _, part in session.optimizer.parts:
        try:
            found = part.describe(start)
        except StepImpossible as refused:
            raise ModelError(str(refused)) from refused
        if found is not None:
            yield part.name, found
    curvature = Curvature()
    operator = curvature.at(session.objective.at_full(start.params), list(start.params))
    yield "verdict", curvature.describe(operator)
