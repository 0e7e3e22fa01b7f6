"""Which parameters are rows that do not interact, and which are the border that all rows may touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..linear.sparsity import Sparsity
from ..point import Site
from .rows import rows_from_plates

PLATELESS = 32
"""A parameter in no plate with more numbers than this may still be as many independent rows: it is tried."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Parameters that are independent rows, or may be. Shape of index: (R, L), flat places in the vector of all."""

    names: tuple[str, ...]
    index: Tensor

    @property
    def count(self) -> int:
        """R."""
        return self.index.shape[0]

    @property
    def length(self) -> int:
        """L."""
        return self.index.shape[1]


@dataclass(frozen=True, eq=False)
class Layout:
    """A partition of the flat vector (size,): groups of rows, and the border. Shape of border: (m,).

    With a ``sparsity`` nothing is a row: all numbers are taken together, and that is the pattern of their Hessian, but
    for so many ``sums`` that many have part in.
    """

    size: int
    rows: tuple[Rows, ...]
    border: Tensor
    border_names: tuple[str, ...]
    sparsity: Sparsity | None = None
    sums: int = 0

    @property
    def products(self) -> int:
        """Hessian-vector products that show the whole matrix: one a number of the border, one a column of the rows."""
        return len(self.border) + max((one.length for one in self.rows), default=0)

    def without_pattern(self) -> Layout:
        """The same, and where nothing is left out the very same: what was proved of a layout is known by it."""
        return self if self.sparsity is None else replace(self, sparsity=None)

    def describe(self) -> str:
        """The structure, and whose rows and border they are: a phrase."""
        if self.sparsity is not None:
            beside = f", beside {self.sums} sum{'s' if self.sums > 1 else ''} of many" if self.sums else ""
            return f"{self.sparsity.describe()}{beside} ({', '.join(self.border_names)})"
        groups = "; ".join(f"{one.count} rows of {one.length} ({', '.join(one.names)})" for one in self.rows)
        m = len(self.border)
        if not groups:
            return f"dense ({m})"
        if m:
            return f"arrowhead: {groups}; border of {m} ({', '.join(self.border_names)})"
        return f"{'diagonal' if all(one.length == 1 for one in self.rows) else 'rows'}: {groups}"


def candidates(coordinates: Coordinates, sites: Mapping[str, Site], structure: str) -> list[Rows]:
    """What the plates say are rows, the largest first; each name in exactly one."""
    names = coordinates.names
    if structure == "diagonal":
        return [Rows(names, torch.arange(coordinates.size)[:, None])]
    places = {name: coordinates.numbers(name) for name in names}
    if not sites:
        return [Rows((name,), places[name].reshape(1, -1)) for name in names]
    found = []
    for group in rows_from_plates(names, sites):
        if group.rows == 1 and group.length > PLATELESS and structure != "rows":
            found += [Rows((name,), places[name].reshape(-1, 1)) for name in group.names]
        else:
            found.append(Rows(group.names, group.to_rows(places)))
    return sorted(found, key=lambda one: -one.count)


def arranged(given: Sequence[Rows], chosen: Sequence[Rows]) -> Layout:
    """The layout with the chosen ones as rows, and what else is given as border."""
    others = [one for one in given if one not in chosen]
    flat = [one.index.reshape(-1) for one in others]
    border = torch.cat(flat).sort().values if flat else torch.zeros(0, dtype=torch.long)
    size = sum(one.index.numel() for one in given)
    return Layout(size, tuple(chosen), border, tuple(name for one in others for name in one.names))
