"""What a trace says of spreads: the covariance of what is multivariate normal, the deviation of what is normal.

Each is told once where all rows of a site have the same, as a function of the leaves; a site of one row has none that
anybody reads (a Gaussian process), and neither has one whose rows differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution, MultivariateNormal, Normal
from torch import Tensor
from torch.distributions import Independent

from ..point import Params

WIDEST = 60
"""Numbers of a row at most: nobody reads a table of more correlations, and their matrix would take time."""


@dataclass(frozen=True)
class Spreads:
    """By site: ``covariances`` (d, d) and ``deviations`` (), with graphs; ``observed`` names those that are data."""

    covariances: Params = field(default_factory=dict)
    deviations: Params = field(default_factory=dict)
    observed: frozenset[str] = frozenset()


def spreads_of(samples: Iterable[Any]) -> Spreads:
    """Of the sample sites of a trace."""
    covariances: Params = {}
    deviations: Params = {}
    observed = set()
    for message in samples:
        fn = message["fn"]
        while isinstance(fn, (Independent, ExpandedDistribution, MaskedDistribution)):
            fn = fn.base_dist
        if torch.Size(message["fn"].batch_shape).numel() < 2:
            continue
        if isinstance(fn, MultivariateNormal) and fn.event_shape[-1] <= WIDEST:
            factor = _shared(fn.scale_tril, 2)
            if factor is not None and factor.requires_grad:
                covariances[message["name"]] = factor @ factor.mT
        elif isinstance(fn, Normal) and not message["fn"].event_shape:
            scale = _shared(fn.scale, 0)
            if scale is not None:
                deviations[message["name"]] = scale
        if message["is_observed"]:
            observed.add(message["name"])
    return Spreads(covariances, deviations, frozenset(observed))


def _shared(tensor: Tensor, event_dim: int) -> Tensor | None:
    """What all rows have alike, a row being the last dimensions; None where they differ."""
    for dim in range(tensor.dim() - event_dim):
        if tensor.stride(dim) == 0:  # expanded: its rows are one
            tensor = tensor.narrow(dim, 0, 1)
    rows = tensor.reshape(-1, *tensor.shape[tensor.dim() - event_dim :])
    first = rows[0]
    return first if len(rows) == 1 or bool((rows.detach() == first.detach()).all()) else None
