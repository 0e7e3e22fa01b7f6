"""The optimizers of torch and Pyro that step on one gradient: the libraries' own, wrapped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from pyro.optim.adagrad_rmsprop import AdagradRMSProp
from pyro.optim.clipped_adam import ClippedAdam
from pyro.optim.dct_adam import DCTAdam
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..point import Params, Point
from .base import Optimizer, Proposal, State
from .options import NOT_OFFERED, signature_options
from .schedules import SCHEDULES, own_options
from .spec import OptimizerSpec

GRADIENT_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adafactor": torch.optim.Adafactor,
    "adagrad": torch.optim.Adagrad,
    "adagrad_rmsprop": AdagradRMSProp,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "asgd": torch.optim.ASGD,
    "clipped_adam": ClippedAdam,
    "dct_adam": DCTAdam,
    "muon": torch.optim.Muon,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "rprop": torch.optim.Rprop,
    "sgd": torch.optim.SGD,
}


class TorchOptimizer(Optimizer):
    """A ``torch.optim.Optimizer`` over all parameters of the part, stepping on leaf copies of its own.

    Equal to using the class directly, step for step, to the last bit; one iteration is one ``step()`` of the optimizer
    and then one of the schedule, which is handed the loss where it asks for one (``ReduceLROnPlateau``).

    Args:
        constructor: class to make with ``constructor(leaves, **options)``.
        schedule: class and options of a ``torch.optim.lr_scheduler``, or None.
    """

    rewinds = True

    def __init__(
        self,
        constructor: type[torch.optim.Optimizer],
        options: Mapping[str, Any],
        schedule: tuple[type[LRScheduler], Mapping[str, Any]] | None = None,
        name: str | None = None,
    ) -> None:
        self.constructor, self.options, self.schedule = constructor, dict(options), schedule
        self.name = name or constructor.__name__.lower()
        # Pyro's own optimizers clip the gradient in place.
        self._writes_gradient = constructor.__module__.startswith("pyro.")
        self._leaves: Params = {}
        self._last: Params = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._scheduler: LRScheduler | None = None
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


@cache  # the signatures of sixteen classes take as long to read as a small model does to be traced twice
def gradient_specs() -> Mapping[str, OptimizerSpec]:
    specs = {name: _gradient_spec(name, kind) for name, kind in GRADIENT_OPTIMIZERS.items()}
    muon = specs["muon"]
    specs["muon"] = replace(muon, summary=f"{muon.summary} (matrices only)", fits_shape=_only_matrices)
    return specs


def _gradient_spec(name: str, kind: type[torch.optim.Optimizer]) -> OptimizerSpec:
    def build(given: Mapping[str, Any], schedule: Mapping[str, Any] | None) -> Optimizer:
        own: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        steered = None if schedule is None else (SCHEDULES[schedule["name"]], own_options(schedule))
        # One step on a small matrix: torch checks some options only then.
        probe = torch.nn.Parameter(torch.ones(2, 2))
        inner = kind([probe], **own)
        if steered is not None:
            steered[0](inner, **steered[1])
        probe.grad = torch.ones(2, 2)
        inner.step()
        return TorchOptimizer(kind, own, steered, name)

    options = tuple(option for option in signature_options(kind) if option.name not in NOT_OFFERED)
    summary, scheduled = f"{kind.__module__.split('.')[0]}.optim.{kind.__name__}", "lr" in {o.name for o in options}
    return OptimizerSpec(name, summary, options, build, scheduled)


def _only_matrices(shape: torch.Size) -> str | None:
    return None if len(shape) == 2 else f"muon steps on matrices only, and this has shape {tuple(shape)}"
