"""Columns of a sparse symmetric matrix that one product shows together.

Two columns may share a product if no row has entries in both. A column that meets most of the others is a hub and has a
product of its own: its entries are read there, also those that stand in the rows of the others.

Source: Curtis, Powell & Reid (1974); Coleman & Moré (1984), of symmetric matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..linear.sparsity import Sparsity

FEWEST = 8
"""Columns, and parameters, from which on it is asked whether columns can share products."""

HUBS = (0.25, 0.05)
"""Parts of all columns that a hub meets: what takes the fewest products is taken."""


@dataclass(frozen=True, eq=False)
class Colouring:
    """Which columns share a product, and which entries there are. ``pattern`` is of all entries that are not zero.

    Shapes: pattern (m, m); colours (m,); rows, columns, read (S,): entry (rows, columns) is number ``read`` of the
    answers (count, m), flat.
    """

    pattern: Tensor
    colours: Tensor
    count: int
    rows: Tensor
    columns: Tensor
    read: Tensor

    @cached_property
    def sparsity(self) -> Sparsity:
        """The pattern as one to be factorised."""
        return Sparsity.of(len(self.colours), self.rows, self.columns)

    def probes(self, like: Tensor) -> Tensor:
        """Shape (count, m)."""
        return (torch.arange(self.count)[:, None] == self.colours).to(like)

    def matrix(self, answers: Tensor) -> Tensor:
        """The matrix of its products with the probes. Shapes: (count, m) → (m, m)."""
        m = len(self.colours)
        found = answers.reshape(-1)[self.read]
        return answers.new_zeros(m * m).index_put((self.rows * m + self.columns,), found).view(m, m)


def coloured(pattern: Tensor) -> Colouring | None:
    """The colouring of a symmetric pattern (m, m); None where it would take half as many products as columns."""
    m = len(pattern)
    if m < FEWEST:
        return None
    pattern = pattern | pattern.T | torch.eye(m, dtype=torch.bool)
    degrees = pattern.sum(0)
    best: Tensor | None = None
    for part in (1.0, *HUBS):
        hubs = degrees > part * m
        if best is not None and int(hubs.sum()) > int(best.max()):
            continue
        colours = _greedy(pattern, hubs)
        if best is None or int(colours.max()) < int(best.max()):
            best, best_hubs = colours, hubs
    assert best is not None
    count = int(best.max()) + 1
    if 2 * count > m:
        return None
    rows, columns = pattern.nonzero().unbind(1)
    by_row = best_hubs[rows] & ~best_hubs[columns]
    read = torch.where(by_row, best[rows] * m + columns, best[columns] * m + rows)
    return Colouring(pattern, best, count, rows, columns, read)


def _greedy(pattern: Tensor, hubs: Tensor) -> Tensor:
    """A colour for each column, the first that no neighbour has; hubs have their own, and their rows do not count."""
    m, own = len(pattern), int(hubs.sum())
    colours = torch.full((m,), -1)
    colours[hubs] = torch.arange(own)
    seen = pattern[~hubs].float()
    meets = (seen.T @ seen) > 0
    for j in (~hubs).nonzero()[:, 0].tolist():
        taken = torch.zeros(m + own + 1, dtype=torch.bool)
        others = colours[meets[j]]
        taken[others[others >= own]] = True
        colours[j] = own + int((~taken[own:]).to(torch.int8).argmax())
    return colours
