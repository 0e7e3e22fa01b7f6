"""Independent rows: how parameters fall into rows, their Hessian blocks, and the proof that they do not interact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from ..point import Params, Site
from .proof import differ, probe

Product = Callable[[Params], Params]
"""Hessian-vector products: (probes, *shape) a name → the same."""


@dataclass(frozen=True)
class RowGroup:
    """Parameters that are joined row by row: one matrix (rows, length).

    ``axes[name]`` are the dimensions of the parameter that number the rows, in the order that all members share.
    """

    names: tuple[str, ...]
    shapes: Mapping[str, torch.Size]
    axes: Mapping[str, tuple[int, ...]]

    @property
    def rows(self) -> int:
        name = self.names[0]
        return prod(self.shapes[name][axis] for axis in self.axes[name])

    @property
    def length(self) -> int:
        return sum(self.row_length(name) for name in self.names)

    def row_length(self, name: str) -> int:
        return self.shapes[name].numel() // max(self.rows, 1)

    def columns(self, name: str) -> slice:
        """Where the member's numbers stand in a row."""
        start = sum(self.row_length(other) for other in self.names[: self.names.index(name)])
        return slice(start, start + self.row_length(name))

    def to_rows(self, params: Params, batch: int = 0) -> Tensor:
        """Parameters → (…, rows, length); ``batch`` leading dimensions are left alone."""
        parts = []
        for name in self.names:
            tensor = params[name]
            front = [axis + batch for axis in self.axes[name]]
            rest = [d for d in range(batch, tensor.dim()) if d not in front]
            tensor = tensor.permute((*range(batch), *front, *rest))
            parts.append(tensor.reshape(*tensor.shape[:batch], self.rows, self.row_length(name)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def from_rows(self, rows: Tensor, batch: int = 0) -> Params:
        """(…, rows, length) → parameters: the inverse of ``to_rows``."""
        params: Params = {}
        for name in self.names:
            shape, front = self.shapes[name], list(self.axes[name])
            rest = [d for d in range(len(shape)) if d not in front]
            permuted = [shape[d] for d in front + rest]
            tensor = rows[..., self.columns(name)].reshape((*rows.shape[:batch], *permuted))
            inverse = [(front + rest).index(d) + batch for d in range(len(shape))]
            params[name] = tensor.permute((*range(batch), *inverse))
        return params

    def as_one_row(self) -> RowGroup:
        """The same parameters as a single row: what is true whatever interacts."""
        return RowGroup(self.names, self.shapes, dict.fromkeys(self.names, ()))


def rows_from_plates(names: Sequence[str], sites: Mapping[str, Site]) -> list[RowGroup]:
    """Parameters in the same plates joined row by row; each of the others a row of its own."""
    groups: list[RowGroup] = []
    in_plates: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name in names:
        plates = tuple(sorted((plate.name, plate.size) for plate in sites[name].plates))
        if plates:
            in_plates.setdefault(plates, []).append(name)
        else:
            groups.append(RowGroup((name,), {name: sites[name].shape}, {name: ()}))
    for plates, members in in_plates.items():
        axes = {}
        for name in members:
            site = sites[name]
            dims = {plate.name: plate.dim % len(site.shape) for plate in site.plates}
            axes[name] = tuple(dims[plate] for plate, _ in plates)
        groups.append(RowGroup(tuple(members), {name: sites[name].shape for name in members}, axes))
    return groups


def rows_by_last_dimension(params: Params) -> list[RowGroup]:
    """Without a trace, a parameter's rows are its last dimension, as in Pyro; a scalar is one row of one."""
    return [RowGroup((name,), {name: p.shape}, {name: tuple(range(max(p.dim() - 1, 0)))}) for name, p in params.items()]


def hessian_blocks(group: RowGroup, product: Product, like: Tensor) -> Tensor:
    """The Hessian block of every row by one probe a column. Shape (rows, length, length), symmetric.

    Exact when rows do not interact: probe k sets entry k of every row at once.
    """
    unit = torch.eye(group.length, dtype=like.dtype, device=like.device)
    probes = unit[:, None, :].expand(group.length, group.rows, group.length)
    columns = group.to_rows(product(group.from_rows(probes, batch=1)), batch=1)  # (length, rows, length)
    blocks = columns.permute(1, 2, 0)
    return (blocks + blocks.transpose(-1, -2)) / 2


def rows_interact(group: RowGroup, blocks: Tensor, product: Product) -> bool:
    """Whether a product with a probe refutes that the Hessian is these blocks."""
    vector = probe(blocks[..., 0])
    true = group.to_rows(product(group.from_rows(vector[None], batch=1)), batch=1)[0]
    return differ((blocks @ vector[..., None])[..., 0], true)
