"""Plates: run whole, watched for what they subsample, and the rows of a leaf that a subsample takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..internals import Subsample, swap_subsampling
from ..point import Plate
from .sites import SiteMessenger, Sites


@contextmanager
def full_plates() -> Iterator[set[str]]:
    """Inside, plates ignore `subsample_size` and `subsample`: Pyro has no switch for it. Yields who asks for them."""
    asked: set[str] = set()

    def whole(
        name: str, size: Any = None, subsample_size: Any = None, subsample: Any = None, *more: Any, **named: Any
    ) -> Any:
        if subsample_size is not None or subsample is not None:
            asked.add(name)
        return original(name, size, None, None, *more, **named)

    original = swap_subsampling(whole)
    try:
        yield asked
    finally:
        swap_subsampling(original)


def rows_drawn(message: Any) -> tuple[int, int] | None:
    """(size, subsample size) of a plate's own site if it is subsampled; None of every other site."""
    if isinstance(message["fn"], Subsample) and len(message["value"]) != message["fn"].size:
        return message["fn"].size, len(message["value"])
    return None


class PlateWatcher(SiteMessenger):
    """Runs the model as it is, at the start values, and notes which plates are subsampled."""

    def __init__(self, sites: Sites) -> None:
        super().__init__()
        self.sites = sites
        self.plates: dict[str, Tensor] = {}
        self.subsampled: dict[str, tuple[int, int]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        self.current = msg["name"]
        latent = self.sites.latents.get(msg["name"])
        if latent is not None and msg["value"] is None:
            msg["value"] = select(latent.transform(latent.leaf), msg, msg["fn"].event_dim, self.plates)

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], Subsample):
            self.plates[msg["name"]] = msg["value"]
        if (drawn := rows_drawn(msg)) is not None:
            self.subsampled[msg["name"]] = drawn


def select(tensor: Tensor, msg: Any, event_dim: int, plates: Mapping[str, Tensor]) -> Tensor:
    """The rows of ``tensor`` that the subsampled plates around this site have drawn."""
    for frame in msg["cond_indep_stack"]:
        if frame.dim is not None and frame.name in plates:
            dim = frame.dim - event_dim
            if tensor.dim() >= -dim and tensor.shape[dim] != 1:
                tensor = tensor.index_select(dim, plates[frame.name].to(tensor.device))
    return tensor


def leaf_scale(whole: Tensor, part: Tensor) -> float:
    """How many times the whole leaf is larger than its subsample."""
    return whole.numel() / max(part.numel(), 1)


def plates_of(msg: Any, shape: torch.Size, event_dim: int) -> tuple[Plate, ...]:
    """The plates around a site that have a dimension of its unconstrained tensor, which has ``shape``."""
    found = []
    for frame in msg["cond_indep_stack"]:
        if frame.dim is None:
            continue
        dim = frame.dim - event_dim
        if len(shape) >= -dim and shape[dim] == frame.size:
            found.append(Plate(frame.name, frame.size, dim))
    return tuple(sorted(found, key=lambda plate: plate.dim))
