"""Where a fit stands between two iterations: all that a checkpoint must hold to go on bit for bit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..objective.base import Keeper
from ..point import Evaluations, Params


@dataclass
class LoopState:
    """Counters of the loop. ``seconds`` counts from the model's first trace; resume goes on from it.

    ``stalled`` counts the accepted steps in a row that changed the loss by no more than ``stop.relative_loss``, and
    ``rounded`` those that changed it by no more than rounding does;
    ``next_verdict`` is the iteration before which a point that was not confirmed is not checked again, and
    ``verdict_gradient`` the gradient norm below which it is.
    """

    iteration: int = 0
    seconds: float = 0.0
    stalled: int = 0
    rounded: int = 0
    next_verdict: int = 0
    verdict_gradient: float = float("inf")
    escapes: int = 0
    """Times that the verdict has taken the fit to a lower place off its way."""
    unit: float = 1.0
    """What one observation weighs in the loss."""
    start: str = ""
    """What is to be said of the start, where another than the given one was taken."""
    chosen: int | None = None
    """Of several starts the one that the fit goes from; None before they are all tried."""
    evaluations: Evaluations = field(default_factory=Evaluations)
    repeated: int = 0
    """Iterations that came after a checkpoint that the fit went on from: they were done again, and count once."""

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> LoopState:
        return cls(**{**plain, "evaluations": Evaluations(**plain["evaluations"])})


@dataclass
class Snapshot:
    """What a checkpoint is written from. Tensors are references; the writer copies them."""

    params: Params
    optimizer: dict[str, Any]
    loop: LoopState
    random_now: dict[str, Any]
    random_before_trace: dict[str, Any] | None = None
    inner: Params = field(default_factory=dict)
    """See ``Point.inner``."""
    keeper: Keeper | None = None
    """Writes what pieces of the data have found inside the point."""
    pieces: list[dict[str, Any]] = field(default_factory=list)
    """What it has said of the files, once they were read again."""
