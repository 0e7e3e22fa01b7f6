"""The tensors that a program computes its density from, and which point they hold.

They are the model's own, so there is one of each, and whoever evaluates the model writes them: nobody but this does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch

from ..point import Params, Point


class Leaves:
    """A program's leaves, name → unconstrained tensor; those who share a program share them."""

    def __init__(self, tensors: Params) -> None:
        self.tensors = tensors
        self._current: Point | None = None
        self._written: Params = {}
        """What each leaf was written from: values of parameters are never written to themselves."""

    def write(self, params: Params) -> None:
        """Let the leaves of these parameters hold them. What was computed before must be computed again.

        Leaves that hold them already are left alone, with the graphs that read them.
        """
        self._current = None
        with torch.no_grad():
            for name, value in params.items():
                if self._written.get(name) is value:
                    continue
                leaf = self.tensors[name]
                if leaf.dtype != value.dtype or not torch.equal(leaf, value):
                    leaf.copy_(value)
                self._written[name] = value

    def make_current(self, point: Point) -> None:
        """Hear that the loss of a point was computed from what the leaves hold."""
        self._current = point

    def is_current(self, point: Point) -> bool:
        """Whether the leaves still hold what the loss of a point was computed from."""
        return self._current is point

    def invalidate(self) -> None:
        """Hear that someone else has written the leaves, as an optimizer of the user's does."""
        self._current, self._written = None, {}

    @contextmanager
    def holding(self, point: Point, names: Collection[str]) -> Iterator[None]:
        """Inside, the leaves hold a point; those of its parameters that are not in ``names`` are constants."""
        if self._current is not point:
            self.write(point.params)
        with self.constant([name for name in point.params if name not in names]):
            yield

    @contextmanager
    def constant(self, names: Collection[str]) -> Iterator[None]:
        """Inside, nothing is differentiated by the leaves of these parameters."""
        for name in names:
            self.tensors[name].requires_grad_(False)
        try:
            yield
        finally:
            for name in names:
                self.tensors[name].requires_grad_(True)
