"""The Gaussian at the mode, on the unconstrained scale.

θ ~ N(θ̂, V), where V is the inverse Hessian of the objective fitted, and for integrated latents u | θ ~
N(û + Sᵀ(θ − θ̂), H_uu⁻¹) with S = dû/dθ, so that Var(u) = H_uu⁻¹ + Sᵀ V S.

Places are held at the estimate where the Hessian has no inverse: values on the edge of their support, parameters that
the loss does not depend on, and one place for each direction of no positive curvature. What is perpendicular to these
directions has the same variance whichever place is held; anything else has none.

Source: Kristensen et al. (2016), J. Stat. Softw. 70(5), section 2 (sdreport); Rao & Mitra (1971), "Generalized inverse
of matrices and its applications", on estimable functions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..errors import ModelError
from ..linear.matrix_free import MatrixFree
from ..linear.operator import MEMORY_BUDGET, Factor, Operator
from ..objective.base import Objective
from ..objective.mode import NoMode
from ..point import Params, Point
from ..verdict.signs import Signs, curvature_scale

ROUNDS = 10
"""How often, at most, directions without curvature are looked for; each round finds at least eight, if there are."""

TOUCHED = 1e-6
"""A direction of length one, in units of the curvature, touches an entry beyond this."""

SOLVES = 64
"""Vectors that are solved for at once: each may have temporaries beside its own length."""

SENSITIVITY_LIMIT = 2**27
"""Numbers of dû/dθ at most: 1 GB."""


@dataclass(frozen=True, eq=False)
class Conditional:
    """u given θ, as the module has it: the ``factor`` of H_uu, and S (p, d), None where it would be too large."""

    coordinates: Coordinates
    factor: Factor
    sensitivity: Tensor | None


@dataclass(frozen=True, eq=False)
class Gaussian:
    """See the module. Flat vectors hold θ, in the order of ``outer``, then u.

    Shapes: ``held``, ``parked`` and ``unused`` (p,), booleans; ``flat`` (p, k), directions of no positive curvature;
    ``scale`` (p,), a unit of curvature.
    """

    outer: Coordinates
    params: Params
    factor: Factor
    held: Tensor
    parked: Tensor
    """Those of the held that stay where they ran to: on an edge or far out."""
    unused: Tensor
    flat: Tensor
    scale: Tensor
    inner: Conditional | None = None

    def without_curvature(self) -> str:
        """Names, with indices, of what has no error for want of curvature; empty where there is no such thing."""
        places = self.unused.nonzero()[:9, 0]
        units = self.flat.new_zeros(len(self.unused), len(places))
        units[places, torch.arange(len(places))] = 1.0
        directions = torch.cat([self.flat, units], 1)
        return self.outer.label(directions) if directions.shape[1] else ""

    @cached_property
    def coordinates(self) -> Coordinates:
        """Of θ and u, (p + d,)."""
        inner = () if self.inner is None else self.inner.coordinates.names
        return Coordinates.of(self.params, (*self.outer.names, *inner))

    @property
    def is_joint(self) -> bool:
        """Whether it is known how the integrated latents move with the others."""
        return self.inner is None or self.inner.sensitivity is not None

    def conditional(self) -> Gaussian:
        """The same with u as if θ were known: its uncertainty is no longer in that of u."""
        return self if self.inner is None else replace(self, inner=replace(self.inner, sensitivity=None))

    def variances(self) -> Tensor:
        """Of every number; nan where there is none. Shape (p + d,)."""
        outer = torch.where(self.held, 0.0, self.factor.inverse_diagonal())
        touched = (self.flat.abs() > TOUCHED * self.scale[:, None]).any(1)
        outer = torch.where(touched | self.unused | (outer == 0.0), torch.nan, outer)
        if self.inner is None:
            return outer
        inner = self.inner.factor.inverse_diagonal()
        if self.inner.sensitivity is not None:
            inner = inner.clone()
            for part in torch.arange(len(inner)).split(_rows_of(len(outer), inner)):
                rows = self.inner.sensitivity[:, part].T  # (r, p)
                spread = (rows * self._outer(rows)).sum(1)
                inner[part] += torch.where(self._lost(rows), torch.nan, spread)
        return torch.cat([outer, inner])

    def block(self, places: Tensor) -> Tensor:
        """The covariances of some numbers, held ones being zero. Shape (n, n)."""
        parts = [self.scale.new_zeros(0, len(places))]
        size = self.coordinates.size
        for some in places.split(min(SOLVES, _rows_of(size, self.scale))):
            unit = self.scale.new_zeros(len(some), size)
            unit[torch.arange(len(some)), some] = 1.0
            parts.append(self._products(unit)[:, places])
        found = torch.cat(parts)
        return (found + found.T) / 2

    def variances_of(self, gradients: Tensor) -> Tensor:
        """gᵀ Σ g for linear functions of the flat vector; nan where it has none. Shapes: (k, p + d) → (k,)."""
        total = (gradients * self._products(gradients)).sum(1)
        return torch.where(self.lost(gradients) | ((total == 0) & gradients.any(1)), torch.nan, total)

    def lost(self, gradients: Tensor) -> Tensor:
        """Which linear functions change along a direction of no curvature. Shapes: (k, p + d) → (k,)."""
        return self._lost(self._of_outer(gradients))

    def moves_with_parked(self, gradients: Tensor) -> Tensor:
        """How far linear functions move with a unit of a parked number, at most. Shapes: (k, p + d) → (k,)."""
        return torch.where(self.parked, self._of_outer(gradients).abs(), 0.0).amax(1)

    def on(self, places: Tensor, rows: Tensor) -> Tensor:
        """Gradients over some places as gradients over all. Shapes: (n,), (k, n) → (k, p + d)."""
        whole = rows.new_zeros(len(rows), self.coordinates.size)
        whole[:, places] = rows
        return whole

    def draw(self, count: int, generator: torch.Generator) -> Params:
        """Unconstrained draws (count, *shape)."""
        here = self.outer.flatten(self.params)
        noise = standard_normal(count, here, generator)
        moves = torch.where(self.held, 0.0, self.factor.draw(noise))
        found = self.outer.unflatten(here + moves)
        if self.inner is not None:
            assert self.inner.sensitivity is not None
            mode = self.inner.coordinates.flatten(self.params)
            noise = standard_normal(count, mode, generator)
            inner = mode + moves @ self.inner.sensitivity + self.inner.factor.draw(noise)
            found |= self.inner.coordinates.unflatten(inner)
        return found

    def _of_outer(self, gradients: Tensor) -> Tensor:
        """Gradients over θ, u moving with it where that is known. Shapes: (k, p + d) → (k, p)."""
        p = len(self.held)
        if self.inner is None or self.inner.sensitivity is None:
            return gradients[:, :p]
        return gradients[:, :p] + gradients[:, p:] @ self.inner.sensitivity.T

    def _outer(self, rows: Tensor) -> Tensor:
        """V g. Shapes: (k, p) → (k, p)."""
        return torch.where(self.held, 0.0, self.factor.solve(torch.where(self.held, 0.0, rows)))

    def _products(self, rows: Tensor) -> Tensor:
        """Σ g. Shapes: (k, p + d) → (k, p + d)."""
        p = len(self.held)
        outer, inner = rows[:, :p], rows[:, p:]
        if self.inner is None:
            return self._outer(outer)
        own, sensitivity = self.inner.factor.solve(inner), self.inner.sensitivity
        if sensitivity is None:
            return torch.cat([self._outer(outer), own], 1)
        moved = self._outer(outer + inner @ sensitivity.T)
        return torch.cat([moved, own + moved @ sensitivity], 1)

    def _lost(self, rows: Tensor) -> Tensor:
        """As ``lost``, of θ alone. Shapes: (k, p) → (k,)."""
        lost = (rows[:, self.unused] != 0).any(1)
        if self.flat.shape[1]:
            length = (rows * self.scale).norm(dim=1)
            lost |= ((rows @ self.flat).abs() > TOUCHED * length[:, None]).any(1)
        return lost


def gaussian_at(
    objective: Objective, point: Point, hessian: Operator | MatrixFree, held: Tensor | None
) -> tuple[Gaussian | None, list[str]]:
    """The Gaussian at a point that was judged, and what is to be said of it.

    ``held`` (p,) tells which numbers stay where they are: on an edge, far out, or never read.
    """
    outer = Coordinates.of(point.params)
    if isinstance(hessian, MatrixFree):
        names = ", ".join(outer.names)
        return None, [f"standard errors: none for {names}: no structure makes the inverse of their Hessian affordable"]
    diagonal, gradient = hessian.diagonal(), outer.flatten(point.gradient())
    held = torch.zeros_like(diagonal, dtype=torch.bool) if held is None else held
    parked, unused = held, (diagonal == 0) & ~held
    held = parked | unused
    found: list[Tensor] = []
    for _ in range(ROUNDS):
        trial = hessian.held(held) if bool(held.any()) else hessian
        signs = Signs(trial, torch.where(held, 0.0, gradient / objective.unit**0.5))
        bad = torch.cat([signs.zero, signs.negative], 1)
        if not bad.shape[1]:
            break
        found.append(bad)
        held = held.clone()
        held[_pivots(bad / signs.scale[:, None])] = True
    factor = trial.factor()
    if bad.shape[1] or not factor.positive:
        return None, ["standard errors: none, the Hessian is not positive definite in too many directions"]
    scale = curvature_scale(hessian)
    flat = torch.cat(found, 1) if found else scale.new_zeros(len(scale), 0)
    gaussian = Gaussian(outer, point.params, factor, held, parked, unused, flat, scale)
    integrated = ", ".join(objective.integrated)
    try:
        posterior = objective.posterior(point)
        if posterior is None:
            return gaussian, []
        latents = Coordinates.of(point.inner, posterior.names)
        sensitive = outer.size * latents.size <= SENSITIVITY_LIMIT
        sensitivity = posterior.find_sensitivity() if sensitive else posterior.sensitivity
    except (NoMode, ModelError) as failure:
        return gaussian, [f"standard errors: none for {integrated}: {failure}"]
    remark = (
        f"standard errors of {integrated} are conditional: {outer.size} × {latents.size} derivatives of the mode "
        "would be needed for others"
    )
    inner, both = Conditional(latents, posterior.factor, sensitivity), {**point.params, **point.inner}
    return replace(gaussian, params=both, inner=inner), [] if sensitive else [remark]


def _pivots(directions: Tensor) -> list[int]:
    """Places, one a direction, that no mixture of the directions leaves alone: by elimination. Shape (p, k)."""
    rest = directions.clone()
    places = []
    for _ in range(rest.shape[1]):
        place, column = divmod(int(rest.abs().argmax()), rest.shape[1])
        places.append(place)
        rest = rest - rest[:, column : column + 1] * (rest[place] / rest[place, column])
    return places


def _rows_of(width: int, like: Tensor) -> int:
    """How many vectors of a width may be worked on at once, each taking a few temporaries."""
    return max(1, MEMORY_BUDGET // max(1, 8 * width * like.element_size()))


def standard_normal(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Drawn on the cpu, so that a seed means the same everywhere. Shapes: like (d,) → (count, d)."""
    return torch.randn(count, like.numel(), generator=generator, dtype=like.dtype).to(like.device)
