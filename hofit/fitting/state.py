"""Where a fit stands between two iterations: all that a checkpoint must hold to go on bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any

from ..errors import CheckpointError, HofitError
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
        """Raises: TypeError, ValueError where a value is none that its counter can have."""
        state = cls(**{**plain, "evaluations": Evaluations(**plain["evaluations"])})
        _check_like(cls(), state)
        _check_like(Evaluations(), state.evaluations)
        if state.iteration < 0 or not state.unit > 0:
            raise ValueError(f"iteration {state.iteration}, unit {state.unit}")
        return state


def _check_like(known: object, found: object) -> None:
    for name, value in vars(known).items():
        given = getattr(found, name)
        kinds = {float: (float, int), type(None): (type(None), int)}.get(type(value), (type(value),))
        if type(given) not in kinds or (isinstance(given, float) and isnan(given)):
            raise TypeError(f"{name} is {given!r:.40}")


NO_STATE = (KeyError, TypeError, AttributeError, ValueError, IndexError, AssertionError, RuntimeError)


@contextmanager
def taken_up() -> Iterator[None]:
    """Inside, a state that was read is used for the first time, and what is wrong with it shows.

    Who can write a checkpoint can write any. What an optimizer's state must be is known to the optimizer alone, torch's
    and a model's own among them, and some of it is not looked at before its first step.
    Raises: CheckpointError.
    """
    try:
        yield
    except NO_STATE as error:
        if isinstance(error, HofitError):
            raise
        raise CheckpointError(
            f"the checkpoint holds a state that the fit cannot go on from ({type(error).__name__}: {error!s:.200}); "
            "if hofit wrote it as it is, and the optimizers are hofit's or torch's, that is a bug: report it"
        ) from error


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
