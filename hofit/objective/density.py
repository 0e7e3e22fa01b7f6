"""The objectives `map` and `map_unconstrained`: minus the log density, at a point."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import isfinite, log, pi

import torch
from torch import Tensor

from ..linear.operator import Factor
from ..model.program import Program
from ..model.randomness import capture_random_state, random_state_kept, restore_random_state
from ..model.sites import InfeasibleError
from ..point import Evaluations, Params, Point, Site, TracedPoint
from .base import Objective
from .batched import Batched
from .captured import LARGE, Captured
from .information import InformationObjective
from .leaves import Leaves
from .stacked import Stacked

ROUNDING = 1e3
"""Units of eps, relative, that two traces of one model may be apart."""


class DensityObjective(Objective):
    """−log p(data, latents; parameters), every constant included.

    `map` takes the density of the constrained values: penalised maximum likelihood, as Stan's `optimize` and Pyro's
    AutoDelta. `map_unconstrained` adds −log|det| of the latents' transforms: the mode in unconstrained space.

    Use inside ``program.scope()``.
    """

    def __init__(
        self,
        program: Program,
        type: str = "map",
        names: Collection[str] | None = None,
        jacobian: Collection[str] | None = None,
        leaves: Leaves | None = None,
        batched: Batched | None = None,
    ) -> None:
        """``names`` are the parameters, all that are free if None; ``jacobian`` the latents whose transforms count.

        ``leaves`` and ``batched`` are the program's, where it has another objective already.
        """
        self.program, self.type = program, type
        if jacobian is None:
            jacobian = program.latents if type == "map_unconstrained" else ()
        self.jacobian = frozenset(jacobian)
        self.evaluations = Evaluations()
        self.sites: Mapping[str, Site] = program.sites
        self.leaves = leaves or Leaves(program.leaves)
        self.without_second: str | None = None
        """The site of which torch has no second derivative, once one was asked for."""
        tensors = self.leaves.tensors
        self.batched = batched or Batched(program, tensors)
        self._captured = Captured(program, self.leaves, on=False)
        self._with_graph = False
        """Whether gradients are asked for with their graph."""
        self._own = {name: leaf for name, leaf in tensors.items() if names is None or name in names}

    @property
    def stochastic(self) -> bool:
        """Whether the loss is an estimate: a plate is subsampled."""
        return bool(self.program.subsampled)

    def log_evidence(self, loss: float, factor: Factor, size: int) -> float | None:
        if self.type != "map_unconstrained" or any(site.role == "parameter" for site in self.sites.values()):
            return None
        return -loss + 0.5 * size * log(2 * pi) - 0.5 * float(factor.log_determinant())

    def hear_of_differences(self, point: TracedPoint) -> None:
        if self.without_second is None:
            self.leaves.write(point.params)
            self.without_second = self.program.site_without_derivative(2) or "the model"

    def remarks(self, params: Params) -> list[str]:
        if self.without_second is not None:
            return [
                f"differences: torch has no second derivative of {self.without_second}, so the curvature is taken by "
                "differences of the gradient"
            ]
        if not self.program.subsampled:
            return self.captured_remarks()
        plates = ", ".join(f"{name} ({k} of {size})" for name, (size, k) in self.program.subsampled.items())
        return [
            f"stochastic: the loss of an iteration is an estimate (subsampled: {plates}); "
            "the verdict is taken on the full plates"
        ]

    def captured_remarks(self) -> list[str]:
        """Why the model was traced at every point, where that is its own doing."""
        refused = self._captured.refused
        return [f"capture: the model is traced at every point: {refused}"] if refused else []

    @property
    def entries(self) -> int:
        return self.program.entries

    def start(self) -> Params:
        return {name: leaf.detach().clone() for name, leaf in self._own.items()}

    def take_start_loss(self) -> float | None:
        """The loss at the start as ``at_full`` has it, if the trace that found the sites can tell; asked once."""
        density = self.program.take_start_density()
        return None if density is None or self.type != "map" else -density

    def set_capture(self, mode: str) -> None:
        self._captured = Captured(self.program, self.leaves, mode != "off" and not self.stochastic)

    def stacked(self) -> Stacked | None:
        if self.stochastic or self.program.discrete or self.without_second is not None:
            return None
        return Stacked(self.program, list(self._own), [], self.jacobian, None)

    @property
    def replays(self) -> bool:
        return self._captured.loss.used

    def at(self, params: Params) -> TracedPoint:
        function = self._captured.loss
        inputs = self._captured.inputs(params)
        found = function.replayed(inputs)
        if found is not None and isfinite(value := found[0].item()):
            self.evaluations.loss += 1
            gradient = dict(zip(self._own, found[1:], strict=True))
            point = TracedPoint(params, found[0], self._own, source=self, replayed=gradient)
            point.take_value(value)
            return point
        if function.used:
            return self._checked(params)
        if not function.waits and not self.batched.operations(self.jacobian):
            if self.program.entries <= LARGE:
                return self._written_down(params, inputs)
            function.give_up()
        function.count()
        return self._evaluate(params, full=False, validate=False)

    def _written_down(self, params: Params, inputs: list[Tensor]) -> TracedPoint:
        """The point, computed by the model while that is written down, or held against what was."""
        made: list[TracedPoint] = []
        self.leaves.write(params)

        def compute() -> list[Tensor] | None:
            point = self._evaluate(params, full=False, validate=False)
            made.append(point)
            if point.failure is not None or not point.loss.requires_grad:
                return None
            point.replayed = point.gradient(self._with_graph)
            point.known_gradient = None
            return [point.loss.detach(), *point.replayed.values()]

        with self.evaluations.uncounted():
            self._captured.take(inputs, compute, self._of_values)
        self.evaluations.loss += 1
        return made[-1]

    def _of_values(self, values: Params) -> tuple[Tensor, ...]:
        """Loss and gradient as a function of unconstrained values of all leaves."""
        own = {name: value.detach().requires_grad_(name in self._own) for name, value in values.items()}
        with torch.enable_grad(), self.program.substituted(own):
            loss = self._loss()
            wanted = [own[name] for name in self._own]
            gradient = torch.autograd.grad(
                loss, wanted, create_graph=self._with_graph, allow_unused=True, materialize_grads=True
            )
        return (loss.detach(), *(one.detach() for one in gradient))

    def _checked(self, params: Params) -> TracedPoint:
        """The point by a trace, where replays are used. Raises: ModelError where they are not the same.

        A loss that differs by rounding is no other model's, and no replay either: the model is traced from then on.
        """
        point = self._evaluate(params, full=False, validate=False)
        function = self._captured.loss
        again = function.replayed(self._captured.inputs(params))
        if again is None or point.failure is not None:
            if isfinite(point.value):
                raise self._captured.difference()
            return point
        with self.evaluations.uncounted():
            own = (point.loss.detach(), *point.gradient(self._with_graph).values())
        if not all(map(_equal, own, again)):
            if not abs(point.value - float(again[0])) <= ROUNDING * torch.finfo(own[0].dtype).eps * point.size:
                raise self._captured.difference()
            function.give_up()
        return point

    def check(self, point: Point) -> None:
        if self._captured.loss.used:
            with self.evaluations.uncounted():
                self._checked(point.params)

    def at_full(self, params: Params) -> TracedPoint:
        return self._evaluate(params, full=True, validate=True)

    def retrace(self, point: TracedPoint) -> Tensor:
        self.evaluations.loss += 1
        self.leaves.write(point.params)
        self.leaves.make_current(point)
        again = self.batched.again(self.jacobian)
        if again is not None:
            return again
        if point.random_state is None:
            return self._loss(full=point.full)
        with random_state_kept():
            restore_random_state(point.random_state)
            return self._loss(full=point.full)

    def evaluate(self, point: TracedPoint, names: Sequence[str], watching: AbstractContextManager[object]) -> Tensor:
        self.evaluations.loss += 1
        with self.leaves.holding(point, names):
            if self.batched.again(self.jacobian) is not None:
                self._differentiable(full=point.full)
            with watching:
                again = self.batched.again(self.jacobian)
                return self._loss(full=point.full) if again is None else again

    def information(self, point: TracedPoint) -> TracedPoint:
        program, jacobian, evaluations = self.program, self.jacobian, self.evaluations
        return InformationObjective(program, self.leaves, jacobian, evaluations, point).at(point.params)

    def products(self, point: TracedPoint, vectors: Params, compute: Callable[[], Params]) -> Params:
        function = None if point.full else self._captured.products(vectors)
        if function is None:
            return compute()
        inputs = [*self._captured.inputs(point.params), *vectors.values()]
        found = function.replayed(inputs)
        if found is not None:
            return dict(zip(vectors, found, strict=True))
        if function.waits:
            function.count()
            return compute()
        made: list[Params] = []

        def again() -> list[Tensor]:
            point.forget_graph()
            made.append(compute())
            return list(made[-1].values())

        self.leaves.write(point.params)
        with self.evaluations.uncounted():
            function.take(inputs, [*self.leaves.tensors.values(), *vectors.values()], again)
        return made[-1]

    def hear_of_graph(self) -> None:
        self._with_graph = True

    def losses_by_row(self, params: Params, plates: Sequence[str]) -> Tensor | None:
        self.evaluations.loss += 1
        self.leaves.write(params)
        try:
            found = self.program.log_densities_by_row(plates, self.jacobian)
        except InfeasibleError:
            return torch.full((), float("inf"))
        return None if found is None else -found

    def is_current(self, point: Point) -> bool:
        return self.leaves.is_current(point)

    def invalidate(self) -> None:
        self.leaves.invalidate()

    def values(self, params: Params) -> Params:
        self.leaves.write(params)
        with random_state_kept():
            return self.program.values()

    def explain_non_finite(self, params: Params) -> str:
        self.leaves.write(params)
        try:
            with random_state_kept(), torch.no_grad():
                self.program.log_density(full=True, validate=True)
                sites = self.program.site_log_densities(full=True)
        except InfeasibleError as error:
            return str(error)
        wrong = [f"{name!r} ({value})" for name, value in sites.items() if value != value or abs(value) == float("inf")]
        return f"the log density is not finite at {', '.join(wrong)}" if wrong else ""

    def _evaluate(self, params: Params, full: bool, validate: bool) -> TracedPoint:
        self.evaluations.loss += 1
        state = capture_random_state() if self.stochastic and not full else None
        self.leaves.write(params)
        failure = None
        try:
            loss = self._differentiable(full, validate)
        except InfeasibleError as error:
            loss, failure = torch.tensor(float("inf")), str(error)
        point = TracedPoint(params, loss, self._own, source=self, failure=failure, random_state=state, full=full)
        self.leaves.make_current(point)
        return point

    def _differentiable(self, full: bool = False, validate: bool = False) -> Tensor:
        """The loss at the leaves, by the model or by a program that has the same value."""
        return self.batched.loss(self.jacobian, partial(self._loss, full, validate), partial(self._loss, full))

    def _loss(self, full: bool = False, validate: bool = False) -> Tensor:
        return -self.program.log_density(self.jacobian, full, validate)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())
