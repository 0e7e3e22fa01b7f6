"""Total derivatives through leaves that stand in the place of what they were computed from.

A computation that is cut at some tensors, each replaced by a fresh leaf, has partial derivatives where autograd would
give total ones. The tape remembers what each leaf replaces, so that the total ones can be had too, and again of those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...point import Params

Pull = Callable[[Tensor, bool], list[tuple[Tensor, Tensor]]]
"""(adjoint of a leaf, whether to create a graph) → what it adds to the adjoints of earlier leaves, a pair each."""


class Tape:
    """The parameters' own leaves, and those that replace functions of earlier ones, in order of making."""

    def __init__(self, leaves: Params) -> None:
        self._names = list(leaves)
        self._leaves = list(leaves.values())
        self._pulls: list[Pull] = []

    def leaf(self, name: str) -> Tensor:
        """A parameter's own."""
        return self._leaves[self._names.index(name)]

    def replace(self, leaf: Tensor, pull: Pull) -> None:
        """Say what a leaf was made from."""
        self._leaves.append(leaf)
        self._pulls.append(pull)

    def cut(self, expression: Tensor) -> Tensor:
        """A leaf in the place of a function of the leaves that there are."""
        leaf = expression.detach().requires_grad_()
        self.replace(leaf, pull_through(expression, list(self._leaves)))
        return leaf

    def gradient(self, output: Tensor, create_graph: bool = False) -> Params:
        """d output / d parameters, total. Shape of output: (). ``create_graph``: a function of the leaves again."""
        return self.pulled([output], None, create_graph)

    def pulled(self, outputs: Sequence[Tensor], seeds: Sequence[Tensor] | None, create_graph: bool = False) -> Params:
        """The total derivative of Σ outputs · seeds, which have their shapes; without seeds that of one number."""
        parameters = len(self._names)
        adjoints: dict[int, Tensor] = {}

        def add(leaf: Tensor, gradient: Tensor) -> None:
            before = adjoints.get(id(leaf))
            adjoints[id(leaf)] = gradient if before is None else before + gradient

        if outputs and any(output.requires_grad for output in outputs):
            found = grad(outputs, self._leaves, seeds, create_graph=create_graph)
            for leaf, gradient in zip(self._leaves, found, strict=True):
                if gradient is not None:
                    add(leaf, gradient)
        for leaf, pull in zip(reversed(self._leaves[parameters:]), reversed(self._pulls), strict=True):
            adjoint = adjoints.pop(id(leaf), None)
            if adjoint is not None:
                for earlier, gradient in pull(adjoint, create_graph):
                    add(earlier, gradient)
        own = zip(self._names, self._leaves[:parameters], strict=True)
        return {name: adjoints.get(id(leaf), torch.zeros_like(leaf)) for name, leaf in own}


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    seeds: Tensor | Sequence[Tensor] | None = None,
    *,
    create_graph: bool,
    materialize: bool = False,
) -> tuple[Any, ...]:
    """torch.autograd.grad on a graph that is kept; None for an input that is not read, or zeros (``materialize``)."""
    found: tuple[Any, ...] = torch.autograd.grad(
        outputs,
        inputs,
        seeds,
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=materialize,
    )
    return found


def pull_through(expression: Tensor, leaves: Sequence[Tensor]) -> Pull:
    """What an adjoint of a leaf in the place of ``expression`` adds to those of the leaves that it is a function of."""

    def pull(adjoint: Tensor, create_graph: bool) -> list[tuple[Tensor, Tensor]]:
        if not expression.requires_grad:
            return []
        found = grad(expression, leaves, adjoint, create_graph=create_graph)
        return [(leaf, gradient) for leaf, gradient in zip(leaves, found, strict=True) if gradient is not None]

    return pull
