"""Which site of a model has no derivative of some order: torch lacks it, or gives nan for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..point import Params

RARE = {
    "Logcumsumexp",
    "EuclideanDist",
    "CdistForward",
    "PdistForward",
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
            rare = sorted(RARE.intersection(_functions(log_prob)))
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


def _functions(output: Tensor) -> Iterator[str]:
    """Names of the functions that a tensor was computed by."""
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield type(node).__name__.partition("Backward")[0]
            waiting.extend(parent for parent, _ in node.next_functions)
