"""What speaks against a minimum where the gradient is small: a step, a walk or a probe that finds something else."""

from __future__ import annotations

from math import isfinite

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.probed import product as products
from ..linear.krylov import conjugate_gradients, extreme_ritz_values
from ..objective.base import Objective
from ..point import Point
from ..status import Status
from .checks import Check, Finding, StopState
from .place import CONFIRM_FACTOR, CONFIRM_STEP, Place
from .rounding import BORNE_OUT, loss_at

WALKS = (0.003, 0.03, 0.1, 1.0, 10.0)
"""How far a walk goes along a direction whose largest entry is one; and to the origin, and as far again."""

MIXTURES = 8
"""Random mixtures of the directions that are walked along, and as many of the directions themselves at most."""

PROBES = 8
"""Hessian-vector products, from a random start and from the gradient each, that look at a model without a Hessian."""

TOO_FAR = 20.0
"""Unconstrained size from which on a number with a bounded support is asked whether its curvature is real: terms of the
loss that grow with the value are rounded there by more than data tell."""

SEEN = 16.0
"""Times the rounding of the loss that the curvature must let it rise by, where that is held against the loss."""

RISES = 0.25
"""The part of that rise which the loss must show, in the mean of both sides."""

CLEARLY_NEGATIVE = 1e3
"""Units of eps · the largest Ritz value below which one from PROBES products proves a negative curvature."""


def matters(objective: Objective, point: Point, name: str) -> bool:
    """Whether moving one parameter changes the loss at all: from here, to its origin, and with all others moved too.

    Far back as well: of a rate in another unit nothing may be left at 1.
    """
    generator = torch.Generator().manual_seed(3)
    others = {n: p + 0.5 + torch.rand(p.shape, generator=generator).to(p) for n, p in point.params.items()}
    for base in (point.params, others):
        values = []
        for value in (base[name], base[name] + 0.5, 0.1 + torch.zeros_like(base[name]), base[name] - 12.0):
            values.append(loss_at(objective, {**base, name: value}))
            if not isfinite(values[-1]):
                return True
        if len(set(values)) > 1:
            return True
    return False


def refuted_by_walks(place: Place, directions: Tensor, state: StopState) -> Finding | None:
    """What walks along directions (d, k) of no curvature found that a flat minimum does not have; None if nothing.

    No curvature may also be a plateau, an inflection, a maximum of fourth order, or the far end of an escape: there
    the loss falls somewhere, or changes on one side only. Walks are along each direction and random mixtures of all.
    """
    here, noise = place.here, place.rounding
    generator = torch.Generator().manual_seed(1)
    signs = 2.0 * torch.randint(0, 2, (directions.shape[1], MIXTURES), generator=generator) - 1
    walked = directions[:, :MIXTURES]
    if directions.shape[1] > 1:
        walked = torch.cat([walked, directions @ signs.to(directions)], dim=1)

    for direction in (walked / walked.abs().amax(dim=0).clamp_min(1.0)).unbind(1):
        to_origin = float((here @ direction).abs() / direction.square().sum())
        for distance in (*WALKS, to_origin, 2 * to_origin):
            changes = [place.loss_at(here + sign * distance * direction) - place.point.value for sign in (1.0, -1.0)]
            if min(changes) < -noise:
                found = "the loss has no curvature but falls"
            elif min(changes) <= noise < max(changes):
                found = "the loss has no curvature but changes on one side only (a plateau or an escape to infinity)"
            else:
                continue
            check = Check("flat", False, None, f"{found} along {place.coordinates.label(directions)}")
            return Finding(check, Status.NO_PROGRESS if state.ends else None)
    return None


def refuted_by_rises(place: Place, state: StopState) -> Finding | None:
    """A number far out whose curvature is rounding, however large it is: the loss does not rise by it; None if none."""
    curvature = place.free_hessian.diagonal()
    for number in place.outermost(place.bounded & (place.here.abs() > TOO_FAR)):
        way = place.way_of(number)
        slope, rounding = place.along(place.here, way)
        bend = 0.5 * float(curvature[number])
        if isfinite(rounding):
            least = max(place.objective.unit, SEEN * place.noise, SEEN * rounding)
        else:  # the loss is the same to the last digit on the longest of these ways
            least = bend * BORNE_OUT[-1] ** 2
        if not bend > 0.0 or abs(slope) > least or least <= place.rounding:
            continue
        move = (least / bend) ** 0.5 * way
        rise = 0.5 * (place.loss_at(place.here + move) + place.loss_at(place.here - move)) - place.point.value
        if rise < RISES * least:
            called = place.coordinates.call(number)
            message = (
                f"the loss rises by {rise:.3g} where the curvature along {called} says {least:.3g}: it is rounding"
            )
            return Finding(Check("curvature", False, rise, message), Status.NO_PROGRESS if state.ends else None)
    return None


def refuted_by_probes(point: Point) -> str | None:
    """What a few Hessian-vector products say against a minimum, for a model without a Hessian; None if nothing.

    Lanczos from a random start finds a clearly negative curvature; conjugate gradients from the gradient give a step
    after which the quadratic model's gradient must be the true one, which an escape to infinity or a plateau refutes.
    """
    coordinates = Coordinates.of(point.params, point.gradient())

    def product(vector: Tensor) -> Tensor:
        return products(point, coordinates, vector[None])[0]

    g = coordinates.flatten(point.gradient())
    eps = torch.finfo(g.dtype).eps
    signs = torch.randint(0, 2, g.shape, generator=torch.Generator().manual_seed(2))
    lowest, largest = extreme_ritz_values(product, (2.0 * signs - 1).to(g), PROBES)
    if lowest < -CLEARLY_NEGATIVE * eps * largest:
        return f"the curvature is negative along a direction ({lowest:.3g}): a saddle or a maximum"
    found = conjugate_gradients(product, -g, largest, PROBES)
    if found.indefinite:
        return "the curvature is negative along the gradient"
    step = found.solution
    here = coordinates.flatten(point.params)
    if float((step.abs() / torch.clamp(here.abs(), min=1.0)).max()) <= max(CONFIRM_STEP, 8 * eps):
        return None
    there = point.at({**point.params, **coordinates.unflatten(here + step)})
    if there.failure is not None or not isfinite(there.value):
        return "the loss is not finite after the confirming step"
    true = coordinates.flatten(there.gradient())
    if float((true + found.residual).norm()) > CONFIRM_FACTOR**-0.5 * float(g.norm()):
        return "a Newton step does not divide the gradient as a minimum's would (a plateau or an escape to infinity)"
    return None
