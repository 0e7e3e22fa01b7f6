"""The whole Hessian as one matrix: for small models, where it is affordable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..point import Params, Point


def flatten(params: Params, names: Sequence[str]) -> Tensor:
    """Parameters → one vector (d,), in the order of ``names``."""
    return torch.cat([params[name].reshape(-1) for name in names])


def unflatten(vector: Tensor, like: Params, names: Sequence[str]) -> Params:
    """One vector (…, d) → parameters shaped as in ``like``, leading dimensions kept."""
    parts = vector.split([like[name].numel() for name in names], dim=-1)
    return {n: part.reshape((*vector.shape[:-1], *like[n].shape)) for n, part in zip(names, parts, strict=True)}


def dense_hessian(point: Point, names: Sequence[str]) -> Tensor:
    """The Hessian over ``names``, one probe a column. Shape (d, d), symmetric; may hold nan."""
    gradient = flatten(point.gradient(differentiable=True), names)
    probes = torch.eye(gradient.numel(), dtype=gradient.dtype, device=gradient.device)
    columns = flatten_batched(point.hvp(unflatten(probes, point.params, names)), names)
    return (columns + columns.T) / 2


def flatten_batched(params: Params, names: Sequence[str]) -> Tensor:
    """Parameters with one leading dimension → (k, d)."""
    return torch.cat([params[name].reshape(params[name].shape[0], -1) for name in names], dim=1)
