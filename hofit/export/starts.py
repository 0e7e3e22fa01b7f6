"""The mode for other programs that start from it: a Pyro parameter store, and starts for Stan and NumPyro as JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from ..errors import HofitError
from ..point import Params

Supports = Mapping[str, tuple[str, constraints.Constraint]]
"""Site → its name in Pyro's store, and its support."""


def store_of(values: Params, supports: Supports) -> dict[str, dict[str, Any]]:
    """The state of a parameter store that gives these constrained values under these names.

    Latents are in it as parameters, under their sites' names. Values are mapped by the transforms that the store takes.
    """
    params, kept = {}, {}
    for name, (store_name, support) in supports.items():
        with torch.no_grad():
            unconstrained: Tensor = transform_to(support).inv(values[name])
        params[store_name] = unconstrained.detach().clone().requires_grad_(True)
        kept[store_name] = _without_graph(support)
    return {"params": params, "constraints": kept}


def starts_of(values: Params) -> str:
    """Constrained values as nested lists by name. Raises: HofitError for a number that is none, naming the site."""
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise HofitError(f"{name} is not finite: no sampler can start there")
    return json.dumps({name: value.tolist() for name, value in values.items()}, indent=1, allow_nan=False) + "\n"


def _without_graph(support: constraints.Constraint) -> constraints.Constraint:
    """A constraint whose bounds are plain numbers or tensors, so that a file can hold them."""
    plain = copy.copy(support)
    for name, bound in vars(support).items():
        if isinstance(bound, Tensor):
            setattr(plain, name, bound.detach().clone())
        elif isinstance(bound, constraints.Constraint):
            setattr(plain, name, _without_graph(bound))
    return plain
