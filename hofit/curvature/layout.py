"""Which parameters are rows that do not interact, and which are the border that all rows may touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear.arrowhead import Arrowhead
from ..linear.block_diagonal import BlockDiagonal, Blocks
from ..linear.coupling import Coupling
from ..linear.dense import Dense
from ..linear.diagonal import Diagonal
from ..linear.operator import Operator
from ..point import Params, Site
from .rows import rows_from_plates

PLATELESS = 32
"""A parameter in no plate with more numbers than this may still be as many independent rows: it is tried."""


@dataclass(frozen=True)
class Candidate:
    """Parameters that may be independent rows. Shape of index: (R, L), flat places in the vector of all names."""

    names: tuple[str, ...]
    index: Tensor


@dataclass(frozen=True)
class Layout:
    """A partition of the flat vector: groups of rows, and the border. Shape of border: (m,)."""

    size: int
    rows: tuple[Candidate, ...]
    border: Tensor
    border_names: tuple[str, ...]


def offsets(params: Params, names: Sequence[str]) -> dict[str, int]:
    """Where each parameter begins in the flat vector."""
    found, start = {}, 0
    for name in names:
        found[name] = start
        start += params[name].numel()
    return found


def candidates(params: Params, names: Sequence[str], sites: Mapping[str, Site], structure: str) -> list[Candidate]:
    """What the plates say are rows, the largest first; each name in exactly one."""
    start = offsets(params, names)
    if structure == "diagonal":
        total = sum(params[name].numel() for name in names)
        return [Candidate(tuple(names), torch.arange(total)[:, None])]
    places = {name: torch.arange(params[name].numel()).view(params[name].shape) + start[name] for name in names}
    found = []
    for group in rows_from_plates(names, sites) if sites else []:
        if group.rows == 1 and group.length > PLATELESS and structure != "rows":
            found += [Candidate((name,), places[name].reshape(-1, 1)) for name in group.names]
        else:
            found.append(Candidate(group.names, group.to_rows(places)))
    if not sites:
        found = [Candidate((name,), places[name].reshape(1, -1)) for name in names]
    return sorted(found, key=lambda one: -len(one.index))


def arranged(size: int, rows: Sequence[Candidate], border: Sequence[Candidate]) -> Layout:
    """The layout with these rows and all the others as border."""
    flat = [one.index.reshape(-1) for one in border]
    outer = torch.cat(flat).sort().values if flat else torch.zeros(0, dtype=torch.long)
    return Layout(size, tuple(rows), outer, tuple(name for one in border for name in one.names))


def structured(layout: Layout, matrices: Sequence[Tensor], couplings: Sequence[Coupling], corner: Tensor) -> Operator:
    """The operator of a layout: dense, diagonal, rows or arrowhead.

    Shapes: for each group of rows a matrix (R, L, L) and a coupling (R, L, m); corner (m, m).
    """
    if not layout.rows:
        return Dense(corner)
    groups = [Blocks(one.index, matrix) for one, matrix in zip(layout.rows, matrices, strict=True)]
    if len(layout.border):
        return Arrowhead(groups, couplings, layout.border, corner)
    if all(one.index.shape[1] == 1 for one in layout.rows):
        entries = corner.new_empty(layout.size)
        for group in groups:
            entries[group.index[:, 0]] = group.matrices[:, 0, 0]
        return Diagonal(entries)
    return BlockDiagonal(groups)
