"""What can be said of a fit before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ..curvature.structure import Curvature, StructureRefuted
from ..errors import ModelError, StartError
from ..fitting.loop import Clock
from ..fitting.state import LoopState
from ..point import Point
from .session import Session


@dataclass(frozen=True)
class CheckedSite:
    """A parameter or latent: its shape, how it falls into rows, and the optimizer that has it (None: nobody)."""

    name: str
    role: str
    shape: tuple[int, ...]
    constraint: str
    plates: tuple[tuple[str, int], ...]
    """Name and size."""
    rows: int
    row_length: int
    optimizer: str | None


@dataclass(frozen=True)
class Start:
    """Where a fit would begin."""

    unknowns: int
    loss: float
    objective: str


class Check:
    """What is found about a session, in the order in which it costs more."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def sites(self) -> list[CheckedSite]:
        """All that is fitted, integrated or fixed."""
        return [
            CheckedSite(
                name,
                site.role,
                tuple(site.shape),
                site.constraint,
                tuple((plate.name, plate.size) for plate in site.plates),
                site.rows,
                site.row_length,
                self.session.owners.get(name),
            )
            for name, site in self.session.objective.sites.items()
        ]

    def summed_out(self) -> list[str]:
        """The discrete latents."""
        return list(self.session.program.discrete)

    def start(self) -> Start:
        """Trace the start. Raises: StartError where nothing can be fitted from there, ModelError for a random loss."""
        session = self.session
        end = session.loop([], lambda: False, Clock(0.0), LoopState()).begin(session.start, fresh=True)
        if end is not None:
            raise StartError("; ".join(end.remarks))
        unknowns = sum(value.numel() for value in session.start.values())
        return Start(unknowns, self._point.value, session.objective.type)

    def structures(self) -> Iterator[tuple[str, str]]:
        """What each part of the mix finds of the Hessian, then the verdict, by name.

        Raises: ModelError where the Hessian refutes what the config claims of it.
        """
        session = self.session
        for _, part in session.optimizer.parts:
            try:
                found = part.found(self._point)
            except StructureRefuted as refused:
                raise ModelError(str(refused)) from refused
            if found is not None:
                yield part.name, found
        curvature = Curvature()
        operator = curvature.at(session.objective.at_full(session.start), list(session.start))
        yield "verdict", curvature.describe(operator)

    @cached_property
    def _point(self) -> Point:
        return self.session.objective.at(self.session.start)
