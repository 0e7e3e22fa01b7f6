"""Adaptive Gauss-Hermite quadrature over rows of a few numbers, in the place of Laplace's approximation.

Of a row r with mode û and curvature H = L Lᵀ, the integral ∫ exp(−f_r(u)) du is 2^(l/2) |H|^(−1/2) times the sum over
nodes z of w exp(|z|² − f_r(û + √2 L⁻ᵀ z)). One node is Laplace's approximation.

Source: Liu & Pierce (1994), "A note on Gauss-Hermite quadrature", Biometrika 81(3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import log, pi

import numpy as np
import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.expansion import Expansion
from ..curvature.layout import Rows
from ..curvature.parts import ArrowheadParts
from ..errors import ModelError
from ..linear.block_cholesky import BlockCholesky
from ..model.program import Program
from .entries import Entries, NotByRow, sums_by_row
from .leaves import Leaves

WIDEST = 3
"""Numbers of a row at most: the nodes are as many as ``nodes`` to this power."""

DEFAULT_NODES = 9


class Quadrature:
    """Φ for the sites that ``methods`` integrates by aghq, Laplace's for the others.

    Args:
        methods: name → method.
        nodes: a dimension.
        jacobian: the latents whose transforms count.
    Raises: ModelError where the rows of a site are not independent, too wide, or shared with another method.
    """

    def __init__(
        self, program: Program, leaves: Leaves, methods: Mapping[str, str], nodes: int, jacobian: Collection[str]
    ) -> None:
        self._methods, self._nodes = methods, nodes
        self._entries = Entries(program, leaves, jacobian)
        self._coordinates = Coordinates.of(leaves.tensors, [name for name in leaves.tensors if name in methods])
        self._rows: dict[int, Tensor] = {}
        self._terms = 0

    def __call__(self, expansion: Expansion) -> Tensor:
        total = expansion.loss + 0.5 * expansion.log_determinant()
        here = expansion.params
        base = self._entries.again(here)
        if len(base) != self._terms:
            self._rows, self._terms = {}, len(base)
        laplace = expansion.layout.size
        for number, (group, matrix) in enumerate(self._groups(expansion)):
            methods = {self._methods[name] for name in group.names}
            if methods == {"laplace"}:
                continue
            if len(methods) > 1:
                raise ModelError(f"{' and '.join(group.names)} form one row: integrate them by one method")
            count, length = group.index.shape
            if length > WIDEST:
                raise ModelError(
                    f"aghq: a row of {' and '.join(group.names)} has {length} numbers, and {WIDEST} are the most: "
                    "use laplace"
                )
            laplace -= count * length
            total = total - 0.5 * count * length * log(2.0) - self._group(expansion, number, group, matrix, base)
        border = expansion.layout.border_names if expansion.layout.rows or laplace else ()
        apart = [name for name in border if self._methods[name] == "aghq"]
        if apart or (border and laplace < expansion.layout.size):
            names = apart or [name for name, method in self._methods.items() if method == "aghq"]
            raise ModelError(f"aghq: the rows of {' and '.join(names)} are not independent of the others: use laplace")
        return total - 0.5 * laplace * log(2 * pi)

    def _groups(self, expansion: Expansion) -> list[tuple[Rows, Tensor]]:
        """Rows with their matrices (R, L, L); a few numbers that are all there is are one row."""
        layout, parts = expansion.layout, expansion.parts
        if not isinstance(parts, ArrowheadParts):
            return []
        if layout.rows or len(layout.border) > WIDEST:
            return list(zip(layout.rows, parts.matrices, strict=True))
        return [(Rows(layout.border_names, layout.border[None]), parts.corner[None])]

    def _group(self, expansion: Expansion, number: int, group: Rows, matrix: Tensor, base: Tensor) -> Tensor:
        """Σ over the rows of a group of log Σ w exp(|z|² + f(û) − f(u)); shape ()."""
        count, length = group.index.shape
        mode = self._coordinates.flatten(expansion.params)
        factor = BlockCholesky(matrix)
        nodes, weights = _nodes(self._nodes, length, mode)
        away = 2.0**0.5 * factor.back_solve(nodes.T.expand(count, -1, -1)).permute(2, 0, 1)  # (nodes, R, L)
        moved = expansion.tape.cut(mode.expand(len(nodes), -1).index_add(1, group.index.reshape(-1), away.flatten(1)))
        change = self._entries.at_places(moved, self._coordinates, self._terms) - base

        def rows() -> Tensor:
            return self._entries.row_of_each(group, mode.detach(), self._coordinates, self._terms)

        try:
            if number not in self._rows:
                self._rows[number] = rows()
            try:
                each = sums_by_row(change, base, self._rows[number], count)
            except NotByRow:  # what had no slope at the first point may have one here
                known = self._rows[number]
                self._rows[number] = torch.where(known >= 0, known, rows())
                each = sums_by_row(change, base, self._rows[number], count)
        except NotByRow as failure:
            raise ModelError(f"aghq: {failure}: use laplace") from failure
        return torch.logsumexp(each + (weights + nodes.square().sum(1))[:, None], 0).sum()


def _nodes(count: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes of the product rule (k, length), and the logarithms of their weights (k,)."""
    places, weights = np.polynomial.hermite.hermgauss(count)
    grid = torch.cartesian_prod(*[torch.tensor(places)] * length).reshape(-1, length)
    logs = torch.cartesian_prod(*[torch.tensor(np.log(weights))] * length).reshape(-1, length).sum(1)
    return grid.to(like), logs.to(like)
