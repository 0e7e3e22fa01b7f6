"""The types at the joints: a site, a point, and what an objective offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from .differences import central
from .errors import ModelError
from .internals import foreach_norm, lacks_derivative

Params = dict[str, Tensor]
"""Name → unconstrained value, in the order of the trace."""

Role = Literal["parameter", "latent", "integrated", "fixed"]
"""What a fit does with a site: optimise it, as one of the model's `pyro.param` sites or as an unobserved sample site;
integrate it out; or hold it."""


@dataclass(frozen=True)
class Plate:
    """A plate that a site stands in; ``dim`` counts from the right of the *unconstrained* tensor."""

    name: str
    size: int
    dim: int


@dataclass(frozen=True)
class Site:
    """A parameter or latent of the model, as its first trace shows it.

    ``flat`` says of a latent that its prior is flat, on the constrained scale: it has none, to speak of.
    Shapes: ``shape`` is that of the unconstrained tensor, ``value_shape`` that of the constrained value.
    """

    name: str
    role: Role
    shape: torch.Size
    value_shape: torch.Size
    constraint: str
    plates: tuple[Plate, ...] = ()
    flat: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether its support has an edge, or a form, so that a transform stands between it and the real numbers."""
        return not self.constraint.startswith("real")

    @property
    def rows(self) -> int:
        """How many rows there are: what is left when the plates' dimensions are taken away is one row."""
        count = 1
        for plate in self.plates:
            count *= self.shape[plate.dim]
        return count

    @property
    def row_length(self) -> int:
        return self.shape.numel() // max(self.rows, 1)


@dataclass
class Evaluations:
    """How often each thing was asked for at a new place, since the fit began; not what it took to tell it."""

    loss: int = 0
    gradient: int = 0
    hvp: int = 0
    inner: int = 0

    def restore(self, counts: Evaluations) -> None:
        """Go on from other counts. Whoever counts here goes on counting here."""
        self.loss, self.gradient, self.hvp, self.inner = counts.loss, counts.gradient, counts.hvp, counts.inner

    def copy(self) -> Evaluations:
        return Evaluations(self.loss, self.gradient, self.hvp, self.inner)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Inside, nothing counts: the counts are put back on leaving."""
        counts = self.copy()
        try:
            yield
        finally:
            self.restore(counts)


class Source(Protocol):
    """What makes points, and counts what is computed for them."""

    evaluations: Evaluations
    sites: Mapping[str, Site]

    @property
    def unit(self) -> float:
        """What one observation weighs in the loss."""

    def at(self, params: Params) -> Point: ...


class Retraceable(Source, Protocol):
    """A source whose loss is a trace of a program's leaves, which the next trace overwrites."""

    def retrace(self, point: TracedPoint) -> Tensor:
        """The loss at ``point`` once more, computed from ``point.leaves``."""

    def is_current(self, point: Point) -> bool:
        """Whether the leaves still hold what ``point`` was traced at."""

    def invalidate(self) -> None:
        """Hear that the leaves were written: every point must trace again."""

    def hear_of_differences(self, point: TracedPoint) -> None:
        """Hear that second derivatives at a point are taken by differences, torch having none."""


@runtime_checkable
class Replays(Protocol):
    """A source that may know products of the Hessian without a trace."""

    def products(self, point: TracedPoint, vectors: Params, compute: Callable[[], Params]) -> Params:
        """What ``compute`` gives: products of the Hessian at ``point``, by autograd."""

    def hear_of_graph(self) -> None:
        """Hear that a gradient is asked for with its graph: its last bits may be others."""


@runtime_checkable
class Watchable(Protocol):
    """A source whose loss can be watched as it is computed."""

    @property
    def entries(self) -> int:
        """How many terms the loss is a sum of."""

    def evaluate(self, point: TracedPoint, names: Sequence[str], watching: AbstractContextManager[object]) -> Tensor:
        """The loss at ``point`` as a function of the leaves of ``names`` alone, computed inside ``watching``."""


@runtime_checkable
class ByRow(Protocol):
    """A source that knows what each row of some plates adds to the loss."""

    def losses_by_row(self, params: Params, plates: Sequence[str]) -> Tensor | None:
        """What the sites inside all of these plates add to the loss at ``params``, an index of the plates each.

        Shape (size of the first plate, …); inf () where the loss cannot be computed; None where no site stands there.
        """


@runtime_checkable
class HasInformation(Protocol):
    """A source that knows the distributions of what was observed."""

    def information(self, point: TracedPoint) -> TracedPoint:
        """A point whose loss has, there, the expected information as its Hessian (the priors' own besides)."""


@dataclass(eq=False)
class Point(ABC):
    """An objective at one place: the loss there, and its derivatives on demand. ``params`` is never written to.

    A point that could not be evaluated has loss inf and says why in ``failure``.
    """

    params: Params
    loss: Tensor
    source: Source | None = field(default=None, kw_only=True)
    """Who made the point; None for a bare loss."""
    failure: str | None = field(default=None, kw_only=True)
    random_state: dict[str, Any] | None = field(default=None, kw_only=True)
    """State of the random generators before the trace, where the trace draws from them."""
    inner: Params = field(default_factory=dict, kw_only=True)
    """What the objective has found inside the point: the mode of integrated latents, unconstrained."""
    known_gradient: Params | None = field(default=None, init=False)
    """The gradient, once it was computed."""
    _value: float | None = field(default=None, init=False)

    @property
    def value(self) -> float:
        """The loss as a number."""
        if self._value is None:
            self._value = float(self.loss.detach())
        return self._value

    def take_value(self, value: float) -> None:
        """Hear what the loss is as a number."""
        self._value = value

    @property
    def sites(self) -> Mapping[str, Site]:
        """What is known of each parameter; empty for a bare loss."""
        return self.source.sites if self.source is not None else {}

    @property
    def size(self) -> float:
        """That of the loss: its absolute value, or the loss's unit where that is larger."""
        return max(1.0 if self.source is None else self.source.unit, abs(self.value))

    @property
    def has_graph(self) -> bool:
        """Whether the gradient is kept with its graph."""
        return False

    @abstractmethod
    def at(self, params: Params) -> Point:
        """The same objective elsewhere: one more evaluation."""

    @abstractmethod
    def gradient(self, differentiable: bool = False) -> Params:
        """d loss / d params, computed once and kept; ``differentiable`` says that ``hvp`` will be asked for next."""

    @abstractmethod
    def hvp(self, vectors: Params) -> Params:
        """Hessian-vector products over the parameters named in ``vectors``; the others are held.

        Shapes: ``vectors[name]`` (probes, *param.shape), and so is the result.
        """


@dataclass(eq=False)
class DifferentiatedPoint(Point):
    """A point whose gradient its source knows by the time that it knows the loss."""

    def gradient(self, differentiable: bool = False) -> Params:
        if self.known_gradient is None:  # of a point that could not be evaluated
            self.known_gradient = {name: torch.full_like(value, torch.nan) for name, value in self.params.items()}
        return self.known_gradient


@dataclass(eq=False)
class TracedPoint(Point):
    """A point whose loss is a graph, and whose derivatives are autograd's.

    ``leaves`` are the tensors that ``loss`` was computed from; an objective reuses them, so a point whose leaves were
    overwritten, or whose graph is spent, traces itself again to differentiate. Without a ``source`` it is a bare loss
    and its leaves, as plain Pyro code hands them over.
    """

    leaves: Params
    source: Retraceable | None = field(default=None, kw_only=True)
    full: bool = field(default=False, kw_only=True)
    """Whether subsampled plates were traced whole."""
    replayed: Params | None = field(default=None, kw_only=True)
    """The gradient, where the source has it without a graph: the model is traced only when a graph is asked for."""
    without_second: bool = field(default=False, init=False)
    """Whether torch has no second derivative here: products are then taken by differences of the gradient."""
    _graph: Params | None = field(default=None, init=False)
    _spent: bool = field(default=False, init=False)

    @property
    def has_graph(self) -> bool:
        return self._graph is not None

    def at(self, params: Params) -> Point:
        if self.source is None:
            raise TypeError("this optimizer evaluates trial points: it needs a hofit objective, not a bare loss")
        return self.source.at(params)

    def gradient(self, differentiable: bool = False) -> Params:
        if self.replayed is not None:
            if self.known_gradient is None:
                self.known_gradient = self.replayed
                if self.source is not None:
                    self.source.evaluations.gradient += 1
        elif self.known_gradient is None or (differentiable and self._graph is None):
            if differentiable and isinstance(self.source, Replays):
                self.source.hear_of_graph()
            self._differentiate(differentiable)
        assert self.known_gradient is not None
        return self.known_gradient

    def forget_graph(self) -> None:
        """Trace again when the graph is needed next."""
        self._graph, self._spent = None, True

    def loss_graph(self) -> Tensor:
        """The loss as a function of ``leaves``, to be differentiated by someone else."""
        if self._stale():
            self._graph = None
        self._gradient_graph()
        return self.loss

    def _gradient_graph(self) -> Params:
        """The gradient with its graph, a function of ``leaves``."""
        if self._graph is None or self._stale():
            self._differentiate(True)
        assert self._graph is not None
        return self._graph

    def hvp(self, vectors: Params) -> Params:
        if self.source is not None:
            self.source.evaluations.hvp += next(iter(vectors.values())).shape[0]
        if not self.without_second:
            try:
                if isinstance(self.source, Replays):
                    found = self.source.products(self, vectors, lambda: self._products(vectors))
                else:
                    found = self._products(vectors)
            except _Lacking:
                self.without_second = True
            else:
                finite = self.source is None or all(bool(torch.isfinite(v).all()) for v in found.values())
                if finite or not self._is_finite():
                    return found
                self.without_second = True
        return self._products_by_differences(vectors)

    def _is_finite(self) -> bool:
        return self.known_gradient is not None and isfinite(self.value) and isfinite(max_norm(self.known_gradient))

    def _products_by_differences(self, vectors: Params) -> Params:
        """What ``hvp`` gives where torch has no second derivative: differences of the gradient."""
        assert self.source is not None
        self.source.hear_of_differences(self)
        unit, rows = DIFFERENCE.get(self.loss.dtype, 1.0), []
        for probe in range(next(iter(vectors.values())).shape[0]):
            vector = {name: v[probe] for name, v in vectors.items()}
            largest = max_norm(vector)

            def slope(t: float, vector: Params = vector) -> Tensor:
                there = self.at({**self.params, **{name: self.params[name] + t * v for name, v in vector.items()}})
                gradient = there.gradient()
                return torch.cat([gradient[name].reshape(-1) for name in vectors])

            flat = central(slope, unit / largest) if largest else slope(0.0).zero_()
            rows.append(flat.split([self.params[name].numel() for name in vectors]))
        return {
            name: torch.stack([row[i].reshape(self.params[name].shape) for row in rows])
            for i, name in enumerate(vectors)
        }

    def _products(self, vectors: Params) -> Params:
        """``hvp`` by autograd. Raises: _Lacking where torch has no second derivative."""
        graph = self._gradient_graph()
        names = list(vectors)
        probes = vectors[names[0]].shape[0]
        live = [name for name in names if graph[name].requires_grad]
        if not live or probes == 0:
            return {name: torch.zeros_like(vectors[name]) for name in names}

        def products(*rows: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                [graph[name] for name in live],
                [self.leaves[name] for name in names],
                rows,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )

        if probes == 1:
            with self._faults_of_the_model("second derivative"):
                single = products(*(vectors[n][0] for n in live))
            return dict(zip(names, (p[None] for p in single), strict=True))
        try:
            chunks = [
                torch.vmap(products)(*rows)
                for rows in zip(*(vectors[name].split(_PROBE_CHUNK) for name in live), strict=True)
            ]
            return {name: torch.cat([chunk[i] for chunk in chunks]) for i, name in enumerate(names)}
        except RuntimeError:  # an operation in the model that cannot be batched over probes
            with self._faults_of_the_model("second derivative"):
                rows = [products(*(vectors[name][k] for name in live)) for k in range(probes)]
            return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(names)}

    @contextmanager
    def _faults_of_the_model(self, what: str) -> Iterator[None]:
        """A derivative that raises is the model's fault: a backward of the user's own, or one that torch lacks."""
        try:
            yield
        except Exception as error:
            if self.source is None:
                raise
            if lacks_derivative(error) and what == "second derivative":
                raise _Lacking from error
            raise ModelError(f"the model has no {what}: {str(error).strip().splitlines()[0]}") from error

    def _stale(self) -> bool:
        return self._spent or (self.source is not None and not self.source.is_current(self))

    def _differentiate(self, differentiable: bool) -> None:
        if self.source is not None:
            if self._stale():
                with self.source.evaluations.uncounted():  # what is known of the point, once more
                    self.loss = self.source.retrace(self)
                self._spent = False
            if self.known_gradient is None and self.replayed is None:
                self.source.evaluations.gradient += 1
        names = list(self.leaves)
        gradients: tuple[Tensor | None, ...]
        if self.loss.requires_grad:
            with self._faults_of_the_model("gradient"):
                gradients = torch.autograd.grad(
                    self.loss,
                    [self.leaves[name] for name in names],
                    create_graph=differentiable,
                    retain_graph=differentiable or self.source is None,
                    allow_unused=True,
                )
        else:
            gradients = (None,) * len(names)
        found = {
            name: torch.zeros_like(self.leaves[name]) if g is None else g
            for name, g in zip(names, gradients, strict=True)
        }
        if differentiable:
            self._graph = found
        else:
            self._spent = self.source is not None
        if self.known_gradient is None:
            self.known_gradient = {name: g.detach() for name, g in found.items()} if differentiable else found


class _Lacking(Exception):
    """Torch has no second derivative of a function in the model."""


DIFFERENCE = {torch.float64: 0.2, torch.float32: 1.0}
"""The unit of the unconstrained scale in which gradients are differenced, by what the loss is computed in: the rounding
of a difference, and what it leaves out of a function that bends within a unit, are then as small as each other."""

_PROBE_CHUNK = 16
"""Probes to one batched backward pass: more are no faster, and each holds a copy of the graph's tensors."""


def same(params: Params, known: Params) -> bool:
    """Whether all that is known is there, to the last bit; not where nothing is."""
    return bool(known) and all(torch.equal(params[name], value) for name, value in known.items())


def max_norm(params: Params) -> float:
    """The largest absolute entry; nan if any is; 0 for nothing."""
    return max_norms(list(params.values()))[0]


def max_norms(*groups: list[Tensor]) -> list[float]:
    """The max-norm of each group of tensors, in one pass: a small model spends as long here as in its gradient."""
    tensors = [tensor for group in groups for tensor in group if tensor.numel()]
    if not tensors:
        return [0.0] * len(groups)
    norms = iter(torch.stack(foreach_norm(tensors, float("inf"))).tolist())
    return [_largest([next(norms) for tensor in group if tensor.numel()]) for group in groups]


def _largest(norms: list[float]) -> float:
    total = sum(norms)
    return total if total != total else max(norms, default=0.0)
