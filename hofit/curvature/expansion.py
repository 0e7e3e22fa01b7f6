"""A loss and its Hessian over some of the parameters, all as functions that can be differentiated again.

What a Laplace approximation is made of: the loss at the mode, the gradient there, and the parts of the Hessian over the
integrated parameters, each of them with derivatives in every parameter, integrated or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..errors import ModelError
from ..internals import lacks_derivative
from ..linear.operator import Factor, Operator
from ..point import Params, TracedPoint, Watchable
from .assembly import Interaction
from .choice import COLUMNS_LIMIT
from .colouring import Colouring
from .layout import Layout
from .lifting.maps import IndexCache, LiftFailed
from .lifting.pieces import LiftedLoss
from .lifting.tape import Tape
from .parts import ArrowheadParts, Parts
from .pattern import hessian_parts
from .placement import Placement
from .probed import probed, probed_by_colours, product
from .proof import differ, is_off, probe, refutes

TOGETHER = 4
"""Products up to which each has a graph of its own: to batch them costs as much as a few."""


@dataclass(eq=False)
class LossGraph:
    """A loss and its gradient at one point. ``gradient`` of whatever is made of them is a total derivative.

    Shapes: loss (); slope[name], the gradient of the loss, that of the parameter; all parameters have one, and
    ``coordinates`` are those whose Hessian is wanted.
    """

    coordinates: Coordinates
    loss: Tensor
    slope: Params
    tape: Tape

    @property
    def params(self) -> Params:
        """The parameters whose Hessian is wanted, as what everything here is a function of."""
        return {name: self.tape.leaf(name) for name in self.coordinates.names}

    def gradient(self, output: Tensor, create_graph: bool = False) -> Params:
        """d output / d parameters, all of them; shape of output ()."""
        return self.tape.gradient(output, create_graph)

    def along(self, slopes: Params, vectors: Params) -> Params:
        """Of several directions at once, d (slope · vector) / d parameters; ``slopes`` have a graph.

        Shapes: vectors[name] (k, *shape) → (k, *shape), all parameters.
        Raises: RuntimeError where the model has an operation that cannot be batched.
        """
        names = [name for name in vectors if slopes[name].requires_grad]

        def one(*seeds: Tensor) -> Params:
            return self.tape.pulled([slopes[name] for name in names], seeds)

        found: Params = torch.vmap(one)(*(vectors[name] for name in names))
        return found

    def product(self, vector: Tensor) -> Tensor:
        """H v by autograd alone, where the tape has no cuts; shape (d,)."""
        slope = self.coordinates.flatten(self.slope)
        if not slope.requires_grad:
            return torch.zeros_like(vector)
        leaves = list(self.params.values())
        found = torch.autograd.grad(slope, leaves, vector, create_graph=True, materialize_grads=True)
        return torch.cat([gradient.reshape(-1) for gradient in found])

    def products(self, vectors: Tensor) -> Tensor:
        """``product`` of several; (k, d) → (k, d)."""
        slope = self.coordinates.flatten(self.slope)
        if len(vectors) > TOGETHER and slope.requires_grad:
            with suppress(RuntimeError):  # an operation in the model that cannot be batched over probes
                leaves = list(self.params.values())
                found = torch.autograd.grad(
                    slope, leaves, vectors, create_graph=True, materialize_grads=True, is_grads_batched=True
                )
                if all(one.dim() == leaf.dim() + 1 for one, leaf in zip(found, leaves, strict=True)):
                    return torch.cat([gradient.reshape(len(vectors), -1) for gradient in found], 1)
        return torch.stack([self.product(vector) for vector in vectors])


@dataclass(eq=False)
class Expansion(LossGraph):
    """The same with the Hessian, in a layout."""

    layout: Layout
    parts: Parts
    estimate: bool = False
    """Whether an estimate will do of second derivatives of the determinant that are dear."""
    alike: Operator | None = None
    """A Hessian that may be the same matrix, where u does not move it; let go once that is known."""

    @cached_property
    def operator(self) -> Operator:
        """The Hessian as numbers."""
        return self.parts.operator()

    @cached_property
    def factor(self) -> Factor:
        alike, self.alike = self.alike, None
        return self.operator.factor() if alike is None else self.operator.factor_as(alike)

    def prove(self) -> None:
        """Hold a Hessian by products in rows against one product more. Raises: Interaction."""
        if self.layout.rows:
            noise = probe(self.loss.new_empty(self.layout.size))
            if refutes(self.operator.matvec(noise), self.product(noise).detach()):
                raise Interaction([name for one in self.layout.rows for name in one.names])

    def log_determinant(self) -> Tensor:
        """log det of the Hessian; shape (). nan where it is not positive definite."""
        return self.parts.log_determinant(self.factor, self.estimate)


class Expander:
    """Expands one source at point after point; what one has learned of the model's maps serves the next."""

    def __init__(self, source: Watchable) -> None:
        self._source = source
        self._lifts = True
        self._cache = IndexCache()
        self._event_dims: dict[tuple[int, ...], int] = {}
        self._signature: str | None = None
        self._proved = False
        self._placement: Placement | None = None
        self._apart: Layout | None = None
        """The layout whose rows were seen to stay apart."""
        self._held: Colouring | None = None
        self._refuted: Colouring | None = None
        """A colouring that was seen to have all that has a slope, and one that had not."""

    def at(
        self,
        point: TracedPoint,
        coordinates: Coordinates,
        layout: Layout,
        lifts: bool,
        colouring: Colouring | None = None,
    ) -> Expansion:
        """The loss at ``point``, with its Hessian over ``coordinates`` in a layout that holds there.

        ``lifts``: the model's linear maps can be lifted; else, or where that fails, products take their place, as few
        as a ``colouring`` says.
        Raises: Interaction where rows are apart at this point only.
        """
        if lifts and self._lifts:
            try:
                expansion = self._lifted(point, coordinates, layout)
                self._check_apart(expansion, point)
                return expansion
            except (LiftFailed, Interaction) as failure:
                if layout.size > COLUMNS_LIMIT and not layout.rows:
                    raise ModelError(
                        f"the Hessian of {', '.join(coordinates.names)} cannot be differentiated by lifting "
                        f"({failure}), and {layout.size} products with it are too many"
                    ) from failure
                self._lifts = False
        graph = self._traced(point, coordinates)
        expansion = _probed(graph, layout, graph.products, None if colouring is self._refuted else colouring)
        if colouring is not None and colouring not in (self._refuted, self._held):
            noise = probe(expansion.loss.new_empty(layout.size))
            if _same_slope(expansion, expansion.parts.quadratic(noise), graph, noise):
                self._held = colouring
            else:  # an entry that vanishes at some points has a slope here
                self._refuted = colouring
                expansion = _probed(graph, layout, graph.products, None)
        self._check_apart(expansion, point)
        return expansion

    def by_differences(
        self, point: TracedPoint, coordinates: Coordinates, layout: Layout, colouring: Colouring | None = None
    ) -> Expansion:
        """As ``at``, in numbers alone: where torch has no second derivative, ``hvp`` of the point takes differences.

        The leaves are written.
        """
        point.without_second = True
        slope = {name: value.detach() for name, value in point.gradient().items()}
        loss = _in_own_dtype(point.loss.detach(), point)
        graph = LossGraph(coordinates, loss, slope, Tape(point.leaves))
        return _probed(graph, layout, partial(product, point, coordinates), colouring)

    def explore(self, point: TracedPoint, coordinates: Coordinates) -> None:
        """Learn at ``point`` how far entries interact. At a start they may not: where a correlation is zero."""
        with suppress(LiftFailed):
            self._watched(point, coordinates, differentiable=False).take_apart(prove=True)

    def _watched(self, point: TracedPoint, coordinates: Coordinates, differentiable: bool) -> LiftedLoss:
        evaluate = partial(self._source.evaluate, point, list(point.params))
        return LiftedLoss(point.leaves, evaluate, self._cache, self._event_dims, coordinates.names, differentiable)

    def _lifted(self, point: TracedPoint, coordinates: Coordinates, layout: Layout) -> Expansion:
        lifted = self._watched(point, coordinates, differentiable=True)
        if lifted.signature != self._signature or (
            self._placement is not None and self._placement.layout is not layout
        ):
            self._signature, self._proved, self._placement = lifted.signature, False, None
        pieces = lifted.take_apart(prove=not self._proved)
        if self._placement is None:
            self._placement = Placement(layout, lifted, coordinates)
        parts = hessian_parts(lifted, pieces, self._placement)
        loss = _in_own_dtype(lifted.total, point)
        expansion = Expansion(coordinates, loss, lifted.gradient, lifted.tape, layout, parts)
        if not self._proved:
            self._check(expansion, point)
            self._proved = True
        return expansion

    def _traced(self, point: TracedPoint, coordinates: Coordinates) -> LossGraph:
        """By autograd alone."""
        leaves = point.leaves
        loss = _in_own_dtype(self._source.evaluate(point, list(leaves), nullcontext()), point)
        found = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
        return LossGraph(coordinates, loss, dict(zip(leaves, found, strict=True)), Tape(leaves))

    def _check_apart(self, expansion: Expansion, point: TracedPoint) -> None:
        """Hold the slope of the rows' part of the Hessian against autograd's own, once for each layout.

        What couples two rows may vanish here and have a slope: a correlation that starts at zero. Without it the
        determinant has its value, but not its gradient. Raises: Interaction.
        """
        if self._apart is expansion.layout:
            return
        rows = expansion.layout.rows
        if rows:
            plain = self._traced(point, expansion.coordinates)
            together = [one for k, one in enumerate(rows) if not _stay_apart(expansion, plain, [k])]
            if together:
                raise Interaction([name for one in together for name in one.names])
            if len(rows) > 1 and not _stay_apart(expansion, plain, range(len(rows))):
                raise Interaction([name for one in rows[1:] for name in one.names])
        self._apart = expansion.layout

    def _check(self, expansion: Expansion, point: TracedPoint) -> None:
        """Hold gradient and Hessian against autograd's own."""
        border = expansion.layout.border
        noise = probe(expansion.loss.new_empty(expansion.layout.size))
        ours = expansion.operator.matvec(noise)
        plain = self._traced(point, expansion.coordinates)
        pairs = [(expansion.slope[name].detach(), plain.slope[name].detach()) for name in plain.slope]
        pairs.append((ours, plain.product(noise).detach()))
        tolerance = 1e9 * torch.finfo(noise.dtype).eps
        if any(is_off(found, expected, tolerance) for found, expected in pairs):
            raise LiftFailed("derivatives are others when the model is watched")
        vector = torch.zeros_like(noise)
        vector[border] = noise[border]
        if not _same_slope(expansion, expansion.parts.quadratic(vector), plain, vector):
            raise LiftFailed("what vanishes in the Hessian here has a slope")


def _probed(
    graph: LossGraph, layout: Layout, products: Callable[[Tensor], Tensor], colouring: Colouring | None
) -> Expansion:
    like = graph.loss.new_empty(0)
    parts: Parts
    if colouring is not None and not layout.rows:
        parts = probed_by_colours(layout, products, like, colouring)
    else:
        layout = layout.without_pattern()
        parts = probed(layout, products, like)
    return Expansion(graph.coordinates, graph.loss, graph.slope, graph.tape, layout, parts)


def _in_own_dtype(loss: Tensor, point: TracedPoint) -> Tensor:
    """In the parameters' dtype: data of another make the loss of theirs."""
    return loss.to(next(iter(point.leaves.values())).dtype)


def _stay_apart(expansion: Expansion, plain: LossGraph, groups: Sequence[int]) -> bool:
    """Whether the rows of some groups are all that vᵀHv has a slope of, where v is a probe on them and else zero."""
    noise, parts = probe(expansion.loss.new_empty(expansion.layout.size)), []
    vector = torch.zeros_like(noise)
    assert isinstance(expansion.parts, ArrowheadParts)
    for k in groups:
        index = expansion.layout.rows[k].index
        rows = vector[index] = noise[index]  # (R, L)
        parts.append((expansion.parts.matrices[k] * rows[:, :, None] * rows[:, None, :]).sum())
    return _same_slope(expansion, torch.stack(parts).sum(), plain, vector)


def _same_slope(expansion: Expansion, ours: Tensor, plain: LossGraph, vector: Tensor) -> bool:
    """Whether ``ours`` () has the slope of vᵀHv, v being ``vector`` (d,), in every parameter."""
    try:
        found = expansion.gradient(ours)
        expected = plain.gradient((vector * plain.product(vector)).sum())
    except RuntimeError as error:
        if not lacks_derivative(error):
            raise
        return True  # As where it is nan: torch lacks it, which tells nothing.
    # Of a parameter on which it does not depend the slope is rounding, of the size that it has elsewhere.
    largest = max((float(true.abs().max()) for true in expected.values() if true.numel()), default=0.0)
    floor = 1e3 * torch.finfo(vector.dtype).eps * largest
    return not any(differ(found[name], true, floor=floor) for name, true in expected.items())
