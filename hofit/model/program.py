"""A model with its data: its sites once they are found, and its log density with each where the fit has put it.

The whole run happens inside a scope of Pyro's parameter store, so `pyro.param`, `PyroParam` and `pyro.module` work as
they do in any Pyro program; latents are substituted by their transformed leaves. Leaves are written by copying, never
replaced: a `pyro.module`'s weights are the module's own tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from ..errors import ModelError
from ..point import Params, Site
from .derivatives import without_derivative
from .discovery import Discovery, check_leaves
from .enumeration import BROADCAST, MEMORY_LIMIT, Discrete, EnumerationError, MemoryGuard, TooLarge
from .evaluation import Evaluation, Expected, Outside, Single, is_derived, may_be_penalty
from .plates import PlateWatcher, full_plates
from .precision import lower_precision
from .predictive import Replication, Scored, scored
from .randomness import random_state_kept
from .sites import InfeasibleError, Latent, Parameter, Sites, TraceChanged, what_changed
from .spreads import Spreads, spreads_of
from .supports import describe, is_elementwise, jacobian_of, unread, value_and_slope

CONFIGURATIONS = 2
"""Draws of the discrete latents at which the sum is held against its terms."""


@dataclass(frozen=True)
class Reading:
    """What a trace at the leaves tells beside the density.

    ``deterministic`` holds the values of `pyro.deterministic` sites, functions of the leaves; ``transforms`` that of
    every site that is not fixed, as the trace used it; ``moved`` names latents whose support is no longer that of the
    first trace: it moves with other sites; ``enumerated`` names deterministic sites that depend on discrete latents,
    and have no one value. ``observations`` counts the entries of observed sites' log densities. ``factors`` does so for
    each site that may be a likelihood or a penalty on parameters: a factor, or one whose observed value depends on the
    leaves; ``penalties`` are those of them that do not depend on what is integrated out. ``unshaped`` are integrated
    latents under a flat prior that no factor makes another one. ``observed`` names the sites whose entries are counted.
    ``sums`` are the sum and the sum of squares of what these observe. ``spreads`` are the covariances and standard
    deviations of normal sites.
    """

    deterministic: Params
    enumerated: list[str]
    transforms: dict[str, Transform]
    moved: list[str]
    observations: int
    factors: dict[str, int]
    penalties: list[str]
    unshaped: list[str]
    observed: list[str]
    sums: list[float]
    spreads: Spreads

    @property
    def likelihood(self) -> list[str]:
        """The sites whose densities are the likelihood of the data, as far as can be told: factors where no others are.

        Beside data, a factor is a penalty, or the prior of a latent.
        """
        return self.observed or list(self.factors)


class Program:
    """A Pyro model with its data. Use inside ``scope()``.

    ``discover`` finds the sites and gives every one a leaf; ``log_density`` traces the model at the leaves, with the
    discrete latents summed out, if ``integration`` has a pattern of any latent: without, a discrete one is refused.
    """

    def __init__(
        self, model: Callable[..., Any], arguments: Mapping[str, Any], integration: Collection[str] = ()
    ) -> None:
        self.model = model
        self.arguments = dict(arguments)
        self._integration = integration
        self._sites = Sites()
        self._at_start: Discovery | None = None
        self.seed_of_each: int | None = None
        """Of what each site's start is drawn from, so that it is the same whatever is drawn before; None: in turn."""
        self.unit = 1.0
        """What one observation weighs: the loss's own unit, which a scale around the model changes."""

    @contextmanager
    def scope(self) -> Iterator[None]:
        """A parameter store of our own, with the parameters known by now, and no validation; both are put back."""
        with pyro.get_param_store().scope(self._sites.store_state()), pyro.validation_enabled(False):
            yield

    @property
    def latents(self) -> Mapping[str, Latent]:
        return self._sites.latents

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return self._sites.parameters

    @property
    def discrete(self) -> Mapping[str, Discrete]:
        """The discrete latents, which have no leaf."""
        return self._sites.discrete

    @property
    def not_fitted(self) -> Mapping[str, str]:
        """What every site is that is neither parameter nor latent, as words after its name."""
        return self._sites.not_fitted

    @property
    def subsampled(self) -> Mapping[str, tuple[int, int]]:
        """Plate → (size, subsample size) where the model, left alone, subsamples it."""
        return self._sites.subsampled

    @property
    def entries(self) -> int:
        """Entries of all sites' log densities at the last evaluation: observations, and rows of latents."""
        return self._sites.density_entries

    @property
    def sites(self) -> dict[str, Site]:
        """Every parameter and latent, in the order of the trace."""
        return self._sites.by_name

    @property
    def leaves(self) -> Params:
        """The leaves that are optimised, in the order of the trace."""
        return self._sites.leaves

    @property
    def supports(self) -> dict[str, tuple[str, constraints.Constraint]]:
        """Each site's name in Pyro's store, a latent's being its own, and its support as the first trace has it."""
        entries = {name: self._sites.entry(name) for name in self._sites.order}
        return {n: (e.store_name if isinstance(e, Parameter) else n, e.support) for n, e in entries.items()}

    def discover(self, strategy: str = "median", jitter: float = 0.0, values: Mapping[str, Any] | None = None) -> None:
        """Trace the model once on its full plates and give every site a leaf at its start.

        ``values`` are constrained starts that override the others. Sites keep their leaf when discovered again, so
        that latents are drawn given the parameters' own starts.
        Raises: ModelError when the model raises, has a discrete latent that is not integrated out, or nothing to fit.
        """
        finder = Discovery(self.parameters, self._integration, strategy, jitter, values or {}, self.seed_of_each)
        with full_plates() as asked, pyro.validation_enabled(True):
            finder.run_at_start(self.model, self.arguments)
        before, found = self._sites.order, finder.found()
        if before and set(found.order) != set(before):
            raise TraceChanged(what_changed(before, found.order))
        self._at_start = None if found.discrete else finder  # it has one value of each discrete latent
        self._sites = found
        found.subsampled = self.find_subsampled() if asked else {}
        check_leaves(found)

    def drawn_again(self, strategy: str, values: Mapping[str, Any]) -> tuple[Params, Sequence[Any]]:
        """Unconstrained starts of the latents as another first trace draws them, given constrained ``values`` of
        sites, and what that trace sampled, as Pyro's messages. Leaves of parameters that have values are written."""
        finder = Discovery(self.parameters, self._integration, strategy, 0.0, values)
        with full_plates(), pyro.validation_enabled(True):
            finder.run_at_start(self.model, self.arguments)
        return {name: latent.leaf.detach() for name, latent in finder.latents.items()}, finder.samples

    def find_subsampled(self) -> dict[str, tuple[int, int]]:
        """Plate → (size, subsample size) for every plate that is subsampled when the model is left alone."""
        watcher = PlateWatcher(self._sites)
        with torch.no_grad():
            watcher.run_at_start(self.model, self.arguments)
        return watcher.subsampled

    def rehearse(self) -> None:
        """Sum the discrete latents out once, and stop before anything is computed that memory would not hold.

        Raises: EnumerationError, ModelError.
        """
        enumeration = self._sites.enumeration
        if enumeration is None:
            return
        enumeration.check_dimensions()
        trace = Evaluation(self._sites)
        try:
            with torch.no_grad(), suppress(InfeasibleError):
                with random_state_kept(), MemoryGuard(MEMORY_LIMIT):
                    trace.run(self.model, self.arguments)
                    trace.note_what_is_outside()
                    trace.log_density()
                for seed in range(CONFIGURATIONS):
                    with random_state_kept():
                        single = Single(self._sites, seed)
                        single.run(self.model, self.arguments)
                        enumeration.check_values(single.log_densities(), trace.log_densities())
        except EnumerationError:
            raise
        except TooLarge as error:
            raise EnumerationError(
                trace.last_discrete,
                f"too large to sum out: {error} (last site traced: {trace.current!r}), and {MEMORY_LIMIT / 2**30:.3g} "
                "GiB is the limit: let fewer discrete latents meet in one site, put independent ones into a plate, or "
                "loop with pyro.markov",
            ) from error
        except ModelError as error:
            raise EnumerationError(
                trace.last_discrete,
                f"{error}\nWith one value of each discrete latent the model runs, with all of them it does not: "
                f"{BROADCAST}",
            ) from error

    def integrate(self, names: Collection[str]) -> None:
        """Say which latents are integrated out: their role in every output."""
        for name in names:
            self.latents[name].site = replace(self.latents[name].site, role="integrated")

    def count_elsewhere(self, names: Collection[str]) -> None:
        """Say which sites' densities another piece of the data counts: they add nothing here."""
        self._sites.elsewhere = frozenset(names)

    def outside(self, plate: str | None) -> dict[str, Outside]:
        """What is observed or a factor outside of a plate, and discrete latents there, at the leaves."""
        with full_plates(), random_state_kept(), torch.no_grad():
            return self._evaluated().outside(plate)

    def hold(self, fixed: Mapping[str, Any]) -> None:
        """Fix sites at constrained values; None means: where it starts."""
        for name, value in fixed.items():
            entry = self._sites.entry(name)
            held = self._sites.value(name) if value is None else self.constrained_like(name, value)
            entry.held = held.detach().clone()
            entry.site = replace(entry.site, role="fixed")
            with torch.no_grad():
                entry.leaf.copy_(entry.transform.inv(held))
            if isinstance(entry, Parameter) and not isinstance(entry.leaf, torch.nn.Parameter):
                entry.leaf.requires_grad_(False)
            if value is not None:
                self._at_start = None

    def constrained_like(self, name: str, value: Any) -> Tensor:
        """``value`` (a number, a nested list, a tensor) as a constrained value of the site: broadcast and checked.

        Raises: ValueError with the reason when shape or support do not allow it.
        """
        entry = self._sites.entry(name)
        shape = entry.site.value_shape
        try:
            tensor = torch.as_tensor(value, dtype=entry.leaf.dtype, device=entry.leaf.device)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{value!r:.60} is no number or nested list of numbers") from error
        try:
            tensor = tensor.expand(shape)
        except RuntimeError as error:
            raise ValueError(f"shape {tuple(tensor.shape)} does not broadcast to {tuple(shape)}") from error
        if not bool(torch.isfinite(tensor).all()) or not bool(entry.support.check(tensor).all()):
            raise ValueError(f"{value!r} is not inside its support, {describe(entry.support)}")
        return tensor

    def take_start_density(self) -> float | None:
        """log p at the start, on full plates and validated, if the trace that found the sites can tell; once."""
        finder, self._at_start = self._at_start, None
        with pyro.validation_enabled(True):
            return None if finder is None else finder.log_density()

    def log_density(self, jacobian: Collection[str] = (), full: bool = False, validate: bool = False) -> Tensor:
        """log p(data, latents; parameters) at the leaves, every constant included; shape ().

        ``jacobian`` names the latents whose transforms add their log|det|. ``full`` overrides subsampling of plates.
        Raises: InfeasibleError, TraceChanged, ModelError.
        """
        with full_plates() if full else nullcontext(), pyro.validation_enabled(True) if validate else nullcontext():
            return self._evaluated(jacobian).log_density()

    def log_density_entries(self, jacobian: Collection[str] = ()) -> Tensor:
        """The entries that ``log_density`` is the sum of, at the leaves: observations, and rows of latents; (n,)."""
        return self._evaluated(jacobian).entries()

    @contextmanager
    def substituted(self, values: Params) -> Iterator[None]:
        """Inside, unconstrained ``values`` stand in the place of the leaves; they may have a graph, or be a batch."""
        leaves = {name: self.latents[name].leaf for name in values if name in self.latents}
        parameters = [self.parameters[name] for name in values if name not in leaves]
        for name in leaves:
            self.latents[name].leaf = values[name]
        for parameter in parameters:
            parameter.stand_in = values[parameter.site.name]
        try:
            yield
        finally:
            for name, leaf in leaves.items():
                self.latents[name].leaf = leaf
            for parameter in parameters:
                parameter.stand_in = None

    @contextmanager
    def arguments_replaced(self, arguments: Mapping[str, Any]) -> Iterator[None]:
        """Inside, the model is called with other data."""
        before, self.arguments = self.arguments, dict(arguments)
        try:
            yield
        finally:
            self.arguments = before

    def observed_distributions(self, full: bool = False) -> dict[str, Any]:
        """The distribution of each observed site at the leaves, but for those that depend on an enumerated one."""
        with full_plates() if full else nullcontext():
            trace = self._evaluated()
            return {message["name"]: message["fn"] for message in trace.samples if trace.has_density(message)}

    def expected_log_density(
        self, reference: Mapping[str, Any], jacobian: Collection[str] = (), full: bool = False
    ) -> Tensor:
        """``log_density`` with each observed site's part replaced by its expectation under ``reference``; shape ().

        Up to a constant that is −KL(reference ‖ distribution), whose Hessian where the two are equal is minus the
        Fisher information. Sites without a known divergence keep their log density.
        """
        with full_plates() if full else nullcontext():
            trace = Expected(self._sites, jacobian, reference)
            trace.run(self.model, self.arguments)
            return trace.log_density()

    def log_densities_by_row(self, plates: Sequence[str], jacobian: Collection[str] = ()) -> Tensor | None:
        """What the sites inside these plates add to the log density, a row of them each.

        Shape (size of the first plate, of the second, …); None where no site stands in all of them.
        """
        with torch.no_grad():
            return self._evaluated(jacobian).by_row(plates)

    @property
    def weight(self) -> float | None:
        """The mean scale of what is sampled or observed, on full plates; None where the density is of factors alone."""
        return self._sites.weight

    def site_without_derivative(self, order: int) -> str | None:
        """The site whose log density torch cannot differentiate so often at the leaves, with the reason if known."""
        return without_derivative(self._evaluated().log_densities(), self.leaves, order)

    def lower_precision(self) -> str | None:
        """Of the first site that computes in fewer digits than the leaves have: which, where, and what to do."""

        def log_densities() -> list[tuple[Any, Tensor]]:
            with full_plates(), random_state_kept():
                return self._evaluated().log_densities()

        with suppress(InfeasibleError, ModelError):
            return lower_precision(log_densities, torch.get_default_dtype())
        return None

    def site_log_densities(self, full: bool = False) -> dict[str, float]:
        """The log density of each sample site at the leaves, for a diagnosis; with the best of enumerated values."""
        with torch.no_grad(), full_plates() if full else nullcontext():
            trace = self._evaluated()
            sums = ((message["name"], trace.site_log_density(message)) for message in trace.samples)
            return {name: float(total) for name, total in sums}

    def log_density_by_site(self) -> dict[str, Tensor]:
        """``site_log_densities`` on full plates as functions of the leaves, of shape () each.

        Raises: InfeasibleError, ModelError.
        """
        with full_plates(), random_state_kept():
            trace = self._evaluated()
            return {message["name"]: trace.site_log_density(message) for message in trace.samples}

    def read(self) -> Reading:
        """Trace the model at the leaves, on the full plates. Raises: InfeasibleError, ModelError."""
        with full_plates(), random_state_kept():
            trace = self._evaluated()
        derived = {m["name"]: m["value"] for m in trace.samples if is_derived(m)}
        deterministic = {n: value for n, value in derived.items() if value.shape == self._sites.derived.get(n)}
        enumerated = [n for n in derived if n not in deterministic and self.discrete]
        transforms = {name: entry.transform for name, entry in self.parameters.items() if entry.held is None}
        moved = []
        for name, transform in trace.transforms.items():
            latent = self.latents[name]
            transforms[name] = transform
            with torch.no_grad():
                if transform is not latent.transform and not torch.equal(
                    transform(latent.leaf), latent.transform(latent.leaf)
                ):
                    moved.append(name)
        factors = {m["name"]: trace.entries_of(m) for m in trace.samples if may_be_penalty(m)}
        counts = {m["name"]: trace.observations(m) for m in trace.samples if m["name"] not in factors}
        observed = [name for name, count in counts.items() if count]
        values = [trace.observed_values(m).double() for m in trace.samples if m["name"] in observed]
        sums = [sum(float((value**power).sum()) for value in values) for power in (1, 2)] if values else []
        inside, unshaped = self._of_integrated() if factors else ([], self._flat_and_integrated)
        penalties = [name for name in factors if name not in inside]
        total = sum(counts.values())
        spreads = spreads_of(trace.samples)
        return Reading(
            deterministic, enumerated, transforms, moved, total, factors, penalties, unshaped, observed, sums, spreads
        )

    def scored(self, names: Collection[str]) -> Scored:
        """What the model at the leaves says of its data; ``names`` are the sites whose densities are the likelihood.

        The random state goes on where the model draws. Raises: InfeasibleError, ModelError.
        """
        with torch.no_grad(), full_plates():
            return scored(self._evaluated(), names)

    def replicated(self, names: Collection[str]) -> Params:
        """Data for some observed sites, drawn by the model at the leaves, discrete latents being drawn first.

        The random state goes on. Raises: InfeasibleError, ModelError.
        """
        trace = Replication(self._sites, names)
        with torch.no_grad(), full_plates():
            trace.run(self.model, self.arguments)
        return {m["name"]: m["value"].detach() for m in trace.samples if m["name"] in names}

    @property
    def _flat_and_integrated(self) -> list[str]:
        return [n for n, latent in self.latents.items() if latent.site.role == "integrated" and latent.site.flat]

    def _of_integrated(self) -> tuple[list[str], list[str]]:
        """Factors that depend on what is integrated out, by a trace with all else constant; flat sites in none."""
        entries, flat = {name: self._sites.entry(name) for name in self.leaves}, self._flat_and_integrated
        others = [entry.leaf for entry in entries.values() if entry.site.role != "integrated"]
        if len(others) == len(entries):
            return [], flat
        for leaf in others:
            leaf.requires_grad_(False)
        try:
            with full_plates(), random_state_kept():
                trace = self._evaluated()
            inside = [m for m in trace.samples if may_be_penalty(m)]
            if not inside or not flat:
                return [m["name"] for m in inside], flat
            total = torch.stack([trace.log_density_of(m).sum() for m in inside]).sum()
            slopes = torch.autograd.grad(total, [entries[name].leaf for name in flat], allow_unused=True)
            return [m["name"] for m in inside], [n for n, slope in zip(flat, slopes, strict=True) if slope is None]
        finally:
            for leaf in others:
                leaf.requires_grad_(True)

    def values(self) -> Params:
        """The constrained value of every site at the leaves (a trace on the full plates).

        Where the model cannot be traced any more, a latent's value is what its first support makes of its leaf.
        """
        found: Params = {}
        with torch.no_grad(), full_plates(), suppress(InfeasibleError, ModelError):
            trace = self._evaluated()
            found = {message["name"]: message["value"] for message in trace.samples}
        values: Params = {}
        for name in self._sites.order:
            value = self._sites.entry(name).held
            if value is None:
                traced = found.get(name) if name in self.latents else None
                value = self._sites.value(name) if traced is None else traced
            values[name] = value.detach().clone()
        return values

    def unconstrained(self, name: str) -> Tensor:
        """The leaf of a site."""
        return self._sites.entry(name).leaf

    def unconstrained_of(self, name: str, value: Any) -> Tensor:
        """The unconstrained tensor of a constrained value. Raises: ValueError as ``constrained_like``."""
        entry = self._sites.entry(name)
        found: Tensor = entry.transform.inv(self.constrained_like(name, value))
        return found.detach().clone()

    def value_and_slope(self, name: str, unconstrained: Tensor) -> tuple[Tensor, Tensor | None]:
        """A site's value at an unconstrained tensor, and d value / d unconstrained if its transform is elementwise."""
        return value_and_slope(self._sites.entry(name).transform, unconstrained)

    def constrained(self, name: str, unconstrained: Tensor) -> Tensor:
        """What the first trace's support makes of an unconstrained tensor."""
        value: Tensor = self._sites.entry(name).transform(unconstrained)
        return value

    def is_elementwise(self, name: str) -> bool:
        """Whether each number of a site's value is made of one unconstrained number."""
        return is_elementwise(self._sites.entry(name).transform)

    def jacobian(self, name: str, unconstrained: Tensor) -> Tensor:
        """d value / d unconstrained, both flat. Shape (numbers of the value, numbers of the leaf)."""
        return jacobian_of(self._sites.entry(name).transform, unconstrained)

    @cached_property
    def unread(self) -> Params:
        """Name → which unconstrained numbers its transform never reads, as above a triangle: no unknowns at all."""
        found = {name: unread(self._sites.entry(name).transform, leaf) for name, leaf in self.leaves.items()}
        return {name: mask for name, mask in found.items() if mask is not None}

    def _evaluated(self, jacobian: Collection[str] = ()) -> Evaluation:
        trace = Evaluation(self._sites, jacobian)
        trace.run(self.model, self.arguments)
        return trace
