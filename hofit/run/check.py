"""What can be said of a fit before its first step."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..coordinates import Coordinates
from ..curvature.structure import Curvature
from ..errors import ModelError, StartError, StepImpossible
from ..fitting.interruption import Interruption
from ..fitting.loop import Clock
from ..fitting.state import LoopState
from ..point import Point, Site
from .session import Session
from .starts import Starts

BESIDE = 1e-3
"""Unconstrained units away from the start that a gradient and a Hessian are measured at: there nothing is known yet."""

ITERATIONS = 20
"""Of a fit, about: what a warning reckons with."""

LONG = 120.0
"""Seconds of as many iterations from which on a warning is given."""


@dataclass(frozen=True)
class Overview:
    """What `hofit check` says. ``rows`` are the parameters, ``structures`` who found which of the Hessian."""

    rows: list[dict[str, Any]]
    summed_out: list[str]
    warnings: list[str]
    starts: list[str]
    """Kinds of the starts, in order; empty for one."""
    integrated: str | None
    cost: Cost | None
    structures: list[tuple[str, str]]
    unknowns: int
    loss: float
    objective: str

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "parameters": self.rows,
            "summed_out": self.summed_out,
            "warnings": self.warnings,
            "starts": self.starts,
            "integrated": self.integrated,
            "evidence": None if self.cost is None else self.cost.to_plain(),
            "structures": [{"by": name, "found": found} for name, found in self.structures],
            "unknowns": self.unknowns,
            "loss": self.loss,
            "objective": self.objective,
        }


def overview(session: Session) -> Overview:
    """All of it, before any step.

    Raises: StartError where nothing can be fitted from the start; ModelError.
    """
    kinds = Starts(session).kinds if session.config.starts > 1 else []
    start = traced_start(session)
    integrated, cost = inner(session, start), measured(session, start)
    too_long = None if cost is None else cost.warning()
    unread = session.program.unread
    return Overview(
        [_row(session, name, site) for name, site in session.objective.sites.items()],
        list(session.program.discrete),
        [*session.warnings, *([] if too_long is None else [f"warning: {too_long}"])],
        ["own", *(kinds[k % len(kinds)] for k in range(session.config.starts - 1))] if kinds else [],
        integrated,
        cost,
        list(structures(session, start)),
        sum(v.numel() - int(unread[n].sum() if n in unread else 0) for n, v in session.start.items()),
        start.value,
        session.objective.type,
    )


def _row(session: Session, name: str, site: Site) -> dict[str, Any]:
    return {
        "name": name,
        "role": site.role,
        "shape": list(site.shape),
        "constraint": site.constraint,
        "plates": [{"name": plate.name, "size": plate.size} for plate in site.plates],
        "rows": site.rows,
        "row_length": site.row_length,
        "optimizer": session.owners.get(name),
    }


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

    def to_plain(self) -> dict[str, float]:
        """For JSON."""
        return {"gradient_seconds": self.gradient, "hessian_seconds": self.hessian, "peak_bytes": self.peak}

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
