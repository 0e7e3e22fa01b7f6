"""The objective `marginal`: minus the log evidence of the parameters, some latents integrated out.

With f(u, θ) = −log p(data, u, …; θ), u the integrated latents in unconstrained space and û(θ) their mode, an
approximation Φ(u, θ) of −log ∫ exp(−f) du is taken at û. Its derivatives are exact, through the mode: where
w = H⁻¹ ∂Φ/∂u is held, the function Ψ = Φ − wᵀ ∂f/∂u has at û no slope in u, so that dΦ/dθ = ∂Ψ/∂θ; and with
û' = −H⁻¹ ∂²f/∂u∂θ the Hessian is that of Ψ along (û', 1). Value and gradient err by the square of what û is off.

Source: Kristensen et al. (2016), "TMB: automatic differentiation and Laplace approximation", J. Stat. Softw. 70(5);
Skaug & Fournier (2006).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.assembly import Interaction
from ..curvature.expansion import Expander, Expansion
from ..curvature.layout import Layout
from ..curvature.structure import Curvature
from ..differences import central, two_sided
from ..internals import lacks_derivative
from ..linear.operator import Operator
from ..linear.sparse import SparseFactor
from ..linear.stochastic import StochasticFactor
from ..model.program import Program
from ..model.sites import InfeasibleError
from ..point import DifferentiatedPoint, Evaluations, Params, Point, Site, TracedPoint, max_norm, same
from .at_mode import Approximation, AtMode, Curved, by_rows, laplace
from .base import Objective, Posterior
from .density import DensityObjective
from .lacking import Lacking
from .leaves import Leaves
from .mode import NO_MODE, ModeFinder, NoMode, is_slow, place_of
from .probing import ProbingError, probing_error
from .refinement import refined
from .stacked import Stacked

SAME = 1e3
"""Units of eps, relative, that a density may differ by and be the same: it is summed in another order."""


@dataclass(eq=False)
class MarginalPoint(DifferentiatedPoint):
    """A point of the marginal: ``inner`` is û there. Where not ``exact``, its Hessian is good enough for a step.

    ``sensitivity`` is dû/dθ, a row for each unconstrained number of θ (p, d), once a Hessian was asked for.
    """

    source: MarginalObjective = field(kw_only=True)
    exact: bool = False
    sensitivity: Tensor | None = field(default=None, init=False)
    factor: SparseFactor | None = field(default=None, init=False)
    """Of the Hessian at û, where it is dear: it serves on the way to the modes of points nearby."""

    def at(self, params: Params) -> Point:
        return self.source.near(self, params)

    def hvp(self, vectors: Params) -> Params:
        return self.source.products(self, vectors)


class MarginalObjective(Objective):
    """−log ∫ p(data, latents; θ) d(integrated latents). Use inside ``program.scope()``.

    Args:
        integrated: names of the latents that are integrated, each on its unconstrained scale, with the Jacobian.
        jacobian: names of the latents that are taken as densities of the unconstrained scale; None: the integrated.
        approximation: Φ, Laplace's or another.
        structure: ``auto``, or what is claimed of the Hessian of what is integrated.
        probes: where its determinant shall be estimated, by how many; None: it is exact.
    """

    type: str = "marginal"
    reaches_for: str = "the integral over"
    integrated: list[str]

    def __init__(
        self,
        program: Program,
        integrated: Collection[str],
        jacobian: Collection[str] | None = None,
        approximation: Approximation = laplace,
        leaves: Leaves | None = None,
        structure: str = "auto",
        probes: int | None = None,
    ) -> None:
        self.program = program
        self.leaves = leaves or Leaves(program.leaves)
        self.evaluations = Evaluations()
        self.integrated = [name for name in self.leaves.tensors if name in integrated]
        self.outer = [name for name in self.leaves.tensors if name not in integrated]
        self.jacobian = frozenset(self.integrated if jacobian is None else jacobian)
        self.sites: Mapping[str, Site] = program.sites
        self._theta, self._u = (Coordinates.of(self.leaves.tensors, names) for names in (self.outer, self.integrated))
        self.curvature = Curvature(structure, probes)
        self._approximation = approximation
        self._inner = DensityObjective(program, "marginal", self.integrated, self.jacobian, self.leaves)
        self._inner.evaluations = self.evaluations
        self._whole = DensityObjective(program, "marginal", None, self.jacobian, self.leaves, self._inner.batched)
        self._finder = ModeFinder(self._inner, self.curvature)
        self._expander = Expander(self._whole)
        self._explored = False
        self.lacking = Lacking(program, self.leaves)
        self.probing: ProbingError | None = None
        """How far the end of a fit may be off, where the determinant is estimated."""
        self._known: tuple[MarginalPoint, AtMode] | None = None
        """The last point, with what it can still be differentiated by."""
        self._curved: Curved | None = None
        self._origin: Params = {**self.start(), **self._inner.start()}
        self._anchor: tuple[Params, Params] = ({}, self._inner.start())
        """The point that the search goes out from, and the mode there."""
        self._last = self._anchor

    def set_capture(self, mode: str) -> None:
        self._inner.set_capture(mode)

    def stacked(self) -> Stacked | None:
        layout, exact = self.curvature.layout, self._approximation is laplace and not self.curvature.probes
        if not exact or layout is None or self.lacking or self.program.discrete:
            return None
        return Stacked(self.program, self.outer, self.integrated, self.jacobian, layout)

    def check(self, point: Point) -> None:
        with self._outer_held(point.params):
            self._inner.check(replace(point, params=point.inner))

    def start(self) -> Params:
        return {name: leaf.detach().clone() for name, leaf in self.leaves.tensors.items() if name in self.outer}

    def resume_from(self, params: Params, inner: Params) -> None:
        self._anchor = self._last = (params, inner)

    # points ------------------------------------------------------------------------------------------------------

    def at(self, params: Params) -> Point:
        return self._again(params) or self._evaluate(params, self._mode_near(params))

    def at_full(self, params: Params) -> Point:
        again = self._again(params, exact=True)
        return again or self._evaluate(params, self._mode_near(params), validate=True, exact=True)

    def _again(self, params: Params, exact: bool = False) -> MarginalPoint | None:
        """The last point once more, after a trace that validates; None elsewhere, or where the density is another."""
        if self._known is None or not same(params, self._known[0].params):
            return None
        before, known = self._known
        f = known.expansion.loss.detach()
        self.evaluations.loss += 1
        try:
            with self._outer_held(before.params):
                traced = self._inner.at_full(before.inner)
        except InfeasibleError:
            return None
        if not abs(traced.value - float(f)) <= SAME * torch.finfo(f.dtype).eps * traced.size:
            return None
        point = MarginalPoint(before.params, before.loss, source=self, exact=exact, inner=before.inner)
        point.known_gradient, point.sensitivity = before.known_gradient, before.sensitivity
        point.factor = before.factor
        self._known = point, known
        return point

    def near(self, point: MarginalPoint, params: Params) -> Point:
        """The point at ``params``, the mode sought from that of ``point``: where dû/dθ is known, from its forecast."""
        self._anchor = (point.params, point.inner)
        mode = point.inner
        if point.sensitivity is not None:
            move = self._theta.flatten(params) - self._theta.flatten(point.params)
            forecast = self._u.unflatten(move @ point.sensitivity)
            mode = {name: mode[name] + forecast[name] for name in mode}
        return self._evaluate(params, mode, exact=point.exact, nearby=point.factor)

    def _evaluate(
        self,
        params: Params,
        start: Params,
        validate: bool = False,
        exact: bool = False,
        nearby: SparseFactor | None = None,
    ) -> MarginalPoint:
        self._known = None
        self.evaluations.loss += 1
        infinite = torch.tensor(float("inf"))
        point = MarginalPoint(params, infinite, source=self, exact=exact, inner=start)
        try:
            if validate:
                with self._outer_held(params):
                    self._inner.at_full(start)
            if not self._settle_nearby(point):
                with self._outer_held(params):
                    point.inner = self._finder.find(start, nearby)
                alike, self._finder.operator = self._finder.operator, None
                self._settle(point, refined(point, self._expand, alike))
            self._last = (params, point.inner)
        except (NoMode, InfeasibleError) as failure:
            point.failure = f"{self.reaches_for} {', '.join(map(repr, self.integrated))}: {failure}"
        return point

    def _settle_nearby(self, point: MarginalPoint) -> bool:
        """Settle a point from where its mode is thought to be, where that is near and no search is needed.

        Of small models: each step has a graph for the derivatives of Φ, which only the last one needs.
        """
        layout, start = self.curvature.layout, point.inner
        if layout is None or self.curvature.lifts or self.lacking:
            return False
        try:
            known = refined(point, self._counted, near=True)
            known.expansion.prove()
            self._settle(point, known)
        except (NoMode, InfeasibleError, Interaction) as failure:
            if isinstance(failure, Interaction):
                self.curvature.take_together(failure.names)
            point.inner = start
            return False
        return True

    def _counted(self, point: MarginalPoint, alike: Operator | None) -> AtMode:
        self.evaluations.inner += 1
        return self._expand(point, alike)

    def _settle(self, point: MarginalPoint, known: AtMode) -> None:
        """Value and gradient at the mode. Raises: NoMode."""
        self.evaluations.gradient += 1
        if not self.lacking.up_to(3):
            loss, gradient = self._through_the_mode(point, known)
            point.loss, point.known_gradient = loss, gradient
            wrong = not isfinite(float(loss)) or not isfinite(max_norm(gradient))
            if wrong and isfinite(float(known.approximation.detach())) and self._look_for_lack(point, 2, 3):
                known = self._expand(point)  # that has written the leaves
        if self.lacking.up_to(3):
            point.known_gradient, known = self._by_differences(point, known)
            point.loss = known.approximation.detach()
        self._known = point, known
        slow = known.factor if isinstance(known.factor, SparseFactor) and is_slow(known.factor) else None
        if slow is not None and (self.lacking.up_to(3) or not known.stays):
            point.factor = slow.alone()

    def _through_the_mode(self, point: MarginalPoint, known: AtMode) -> tuple[Tensor, Params]:
        """Value and gradient, exact; nan where torch has no third derivative."""
        try:
            return (known.approximation - known.lag).detach(), known.gradient(self.outer)
        except RuntimeError as error:
            if not lacks_derivative(error):
                raise
            infinite = {name: torch.full_like(point.params[name], torch.nan) for name in self.outer}
            return torch.full((), torch.nan), infinite

    def _look_for_lack(self, point: MarginalPoint, *orders: int, error: RuntimeError | None = None) -> bool:
        """Whether a derivative is lacking here, at the last good point and at the start: far out it overflows."""
        here, (params, inner) = {**point.params, **point.inner}, self._anchor
        places = [here, {**params, **inner} if params else {}, self._origin]
        found = self.lacking.look(places, *orders, error=error)
        self.leaves.write(here)
        return found

    def _by_differences(self, point: MarginalPoint, known: AtMode) -> tuple[Params, AtMode]:
        """∇Φ along the path of the mode: what is left of Φ beside f has no slope that torch can give.

        With what the point can be differentiated by then: the leaves were written, and are its own again.
        """
        theta, u = self._theta, self._u
        plain = {name: value.detach() for name, value in known.expansion.slope.items()}
        place, mode, found = theta.flatten(point.params), u.flatten(point.inner), []
        units = torch.eye(theta.size, dtype=place.dtype, device=place.device)
        paths = [self._second(point, known, theta.unflatten(unit)) for unit in units]
        for unit, (bend, move) in zip(units, paths, strict=True):

            def rest(t: float, unit: Tensor = unit, move: Tensor = move) -> Tensor:
                there = {**theta.unflatten(place + t * unit), **u.unflatten(mode + t * move)}
                moved = self._expand(replace(point, params=_part(there, self.outer), inner=_part(there, u.names)))
                return (moved.approximation - moved.expansion.loss).detach()

            found.append(central(rest, bend))
        gradient = theta.unflatten(theta.flatten(_part(plain, self.outer)) + torch.stack(found))
        return gradient, self._expand(point)

    def _second(self, point: MarginalPoint, known: AtMode, vector: Params) -> tuple[float, Tensor]:
        """``AtMode.second``, where torch may lack the second derivative: then the product is of differences."""
        if not self.lacking.up_to(2):
            return known.second(vector, known.change_along(vector))
        place = self._whole.at({**point.params, **point.inner})
        whole = {name: vector.get(name, torch.zeros_like(value))[None] for name, value in place.params.items()}
        return known.second(vector, {name: row[0] for name, row in place.hvp(whole).items()})

    def _expanded(self, point: MarginalPoint) -> AtMode:
        """f at the mode, with its Hessian over u, and Φ. Raises: NoMode, ModelError."""
        if self._known is None or self._known[0] is not point:
            self._known = point, self._expand(point)
        return self._known[1]

    def _expand(self, point: MarginalPoint, alike: Operator | None = None) -> AtMode:
        """``alike`` is a Hessian nearby: where it is the same matrix, its factor serves."""
        everything = {**point.params, **point.inner}
        if self.curvature.lifts and not self._explored:
            self._explored = True
            noise = torch.Generator().manual_seed(23)
            beside = {
                name: value + 0.1 * torch.randn(value.shape, generator=noise, dtype=torch.float64).to(value)
                for name, value in everything.items()
            }
            self._expander.explore(self._watched(beside), self._u)
        at = self._watched(everything)
        self.leaves.write(everything)  # once: the graphs of the expansion read the leaves
        self.leaves.make_current(at)
        layout = self.curvature.layout
        assert layout is not None
        try:
            expansion = self._expansion(point, at, layout)
        except Interaction as surprise:
            self.curvature.take_together(surprise.names)
            with self._outer_held(point.params):
                point.inner = self._finder.find(point.inner)  # finds the layout, too
            alike, self._finder.operator = self._finder.operator, None
            return self._expand(point, alike)
        expansion.estimate, expansion.alike = not point.exact, alike
        factor = expansion.factor
        if not factor.positive:
            where = ""
            if factor.direction is not None:
                where = f" along {place_of(factor.direction, self._u, self.sites)}"
            raise NoMode(f"{NO_MODE}: the curvature is not positive{where}")
        return AtMode(self._u, expansion, factor, self._approximation)

    def _expansion(self, point: MarginalPoint, at: TracedPoint, layout: Layout) -> Expansion:
        """By autograd or, where torch has no second derivative, by differences. Raises: Interaction, ModelError."""
        lifts, colouring = self.curvature.lifts, self.curvature.colouring
        if not self.lacking.up_to(2):
            try:
                expansion = self._expander.at(at, self._u, layout, lifts, colouring)
                suspicious = self._inner.without_second is not None and not isfinite(expansion.operator.largest())
                if not (suspicious and self._look_for_lack(point, 2)):
                    return expansion
            except RuntimeError as error:
                if not lacks_derivative(error):
                    raise
                self._look_for_lack(point, 2, error=error)
        expansion = self._expander.by_differences(self._whole.at(at.params), self._u, layout, colouring)
        self.leaves.write(at.params)
        return expansion

    def _watched(self, params: Params) -> TracedPoint:
        """A place for the whole model to be watched at; its loss is computed there."""
        return TracedPoint(params, torch.zeros(()), self.leaves.tensors, source=self._whole)

    # second derivatives ------------------------------------------------------------------------------------------

    def products(self, point: MarginalPoint, vectors: Params) -> Params:
        """Products of the exact Hessian with ``vectors`` (probes, *shape), over the names they have.

        The whole Hessian is kept: the verdict and the standard errors ask for the same one.
        """
        names = list(vectors)
        probes = vectors[names[0]].shape[0]
        whole = names == self.outer and torch.equal(flat := self._theta.flatten(vectors), torch.eye(probes).to(flat))
        last = self._curved
        here = last and same(point.params, last.params) and same(point.inner, last.inner)
        if whole and last and here and (last.exact or not point.exact):
            point.sensitivity = last.sensitivity
            return last.hessian
        self.evaluations.hvp += probes
        exact = None if self.lacking else self._exact_products(point, vectors, whole)
        found, moves = exact or by_rows(vectors, partial(self._difference, point))
        if whole:
            point.sensitivity = moves
            self._curved = Curved(point.params, point.inner, point.exact, found, moves)
        return found

    def _exact_products(self, point: MarginalPoint, vectors: Params, whole: bool) -> tuple[Params, Tensor] | None:
        """By autograd, with how û moves; None where torch was found to lack a derivative that they take."""
        known = self._expanded(point)
        try:
            if whole:
                hessian, moves = known.hessian(self._theta, estimate=not point.exact)
                found = self._theta.unflatten(hessian)
            else:
                if point.exact and known.expansion.estimate:
                    known = self._expand(point, known.expansion.operator)
                    self._known = point, known
                found, moves = by_rows(vectors, known.product)
            finite = isfinite(max_norm(found)) or not isfinite(max_norm(point.gradient()))
            lacks = not finite and self._look_for_lack(point, 2, 3, 4)
        except RuntimeError as error:
            if not lacks_derivative(error):
                raise
            lacks = self._look_for_lack(point, 2, 3, 4, error=error)
        if not lacks:
            return found, moves
        self._known = None
        return None

    def _difference(self, point: MarginalPoint, vector: Params) -> tuple[Params, Tensor]:
        """As ``AtMode.product``, by differences of the gradient."""
        known = self._expanded(point)
        bend, move = self._second(point, known, vector)
        own = Coordinates.of(point.params, vector)

        def slope(t: float) -> Tensor:
            there = {name: point.params[name] + t * v for name, v in vector.items()}
            return own.flatten(self.near(point, {**point.params, **there}).gradient())

        found = own.unflatten(two_sided(slope, bend))
        self._known = None
        return found, move

    def describe_inner(self, point: Point) -> str:
        assert isinstance(point, MarginalPoint)
        return self.curvature.describe(self._expanded(point).expansion.operator)

    def remarks(self, params: Params) -> list[str]:
        found = self.lacking.remarks()
        found += self._inner.captured_remarks()
        self.probing = self._probing_error(params)
        return found if self.probing is None else [*found, self.probing.remark(", ".join(self.integrated))]

    def _probing_error(self, params: Params) -> ProbingError | None:
        """Where the determinant is estimated by probes, and there is a mode."""
        if self.curvature.probes is None:
            return None
        last = self._known
        point = last[0] if last is not None and same(params, last[0].params) else self.at(params)
        if not isinstance(point, MarginalPoint) or point.failure is not None:
            return None
        known = self._expanded(point)
        if not isinstance(known.factor, StochasticFactor):
            return None
        theta = self._theta
        unit = torch.eye(theta.size, dtype=known.slope.dtype, device=known.slope.device)
        hessian = theta.flatten(self.products(point, theta.unflatten(unit)))
        return probing_error(known.expansion, known.factor, theta, known.slope, hessian)

    def facts(self, loss: float) -> dict[str, float]:
        """Of a log determinant by probes, how far that leaves the loss and the estimates uncertain."""
        return {} if self.probing is None else self.probing.facts()

    def posterior(self, point: Point) -> Posterior:
        assert isinstance(point, MarginalPoint)
        known = self._expanded(point)
        fitted = None if self._approximation is laplace else -point.value
        find = partial(self._sensitivity, point)
        return Posterior(self.integrated, self.jacobian, known.expansion, known.factor, fitted, point.sensitivity, find)

    def _sensitivity(self, point: MarginalPoint) -> Tensor:
        if point.sensitivity is None:
            whole = self._theta.flatten(point.params)
            basis = torch.eye(whole.numel(), dtype=whole.dtype, device=whole.device)
            self.products(point, self._theta.unflatten(basis))
        assert point.sensitivity is not None
        return point.sensitivity

    # what else is asked of an objective --------------------------------------------------------------------------

    def values(self, params: Params) -> Params:
        """The constrained value of every site: integrated latents at their mode."""
        self._known = None
        return self._whole.values({**params, **self.mode(params)})

    def explain_non_finite(self, params: Params) -> str:
        self._known = None
        return self._whole.explain_non_finite({**params, **self._mode_near(params)})

    def mode(self, params: Params) -> Params:
        """û at ``params``; the nearest that is known where there is none."""
        if not any(same(params, known) for known, _ in (self._last, self._anchor)):
            self.at(params)
        return self._mode_near(params)

    def _mode_near(self, params: Params) -> Params:
        known, mode = self._last
        return mode if same(params, known) else self._anchor[1]

    @contextmanager
    def _outer_held(self, params: Params) -> Iterator[None]:
        """Inside, the outer parameters' leaves hold ``params`` and are constants."""
        self.leaves.write(params)
        with self.leaves.constant(self.outer):
            yield


def _part(params: Params, names: Collection[str]) -> Params:
    return {name: params[name] for name in names}
