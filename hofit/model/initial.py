"""Where a latent starts, on the unconstrained scale."""

from __future__ import annotations

import warnings
from typing import Any

import pyro.distributions as dist
import torch
from pyro.infer.autoguide.initialization import init_to_median
from torch import Tensor

STRATEGIES = ("median", "sample", "zero", "uniform")

UNIFORM_RADIUS = 2.0
"""`uniform` draws from (−2, 2) on the unconstrained scale, as Stan and Pyro do."""


def initial_unconstrained(message: Any, transform: dist.transforms.Transform, strategy: str) -> Tensor:
    """The start of one sample site; shape: the transform's inverse shape of the site's.

    A site that cannot be sampled, or whose draw lies on the edge of its support, starts at zero.
    """
    fn = message["fn"]
    zero = torch.zeros(transform.inverse_shape(fn.shape()), device=_device(fn))
    if strategy == "zero":
        return zero
    if strategy == "uniform":
        return torch.rand_like(zero) * (2 * UNIFORM_RADIUS) - UNIFORM_RADIUS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of singular Wishart draws; such a start becomes zero below
            value = init_to_median(message) if strategy == "median" else fn.sample()
        start = transform.inv(value.detach())
    except (NotImplementedError, ValueError, RuntimeError):
        return zero
    start = start.expand(zero.shape).to(zero.dtype)
    return torch.where(torch.isfinite(start), start, zero).clone()


def _device(fn: Any) -> torch.device | None:
    """Where the distribution's own parameters live: a site on another device than the default keeps it."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    for name in getattr(fn, "arg_constraints", {}):
        value = fn.__dict__.get(name)
        if isinstance(value, Tensor):
            return value.device
    return None
