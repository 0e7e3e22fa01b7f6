"""Optimizers written for Pyro's own interfaces: a user's `MultiOptimizer`, a `PyroOptim` in a mix."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.multi import MultiOptimizer
from torch import Tensor

from ..errors import OptionError, StepImpossible
from ..internals import optimizer_state, restore_optimizer
from ..point import Params, Point, TracedPoint
from .base import Optimizer, Proposal, State

Part = MultiOptimizer | PyroOptim
"""What can be a part of a mix."""


class ForeignFault(StepImpossible):
    """An optimizer of the user's raised, or did not return what it must."""


class ForeignOptimizer(Optimizer):
    """Any subclass of Pyro's ``MultiOptimizer`` as a part of a mix.

    It is handed the loss, differentiable twice, and its parameters; ``get_step`` is asked where the class has one,
    else ``step`` writes in place. Its state is its ``state_dict`` where it has one, else its attributes, which must
    then be tensors, numbers, strings and containers of these.
    """

    second_order = True
    reads_model = True

    def __init__(self, wrapped: MultiOptimizer, name: str) -> None:
        self.wrapped, self.name = wrapped, name
        self._returns_step = type(wrapped).get_step is not MultiOptimizer.get_step
        self._leaves: list[Tensor] = []
        self._waiting: dict[str, list[State]] = {}

    def propose(self, point: Point) -> Proposal:
        assert isinstance(point, TracedPoint)  # a part that reads the model is refused where the loss is an integral
        loss = point.loss_graph()
        leaves = {name: point.leaves[name] for name in self.own(point).names}
        self._leaves = list(leaves.values())
        self._restore_pyro_optims()
        if self._returns_step:
            return Proposal(self._checked(self._called(self.wrapped.get_step, loss, leaves), leaves))
        self._called(self.wrapped.step, loss, leaves)
        moved = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        for leaf in leaves.values():
            leaf.grad = None
        if point.source is not None:
            point.source.invalidate()
        return Proposal(moved)

    def _called(self, method: Callable[..., Any], loss: Tensor, leaves: Params) -> Any:
        try:
            return method(loss, leaves)
        except Exception as error:
            raise ForeignFault(f"the optimizer {self.name!r} raised", error) from error

    def _checked(self, updated: Params, leaves: Params) -> Params:
        for name, leaf in leaves.items():
            if name not in updated:
                raise ForeignFault(f"the optimizer {self.name!r} returned no new value for {name!r}")
            if updated[name].shape != leaf.shape:
                shapes = f"{tuple(updated[name].shape)} instead of {tuple(leaf.shape)}"
                raise ForeignFault(f"the optimizer {self.name!r} returned {name!r} with shape {shapes}")
        return {name: updated[name].detach() for name in leaves}

    def prepare(self, loss: Tensor, params: Params) -> Callable[[], None]:
        if self._returns_step:
            return super().prepare(loss, params)
        return lambda: self.wrapped.step(loss, params)

    def state_dict(self) -> State:
        if hasattr(self.wrapped, "state_dict"):
            return {"own": self.wrapped.state_dict()}
        kept = {key: value for key, value in vars(self.wrapped).items() if not inspect.isroutine(value)}
        optims = {key: kept.pop(key) for key in list(kept) if isinstance(kept[key], PyroOptim)}
        states = {
            key: [optimizer_state(optim.optim_objs[leaf]) for leaf in self._leaves if leaf in optim.optim_objs]
            for key, optim in optims.items()
        }
        return {"attributes": kept, "pyro_optims": {**states, **self._waiting}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if "own" in state:
            self.wrapped.load_state_dict(state["own"])
        else:
            vars(self.wrapped).update(state.get("attributes", {}))
            self._waiting = dict(state.get("pyro_optims", {}))

    def _restore_pyro_optims(self) -> None:
        """A `PyroOptim` keeps a torch optimizer a tensor: theirs can be made again once the tensors are known."""
        for key, states in self._waiting.items():
            optim = getattr(self.wrapped, key)
            for leaf, state in zip(self._leaves, states, strict=False):
                restore_optimizer(optim, leaf, state)
        self._waiting = {}


class PyroOptimPart(Optimizer):
    """A ``PyroOptim`` in a mix that is stepped from plain Pyro code: its gradient is read before any part writes."""

    name = "pyro_optim"

    def __init__(self, optim: PyroOptim) -> None:
        self.optim = optim

    def propose(self, point: Point) -> Proposal:
        raise OptionError("a PyroOptim keeps its state by Pyro's parameter store: name it in the config instead")

    def get_step(self, loss: Tensor, params: Params) -> Params:
        raise NotImplementedError("a PyroOptim steps in place: use step, not get_step")

    def prepare(self, loss: Tensor, params: Params) -> Callable[[], None]:
        tensors = list(params.values())
        gradients = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True, materialize_grads=True)

        def write() -> None:
            for tensor, gradient in zip(tensors, gradients, strict=True):
                tensor.grad = gradient.clone()
            self.optim(tensors)

        return write


def as_optimizer(part: object, name: str | None = None) -> Optimizer:
    """``part`` as one of ours: a `PyroOptim` or any `MultiOptimizer` is wrapped.

    Raises: TypeError for anything else.
    """
    if isinstance(part, Optimizer):
        return part
    if isinstance(part, PyroOptim):
        return PyroOptimPart(part)
    if isinstance(part, MultiOptimizer):
        return ForeignOptimizer(part, name or type(part).__name__)
    raise TypeError(f"expected a MultiOptimizer or a PyroOptim, not {type(part).__name__}")
