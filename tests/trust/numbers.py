"""A model whose loss, gradient, Hessian or third derivative is not finite in some place, and right everywhere else.

Where it fails is a matter of the point, not of time: so a replayed evaluation fails as a traced one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from hofit.optim.torch_part import GRADIENT_OPTIMIZERS

WHAT = ("loss", "one gradient", "all gradients", "a Hessian entry", "a third derivative")
VALUES = (float("nan"), float("inf"), float("-inf"))
PLACES = ("first", "middle", "last")
OPTIMIZERS = (*GRADIENT_OPTIMIZERS, "newton", "trust_region", "newton_cg", "lbfgs", "gauss_newton")
OBJECTIVES: dict[str, Any] = {
    "map": "map",
    "marginal": {"type": "marginal", "integrate": {"u": "laplace"}},
    "elbo": {"type": "elbo", "autoguide": "normal", "fixed_draws": True, "particles": 4},
}
ORDER = {"one gradient": 1, "all gradients": 1, "a Hessian entry": 2, "a third derivative": 3}


@dataclass(frozen=True)
class Case:
    """What is not finite, which value it has, where, under which optimizer and objective."""

    what: str
    value: float
    place: str
    optimizer: str
    objective: str

    @property
    def lasting(self) -> bool:
        """Whether loss or gradient are wrong at the minimum itself. Curvature is then taken by differences, rightly."""
        return self.place != "middle" and self.what in ("loss", "one gradient", "all gradients")

    def config(self) -> dict[str, Any]:
        rate = {} if self.optimizer not in GRADIENT_OPTIMIZERS else {"lr": 0.1}
        if self.optimizer == "adagrad_rmsprop":
            rate = {"eta": 0.1}
        return {
            "optimizers": [{"params": "*", "optimizer": self.optimizer, **rate}],
            "objective": OBJECTIVES[self.objective],
            "stop": {"max_iterations": 60, "gradient": 1e-4},
            "checkpoint": {"every": 5, "keep": 20},
        }

    def model(self) -> Callable[[], None]:
        def model() -> None:
            x = pyro.param("x", lambda: torch.full((3, 1), 2.5))
            z = x
            if self.objective != "map":
                z = x + 0.5 * pyro.sample("u", dist.Normal(torch.zeros(3, 1), 1.0).to_event(2))
            inside = self._inside(x.detach())
            loss = torch.zeros(())
            if self.what == "loss":
                loss = torch.where(inside, torch.tensor(self.value), torch.tensor(0.0))
            else:
                z = self._failing(z * 1.0, inside, ORDER[self.what])
            pyro.factor("f", loss - bowl(z))

        return model

    def _inside(self, x: Tensor) -> Tensor:
        """Whether a point is where the numbers are wrong: everywhere, on the way, around the minimum, or nowhere."""
        way = (x[0, 0] - 1).abs()
        places = {"first": way < torch.inf, "middle": (way > 0.4) & (way < 1.1), "last": way < 0.4}
        return places.get(self.place, way < 0)

    def _failing(self, z: Tensor, inside: Tensor, order: int) -> Tensor:
        """The same tensor, whose derivative of this order is wrong."""
        entry = torch.zeros(3, 1, dtype=torch.bool)
        entry[:1] = True
        if self.what == "all gradients":
            entry[:] = True

        def hook(gradient: Tensor) -> Tensor:
            if order == 1:
                return torch.where(entry & inside, torch.tensor(self.value), gradient)
            passed = gradient * 1.0
            return self._failing(passed, inside, order - 1) if passed.requires_grad else passed

        if z.requires_grad:
            z.register_hook(hook)
        return z


def bowl(z: Tensor) -> Tensor:
    """A loss that is least where every entry is one."""
    return (0.5 * (z - 1) ** 2).sum() + (0.1 * (z - 1) ** 4).sum() + 0.1 * (z.sum() - 3) ** 2


def cases() -> list[Case]:
    return [
        Case(what, value, place, optimizer, objective)
        for objective in OBJECTIVES
        for optimizer in OPTIMIZERS
        for what in WHAT
        for value in VALUES
        for place in PLACES
    ]
