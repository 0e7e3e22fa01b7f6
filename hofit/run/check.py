"""What can be said of a fit before its first step."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..coordinates import Coordinates
from ..curvature.structure import Curvature
from ..errors import ModelError, StartError, StepImpossible
from ..fitting.interruption import Interruption
from ..fitting.loop import Clock
from ..fitting.state import LoopState
from ..point import Point
from .session import Session

BESIDE = 1e-3
"""Unconstrained units away from the start that a gradient and a Hessian are measured at: there nothing is known yet."""

ITERATIONS = 20
"""Of a fit, about: what a warning reckons with."""

LONG = 120.0
"""Seconds of as many iterations from which on a warning is given."""


@dataclass(frozen=True)
class Cost:
    """What a gradient and a Hessian of the evidence took: seconds, and the bytes by which the peak of memory rose."""

    gradient: float
    hessian: float
    peak: int

    def describe(self) -> str:
        return (
            f"a gradient took {self.gradient:.2g} s, a Hessian {self.hessian:.2g} s; the peak of memory rose by "
            f"{self.peak / 2**20:.3g} MiB"
        )

    def warning(self) -> str | None:
        """Where a fit would take minutes."""
        seconds = ITERATIONS * (self.gradient + self.hessian)
        if seconds < LONG:
            return None
        return (
            f"{ITERATIONS} iterations, as many as a fit may take, would take {seconds / 60:.2g} minutes: integrate "
            "fewer sites together, put those that are alike into a plate, or begin with a first-order optimizer"
        )


def traced_start(session: Session) -> Point:
    """The point that a fit would begin at.

    Raises: StartError where nothing can be fitted from there; ModelError for a random loss.
    """
    loop = session.loop([], Interruption(), Clock(0.0), LoopState())
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


def inner(session: Session, start: Point) -> str | None:
    """The structure of what is integrated, at the start; None where nothing is, or there is no mode."""
    return None if start.failure is not None else session.objective.describe_inner(start)


def measured(session: Session, start: Point) -> Cost | None:
    """What derivatives of the evidence take, of one of each beside the start; None where nothing is integrated."""
    objective = session.objective
    if not objective.integrated:
        return None
    place = Coordinates.of(start.params)
    before, began = _peak(), time.perf_counter()
    point = objective.at(place.unflatten(place.flatten(start.params) + BESIDE))
    if point.failure is not None:
        return None
    point.gradient()
    between = time.perf_counter()
    identity = torch.eye(place.size, dtype=point.loss.dtype, device=point.loss.device)
    point.hvp(place.unflatten(identity))
    return Cost(between - began, time.perf_counter() - between, _peak() - before)


def _peak() -> int:
    """Bytes of resident memory that the process had at most; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
