"""Patterns that models write anew at every trace, known again by what they hold, and analysed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..linear.sparsity import Sparsity

KEPT = 64
"""Patterns, and matrices made of constants alone, that are kept with their analysis."""


@dataclass(frozen=True, eq=False)
class Given:
    """The pattern of given places; ``taken`` (S,) says which of the values stands where, the last being zero."""

    sparsity: Sparsity
    taken: Tensor

    def to(self, device: torch.device) -> Given:
        if self.taken.device == device:
            return self
        sparsity = self.sparsity
        return Given(on_device(sparsity, str(device)), self.taken.to(device))


def content_of(tensor: Tensor) -> bytes:
    """What a tensor holds, to be known again by: integers, or numbers in double precision."""
    kind = torch.float64 if tensor.is_floating_point() else torch.int64
    found: bytes = tensor.detach().to("cpu", kind).contiguous().numpy().tobytes()
    return found


def integers_of(content: bytes) -> Tensor:
    with torch.device("cpu"):
        return torch.frombuffer(bytearray(content), dtype=torch.int64) if content else torch.zeros(0, dtype=torch.int64)


@lru_cache(maxsize=KEPT)
def given_places(size: int, rows: bytes, columns: bytes) -> Given:
    first, second = integers_of(rows), integers_of(columns)
    if len(first) and (int(torch.minimum(first, second).min()) < 0 or int(torch.maximum(first, second).max()) >= size):
        raise ValueError(f"a place outside a matrix of {size} rows")
    sparsity = Sparsity.of(size, first, second)
    slots = sparsity.slots(first, second)
    if len(slots.unique()) != len(slots):
        raise ValueError("a place is given twice; (i, j) stands for (j, i) too")
    taken = torch.full((len(sparsity.rows),), len(slots), device="cpu")
    return Given(sparsity, taken.index_copy(0, slots, torch.arange(len(slots), device="cpu")))


@lru_cache(maxsize=KEPT)
def on_device(sparsity: Sparsity, device: str) -> Sparsity:
    return Sparsity(sparsity.size, sparsity.rows.to(device), sparsity.columns.to(device))


@lru_cache(maxsize=KEPT)
def union(one: Sparsity, other: Sparsity) -> Sparsity:
    if one is other:
        return one
    rows, columns = torch.cat([one.rows, other.rows]), torch.cat([one.columns, other.columns])
    found = Sparsity.of(one.size, rows, columns)
    for same in (one, other):
        if len(same.rows) == len(found.rows):  # it holds the other's places
            return same
    return found


@lru_cache(maxsize=KEPT)
def places_in(inner: Sparsity, outer: Sparsity) -> Tensor:
    """Which value of the one stands at each place of the other, one past the last where none does."""
    slots = outer.slots(inner.rows, inner.columns)
    taken = torch.full((len(outer.rows),), len(slots), device=slots.device)
    return taken.index_copy(0, slots, torch.arange(len(slots), device=slots.device))
