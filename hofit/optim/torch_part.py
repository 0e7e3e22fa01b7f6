"""The optimizers of torch and Pyro that step on one gradient: the libraries' own, wrapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..point import Params, Point
from .base import Optimizer, Proposal, State


class TorchOptimizer(Optimizer):
    """A ``torch.optim.Optimizer`` over all parameters of the part, stepping on leaf copies of its own.

    Equal to using the class directly, step for step, to the last bit; one iteration is one ``step()`` of the optimizer
    and then one of the schedule, which is handed the loss where it asks for one (``ReduceLROnPlateau``).

    Args:
        constructor: class to make with ``constructor(leaves, **options)``.
        schedule: class and options of a ``torch.optim.lr_scheduler``, or None.
    """

    def __init__(
        self,
        constructor: type[torch.optim.Optimizer],
        options: Mapping[str, Any],
        schedule: tuple[type[Any], Mapping[str, Any]] | None = None,
        name: str | None = None,
    ) -> None:
        self.constructor, self.options, self.schedule = constructor, dict(options), schedule
        self.name = name or constructor.__name__.lower()
        # Pyro's own optimizers clip the gradient in place.
        self._writes_gradient = constructor.__module__.startswith("pyro.")
        self._leaves: Params = {}
        self._last: Params = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._scheduler: Any = None
        self._pending: Mapping[str, Any] | None = None

    def propose(self, point: Point) -> Proposal:
        if self._optimizer is None:
            self._build({name: point.params[name] for name in self.own(point).names})
        assert self._optimizer is not None
        gradient = point.gradient()
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                if point.params[name] is not self._last.get(name):
                    leaf.copy_(point.params[name])
                leaf.grad = gradient[name].clone() if self._writes_gradient else gradient[name]
        self._optimizer.step()
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(point.value)
        elif self._scheduler is not None:
            self._scheduler.step()
        self._last = {name: leaf.detach().clone() for name, leaf in self._leaves.items()}
        return Proposal(dict(self._last))

    def state_dict(self) -> State:
        if self._optimizer is None:
            return {} if self._pending is None else dict(self._pending)
        state: State = {"optimizer": self._optimizer.state_dict()}
        if self._scheduler is not None:
            state["schedule"] = self._scheduler.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._optimizer, self._scheduler, self._last = None, None, {}
        self._pending = state or None

    def _build(self, params: Params) -> None:
        self._leaves = {name: p.detach().clone().requires_grad_(True) for name, p in params.items()}
        self._optimizer = self.constructor(list(self._leaves.values()), **self.options)
        if self.schedule is not None:
            kind, options = self.schedule
            self._scheduler = kind(self._optimizer, **options)
        if self._pending is not None:
            if self._scheduler is not None:
                self._scheduler.load_state_dict(dict(self._pending["schedule"]))
                if hasattr(self._scheduler, "milestones"):
                    self._scheduler.milestones = Counter(self._scheduler.milestones)
            self._optimizer.load_state_dict(self._pending["optimizer"])
            self._pending = None
