"""The lowest loss where one quantity is held at a value: a trust region on the surface that the value makes.

A step is taken in the plane that touches the surface, by the Hessian of the Lagrangian there, then drawn back onto
it, where the loss decides. A single unconstrained number is held by leaving it out, whatever the Hessian's structure;
the plane of a function of several is written out, so that those take dense Hessians.

With a = ∇g and λ = aᵀ∇f / aᵀa, the Hessian in the plane is that of f − λ g; at the lowest place ∇f = λ a, and λ is
the slope of the profile.

Source: Absil, Mahony & Sepulchre (2008), Optimization Algorithms on Matrix Manifolds, sections 4.1 (retractions), 5.5
and 7 (trust regions); Nocedal & Wright (2006), section 15.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.structure import Curvature
from ..linear.dense import Dense
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..objective.base import Objective
from ..optim.acceptance import ACCEPT, CUT, GOOD, GROWTH, POOR
from ..optim.subproblem.exact import trust_region_step
from ..point import Point
from .quantities import Function, Number, Quantity

ITERATIONS = 100

SETTLED = 1e-12
"""Of the loss's size, what a step may still promise at the lowest place; a signed root errs by that over the root."""

NOISE = 1e-13
"""Of the loss's size, what is rounding."""

RADIUS = 4.0
"""Units of the loss's curvature that the first step may go."""

SHRUNK = 1e-9
"""A radius from which on no step can be judged."""

FLAT = 1e-9
"""A curvature of less than this, one being that of the fit, is that of a number that has run to an edge."""

RETURNS = 60
"""Steps back onto a surface at most."""

ON = 1e-13
"""Of the value's size, how near a surface a place on it is."""

DENSE_LIMIT = 1000
"""Unconstrained numbers at most under a function of several: the plane is a matrix."""


@dataclass(eq=False)
class Spot:
    """A place, its loss with derivatives, ``gradient`` (d,); ``held`` (d,) are numbers that none of these moves."""

    flat: Tensor
    point: Point
    gradient: Tensor
    hessian: Operator
    held: Tensor

    @property
    def loss(self) -> float:
        return self.point.value


@dataclass(eq=False)
class Lowest:
    """Where the search on a surface has ended; ``slope`` is d loss / d value, ``way`` (d,) how the place moves with it.

    ``across`` (d,) moves the value alone. ``settled`` tells whether no step could lower the loss any more.
    """

    spot: Spot
    slope: float
    way: Tensor
    across: Tensor
    settled: bool
    curvature: float
    """d² loss / d value² along the way, all else following."""


class Landscape:
    """A loss over the flat vector of what is optimised.

    Shapes: ``root`` (d,), the root of each number's curvature at the fit; ``unread`` (d,), numbers that no transform
    reads, as above a triangle; ``bounded`` (d,), those of a bounded support, which may run to an edge; ``parked`` (d,),
    where a number that runs to an edge at the fit stays until it is drawn in, nan for all others.
    """

    def __init__(self, objective: Objective, coordinates: Coordinates, unread: Tensor) -> None:
        self.objective, self.coordinates, self.unread = objective, coordinates, unread
        self.curvature = Curvature()
        sites = objective.sites
        bounded = {name: torch.full(shape, sites[name].is_bounded) for name, shape in coordinates.shapes.items()}
        self.bounded = coordinates.flatten(bounded)
        self.parked = torch.full((coordinates.size,), torch.nan, dtype=torch.get_default_dtype())
        self.root = torch.ones(coordinates.size, dtype=torch.get_default_dtype())

    def loss(self, flat: Tensor) -> float:
        """inf where there is none."""
        point = self._point(flat)
        return point.value if point is not None else float("inf")

    def spot(self, flat: Tensor) -> Spot | None:
        """None where loss, gradient or Hessian cannot be had."""
        point = self._point(flat)
        if point is None:
            return None
        gradient = self.coordinates.flatten(point.gradient())
        hessian = self.curvature.at(point, list(self.coordinates.names))
        if isinstance(hessian, MatrixFree) or not isfinite(hessian.largest()) or not bool(gradient.isfinite().all()):
            return None
        # What has run to an edge shows neither slope nor curvature: a step there would be of any length, and rounding.
        lost = hessian.diagonal().abs() <= FLAT * self.root.square() * self.objective.unit
        lost &= gradient.abs() <= FLAT**0.5 * self.root * self.objective.unit**0.5
        held = self.unread | (self.bounded & lost) | (flat == self.parked)
        if bool(held.any()):
            hessian, gradient = hessian.held(held), torch.where(held, 0.0, gradient)
        return Spot(flat, point, gradient, hessian, held)

    def _point(self, flat: Tensor) -> Point | None:
        if not bool(flat.isfinite().all()):
            return None
        point = self.objective.at(self.coordinates.unflatten(flat))
        return point if point.failure is None and isfinite(point.value) else None


@dataclass(frozen=True, eq=False)
class Plane:
    """What touches a surface at a place, in the landscape's units: the loss's quadratic over it, and the way back.

    Shapes: gradient (n,); ``whole`` (n,) → (d,); ``across`` (d,) moves the value by one and stays in no plane.
    """

    hessian: Operator
    gradient: Tensor
    whole: Callable[[Tensor], Tensor]
    across: Tensor
    slope: float
    bend: float
    """d² loss along ``across`` in the Lagrangian's Hessian."""
    pull: Tensor
    """The Lagrangian's Hessian times ``across``, over the plane; (n,)."""


class Held:
    """The surface where one unconstrained number stands still."""

    def __init__(self, quantity: Number, landscape: Landscape) -> None:
        self.quantity, self.root = quantity, landscape.root

    def onto(self, flat: Tensor, target: float) -> Tensor | None:
        return self.quantity.placed(flat, target)

    def plane(self, spot: Spot) -> Plane | None:
        place = self.quantity.place
        slope = self.quantity.slope(spot.flat)
        if slope == 0.0:
            return None
        held = torch.zeros_like(spot.gradient, dtype=torch.bool)
        held[place] = True
        unit = 1.0 / self.root
        free = (~held).to(unit)
        across = torch.zeros_like(spot.gradient)
        across[place] = 1.0 / slope
        product = spot.hessian.matvec(across)
        # λ g'' keeps the value's own curvature out of the loss's.
        lagrange = float(spot.gradient[place]) / slope
        bend = float(across @ product) - lagrange * self._second(spot.flat) / slope**2
        return Plane(
            spot.hessian.held(held).scaled(torch.where(held, 1.0, unit)),
            spot.gradient * unit * free,
            lambda step: step * unit * free,
            across,
            lagrange,
            bend,
            product * unit * free,
        )

    def _second(self, flat: Tensor) -> float:
        place = self.quantity.place
        step = 1e-5 * max(1.0, abs(float(flat[place])))
        ends = []
        for sign in (1.0, -1.0):
            moved = flat.clone()
            moved[place] += sign * step
            ends.append(self.quantity.slope(moved))
        return (ends[0] - ends[1]) / (2 * step)


class Curved:
    """The surface where a function of several unconstrained numbers has a value."""

    def __init__(self, quantity: Function, landscape: Landscape) -> None:
        self.quantity, self.root = quantity, landscape.root

    def onto(self, flat: Tensor, target: float) -> Tensor | None:
        """Newton's steps straight back, in the landscape's units, halved where they lead away."""
        value, slope = self.quantity.gradient(flat)
        tolerance = ON * max(abs(target), abs(value), 1e-8)
        for _ in range(RETURNS):
            off = target - value
            if abs(off) <= tolerance:
                return flat
            scaled = slope / self.root
            length = float(scaled @ scaled)
            if not (isfinite(off) and isfinite(length)) or length == 0.0:
                return None
            step, part = off * scaled / self.root / length, 1.0
            while part > SHRUNK:
                there = flat + part * step
                value, slope = self.quantity.gradient(there)
                if isfinite(value) and abs(target - value) < abs(off):
                    break
                part *= 0.5
            else:
                return flat if abs(off) <= 1e3 * tolerance else None
            flat = there
        return flat if abs(target - value) <= 1e3 * tolerance else None

    def plane(self, spot: Spot) -> Plane | None:
        own = self.quantity.derivatives(spot.flat)
        unit = 1.0 / self.root
        normal = own.gradient * unit
        length = float(normal @ normal)
        if not isfinite(length) or length == 0.0 or not bool(own.hessian.isfinite().all()):
            return None
        whole = spot.hessian.matvec(torch.eye(len(unit), dtype=unit.dtype)) * unit[:, None] * unit
        gradient = spot.gradient * unit
        slope = float(normal @ gradient) / length
        lagrangian = whole - slope * own.hessian * unit[:, None] * unit
        basis = torch.linalg.qr(normal[:, None], mode="complete")[0][:, 1:]  # (d, d − 1)
        across = normal / length
        pull = lagrangian @ across
        return Plane(
            # Where the loss has no curvature at all, as along a simplex's logits, no step is taken on rounding.
            Dense(basis.T @ lagrangian @ basis + FLAT * torch.eye(len(unit) - 1, dtype=unit.dtype)),
            basis.T @ gradient,
            lambda step: (basis @ step) * unit,
            across * unit,
            slope,
            float(across @ pull),
            basis.T @ pull,
        )


Surface = Held | Curved


def surface_of(quantity: Quantity, landscape: Landscape) -> Surface:
    """The surface of a quantity."""
    if isinstance(quantity, Number):
        return Held(quantity, landscape)
    assert isinstance(quantity, Function)
    return Curved(quantity, landscape)


def lowest(landscape: Landscape, surface: Surface, target: float, flat: Tensor) -> Lowest | None:
    """The lowest place of a surface that a trust region reaches from ``flat`` (d,), which need not be on it.

    None where the value cannot be reached from there, or has no loss.
    """
    start = surface.onto(flat, target)
    spot = None if start is None else landscape.spot(start)
    if spot is None:
        return None
    radius, settled = RADIUS, False
    plane = surface.plane(spot)
    if plane is None:
        return None
    for _ in range(ITERATIONS):
        size = spot.point.size
        found = trust_region_step(plane.hessian, plane.gradient, radius)
        if found.predicted <= SETTLED * size:
            settled = True
            break
        moved = surface.onto(spot.flat + plane.whole(found.step), target)
        there = None if moved is None else landscape.spot(moved)
        beyond = None if there is None else surface.plane(there)
        fall = -float("inf") if there is None or beyond is None else spot.loss - there.loss
        if fall < ACCEPT * found.predicted - NOISE * size:
            radius = CUT * found.length
            if radius < SHRUNK:
                settled = found.predicted <= 1e3 * SETTLED * size
                break
            continue
        if fall < POOR * found.predicted - NOISE * size:
            radius = CUT * found.length
        elif fall > GOOD * found.predicted and found.on_boundary:
            radius *= GROWTH
        assert there is not None and beyond is not None
        spot, plane = there, beyond
    return _ended(spot, plane, settled)


def _ended(spot: Spot, plane: Plane, settled: bool) -> Lowest:
    """With how the place follows the value: in the plane, − (its Hessian)⁻¹ times the pull across."""
    way, curvature = plane.across, plane.bend
    flat = plane.hessian.diagonal().abs() <= FLAT
    factor = (plane.hessian.held(flat) if bool(flat.any()) else plane.hessian).factor()
    if factor.positive:
        step = -torch.where(flat, 0.0, factor.solve(torch.where(flat, 0.0, plane.pull)))
        if bool(step.isfinite().all()):
            way = way + plane.whole(step)
            curvature = plane.bend + float(plane.pull @ step)
    return Lowest(spot, plane.slope, way, plane.across, settled, curvature)
