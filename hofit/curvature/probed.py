"""The Hessian by products alone: one probe a column of the rows, one a number of the border."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..linear.coupling import Coupling
from ..linear.operator import Operator
from ..linear.sparsity import Sparsity
from ..point import Point
from .colouring import Colouring
from .layout import Layout
from .parts import ArrowheadParts, Parts, SparseParts
from .proof import probe, refutes


def product(point: Point, coordinates: Coordinates, vectors: Tensor) -> Tensor:
    """H v. Shapes: (k, d) → (k, d)."""
    return coordinates.flatten(point.hvp(coordinates.unflatten(vectors)))


def probed_by_colours(layout: Layout, product: Callable[[Tensor], Tensor], like: Tensor, colouring: Colouring) -> Parts:
    """The Hessian of a layout without rows, by the products of a ``colouring`` of its border: see ``probed``."""
    unit = like.new_zeros(colouring.count, layout.size)
    unit[:, layout.border] = colouring.probes(like)
    answers = product(unit)[:, layout.border]
    if layout.sparsity is not None:
        values, none = _on_pattern(layout.sparsity, colouring, answers), answers.new_zeros(0, layout.size)
        return SparseParts(layout.sparsity, values, none, none)
    corner = colouring.matrix(answers)
    return ArrowheadParts(layout, [], [], (corner + corner.T) / 2)


def probed(layout: Layout, product: Callable[[Tensor], Tensor], like: Tensor) -> ArrowheadParts:
    """The parts of the Hessian, if it has this layout: only a further product can tell. ``product``: (k, d) → (k, d).

    Cost: ``layout.products``.
    """
    m, longest = len(layout.border), max((one.length for one in layout.rows), default=0)
    columns = like.new_zeros(m, layout.size)
    if m:
        unit = like.new_zeros(m, layout.size)
        unit[torch.arange(m), layout.border] = 1.0
        columns = product(unit)
    corner = columns[:, layout.border]
    answers = like.new_zeros(longest, layout.size)
    if longest:
        unit = like.new_zeros(longest, layout.size)
        for one in layout.rows:
            for c in range(one.length):
                unit[c, one.index[:, c]] = 1.0
        answers = product(unit)
    blocks = [answers[: one.length, one.index].permute(1, 2, 0) for one in layout.rows]
    matrices = [(block + block.transpose(-1, -2)) / 2 for block in blocks]
    couplings = [Coupling(columns[:, one.index].permute(1, 2, 0)) for one in layout.rows]
    return ArrowheadParts(layout, matrices, couplings, (corner + corner.T) / 2)


def _on_pattern(sparsity: Sparsity, colouring: Colouring, answers: Tensor) -> Tensor:
    """The values of a pattern, of both triangles the mean. Shapes: (count, m) → (S,)."""
    slots = sparsity.slots(colouring.rows, colouring.columns)
    found = answers.reshape(-1)[colouring.read]
    twice = answers.new_zeros(len(sparsity.rows)).index_add(0, slots, found)
    return torch.where(sparsity.rows == sparsity.columns, twice, twice / 2)


def agrees(operator: Operator, point: Point, coordinates: Coordinates) -> bool:
    """Whether a random Hessian-vector product is the operator's own, parameter by parameter."""
    vector = probe(coordinates.flatten(point.params))
    true, claimed = product(point, coordinates, vector[None])[0], operator.matvec(vector)
    if not bool(torch.isfinite(true).all()):
        return True  # Nothing can be said at such a point. A step that comes of it is judged by the loss.
    return not any(refutes(claimed[own], true[own]) for own in coordinates.slices.values())
