"""What was looked at in a point, and by which rules."""

from __future__ import annotations

from typing import Protocol


class StopRules(Protocol):
    """The ``stop`` section of a config."""

    max_iterations: int
    max_seconds: float | None
    gradient: float
    decrement: float | None
    relative_loss: float
    patience: int
