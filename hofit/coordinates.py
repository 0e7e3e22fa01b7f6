"""Where the numbers of named parameters stand in one flat vector, and how a place there is called.

Everything that makes a vector of parameters, or parameters of a vector, or a name of a direction, asks here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from .point import Params, Site
from .record import labelled

HEAVY = 0.1
"""An entry of a direction of length one beyond which it is named."""

NAMED = 8
"""Entries of directions that are named at most: more would not be read."""


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The order of some parameters in a flat vector (d,), each unrolled row by row."""

    names: tuple[str, ...]
    shapes: Mapping[str, torch.Size]

    @classmethod
    def of(cls, params: Params, names: Iterable[str] | None = None) -> Coordinates:
        """Those of the parameters that ``names`` lists, in its order; all in their own without it."""
        chosen = tuple(params if names is None else names)
        return cls(chosen, {name: params[name].shape for name in chosen})

    @cached_property
    def lengths(self) -> list[int]:
        """How many numbers each parameter has."""
        return [self.shapes[name].numel() for name in self.names]

    @cached_property
    def size(self) -> int:
        """d."""
        return sum(self.lengths)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each parameter stands."""
        stops = accumulate(self.lengths)
        return {name: slice(stop - n, stop) for name, n, stop in zip(self.names, self.lengths, stops, strict=True)}

    def flatten(self, params: Params) -> Tensor:
        """Parameters as one vector, leading dimensions kept. Shapes: (…, *shape) a name → (…, d)."""
        first = params[self.names[0]]
        lead = first.shape[: first.dim() - len(self.shapes[self.names[0]])]
        return torch.cat([params[name].reshape(*lead, n) for name, n in zip(self.names, self.lengths, strict=True)], -1)

    def unflatten(self, vector: Tensor) -> Params:
        """One vector as parameters, the inverse of ``flatten``. Shapes: (…, d) → (…, *shape) a name."""
        lead, parts = vector.shape[:-1], vector.split(self.lengths, dim=-1)
        return {name: part.reshape(lead + self.shapes[name]) for name, part in zip(self.names, parts, strict=True)}

    def numbers(self, name: str) -> Tensor:
        """The places of a parameter's entries, in its shape."""
        own = self.slices[name]
        return torch.arange(own.start, own.stop).reshape(self.shapes[name])

    def entry(self, place: int) -> tuple[str, tuple[int, ...]]:
        """The parameter that a place belongs to, and the index there."""
        name = next(name for name, own in self.slices.items() if own.start <= place < own.stop)
        index = torch.unravel_index(torch.tensor(place - self.slices[name].start), self.shapes[name])
        return name, tuple(int(i) for i in index)

    def call(self, place: int) -> str:
        """A place in the user's terms: ``tau`` or ``b[3,0]``."""
        name, index = self.entry(place)
        return labelled(name, ",".join(map(str, index)))

    def label(self, directions: Tensor) -> str:
        """The entries that carry some directions (d, k), the heaviest first."""
        chosen = self.heavy(directions)
        return ", ".join(map(self.call, chosen[:NAMED])) + (", …" if len(chosen) > NAMED else "")

    def heavy(self, directions: Tensor) -> list[int]:
        """The places of the entries that carry some directions (d, k), by weight, equal ones in their order."""
        weight = (directions / directions.norm(dim=0)).abs().amax(dim=1)
        heavy = (weight > HEAVY).nonzero()[:, 0]
        places: list[int] = heavy[weight[heavy].round(decimals=6).argsort(descending=True, stable=True)].tolist()
        return places

    def row(self, place: int, sites: Mapping[str, Site]) -> tuple[str, str, bool]:
        """The parameter that a place belongs to, and the index of its row there, like ``3`` or ``3, 0``.

        A parameter in no plate has one row: the index is then the entry's, and the last of the three is False.
        """
        name, index = self.entry(place)
        plates = sites[name].plates
        of_row = [index[plate.dim] for plate in plates] if plates else index
        return name, ", ".join(map(str, of_row)), bool(plates)

    def heaviest_row(self, direction: Tensor, sites: Mapping[str, Site]) -> str:
        """The parameter, and its row, that a direction (d,) is largest in: ``'b', row 3``."""
        name, index, in_plates = self.row(int(direction.abs().argmax()), sites)
        if in_plates:
            return f"{name!r}, row {index}"
        return f"{name!r}" + (f" [{index}]" if index else "")
