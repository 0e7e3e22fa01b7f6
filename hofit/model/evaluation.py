"""The log density of a model: a trace with every latent and parameter at its leaf, and what its sites add up to."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from math import inf
from typing import Any
from weakref import ref

import pyro
import torch
from pyro.distributions import Delta, Unit
from pyro.distributions.util import scale_and_mask
from pyro.params.param_store import normalize_param_name
from torch import Tensor
from torch.distributions import kl_divergence
from torch.distributions.transforms import Transform, identity_transform

from ..errors import ModelError
from ..internals import DETERMINISTIC, Subsample, unconstrained_params
from .faults import missing_values, refused
from .plates import leaf_scale, select
from .randomness import random_state_kept
from .sites import SiteMessenger, Sites, TraceChanged, what_changed
from .supports import describe, latent_transform, same_support


class Evaluation(SiteMessenger):
    """Runs the model with every latent at its leaf, and gathers the sample sites."""

    def __init__(self, sites: Sites, jacobian: Collection[str] = ()) -> None:
        super().__init__()
        self.sites = sites
        self.jacobian = jacobian
        self.enumeration = sites.enumeration
        self.samples: list[Any] = []
        self.plates: dict[str, Tensor] = {}
        self.parameters_seen: set[str] = set()
        self.latents_seen = 0
        self.log_jacobian: list[Tensor] = []
        self.jacobian_of: dict[str, Tensor] = {}
        self.transforms: dict[str, Transform] = {}

    def around(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.enumeration is None else self.enumeration.messenger()

    @property
    def last_discrete(self) -> str:
        """The enumerated site that was traced last; the model's first before any was."""
        assert self.enumeration is not None
        names = [message["name"] for message in self.samples if message["name"] in self.enumeration.sites]
        return str(names[-1] if names else next(iter(self.enumeration.sites)))

    def _process_message(self, msg: Any) -> None:  # Pyro's own looks the method up by name, at every site
        if msg["type"] == "sample":
            self._pyro_sample(msg)
        elif msg["type"] == "param":
            self._pyro_param(msg)

    def _postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            self._pyro_post_sample(msg)
        elif msg["type"] == "param":
            self._pyro_post_param(msg)

    def _pyro_sample(self, msg: Any) -> None:
        self.current = msg["name"]
        if self.enumeration is not None:
            self.enumeration.mark(msg)
        if msg["is_observed"] or msg["value"] is not None:
            return
        latent = self.sites.latents.get(msg["name"])
        if latent is None:
            if self.enumeration is not None and msg["name"] in self.enumeration.sites:
                return
            if isinstance(msg["fn"], (Subsample, Delta)):
                return
            raise TraceChanged(
                f"the latent {msg['name']!r} appeared: it was not there at the first trace. "
                "Every iteration must have the same parameters and latents"
            )
        self.latents_seen += 1
        fn = msg["fn"]
        if latent.held is not None:
            value = select(latent.held, msg, fn.event_dim, self.plates) if self.plates else latent.held
        else:
            leaf = select(latent.leaf, msg, latent.event_dim, self.plates) if self.plates else latent.leaf
            support = fn.support
            transform = (
                latent.transform if same_support(support, latent.support) else latent_transform(support, msg["name"])
            )
            # A view, never the leaf itself: a transform of the model's that caches by argument would keep the graph.
            value = leaf.view(leaf.shape) if transform is identity_transform else transform(leaf)
            self.transforms[msg["name"]] = transform
            if msg["name"] in self.jacobian and msg["name"] not in self.sites.elsewhere:
                if not transform.bijective:
                    raise ModelError(
                        f"no density on the unconstrained scale: the transform of {msg['name']!r} "
                        f"({describe(support)}) is no bijection"
                    )
                log_det = transform.log_abs_det_jacobian(leaf, value)
                self.jacobian_of[msg["name"]] = log_det
                self.log_jacobian.append(log_det.sum() * (leaf_scale(latent.leaf, leaf)))
        if self.enumeration is not None and value.dim() - fn.event_dim > self.enumeration.nesting:
            raise TraceChanged(
                f"the latent {msg['name']!r} has a support that depends on a discrete latent: it cannot have one value "
                "for all of them"
            )
        batch = fn.batch_shape if self.enumeration is None else self.enumeration.of_plates(msg["name"], fn.batch_shape)
        if value.shape != batch + fn.event_shape:
            raise TraceChanged(
                f"the latent {msg['name']!r} changed its shape from {tuple(value.shape)} to "
                f"{tuple(batch + fn.event_shape)} since the first trace"
            )
        msg["value"] = value

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], Subsample):
            if len(msg["value"]) != msg["fn"].size:
                self.plates[msg["name"]] = msg["value"]
        else:
            if msg["name"] in self.sites.elsewhere:
                msg["mask"] = False
            self.samples.append(msg)

    def _pyro_param(self, msg: Any) -> None:
        self.current = store_name = msg["name"]
        entry = self.sites.of_store.get(store_name)
        if entry is None:
            raise TraceChanged(
                f"the parameter {normalize_param_name(store_name)!r} appeared: it was not there at the first trace. "
                "Every iteration must have the same parameters and latents"
            )
        self.parameters_seen.add(store_name)
        given = msg["args"][1] if len(msg["args"]) > 1 else None
        if "$$$" in store_name and given is not entry.leaf:
            raise TraceChanged(
                f"{entry.site.name!r} belongs to a module that is built anew at every call, so its weights cannot be "
                "fitted: build the module once, outside the model"
            )
        if isinstance(given, Tensor) and given.shape != entry.site.value_shape:
            raise TraceChanged(
                f"the parameter {entry.site.name!r} changed its shape from {tuple(entry.site.value_shape)} to "
                f"{tuple(given.shape)} since the first trace"
            )
        if entry.stand_in is not None:
            msg["value"] = entry.transform(entry.stand_in)

    def _pyro_post_param(self, msg: Any) -> None:
        entry = self.sites.of_store[msg["name"]]
        if entry.stand_in is not None:
            return
        if unconstrained_params(pyro.get_param_store()).get(msg["name"]) is not entry.leaf:
            raise TraceChanged(
                f"the parameter {entry.site.name!r} was replaced in Pyro's parameter store while the model ran "
                "(pyro.clear_param_store() inside the model?)"
            )
        if msg["value"] is entry.leaf and not isinstance(entry.leaf, torch.nn.Parameter):  # those are the module's own
            msg["value"] = entry.leaf.view(entry.leaf.shape)
            msg["value"].unconstrained = ref(entry.leaf)  # type: ignore[attr-defined]  # as Pyro's store has it

    def parts(self) -> Iterator[tuple[Sequence[Any], Tensor]]:
        """What the log density is the sum of, but for the transforms: each part with the frames of its plates.

        A part is a sample site, or all sites that hang together through discrete latents, those summed out.
        """
        self._check_complete()
        entries = 0
        summed = []
        for message, log_prob in self.log_densities():
            entries += log_prob.numel()
            if self.enumeration is not None:
                self.enumeration.check_shape(message)
            if self.enumeration is not None and self.enumeration.concerns(message, log_prob):
                summed.append((message, log_prob))
            else:
                yield message["cond_indep_stack"], scaled(message, log_prob)
        self.sites.density_entries = entries
        if summed and self.enumeration is not None:
            yield from self.enumeration.sum_out(summed)

    def by_row(self, plates: Sequence[str]) -> Tensor | None:
        """The sum over the sites inside all of ``plates``, by their indices, in the order of ``plates``."""
        total: Tensor | None = None
        of_transforms = (
            (message["cond_indep_stack"], self.jacobian_of[message["name"]])
            for message in self.samples
            if message["name"] in self.jacobian_of
        )
        for stack, log_prob in (*self.parts(), *of_transforms):
            frames = {frame.name: frame for frame in stack if frame.dim is not None}
            if not all(name in frames for name in plates):
                continue
            depth = max(-frame.dim for frame in frames.values())
            whole = log_prob.reshape((1,) * max(0, depth - log_prob.dim()) + log_prob.shape)
            sizes = [frames[name].size for name in plates]
            dims = [frames[name].dim % whole.dim() for name in plates]
            others = [d for d in range(whole.dim()) if d not in dims]
            part = whole.permute(*dims, *others).reshape(*(whole.shape[d] for d in dims), -1).sum(-1).expand(sizes)
            total = part if total is None else total + part
        return total

    def outside(self, plate: str | None) -> dict[str, Outside]:
        """Observed sites, factors and discrete latents that stand in no row of a plate."""
        return {
            message["name"]: _outside_of(message)
            for message in self.samples
            if message["name"] not in self.sites.latents and not is_deterministic(message)
            if all(frame.name != plate for frame in message["cond_indep_stack"])
        }

    def log_density(self) -> Tensor:
        total: Tensor | None = None
        for _, log_prob in self.parts():
            log_prob = log_prob.sum() if log_prob.dim() else log_prob
            total = log_prob if total is None else total + log_prob
        if total is None:
            raise ModelError("the model has no sample site and no factor: there is no density to maximise")
        for log_det in self.log_jacobian:
            total = total + log_det
        return total

    def entries(self) -> Tensor:
        """What ``log_density`` sums; shape (n,)."""
        parts = [log_prob.reshape(-1) for _, log_prob in self.parts()]
        return torch.cat([*parts, *(log_det.reshape(-1) for log_det in self.jacobian_of.values())])

    def site_log_density(self, message: Any) -> Tensor:
        log_prob = self.log_density_of(message)
        left = 0 if self.enumeration is None else log_prob.dim() - self.enumeration.nesting
        if left > 0:
            log_prob = log_prob.flatten(0, left - 1).amax(0)
        log_prob = scaled(message, log_prob)
        total: Tensor = log_prob.sum() if log_prob.dim() else log_prob
        return total

    def has_density(self, message: Any) -> bool:
        """Whether a site is observed, with a distribution that is the same whatever the discrete latents are."""
        if not message["is_observed"] or isinstance(message["fn"], (Unit, Delta)):
            return False
        return self.enumeration is None or len(message["fn"].batch_shape) <= self.enumeration.nesting

    def observations(self, message: Any) -> int:
        """Entries of an observed site's log density, those that are masked and values of discrete latents left out."""
        if not message["is_observed"] or isinstance(message["fn"], (Unit, Delta)) or is_deterministic(message):
            return 0
        return self.entries_of(message)

    @staticmethod
    def observed_values(message: Any) -> Tensor:
        """What a site observes, flat, without what is masked."""
        value, mask = torch.as_tensor(message["value"]).detach(), message["mask"]
        batch = torch.Size(message["fn"].batch_shape)
        if isinstance(mask, Tensor) and mask.dim() <= len(batch):
            shape = torch.broadcast_shapes(value.shape, batch + torch.Size(message["fn"].event_shape))
            value = value.expand(shape)[mask.expand(batch)]
        return value.reshape(-1)

    def entries_of(self, message: Any) -> int:
        """Entries of a site's log density, those that are masked and values of discrete latents left out."""
        shape, mask = message["fn"].batch_shape, message["mask"]
        if mask is False:
            return 0
        if self.enumeration is not None:
            shape = shape[max(0, len(shape) - self.enumeration.nesting) :]
        if isinstance(mask, Tensor) and mask.dim() <= len(shape):
            return int(mask.expand(shape).sum())
        return int(torch.Size(shape).numel())  # a plain tuple in several of Pyro's

    def unscaled_log_density(self, message: Any) -> Tensor:
        """Shape: the batch shape of the site."""
        log_prob: Tensor = message["fn"].log_prob(message["value"], *message["args"], **message["kwargs"])
        return log_prob

    def log_densities(self) -> list[tuple[Any, Tensor]]:
        """Each sample site with its unscaled log density."""
        return [(message, self.log_density_of(message)) for message in self.samples]

    def log_density_of(self, message: Any) -> Tensor:
        """Unscaled; what a distribution refuses is told apart from what the model does wrong."""
        self.current = message["name"]
        try:
            if self.current in self.sites.outside:
                return self._inside_support(message)
            return self.unscaled_log_density(message)
        except ModelError:
            raise
        except Exception as error:
            if self._is_outside(message):
                self.sites.outside.add(self.current)
                return self._inside_support(message)
            why = refused(error, missing_values(message))
            raise self.told_apart(error, f"at site {self.current!r}: {why}") from error

    def note_what_is_outside(self) -> None:
        """Remember the observed sites whose value is impossible at some values of the discrete latents."""
        self.sites.outside.update(message["name"] for message in self.samples if self._is_outside(message))

    def _is_outside(self, message: Any) -> bool:
        """Whether an observed value lies outside the support at some values of the discrete latents, and not at all."""
        if self.enumeration is None or not message["is_observed"] or isinstance(message["fn"], (Unit, Delta)):
            return False
        with torch.no_grad():
            inside = message["fn"].support.check(message["value"])
        left = inside.dim() - self.enumeration.nesting
        return left > 0 and not bool(inside.all()) and bool(inside.flatten(0, left - 1).any(0).all())

    def _inside_support(self, message: Any) -> Tensor:
        """The unscaled log density; −inf where the value is outside the support, whatever its formula would give."""
        fn, value = message["fn"], message["value"]
        with torch.no_grad(), random_state_kept():
            inside = fn.support.check(value)
            over_event = inside.reshape(inside.shape + (1,) * fn.event_dim)
            value = torch.where(over_event, value, fn.sample().to(value.dtype))
        log_prob = self.unscaled_log_density({**message, "value": value})
        return log_prob.masked_fill(~inside, -inf)

    def _check_complete(self) -> None:
        sites = self.sites
        if self.latents_seen != len(sites.latents) or len(self.parameters_seen) != len(sites.parameters):
            seen = {message["name"] for message in self.samples}
            seen |= {normalize_param_name(name) for name in self.parameters_seen}
            raise TraceChanged(what_changed(sites.order, [name for name in sites.order if name in seen]))
        if sites.sample_count is None:
            sites.sample_count = len(self.samples)
        elif sites.sample_count != len(self.samples) and not sites.subsampled:
            raise TraceChanged(
                f"the model had {sites.sample_count} sample sites at its first trace and has {len(self.samples)} "
                "now: observed sites must stay the same too"
            )


class Single(Evaluation):
    """An evaluation at one value of each discrete latent, drawn evenly from all."""

    def __init__(self, sites: Sites, seed: int) -> None:
        super().__init__(sites)
        self.enumeration = None
        self.generator = torch.Generator().manual_seed(seed)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.sites.discrete:
            fn = msg["fn"]
            values = fn.enumerate_support(expand=True)
            place = torch.randint(len(values), fn.batch_shape, generator=self.generator, device="cpu")
            place = place.to(values.device).reshape(1, *fn.batch_shape, *(1 for _ in fn.event_shape))
            msg["value"] = values.take_along_dim(place, 0)[0]
        super()._pyro_sample(msg)


class Expected(Evaluation):
    """An evaluation in which observed sites give minus their divergence from a reference."""

    def __init__(self, sites: Sites, jacobian: Collection[str], reference: Mapping[str, Any]) -> None:
        super().__init__(sites, jacobian)
        self.reference = reference

    def unscaled_log_density(self, message: Any) -> Tensor:
        reference = self.reference.get(message["name"])
        if reference is not None:
            with suppress(NotImplementedError):
                divergence: Tensor | float = kl_divergence(reference, message["fn"])
                if isinstance(divergence, Tensor):  # of what is masked out, a deterministic site, Pyro has a bare zero
                    return -divergence
        return super().unscaled_log_density(message)


def scaled(message: Any, log_prob: Tensor) -> Tensor:
    scale = message["scale"]
    if message["mask"] is not None or not (type(scale) is float and scale == 1.0):
        log_prob = scale_and_mask(log_prob, scale, message["mask"])
    return log_prob


def site_weight(message: Any) -> tuple[int, float]:
    """How many entries a site's log density has, and their mean scale; none for a factor."""
    fn = message["fn"]
    if isinstance(fn, (Unit, Delta)) or is_deterministic(message):
        return 0, 1.0
    scale = message["scale"]
    mean = float(scale.double().mean()) if isinstance(scale, Tensor) else float(scale)
    return torch.Size(fn.batch_shape).numel(), mean


def may_be_penalty(message: Any) -> bool:
    """Whether a site is a factor, or a density of what is no data: one that depends on the leaves."""
    fn = message["fn"]
    if not message["is_observed"] or is_deterministic(message) or message["mask"] is False:
        return False
    if isinstance(fn, (Unit, Delta)):
        return bool((fn.log_factor if isinstance(fn, Unit) else fn.log_density).requires_grad)
    return isinstance(message["value"], Tensor) and message["value"].requires_grad


@dataclass(frozen=True)
class Outside:
    """An observed site, factor or discrete latent that is in no row of a plate.

    ``sizes`` are those of its plates and of the dimensions of its value; ``digest`` is of an observed value. ``kind``
    is which of the three it is.
    """

    sizes: tuple[int, ...]
    digest: str
    kind: str


def _outside_of(message: Any) -> Outside:
    fn, value = message["fn"], message["value"]
    is_factor = isinstance(fn, Unit)
    value = fn.log_factor if is_factor else torch.as_tensor(value)
    frames = (int(frame.size) for frame in message["cond_indep_stack"] if frame.dim is not None)
    sizes = tuple(sorted({*frames, *torch.Size(fn.batch_shape), *value.shape}))
    digest = "" if is_factor else hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
    return Outside(sizes, digest, "factor" if is_factor else "observed" if message["is_observed"] else "discrete")


def is_derived(message: Any) -> bool:
    """Whether a site is a `pyro.deterministic` one of real numbers."""
    return is_deterministic(message) and not message["value"].is_complex()


def is_deterministic(message: Any) -> bool:
    return bool((message["infer"] or {}).get(DETERMINISTIC))
