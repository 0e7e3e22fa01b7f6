"""Which site of a model has no derivative of some order: torch lacks it, or gives nan for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..point import Params
from .precision import nodes

RARE = {
    "Logcumsumexp",
    "EuclideanDist",
    "Cdist",
    "Pdist",
    "Cumprod",
    "Prod",
    "Cummax",
    "Cummin",
    "LinalgVectorNorm",
}
"""Functions whose higher derivatives torch lacks in places, as autograd calls them."""


def without_derivative(log_densities: Iterable[tuple[Any, Tensor]], leaves: Params, order: int) -> str | None:
    """The site, and the function where it is known, whose log density has no finite derivative of this order."""
    for message, log_prob in log_densities:
        try:
            found = _derivative(log_prob.sum(), list(leaves.values()), order)
        except (RuntimeError, NotImplementedError) as error:
            return f"{message['name']!r} ({str(error).strip().splitlines()[0]})"
        if not bool(torch.isfinite(found)):
            rare = sorted(RARE.intersection(function_name(node) for node in nodes(log_prob, set())))
            return f"{message['name']!r}" + (f" ({', '.join(rare).lower()})" if rare else "")
    return None


def _derivative(output: Tensor, leaves: list[Tensor], order: int) -> Tensor:
    """The sum of the entries of the derivative in directions of ones."""
    for _ in range(order):
        if not output.requires_grad:
            return torch.zeros(())
        slopes = torch.autograd.grad(output, leaves, create_graph=True, materialize_grads=True)
        output = torch.stack([slope.sum() for slope in slopes]).sum()
    return output.detach()


def function_name(node: Any) -> str:
    """What autograd calls the function whose derivative a node is."""
    return type(node).__name__.partition("Backward")[0]
