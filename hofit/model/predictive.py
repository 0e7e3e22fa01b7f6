"""What a model says of its data at one point: the log density of every observation, and data drawn anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Delta, Unit
from torch import Tensor

from ..internals import Subsample
from ..point import Params
from .evaluation import Evaluation, is_derived, is_deterministic, scaled
from .sites import Sites

Dims = tuple[str | None, ...]
"""The plate that each dimension of a tensor stands for, from the left; None where it is no plate's."""

JOINT = "observed"
"""The name of log densities that several observed sites have together, discrete latents being summed out of them."""


@dataclass(frozen=True)
class Scored:
    """What a trace at one point says of the data, by site.

    ``likelihood`` holds the log density of each observation, scaled as the loss scales it: shape of the site's batch,
    what is masked being left out, which leaves one dimension. ``observed`` are the data, ``deterministic`` the values
    of `pyro.deterministic` sites that have one.
    """

    likelihood: Params
    likelihood_dims: dict[str, Dims]
    observed: Params
    observed_dims: dict[str, Dims]
    deterministic: Params
    deterministic_dims: dict[str, Dims]


class Replication(Evaluation):
    """An evaluation in which observed sites are drawn, and discrete latents too."""

    def __init__(self, sites: Sites, drawn: Collection[str]) -> None:
        super().__init__(sites)
        self.enumeration = None
        self.drawn = drawn

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.drawn:
            msg["value"], msg["is_observed"] = None, False
        elif msg["name"] not in self.sites.discrete:
            super()._pyro_sample(msg)


def is_data(message: Any) -> bool:
    """Whether a site is observed, with a distribution that data can be drawn from."""
    if not message["is_observed"] or is_deterministic(message):
        return False
    return not isinstance(message["fn"], (Unit, Delta, Subsample))


def likelihood_of(trace: Evaluation, names: Collection[str]) -> tuple[Params, dict[str, Dims]]:
    """The log densities of some sites by observation, with their dims; discrete latents are summed out.

    Sites that hang together through a discrete latent have one log density, under the name of the observed one where
    there is one alone. Where a continuous latent hangs together with them, too, theirs is left out: it would be no
    likelihood.
    """
    found: Params = {}
    dims: dict[str, Dims] = {}
    summed, hidden = [], False
    for message, log_prob in trace.log_densities():
        name = message["name"]
        if trace.enumeration is not None and trace.enumeration.concerns(message, log_prob):
            summed.append((message, log_prob))
            hidden |= name in trace.sites.latents
        elif name in names:
            entries = scaled(message, log_prob).detach()
            found[name], dims[name] = _unmasked(message, entries)
    if summed and trace.enumeration is not None and not hidden:
        observed = [message["name"] for message, _ in summed if message["name"] in names]
        parts = list(trace.enumeration.sum_out(summed))
        whole = observed[0] if len(observed) == 1 else JOINT
        for place, (stack, part) in enumerate(parts):
            name = whole if len(parts) == 1 else f"{whole}_{place}"
            found[name], dims[name] = part.detach(), plate_dims(stack, part.shape)
    return found, dims


def value_dims(message: Any) -> Dims:
    """The dims of a sample site's value."""
    shape, event = message["value"].shape, message["fn"].event_dim
    return (*plate_dims(message["cond_indep_stack"], shape[: len(shape) - event]), *(None,) * event)


def plate_dims(stack: Iterable[Any], batch: torch.Size) -> Dims:
    """The plate of each dimension of a batch, by the frames of the plates around a site."""
    frames = {frame.dim: frame for frame in stack if frame.dim is not None}
    found = (frames.get(dim) for dim in range(-len(batch), 0))
    return tuple(f.name if f is not None and f.size == size else None for f, size in zip(found, batch, strict=True))


def _unmasked(message: Any, entries: Tensor) -> tuple[Tensor, Dims]:
    mask = message["mask"]
    if isinstance(mask, Tensor) and not bool(mask.all()):
        return entries[mask.expand(entries.shape)], (None,)
    return entries, plate_dims(message["cond_indep_stack"], entries.shape)


def scored(trace: Evaluation, names: Collection[str]) -> Scored:
    """What an evaluation says of the data; ``names`` are the sites whose densities are the likelihood."""
    likelihood, likelihood_dims = likelihood_of(trace, names)
    data = [message for message in trace.samples if message["name"] in names and is_data(message)]
    derived = [
        message
        for message in trace.samples
        if is_derived(message) and message["value"].shape == trace.sites.derived.get(message["name"])
    ]
    return Scored(
        likelihood,
        likelihood_dims,
        {message["name"]: torch.as_tensor(message["value"]).detach() for message in data},
        {message["name"]: value_dims(message) for message in data},
        {message["name"]: message["value"].detach() for message in derived},
        {message["name"]: value_dims(message) for message in derived},
    )
