"""The Hessian by products alone: one probe a column of the rows, one a number of the border."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..linear.coupling import DenseCoupling
from ..linear.operator import Operator
from ..point import Point
from .layout import Layout, structured


def product(point: Point, names: Sequence[str], vectors: Tensor) -> Tensor:
    """H v over ``names``. Shapes: (k, d) → (k, d)."""
    coordinates = Coordinates.of(point.params, names)
    return coordinates.flatten(point.hvp(coordinates.unflatten(vectors)))


def probed(point: Point, names: Sequence[str], layout: Layout) -> Operator:
    """The Hessian, if it has this layout: only a probe can tell. Cost: m + the longest row, in products."""
    like = point.params[names[0]]
    border = layout.border
    m = len(border)
    corner = like.new_zeros(m, m)
    columns = like.new_zeros(m, layout.size)
    if m:
        unit = like.new_zeros(m, layout.size)
        unit[torch.arange(m), border] = 1.0
        columns = product(point, names, unit)
        corner = columns[:, border]
        corner = (corner + corner.T) / 2
    if not layout.rows:
        return structured(layout, [], [], corner)
    longest = max(one.index.shape[1] for one in layout.rows)
    unit = like.new_zeros(longest, layout.size)
    for one in layout.rows:
        for c in range(one.index.shape[1]):
            unit[c, one.index[:, c]] = 1.0
    answers = product(point, names, unit)
    matrices = []
    for one in layout.rows:
        block = answers[: one.index.shape[1], one.index].permute(1, 2, 0)
        matrices.append((block + block.transpose(-1, -2)) / 2)
    couplings = [DenseCoupling(columns[:, one.index].permute(1, 2, 0)) for one in layout.rows]
    return structured(layout, matrices, couplings, corner)
