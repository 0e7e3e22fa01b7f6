"""One trace of the model: its log density, with every latent and parameter where the fit has put it.

The whole run happens inside a scope of Pyro's parameter store, so `pyro.param`, `PyroParam` and `pyro.module` work as
they do in any Pyro program; latents are substituted by their transformed leaves. Leaves are written by copying, never
replaced: a `pyro.module`'s weights are the module's own tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, Unit
from pyro.distributions.util import scale_and_mask
from pyro.params.param_store import normalize_param_name
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to, constraints, kl_divergence, transform_to
from torch.distributions.transforms import IndependentTransform, Transform, identity_transform
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ..errors import ModelError, StartError
from ..internals import (
    DETERMINISTIC,
    Subsample,
    replace_leaf,
    store_constraints,
    swap_subsampling,
    unconstrained_params,
)
from ..point import Params, Plate, Site
from .enumeration import (
    BROADCAST,
    MEMORY_LIMIT,
    Discrete,
    Enumeration,
    EnumerationError,
    MemoryGuard,
    TooLarge,
    discrete,
    is_discrete,
    no_leaf,
)
from .faults import raised_inside_distribution, user_fault, user_place
from .initial import initial_unconstrained
from .randomness import random_state_kept

CONFIGURATIONS = 2
"""Draws of the discrete latents at which the sum is held against its terms."""


class TraceChanged(ModelError):
    """The model is not the same function as at its first trace: a site appeared, vanished, or changed shape."""


class InfeasibleError(Exception):
    """The density cannot be computed here: a distribution refused its arguments, or a factorisation failed."""


@dataclass
class Latent:
    """An unobserved sample site: its leaf, and how the leaf becomes the value.

    ``event_dim`` counts the event dimensions of the unconstrained tensor. ``held`` is the constrained value of a
    latent that the config fixes.
    """

    site: Site
    leaf: Tensor
    support: constraints.Constraint
    transform: Transform
    event_dim: int
    held: Tensor | None = None


@dataclass
class Parameter:
    """A parameter site: its name in Pyro's store, its leaf there, and its constraint."""

    site: Site
    store_name: str
    leaf: Tensor
    constraint: constraints.Constraint
    held: Tensor | None = None


@dataclass(frozen=True)
class Reading:
    """What a trace at the leaves tells beside the density.

    ``deterministic`` holds the values of `pyro.deterministic` sites, functions of the leaves; ``transforms`` that of
    every site that is not fixed, as the trace used it; ``moved`` names latents whose support is no longer that of the
    first trace: it moves with other sites; ``enumerated`` names deterministic sites that depend on discrete latents,
    and have no one value. ``observations`` counts the entries of observed sites' log densities.
    """

    deterministic: Params
    enumerated: list[str]
    transforms: dict[str, Transform]
    moved: list[str]
    observations: int


class Program:
    """A Pyro model with its data. Use inside ``scope()``.

    ``discover`` finds the sites and gives every one a leaf; ``log_density`` traces the model at the leaves, with the
    discrete latents that a pattern of ``integration`` speaks for summed out.
    """

    def __init__(self, model: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        self.model = model
        self.arguments = dict(arguments)
        self.integration: Mapping[str, str] = {}
        """Pattern → how its latents are integrated out; set before ``discover``."""
        self.enumeration: Enumeration | None = None
        self.latents: dict[str, Latent] = {}
        self.parameters: dict[str, Parameter] = {}
        self.order: list[str] = []
        self.subsampled: dict[str, tuple[int, int]] = {}
        self.has_factor = False
        self.observed: list[str] = []
        """Names of the observed sample sites."""
        self.entries = 0
        """Entries of all sites' log densities at the last evaluation: observations, and rows of latents."""
        self.sample_count: int | None = None
        """Sample sites of an evaluation, observed ones included; None until the first."""
        self._at_start: _Discovery | None = None
        self._of_store: dict[str, Parameter] = {}
        self._derived: dict[str, torch.Size] = {}
        """The shape of each deterministic site at the first trace."""

    @contextmanager
    def scope(self) -> Iterator[None]:
        """A parameter store of our own and validation off; both are put back on leaving."""
        with pyro.get_param_store().scope(), pyro.validation_enabled(False):
            yield

    @property
    def discrete(self) -> Mapping[str, Discrete]:
        """The discrete latents, which have no leaf."""
        return {} if self.enumeration is None else self.enumeration.sites

    @property
    def sites(self) -> dict[str, Site]:
        """Every parameter and latent, in the order of the trace."""
        return {name: self._entry(name).site for name in self.order}

    @property
    def leaves(self) -> Params:
        """The leaves that are optimised, in the order of the trace."""
        entries = {name: self._entry(name) for name in self.order}
        return {name: entry.leaf for name, entry in entries.items() if entry.site.role != "fixed"}

    def discover(self, strategy: str = "median", jitter: float = 0.0, values: Mapping[str, Any] | None = None) -> None:
        """Trace the model once on its full plates and give every site a leaf at its start.

        ``values`` are constrained starts that override the others. Sites keep their leaf when discovered again, so
        that latents are drawn given the parameters' own starts.
        Raises: ModelError when the model raises, has a discrete latent that is not integrated out, or nothing to fit.
        """
        finder = _Discovery(self, strategy, jitter, values or {})
        with full_plates() as asked, pyro.validation_enabled(True):
            self._run_at_start(finder)
        order = list(dict.fromkeys(finder.order))
        if self.order and set(order) != set(self.order):
            raise TraceChanged(_what_changed(self.order, order))
        self._at_start = None if finder.discrete else finder  # it has one value of each discrete latent
        self.latents = finder.latents
        self.parameters = {normalize_param_name(name): entry for name, entry in finder.parameters.items()}
        self._of_store = {entry.store_name: entry for entry in self.parameters.values()}
        self.order = order
        self.has_factor = finder.has_factor
        self.enumeration = finder.enumeration()
        self.observed = finder.observed
        self._derived = {m["name"]: m["value"].shape for m in finder.samples if _is_derived(m)}
        self.subsampled = self._find_subsampled() if asked else {}
        self._check_leaves()

    def rehearse(self) -> None:
        """Sum the discrete latents out once, and stop before anything is computed that memory would not hold.

        Raises: EnumerationError, ModelError.
        """
        if self.enumeration is None:
            return
        self.enumeration.check_dimensions()
        trace = _Evaluation(self)
        try:
            with torch.no_grad(), suppress(InfeasibleError):
                with random_state_kept(), MemoryGuard(MEMORY_LIMIT):
                    self._run(trace)
                    trace.log_density()
                for seed in range(CONFIGURATIONS):
                    with random_state_kept():
                        single = _Single(self, seed)
                        self._run(single)
                        self.enumeration.check_values(single.log_densities(), trace.log_densities())
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

    def hold(self, fixed: Mapping[str, Any]) -> None:
        """Fix sites at constrained values; None means: where it starts."""
        for name, value in fixed.items():
            entry = self._entry(name)
            held = self._constrained(entry) if value is None else self.constrained_like(name, value)
            entry.held = held.detach().clone()
            entry.site = replace(entry.site, role="fixed")
            if isinstance(entry, Parameter):
                with torch.no_grad():
                    entry.leaf.copy_(transform_to(entry.constraint).inv(held))
                if not isinstance(entry.leaf, torch.nn.Parameter):
                    entry.leaf.requires_grad_(False)
            else:
                with torch.no_grad():
                    entry.leaf.copy_(entry.transform.inv(held))
            if value is not None:
                self._at_start = None

    def constrained_like(self, name: str, value: Any) -> Tensor:
        """``value`` (a number, a nested list, a tensor) as a constrained value of the site: broadcast and checked.

        Raises: ValueError with the reason when shape or support do not allow it.
        """
        entry = self._entry(name)
        shape = entry.site.value_shape
        try:
            tensor = torch.as_tensor(value, dtype=entry.leaf.dtype, device=entry.leaf.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{value!r} is no number or nested list of numbers") from error
        try:
            tensor = tensor.expand(shape)
        except RuntimeError as error:
            raise ValueError(f"shape {tuple(tensor.shape)} does not broadcast to {tuple(shape)}") from error
        constraint = entry.constraint if isinstance(entry, Parameter) else entry.support
        if not bool(torch.isfinite(tensor).all()) or not bool(constraint.check(tensor).all()):
            raise ValueError(f"{value!r} is not inside its support, {describe(constraint)}")
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
            trace = _Evaluation(self, jacobian)
            self._run(trace)
            return trace.log_density()

    def log_density_entries(self, jacobian: Collection[str] = ()) -> Tensor:
        """The entries that ``log_density`` is the sum of, at the leaves: observations, and rows of latents; (n,)."""
        trace = _Evaluation(self, jacobian)
        self._run(trace)
        return trace.entries()

    @contextmanager
    def substituted(self, values: Params) -> Iterator[None]:
        """Inside, unconstrained ``values`` stand in the place of latents' leaves; they may have a graph."""
        leaves = {name: self.latents[name].leaf for name in values}
        for name, value in values.items():
            self.latents[name].leaf = value
        try:
            yield
        finally:
            for name, leaf in leaves.items():
                self.latents[name].leaf = leaf

    def observed_distributions(self, full: bool = False) -> dict[str, Any]:
        """The distribution of each observed site at the leaves, but for those that depend on an enumerated one."""
        with full_plates() if full else nullcontext():
            trace = _Evaluation(self)
            self._run(trace)
            return {message["name"]: message["fn"] for message in trace.samples if trace.has_density(message)}

    def expected_log_density(
        self, reference: Mapping[str, Any], jacobian: Collection[str] = (), full: bool = False
    ) -> Tensor:
        """``log_density`` with each observed site's part replaced by its expectation under ``reference``; shape ().

        Up to a constant that is −KL(reference ‖ distribution), whose Hessian where the two are equal is minus the
        Fisher information. Sites without a known divergence keep their log density.
        """
        with full_plates() if full else nullcontext():
            trace = _Expected(self, jacobian, reference)
            self._run(trace)
            return trace.log_density()

    def log_densities_by_row(
        self, plates: Sequence[str], jacobian: Collection[str] = (), full: bool = False
    ) -> Tensor | None:
        """What the sites inside these plates add to the log density, a row of them each.

        Shape (size of the first plate, of the second, …); None where no site stands in all of them.
        """
        with torch.no_grad(), full_plates() if full else nullcontext():
            trace = _Evaluation(self, jacobian)
            self._run(trace)
            return trace.by_row(plates)

    def site_log_densities(self, full: bool = False) -> dict[str, float]:
        """The log density of each sample site at the leaves, for a diagnosis; with the best of enumerated values."""
        with torch.no_grad(), full_plates() if full else nullcontext():
            trace = _Evaluation(self)
            self._run(trace)
            sums = ((message["name"], trace.site_log_density(message)) for message in trace.samples)
            return {name: float(total) for name, total in sums}

    def read(self) -> Reading:
        """Trace the model at the leaves, on the full plates. Raises: InfeasibleError, ModelError."""
        with full_plates(), random_state_kept():
            trace = _Evaluation(self)
            self._run(trace)
        derived = {m["name"]: m["value"] for m in trace.samples if _is_derived(m)}
        deterministic = {name: value for name, value in derived.items() if value.shape == self._derived.get(name)}
        enumerated = [name for name in derived if name not in deterministic and self.enumeration is not None]
        transforms = {name: transform_to(p.constraint) for name, p in self.parameters.items() if p.held is None}
        moved = []
        for name, transform in trace.transforms.items():
            latent = self.latents[name]
            transforms[name] = transform
            with torch.no_grad():
                if transform is not latent.transform and not torch.equal(
                    transform(latent.leaf), latent.transform(latent.leaf)
                ):
                    moved.append(name)
        observations = sum(trace.observations(message) for message in trace.samples)
        return Reading(deterministic, enumerated, transforms, moved, observations)

    def values(self) -> Params:
        """The constrained value of every site at the leaves (a trace on the full plates).

        Where the model cannot be traced any more, a latent's value is what its first support makes of its leaf.
        """
        found: Params = {}
        with torch.no_grad(), full_plates(), suppress(InfeasibleError, ModelError):
            trace = _Evaluation(self)
            self._run(trace)
            found = {message["name"]: message["value"] for message in trace.samples}
        values: Params = {}
        for name in self.order:
            entry = self._entry(name)
            value = entry.held
            if value is None:
                traced = found.get(name) if isinstance(entry, Latent) else None
                value = self._constrained(entry) if traced is None else traced
            values[name] = value.detach().clone()
        return values

    def unconstrained(self, name: str) -> Tensor:
        """The leaf of a site."""
        return self._entry(name).leaf

    def value_and_slope(self, name: str, unconstrained: Tensor) -> tuple[Tensor, Tensor | None]:
        """A site's value at an unconstrained tensor, and d value / d unconstrained if its transform is elementwise."""
        entry = self._entry(name)
        transform = transform_to(entry.constraint) if isinstance(entry, Parameter) else entry.transform
        return value_and_slope(transform, unconstrained)

    def _entry(self, name: str) -> Latent | Parameter:
        return self.latents[name] if name in self.latents else self.parameters[name]

    def _constrained(self, entry: Latent | Parameter) -> Tensor:
        with torch.no_grad():
            transform = transform_to(entry.constraint) if isinstance(entry, Parameter) else entry.transform
            value: Tensor = transform(entry.leaf)
            return value.detach().clone()

    def _run(self, messenger: _SiteMessenger) -> None:
        try:
            with messenger.around(), messenger:
                self.model(**self.arguments)
        except (ModelError, InfeasibleError):
            raise
        except LinAlgError as error:
            raise InfeasibleError(f"{_first_line(error)} ({user_place(error)})") from error
        except ValueError as error:
            if raised_inside_distribution(error):
                raise InfeasibleError(f"{_first_line(error)} ({user_place(error)})") from error
            raise messenger.model_error(error) from error
        except (Exception, SystemExit) as error:
            raise messenger.model_error(error) from error

    def _run_at_start(self, messenger: _SiteMessenger) -> None:
        try:
            self._run(messenger)
        except InfeasibleError as error:
            raise StartError(
                f"the model cannot be evaluated at the start (last site traced: {messenger.current!r}): {error}"
            ) from error

    def _find_subsampled(self) -> dict[str, tuple[int, int]]:
        """Plate → (size, subsample size) for every plate that is subsampled when the model is left alone."""
        watcher = _PlateWatcher(self)
        with torch.no_grad():
            self._run_at_start(watcher)
        return watcher.subsampled

    def _check_leaves(self) -> None:
        storage: dict[int, str] = {}
        dtype = torch.get_default_dtype()
        for name in self.order:
            leaf = self._entry(name).leaf
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


def value_and_slope(transform: Transform, unconstrained: Tensor) -> tuple[Tensor, Tensor | None]:
    """The transform's value, and d value / d unconstrained if it is elementwise."""
    leaf = unconstrained.detach().requires_grad_(True)
    value = transform(leaf)
    base = transform
    while isinstance(base, IndependentTransform):
        base = base.base_transform
    if base.domain.event_dim or base.codomain.event_dim or not value.requires_grad:
        return value.detach(), None
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


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


def describe(constraint: constraints.Constraint) -> str:
    """The constraint in a word or two, with its bounds where they are numbers."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    kind = type(constraint).__name__.lstrip("_")
    if kind in ("GreaterThan", "GreaterThanEq") and _bound(getattr(constraint, "lower_bound", None)) == "0":
        return "positive"
    bounds = [
        f"{symbol} {_bound(getattr(constraint, name))}"
        for name, symbol in (("lower_bound", ">"), ("upper_bound", "<"))
        if hasattr(constraint, name)
    ]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()
    return " and ".join(bounds) if bounds else words


def _bound(bound: Any) -> str:
    if isinstance(bound, Tensor) and bound.numel() > 1:
        return "a tensor"
    return f"{float(bound.detach() if isinstance(bound, Tensor) else bound):g}"


class _SiteMessenger(Messenger):
    """What all three traces share: the site at hand, and the wording of errors."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.current: str | None = None

    def around(self) -> AbstractContextManager[Any]:
        """Handlers of Pyro's that see a site after this one."""
        return nullcontext()

    def model_error(self, error: BaseException) -> ModelError:
        where = f" (last site traced: {self.current!r})" if self.current else ""
        return ModelError(f"the model raised{where}: {user_fault(error)}")


class _PlateWatcher(_SiteMessenger):
    """Runs the model as it is, at the start values, and notes which plates are subsampled."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.subsampled: dict[str, tuple[int, int]] = {}

    def _pyro_sample(self, msg: Any) -> None:
        self.current = msg["name"]
        latent = self.program.latents.get(msg["name"])
        if latent is not None and msg["value"] is None:
            msg["value"] = _select(latent.transform(latent.leaf), msg, msg["fn"].event_dim, self.plates)

    def __enter__(self) -> Any:
        self.plates: dict[str, Tensor] = {}
        return super().__enter__()

    def _pyro_post_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], Subsample):
            self.plates[msg["name"]] = msg["value"]
            if len(msg["value"]) != msg["fn"].size:
                self.subsampled[msg["name"]] = (msg["fn"].size, len(msg["value"]))


class _Discovery(_SiteMessenger):
    """Runs the model and makes a leaf for every parameter and latent."""

    def __init__(self, program: Program, strategy: str, jitter: float, values: Mapping[str, Any]) -> None:
        super().__init__(program)
        self.strategy, self.jitter, self.start_values = strategy, jitter, values
        self.latents: dict[str, Latent] = {}
        self.parameters: dict[str, Parameter] = {}
        self.order: list[str] = []
        self.seen: set[str] = set()
        self.has_factor = False
        self.known = program.parameters
        self.samples: list[Any] = []
        self.discrete: dict[str, Discrete] = {}
        self.observed: list[str] = []
        self.batch_shapes: dict[str, torch.Size] = {}
        self.nesting = 0

    def enumeration(self) -> Enumeration | None:
        return Enumeration(self.discrete, self.nesting, self.batch_shapes) if self.discrete else None

    def _pyro_sample(self, msg: Any) -> None:
        self.current = name = msg["name"]
        fn = msg["fn"]
        if name in self.seen:
            raise ModelError(f"two sample sites are called {name!r}: every site needs a name of its own")
        self.seen.add(name)
        self.has_factor |= isinstance(fn, Unit)
        if not isinstance(fn, Subsample):
            self.batch_shapes[name] = fn.batch_shape
            deepest = max((-frame.dim for frame in msg["cond_indep_stack"] if frame.vectorized), default=0)
            observed = msg["value"].dim() - fn.event_dim if isinstance(msg["value"], Tensor) else 0
            self.nesting = max(self.nesting, deepest, len(fn.batch_shape), observed)
        if msg["is_observed"] and not isinstance(fn, (Unit, Delta)):
            self.observed.append(name)
        if msg["is_observed"] or msg["value"] is not None or isinstance(fn, (Subsample, Delta)):
            return
        if is_discrete(fn):
            if not self.program.integration:
                raise ModelError(no_leaf(name, type(fn).__name__))
            self.discrete[name] = discrete(msg)
            return  # the first trace goes on with one value of it
        support = fn.support
        transform = _transform_to(support, name)
        start = self._start(msg, transform)
        value = transform(start)
        event_dim = fn.event_dim + transform.domain.event_dim - transform.codomain.event_dim
        site = Site(name, "latent", start.shape, value.shape, describe(support), _plates(msg, start.shape, event_dim))
        self.latents[name] = Latent(site, start.requires_grad_(True), support, transform, event_dim)
        self.order.append(name)
        msg["value"] = value.detach()

    def _pyro_post_sample(self, msg: Any) -> None:
        if not isinstance(msg["fn"], Subsample):
            self.samples.append(msg)

    def log_density(self) -> float | None:
        """The log density of what was traced; None where it has none: an evaluation will say why."""
        with suppress(Exception), torch.no_grad():
            parts = ((m["fn"].log_prob(m["value"], *m["args"], **m["kwargs"]), m) for m in self.samples)
            total = sum(float(scale_and_mask(part, m["scale"], m["mask"]).sum()) for part, m in parts)
            return total if isfinite(total) else None
        return None

    def _start(self, msg: Any, transform: Transform) -> Tensor:
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
        constraint = store_constraints(store)[store_name]
        if name not in self.known and not isinstance(leaf, torch.nn.Parameter):
            # Pyro keeps the caller's own tensor where there is no constraint: a fit must not write to it.
            leaf = leaf.detach().clone().requires_grad_(True)
            replace_leaf(store, store_name, leaf)
        if name in self.start_values:
            with torch.no_grad():
                leaf.copy_(transform_to(constraint).inv(self.start_values[name]))
        msg["value"] = store[store_name]
        event_dim = msg["kwargs"].get("event_dim")
        plates: tuple[Plate, ...] = ()
        if event_dim is not None:
            transform = transform_to(constraint)
            unconstrained = event_dim + transform.domain.event_dim - transform.codomain.event_dim
            plates = _plates(msg, leaf.shape, unconstrained)
        site = Site(name, "parameter", leaf.shape, msg["value"].shape, describe(constraint), plates)
        self.parameters[store_name] = Parameter(site, store_name, leaf, constraint)
        self.order.append(name)


class _Evaluation(_SiteMessenger):
    """Runs the model with every latent at its leaf, and gathers the sample sites."""

    def __init__(self, program: Program, jacobian: Collection[str] = ()) -> None:
        super().__init__(program)
        self.jacobian = jacobian
        self.enumeration = program.enumeration
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
        latent = self.program.latents.get(msg["name"])
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
            value = _select(latent.held, msg, fn.event_dim, self.plates) if self.plates else latent.held
        else:
            leaf = _select(latent.leaf, msg, latent.event_dim, self.plates) if self.plates else latent.leaf
            support = fn.support
            transform = latent.transform if _same(support, latent.support) else _transform_to(support, msg["name"])
            value = leaf if transform is identity_transform else transform(leaf)
            self.transforms[msg["name"]] = transform
            if msg["name"] in self.jacobian:
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
            self.samples.append(msg)

    def _pyro_param(self, msg: Any) -> None:
        self.current = store_name = msg["name"]
        entry = self.program._of_store.get(store_name)
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

    def _pyro_post_param(self, msg: Any) -> None:
        entry = self.program._of_store[msg["name"]]
        if unconstrained_params(pyro.get_param_store()).get(msg["name"]) is not entry.leaf:
            raise TraceChanged(
                f"the parameter {entry.site.name!r} was replaced in Pyro's parameter store while the model ran "
                "(pyro.clear_param_store() inside the model?)"
            )

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
                yield message["cond_indep_stack"], _scaled(message, log_prob)
        self.program.entries = entries
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
        log_prob = _scaled(message, log_prob)
        total: Tensor = log_prob.sum() if log_prob.dim() else log_prob
        return total

    def has_density(self, message: Any) -> bool:
        """Whether a site is observed, with a distribution that is the same whatever the discrete latents are."""
        if not message["is_observed"] or isinstance(message["fn"], (Unit, Delta)):
            return False
        return self.enumeration is None or len(message["fn"].batch_shape) <= self.enumeration.nesting

    def observations(self, message: Any) -> int:
        """Entries of an observed site's log density, those that are masked and values of discrete latents left out."""
        fn, mask = message["fn"], message["mask"]
        if not message["is_observed"] or isinstance(fn, (Unit, Delta)) or _is_deterministic(message) or mask is False:
            return 0
        shape = fn.batch_shape
        if self.enumeration is not None:
            shape = shape[max(0, len(shape) - self.enumeration.nesting) :]
        if isinstance(mask, Tensor) and mask.dim() <= len(shape):
            return int(mask.expand(shape).sum())
        return int(shape.numel())

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
            return self.unscaled_log_density(message)
        except ModelError:
            raise
        except LinAlgError as error:
            raise InfeasibleError(f"at site {self.current!r}: {_first_line(error)}") from error
        except ValueError as error:
            if raised_inside_distribution(error):
                raise InfeasibleError(f"at site {self.current!r}: {_first_line(error)}") from error
            raise self.model_error(error) from error
        except Exception as error:
            raise self.model_error(error) from error

    def _check_complete(self) -> None:
        program = self.program
        if self.latents_seen != len(program.latents) or len(self.parameters_seen) != len(program.parameters):
            seen = {message["name"] for message in self.samples}
            seen |= {normalize_param_name(name) for name in self.parameters_seen}
            raise TraceChanged(_what_changed(program.order, [name for name in program.order if name in seen]))
        if program.sample_count is None:
            program.sample_count = len(self.samples)
        elif program.sample_count != len(self.samples) and not program.subsampled:
            raise TraceChanged(
                f"the model had {program.sample_count} sample sites at its first trace and has {len(self.samples)} "
                "now: observed sites must stay the same too"
            )


class _Single(_Evaluation):
    """An evaluation at one value of each discrete latent, drawn evenly from all."""

    def __init__(self, program: Program, seed: int) -> None:
        super().__init__(program)
        self.enumeration = None
        self.generator = torch.Generator().manual_seed(seed)

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.program.discrete:
            fn = msg["fn"]
            values = fn.enumerate_support(expand=True)
            place = torch.randint(len(values), fn.batch_shape, generator=self.generator, device="cpu")
            place = place.to(values.device).reshape(1, *fn.batch_shape, *(1 for _ in fn.event_shape))
            msg["value"] = values.take_along_dim(place, 0)[0]
        super()._pyro_sample(msg)


class _Expected(_Evaluation):
    """An evaluation in which observed sites give minus their divergence from a reference."""

    def __init__(self, program: Program, jacobian: Collection[str], reference: Mapping[str, Any]) -> None:
        super().__init__(program, jacobian)
        self.reference = reference

    def unscaled_log_density(self, message: Any) -> Tensor:
        reference = self.reference.get(message["name"])
        if reference is not None:
            with suppress(NotImplementedError):
                return -kl_divergence(reference, message["fn"])
        return super().unscaled_log_density(message)


def _scaled(message: Any, log_prob: Tensor) -> Tensor:
    scale = message["scale"]
    if message["mask"] is not None or not (type(scale) is float and scale == 1.0):
        log_prob = scale_and_mask(log_prob, scale, message["mask"])
    return log_prob


def _is_derived(message: Any) -> bool:
    """Whether a site is a `pyro.deterministic` one of real numbers."""
    return _is_deterministic(message) and not message["value"].is_complex()


def _is_deterministic(message: Any) -> bool:
    return bool((message["infer"] or {}).get(DETERMINISTIC))


def _what_changed(before: list[str], after: list[str]) -> str:
    lost = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    words = [
        f"{', '.join(map(repr, names))} {verb}" for names, verb in ((lost, "vanished"), (new, "appeared")) if names
    ]
    what = " and ".join(words) or "a latent was sampled twice"
    return f"{what} since the first trace. Every iteration must have the same parameters and latents"


def _transform_to(support: constraints.Constraint, name: str) -> Transform:
    """A bijection where torch has one; else the transform that optimisers use, as for a positive definite matrix."""
    for registered in (biject_to, transform_to):
        try:
            transform: Transform = registered(support)
            return transform
        except NotImplementedError:
            continue
    raise ModelError(f"the latent {name!r} has support {describe(support)}, which no transform reaches")


def leaf_scale(whole: Tensor, part: Tensor) -> float:
    """How many times the whole leaf is larger than its subsample."""
    return whole.numel() / max(part.numel(), 1)


def _select(tensor: Tensor, msg: Any, event_dim: int, plates: Mapping[str, Tensor]) -> Tensor:
    """The rows of ``tensor`` that the subsampled plates around this site have drawn."""
    for frame in msg["cond_indep_stack"]:
        if frame.dim is not None and frame.name in plates:
            dim = frame.dim - event_dim
            if tensor.dim() >= -dim and tensor.shape[dim] != 1:
                tensor = tensor.index_select(dim, plates[frame.name].to(tensor.device))
    return tensor


def _plates(msg: Any, shape: torch.Size, event_dim: int) -> tuple[Plate, ...]:
    found = []
    for frame in msg["cond_indep_stack"]:
        if frame.dim is None:
            continue
        dim = frame.dim - event_dim
        if len(shape) >= -dim and shape[dim] == frame.size:
            found.append(Plate(frame.name, frame.size, dim))
    return tuple(sorted(found, key=lambda plate: plate.dim))


def _same(one: constraints.Constraint, other: constraints.Constraint) -> bool:
    """Whether two supports are the same without looking at tensors: bounds that depend on a trace are not."""
    if one is other:
        return True
    if isinstance(one, constraints.independent) and isinstance(other, constraints.independent):
        return one.reinterpreted_batch_ndims == other.reinterpreted_batch_ndims and _same(
            one.base_constraint, other.base_constraint
        )
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
