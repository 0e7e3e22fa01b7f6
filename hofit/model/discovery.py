"""The first trace of a model: it finds the sites and gives every latent and parameter a leaf at its start."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from math import isfinite
from typing import Any
from zlib import crc32

import pyro
import torch
from pyro.distributions import Delta, Unit
from pyro.distributions.util import scale_and_mask
from pyro.params.param_store import normalize_param_name
from torch import Tensor
from torch.distributions import transform_to
from torch.distributions.transforms import Transform

from ..errors import ModelError, StartError
from ..internals import Subsample, replace_leaf, store_constraints, unconstrained_params
from ..point import Plate, Site
from .enumeration import Discrete, Enumeration, discrete, is_discrete, no_leaf
from .evaluation import is_derived, is_deterministic, site_weight
from .faults import place_of_call
from .initial import initial_unconstrained
from .plates import plates_of
from .randomness import set_seed
from .sites import Latent, Parameter, SiteMessenger, Sites
from .supports import describe, is_flat, latent_transform


class Discovery(SiteMessenger):
    """Runs the model and makes a leaf for every parameter and latent.

    ``known`` are parameters that have theirs already. ``start_values`` are constrained starts that override
    ``strategy`` and ``jitter``; each is drawn from ``seed_of_each`` and its name, if that is given. Discrete latents
    are kept to be summed out where ``integration`` has any pattern.
    """

    def __init__(
        self,
        known: Collection[str],
        integration: Collection[str],
        strategy: str,
        jitter: float,
        start_values: Mapping[str, Any],
        seed_of_each: int | None = None,
    ) -> None:
        super().__init__()
        self.known, self.integration = known, integration
        self.strategy, self.jitter, self.start_values = strategy, jitter, start_values
        self.seed_of_each = seed_of_each
        self.latents: dict[str, Latent] = {}
        self.parameters: dict[str, Parameter] = {}
        self.order: list[str] = []
        self.seen: set[str] = set()
        self.samples: list[Any] = []
        self.discrete: dict[str, Discrete] = {}
        self.not_fitted: dict[str, str] = {}
        self.batch_shapes: dict[str, torch.Size] = {}
        self.nesting = 0

    def found(self) -> Sites:
        """The sites, once the model has run."""
        weights = [site_weight(message) for message in self.samples]
        entries = sum(count for count, _ in weights)
        return Sites(
            latents=self.latents,
            parameters={entry.site.name: entry for entry in self.parameters.values()},
            order=list(dict.fromkeys(self.order)),
            enumeration=Enumeration(self.discrete, self.nesting, self.batch_shapes) if self.discrete else None,
            not_fitted=self.not_fitted,
            derived={m["name"]: m["value"].shape for m in self.samples if is_derived(m)},
            weight=sum(count * scale for count, scale in weights) / entries if entries else None,
        )

    def log_density(self) -> float | None:
        """The log density of what was traced; None where it has none: an evaluation will say why."""
        with suppress(Exception), torch.no_grad():
            parts = ((m["fn"].log_prob(m["value"], *m["args"], **m["kwargs"]), m) for m in self.samples)
            total = sum(float(scale_and_mask(part, m["scale"], m["mask"]).sum()) for part, m in parts)
            return total if isfinite(total) else None
        return None

    def _pyro_sample(self, msg: Any) -> None:
        self.current = name = msg["name"]
        fn = msg["fn"]
        if name in self.seen:
            place = place_of_call()
            raise ModelError(
                f"{f'{place}: ' if place else ''}two sample sites are called {name!r}: every site needs a name of its "
                'own; put what is alike into a pyro.plate and sample it at once, or number the names (f"y_{i}")'
            )
        self.seen.add(name)
        if not isinstance(fn, Subsample):
            self.batch_shapes[name] = fn.batch_shape
            deepest = max((-frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized), default=0)
            observed = msg["value"].dim() - fn.event_dim if isinstance(msg["value"], Tensor) else 0
            self.nesting = max(self.nesting, deepest, len(fn.batch_shape), observed)
        what = what_it_is(msg)
        if what is not None:
            self.not_fitted[name] = what
        if msg["is_observed"] or msg["value"] is not None or isinstance(fn, (Subsample, Delta)):
            return
        if is_discrete(fn):
            if not self.integration:
                raise ModelError(no_leaf(name, type(fn).__name__))
            self.discrete[name] = discrete(msg)
            return  # the first trace goes on with one value of it
        support = fn.support
        transform = latent_transform(support, name)
        start = self._start(msg, transform)
        value = transform(start)
        event_dim = fn.event_dim + transform.domain.event_dim - transform.codomain.event_dim
        plates = plates_of(msg, start.shape, event_dim)
        flat = msg["mask"] is False or is_flat(fn)
        site = Site(name, "latent", start.shape, value.shape, describe(support), plates, flat)
        self.latents[name] = Latent(site, start.requires_grad_(True), support, transform, event_dim)
        self.order.append(name)
        msg["value"] = value.detach()

    def _pyro_post_sample(self, msg: Any) -> None:
        if not isinstance(msg["fn"], Subsample):
            self.samples.append(msg)

    def _start(self, msg: Any, transform: Transform) -> Tensor:
        if self.seed_of_each is not None:
            set_seed(crc32(f"{self.seed_of_each} {msg['name']}".encode()))
        start = initial_unconstrained(msg, transform, self.strategy)
        if self.jitter:
            start = start + self.jitter * torch.randn_like(start)
        if msg["name"] in self.start_values:
            value = self.start_values[msg["name"]]
            start = transform.inv(value).expand(start.shape).clone()
        return start.detach()

    def _pyro_param(self, msg: Any) -> None:
        self.current = msg["name"]

    def _pyro_post_param(self, msg: Any) -> None:
        name = normalize_param_name(msg["name"])
        store = pyro.get_param_store()
        store_name = msg["name"]
        if store_name in self.parameters:
            return
        if store_name not in store:
            raise ModelError(f"parameter {name!r} is not in Pyro's parameter store (module_local_params is on?)")
        leaf = unconstrained_params(store)[store_name]
        support = store_constraints(store)[store_name]
        transform = transform_to(support)
        if name not in self.known and not isinstance(leaf, torch.nn.Parameter):
            # Pyro keeps the caller's own tensor where there is no constraint: a fit must not write to it.
            leaf = leaf.detach().clone().requires_grad_(True)
            replace_leaf(store, store_name, leaf)
        if name in self.start_values:
            with torch.no_grad():
                leaf.copy_(transform.inv(self.start_values[name]))
        msg["value"] = store[store_name]
        event_dim = msg["kwargs"].get("event_dim")
        plates: tuple[Plate, ...] = ()
        if event_dim is not None:
            plates = plates_of(msg, leaf.shape, event_dim + transform.domain.event_dim - transform.codomain.event_dim)
        site = Site(name, "parameter", leaf.shape, msg["value"].shape, describe(support), plates)
        self.parameters[store_name] = Parameter(site, store_name, leaf, support)
        self.order.append(name)


def what_it_is(message: Any) -> str | None:
    """What a sample site is that has nothing to be fitted, as words after its name; None for a latent."""
    fn = message["fn"]
    if isinstance(fn, Subsample):
        return "is a plate"
    if is_deterministic(message):
        return "is a pyro.deterministic site, a function of others"
    if isinstance(fn, Unit):
        return "is a pyro.factor, which has no value"
    if message["is_observed"]:
        return "is observed"
    return "is a Delta, which has one value" if isinstance(fn, Delta) else None


def check_leaves(sites: Sites) -> None:
    """Whether every leaf can be optimised, and from where it starts. Raises: ModelError, StartError."""
    storage: dict[int, str] = {}
    dtype = torch.get_default_dtype()
    for name in sites.order:
        leaf = sites.entry(name).leaf
        if leaf.is_floating_point() and leaf.dtype != dtype:
            raise ModelError(
                f"{name!r} is {leaf.dtype}, but this run is {dtype}: build it under the run's dtype "
                f"(module.to({dtype})) or set `dtype: {str(leaf.dtype).removeprefix('torch.')}`"
            )
        if not leaf.is_floating_point():
            raise ModelError(f"{name!r} is {leaf.dtype}: only floating-point parameters can be optimised")
        if leaf.numel() and leaf.data_ptr() in storage:
            raise ModelError(f"{name!r} and {storage[leaf.data_ptr()]!r} are the same tensor: name it once")
        storage[leaf.data_ptr()] = name
        if not bool(torch.isfinite(leaf).all()):
            raise StartError(f"{name!r} starts at the edge of its support or at a value that is not finite")
