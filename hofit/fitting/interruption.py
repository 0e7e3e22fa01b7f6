"""Whether a fit is to end before it has, or to keep where it stands: what signals ask for, without knowing any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """Ends at once what can be computed again. No `except Exception` of a model's holds it up."""


class Interruption:
    """Which signal came, if any. The loop asks between iterations; verdict and standard errors do not wait for that."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._keep = False

    def __call__(self) -> bool:
        return self.received is not None

    def note(self, number: int) -> None:
        """Raises: Interrupted inside ``at_once``."""
        self.received = number
        if self._at_once:
            self._at_once = False
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, an interruption is raised as soon as it comes, or came: nothing that is kept may be written there."""
        try:
            self._at_once = True
            if self():
                raise Interrupted
            yield
        finally:
            self._at_once = False

    def ask_to_keep(self) -> None:
        self._keep = True

    def is_to_keep(self) -> bool:
        """Whether it was asked since this was last called."""
        asked, self._keep = self._keep, False
        return asked
