"""The sites of a model as its first trace has found them, and what every trace of it shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints, transform_to
from torch.distributions.transforms import Transform
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ..errors import ModelError, StartError
from ..point import Params, Site
from .enumeration import Discrete, Enumeration
from .faults import hint, raised_inside_distribution, refused, user_fault, user_place


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
    """A parameter site: its name in Pyro's store, its leaf there, and its support.

    ``stand_in`` is the unconstrained tensor that a trace reads in the leaf's place, where there is one.
    """

    site: Site
    store_name: str
    leaf: Tensor
    support: constraints.Constraint
    held: Tensor | None = None
    stand_in: Tensor | None = None

    @property
    def transform(self) -> Transform:
        transform: Transform = transform_to(self.support)
        return transform


@dataclass
class Sites:
    """What the first trace has found, with a leaf for every latent and parameter; no site before it.

    ``order`` is that of the trace. ``enumeration`` speaks for the discrete latents, which have no leaf. ``subsampled``
    maps a plate to (size, subsample size) where the model, left alone, subsamples it. ``not_fitted`` says of every
    other site what it is, as an observed one. ``derived`` has the shape of each `pyro.deterministic` site.
    """

    latents: dict[str, Latent] = field(default_factory=dict)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    enumeration: Enumeration | None = None
    subsampled: dict[str, tuple[int, int]] = field(default_factory=dict)
    not_fitted: dict[str, str] = field(default_factory=dict)
    derived: dict[str, torch.Size] = field(default_factory=dict)
    weight: float | None = None
    """The mean scale of the entries of sites that are no factors, on full plates."""
    outside: set[str] = field(default_factory=set)
    """Observed sites whose value lies outside the support at some values of the discrete latents: impossible there."""
    elsewhere: frozenset[str] = frozenset()
    """Sites whose density another piece of the data counts: here it is none."""
    sample_count: int | None = None
    """Sample sites of an evaluation, observed ones included; None until the first."""
    density_entries: int = 0
    """Entries of all sites' log densities at the last evaluation: observations, and rows of latents."""

    def __post_init__(self) -> None:
        self.of_store = {entry.store_name: entry for entry in self.parameters.values()}
        """Name in Pyro's store → parameter."""

    @property
    def discrete(self) -> Mapping[str, Discrete]:
        """The discrete latents."""
        return {} if self.enumeration is None else self.enumeration.sites

    @property
    def by_name(self) -> dict[str, Site]:
        """Every parameter and latent, in the order of the trace."""
        return {name: self.entry(name).site for name in self.order}

    @property
    def leaves(self) -> Params:
        """The leaves that are optimised, in the order of the trace."""
        entries = {name: self.entry(name) for name in self.order}
        return {name: entry.leaf for name, entry in entries.items() if entry.site.role != "fixed"}

    def entry(self, name: str) -> Latent | Parameter:
        return self.latents[name] if name in self.latents else self.parameters[name]

    def store_state(self) -> dict[str, dict[str, Any]]:
        """The parameters as Pyro's store has its state: leaves and constraints by their names there."""
        entries = self.of_store.items()
        return {"params": {n: e.leaf for n, e in entries}, "constraints": {n: e.support for n, e in entries}}

    def value(self, name: str) -> Tensor:
        """The constrained value that the first trace's support makes of a site's leaf."""
        entry = self.entry(name)
        with torch.no_grad():
            value: Tensor = entry.transform(entry.leaf)
            return value.detach().clone()


def what_changed(before: list[str], after: list[str]) -> str:
    lost = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    words = [
        f"{', '.join(map(repr, names))} {verb}" for names, verb in ((lost, "vanished"), (new, "appeared")) if names
    ]
    what = " and ".join(words) or "a latent was sampled twice"
    return f"{what} since the first trace. Every iteration must have the same parameters and latents"


class SiteMessenger(Messenger):
    """What all traces share: the site at hand, and what is said of an error."""

    def __init__(self) -> None:
        super().__init__()
        self.current: str | None = None

    def around(self) -> AbstractContextManager[Any]:
        """Handlers of Pyro's that see a site after this one."""
        return nullcontext()

    def run(self, model: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """Trace the model. Raises: InfeasibleError, ModelError."""
        gradients = torch.is_grad_enabled()
        try:
            with self.around(), self:
                model(**arguments)
            if torch.is_grad_enabled() != gradients:
                raise ModelError("the model switches gradients for good: write `with torch.no_grad():` around it")
        except (ModelError, InfeasibleError):
            raise
        except (Exception, SystemExit) as error:
            raise self.told_apart(error, f"{refused(error)} ({user_place(error)})") from error
        finally:
            torch.set_grad_enabled(gradients)

    def run_at_start(self, model: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        """``run`` where there is no way around. Raises: StartError, ModelError."""
        try:
            self.run(model, arguments)
        except InfeasibleError as error:
            raise StartError(
                f"the model cannot be evaluated at the start (last site traced: {self.current!r}): {error}"
            ) from error

    def told_apart(self, error: BaseException, refusal: str) -> ModelError | InfeasibleError:
        """What an error of the model is: a refusal by a distribution or a factorisation, or a fault of the model's."""
        by_distribution = isinstance(error, ValueError) and raised_inside_distribution(error)
        if by_distribution or isinstance(error, LinAlgError):
            return InfeasibleError(refusal)
        where = f" (last site traced: {self.current!r})" if self.current else ""
        return ModelError(f"the model raised{where}: {user_fault(error)}{hint(error)}")
