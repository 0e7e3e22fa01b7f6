"""The objective `marginal`: minus the log evidence of the parameters, some latents integrated out.

With f(u, θ) = −log p(data, u, …; θ), u the integrated latents in unconstrained space and û(θ) their mode, an
approximation Φ(u, θ) of −log ∫ exp(−f) du is taken at û. Its derivatives are exact, through the mode: where
w = H⁻¹ ∂Φ/∂u is held, the function Ψ = Φ − wᵀ ∂f/∂u has at û no slope in u, so that dΦ/dθ = ∂Ψ/∂θ; and with
û' = −H⁻¹ ∂²f/∂u∂θ the Hessian is that of Ψ along (û', 1). Value and gradient err by the square of what û is off.

Source: Kristensen et al. (2016), "TMB: automatic differentiation and Laplace approximation", J. Stat. Softw. 70(5);
Skaug & Fournier (2006).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import log, pi

import torch
from torch import Tensor

from ..curvature.assembly import Interaction
from ..curvature.joint import Joint, Joints
from ..curvature.structure import Curvature
from ..linear.dense import flatten, flatten_batched, unflatten
from ..linear.operator import Factor
from ..model.program import InfeasibleError, Program
from ..point import Evaluations, Params, Point, Site, TracedPoint
from .density import DensityObjective
from .leaves import Leaves
from .mode import NO_MODE, ModeFinder, NoMode, place_of

Approximation = Callable[[Joint], Tensor]
"""Φ at a joint: minus the log of the integral; shape ()."""

REFINEMENTS = 5
"""Newton steps more, at most, where the mode is not within √eps."""


def laplace(joint: Joint) -> Tensor:
    """f + ½ log det H − (d/2) log 2π. nan where H is not positive definite."""
    return joint.loss + 0.5 * joint.log_determinant() - 0.5 * joint.layout.size * log(2 * pi)


@dataclass(eq=False)
class MarginalPoint(Point):
    """A point of the marginal: ``inner`` is û there.

    ``sensitivity`` is dû/dθ, a row for each unconstrained number of θ (p, d), once a Hessian was asked for.
    """

    source: MarginalObjective = field(kw_only=True)
    sensitivity: Tensor | None = field(default=None, init=False)

    def at(self, params: Params) -> Point:
        return self.source.near(self, params)

    def gradient(self, differentiable: bool = False) -> Params:
        if self.known_gradient is None:  # of a point that could not be evaluated
            self.known_gradient = {name: torch.full_like(value, torch.nan) for name, value in self.params.items()}
        return self.known_gradient

    def hvp(self, vectors: Params) -> Params:
        return self.source.products(self, vectors)


@dataclass
class _Held:
    """What can still be differentiated: the joint at the last point that was evaluated."""

    point: MarginalPoint
    joint: Joint
    factor: Factor
    approximation: Tensor
    correction: Tensor
    """w, shape (d,)."""
    slopes: Params | None = None
    """∇Ψ over all parameters, differentiable."""


@dataclass(frozen=True)
class _Curved:
    """The Hessian at the last point where it was asked for: name → (p, *shape), and dû/dθ (p, d)."""

    params: Params
    inner: Params
    hessian: Params
    sensitivity: Tensor


class MarginalObjective:
    """−log ∫ p(data, latents; θ) d(integrated latents). Use inside ``program.scope()``.

    Args:
        integrated: names of the latents that are integrated, each on its unconstrained scale, with the Jacobian.
        jacobian: whether the latents that are not integrated are taken as densities of the unconstrained scale.
        approximation: Φ, Laplace's or another.
    """

    type: str = "marginal"
    stochastic: bool = False
    settles: bool = True

    def __init__(
        self,
        program: Program,
        integrated: Collection[str],
        jacobian: bool = False,
        approximation: Approximation = laplace,
        leaves: Leaves | None = None,
    ) -> None:
        self.program = program
        self.leaves = leaves or Leaves(program.leaves)
        self.evaluations = Evaluations()
        self.integrated = [name for name in self.leaves.tensors if name in integrated]
        self.outer = [name for name in self.leaves.tensors if name not in integrated]
        self.jacobian = frozenset(program.latents if jacobian else self.integrated)
        self.sites: Mapping[str, Site] = program.sites
        self.curvature = Curvature()
        self._approximation = approximation
        self._inner = DensityObjective(program, "marginal", self.integrated, self.jacobian, self.leaves)
        self._inner.evaluations = self.evaluations
        self._whole = DensityObjective(program, "marginal", None, self.jacobian, self.leaves)
        self._finder = ModeFinder(self._inner, self.curvature)
        self._joints = Joints(self._whole)
        self._explored = False
        self._held: _Held | None = None
        self._curved: _Curved | None = None
        self._anchor: tuple[Params, Params] = ({}, self._inner.start())
        """The point that the search goes out from, and the mode there."""
        self._last = self._anchor

    def start(self) -> Params:
        return {name: leaf.detach().clone() for name, leaf in self.leaves.tensors.items() if name in self.outer}

    def remarks(self, params: Params) -> list[str]:
        return []

    def resume_from(self, params: Params, inner: Params) -> None:
        self._anchor = self._last = (params, inner)

    def take_start_loss(self) -> float | None:
        return None

    # points ------------------------------------------------------------------------------------------------------

    def at(self, params: Params) -> Point:
        return self._evaluate(params, self._mode_near(params))

    def at_full(self, params: Params) -> Point:
        return self._evaluate(params, self._mode_near(params), validate=True)

    def near(self, point: MarginalPoint, params: Params) -> Point:
        """The point at ``params``, the mode sought from that of ``point``: where dû/dθ is known, from its forecast."""
        self._anchor = (point.params, point.inner)
        mode = point.inner
        if point.sensitivity is not None:
            move = flatten(params, self.outer) - flatten(point.params, self.outer)
            forecast = unflatten(move @ point.sensitivity, mode, self.integrated)
            mode = {name: mode[name] + forecast[name] for name in mode}
        return self._evaluate(params, mode)

    def _evaluate(self, params: Params, start: Params, validate: bool = False) -> MarginalPoint:
        self._held = None
        self.evaluations.loss += 1
        infinite = torch.tensor(float("inf"))
        point = MarginalPoint(params, infinite, source=self, inner=start)
        try:
            with self._outer_held(params):
                if validate:
                    self._inner.at_full(start)
                point.inner = self._finder.find(start)
            self._settle(point)
            self._last = (params, point.inner)
        except (NoMode, InfeasibleError) as failure:
            point.failure = f"the integral over {', '.join(map(repr, self.integrated))}: {failure}"
        return point

    def _settle(self, point: MarginalPoint) -> None:
        """Value and gradient at the mode. Raises: NoMode."""
        for refinement in range(REFINEMENTS + 1):
            held = self._hold(point)
            slope = flatten(held.joint.slope, self.integrated).detach()
            step = held.factor.solve(slope)
            scale = held.joint.operator().diagonal().abs().sqrt()
            size = float((step * scale).abs().max()) if step.numel() else 0.0
            eps = torch.finfo(slope.dtype).eps
            if size <= 0.25 * eps**0.5 or refinement == REFINEMENTS:
                break
            moved = unflatten(step, point.inner, self.integrated)
            point.inner = {name: point.inner[name] - moved[name] for name in point.inner}
        if not size <= eps**0.25:
            raise NoMode(f"{NO_MODE}: {REFINEMENTS} Newton steps more still move by {size:.2g} of a standard deviation")
        self.evaluations.gradient += 1
        joint = held.joint
        whole = joint.gradient(held.approximation)
        held.correction = held.factor.solve(flatten(whole, self.integrated))
        lag = (flatten(joint.slope, self.integrated) * held.correction).sum()
        back = joint.gradient(lag)
        point.loss = (held.approximation - lag).detach()
        point.known_gradient = {name: (whole[name] - back[name]).detach() for name in self.outer}
        self._held = held

    def _hold(self, point: MarginalPoint) -> _Held:
        everything = {**point.params, **point.inner}
        if self.curvature.lifts and not self._explored:
            self._explored = True
            noise = torch.Generator().manual_seed(23)
            beside = {
                name: value + 0.1 * torch.randn(value.shape, generator=noise, dtype=torch.float64).to(value)
                for name, value in everything.items()
            }
            self._joints.explore(self._watched(beside), self.integrated)
        at = self._watched(everything)
        self.leaves.write(everything)  # once: the graphs of the joint read the leaves
        self.leaves.make_current(at)
        layout = self.curvature.layout
        assert layout is not None
        try:
            joint = self._joints.at(at, self.integrated, layout, self.curvature.lifts)
        except Interaction as surprise:
            self.curvature.take_together(surprise.names)
            with self._outer_held(point.params):
                point.inner = self._finder.find(point.inner)  # finds the layout, too
            return self._hold(point)
        operator = joint.operator()
        factor = operator.factor()
        if not factor.positive:
            where = ""
            if factor.direction is not None:
                names = self.integrated
                where = f" along {place_of(factor.direction, point.inner, names, self._inner)}"
            raise NoMode(f"{NO_MODE}: the curvature is not positive{where}")
        return _Held(point, joint, factor, self._approximation(joint), joint.loss.new_zeros(0))

    def _watched(self, params: Params) -> TracedPoint:
        """A place for the joint of the model to be watched at; its loss is computed there."""
        return TracedPoint(params, torch.zeros(()), self.leaves.tensors, source=self._whole)

    # second derivatives ------------------------------------------------------------------------------------------

    def products(self, point: MarginalPoint, vectors: Params) -> Params:
        """Products of the exact Hessian with ``vectors`` (probes, *shape), over the names they have.

        The whole Hessian is kept: the verdict and the standard errors ask for the same one.
        """
        names = list(vectors)
        probes = vectors[names[0]].shape[0]
        whole = names == self.outer and _is_identity(flatten_batched(vectors, names))
        known = self._curved
        if whole and known and _same(point.params, known.params) and _same(point.inner, known.inner):
            point.sensitivity = known.sensitivity
            return known.hessian
        self.evaluations.hvp += probes
        if self._held is None or self._held.point is not point:
            held = self._hold(point)
            slope = held.joint.gradient(held.approximation)
            held.correction = held.factor.solve(flatten(slope, self.integrated))
            self._held = held
        held = self._held
        if held.slopes is None:
            lag = (flatten(held.joint.slope, self.integrated) * held.correction).sum()
            held.slopes = held.joint.gradient(held.approximation - lag, create_graph=True)
        moves, rows = [], []
        for k in range(probes):
            row, move = self._product(held, {name: vectors[name][k] for name in names})
            moves.append(move)
            rows.append(row)
        found = {name: torch.stack([row[name] for row in rows]) for name in names}
        if whole:
            point.sensitivity = torch.stack(moves)
            self._curved = _Curved(point.params, point.inner, found, point.sensitivity)
        return found

    def posterior(self, point: MarginalPoint, sensitive: bool = True) -> tuple[Factor, Tensor | None]:
        """Of u at ``point``: the factor of H_uu and, if asked for, dû/dθ (p, d)."""
        if sensitive and point.sensitivity is None:
            whole = flatten(point.params, self.outer)
            basis = torch.eye(whole.numel(), dtype=whole.dtype, device=whole.device)
            self.products(point, unflatten(basis, point.params, self.outer))
        return self.joint_at(point)[1], point.sensitivity

    @property
    def by_laplace(self) -> bool:
        return self._approximation is laplace

    def joint_at(self, point: MarginalPoint) -> tuple[Joint, Factor]:
        """−log p(data, u, …; θ) at the mode, with its Hessian over u, factorised. Raises: NoMode, ModelError."""
        held = self._held if self._held is not None and self._held.point is point else self._hold(point)
        return held.joint, held.factor

    def _product(self, held: _Held, vector: Params) -> tuple[Params, Tensor]:
        joint, factor = held.joint, held.factor
        assert held.slopes is not None
        slopes = held.slopes
        along = torch.stack([(joint.slope[name] * v).sum() for name, v in vector.items()]).sum()
        move = -factor.solve(flatten(joint.gradient(along), self.integrated))
        moved = unflatten(move, held.point.inner, self.integrated)
        parts = [(slopes[name] * v).sum() for name, v in (*vector.items(), *moved.items())]
        second = joint.gradient(torch.stack(parts).sum())
        back = factor.solve(flatten(second, self.integrated))
        rest = joint.gradient((flatten(joint.slope, self.integrated) * back).sum())
        return {name: (second[name] - rest[name]).detach() for name in vector}, move

    # what else is asked of an objective --------------------------------------------------------------------------

    def values(self, params: Params) -> Params:
        """The constrained value of every site: integrated latents at their mode."""
        self._held = None
        return self._whole.values({**params, **self.mode(params)})

    def explain_non_finite(self, params: Params) -> str:
        self._held = None
        return self._whole.explain_non_finite({**params, **self._mode_near(params)})

    def mode(self, params: Params) -> Params:
        """û at ``params``; the nearest that is known where there is none."""
        if not any(_same(params, known) for known, _ in (self._last, self._anchor)):
            self.at(params)
        return self._mode_near(params)

    def _mode_near(self, params: Params) -> Params:
        known, mode = self._last
        return mode if _same(params, known) else self._anchor[1]

    @contextmanager
    def _outer_held(self, params: Params) -> Iterator[None]:
        """Inside, the outer parameters' leaves hold ``params`` and are constants."""
        self.leaves.write(params)
        with self.leaves.constant(self.outer):
            yield


def _is_identity(matrix: Tensor) -> bool:
    return matrix.shape[0] == matrix.shape[1] and torch.equal(matrix, torch.eye(len(matrix)).to(matrix))


def _same(params: Params, known: Params) -> bool:
    return bool(known) and all(torch.equal(params[name], value) for name, value in known.items())
