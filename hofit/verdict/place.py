"""A point with its Hessian, some of its numbers held, and Newton's steps from it in the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, isfinite

import torch
from torch import Tensor

from ..coordinates import HEAVY, Coordinates
from ..curvature.structure import Curvature
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..objective.base import Objective
from ..point import Point
from .checks import Check
from .rounding import NUDGE, Rounding, least_rounding, loss_at
from .signs import Signs

CONFIRM_FACTOR = 100.0
"""What the confirming step divides the decrement by, at least: Newton's method at a minimum converges quadratically."""

CONFIRM_STEP = 1e-8
"""A Newton step of no more standard errors confirms a minimum without being taken."""

QUADRATIC = 0.1
"""How far the loss after the confirming step may lie from the quadratic model's, relative to the decrement. Where the
decrement falls a hundredfold the error is below 0.07; on the way to infinity along 1/x or e⁻ˣ, and at a minimum of
fourth order, it is 0.2 to 0.33."""

SAME_STEP = 0.3
"""A number runs away whose second Newton step is still this part of the first."""

COUNTS = 1e-3
"""… and whose part in the decrement is at least this part of the largest."""

SHORT = 1e-6
"""A Newton step of no more than this part of each number does not run away."""

ROUNDING_STEP = 1e-3
"""A Newton step of more than this part of max(1, |u|) is no rounding."""

UNSEEN = 1e-12
"""A decrement of less than this part of the loss's size that is rounding: no step can divide it."""

FAINT = 1e-6
"""A curvature that changes the loss by less than this part of its size is held against the loss's rounding."""

FAR_OUT = 10.0
"""Unconstrained size from which on several numbers of bounded supports may have gone out together."""

OUT_OF_REACH = 4.0
"""Unconstrained size up to which a number has not gone out: there a curvature that the loss does not follow is bent."""

OUTERMOST = 8
"""Numbers of bounded supports that are asked whether their curvature is rounding, however large it is, at most."""

DOUBTFUL = 1e4
"""Units of eps · the largest |h_ii| below which a curvature may be rounding alone."""

STEADY = 0.1
"""How much of itself a curvature may change a hair's breadth away."""

FOLLOWS = 0.2
"""A loss that is off by less than so many slopes, on the longest of these ways half of what they say, follows them."""

STEEPER = 2.0
"""A fall of more than so many times what the slope before it says is rounding."""

FLOOR_STEPS = 4
"""Newton steps at most from a place beside a valley down to its floor."""

POLISHED = 1e-13
"""A decrement of more than this part of the loss's unit is lowered by more Newton steps: twice it is the square of the
distance to the minimum, in standard errors."""

POLISHES = 3
"""Newton steps at most that take the others along where some are held elsewhere."""


@dataclass(eq=False)
class Place:
    """``held`` (d,) are numbers that stay; nothing of what follows has a part along them.

    ``measure`` goes from place to place, and knows what was measured at each.
    """

    objective: Objective
    curvature: Curvature
    point: Point
    hessian: Operator
    held: Tensor
    measure: Rounding

    @classmethod
    def of(
        cls,
        objective: Objective,
        curvature: Curvature,
        point: Point,
        hessian: Operator,
        held: Tensor,
        measure: Rounding | None = None,
    ) -> Place:
        """With a Hessian that has no curvature where what it has is rounding: it is not the same a hair's breadth away.

        In a parameter's own unit, which may be any, curvature that is rounding would look like any other.
        """
        diagonal = hessian.diagonal().abs()
        doubtful = (diagonal > 0) & (diagonal <= DOUBTFUL * torch.finfo(diagonal.dtype).eps * diagonal.max())
        if bool(doubtful.any()):
            here = Coordinates.of(point.params)
            where = here.flatten(point.params)
            beside = where + torch.clamp(where.abs(), min=NUDGE**0.5) * NUDGE
            there = objective.at_full(here.unflatten(beside))
            if there.failure is None and isfinite(there.value):
                again = curvature.at(there, list(here.names))
                steady = isinstance(again, Operator) and (again.diagonal().abs() - diagonal).abs() <= STEADY * diagonal
                dead = doubtful & ~torch.as_tensor(steady)
                if bool(dead.any()):
                    hessian = hessian.scaled(torch.where(dead, 0.0, 1.0).to(diagonal))
        measure = measure or Rounding(objective, Coordinates.of(point.params))
        return cls(objective, curvature, point, hessian, held, measure)

    @cached_property
    def coordinates(self) -> Coordinates:
        return Coordinates.of(self.point.params)

    @cached_property
    def here(self) -> Tensor:
        return self.coordinates.flatten(self.point.params)

    @cached_property
    def gradient(self) -> Tensor:
        return torch.where(self.held, 0.0, self.coordinates.flatten(self.point.gradient()))

    @cached_property
    def signs(self) -> Signs:
        """Of the Hessian over what is not held, with what the gradient explains taken for no curvature."""
        return Signs(self.free_hessian, self.gradient / self.objective.unit**0.5)

    @cached_property
    def free_hessian(self) -> Operator:
        return self.hessian.held(self.held) if bool(self.held.any()) else self.hessian

    @cached_property
    def step(self) -> Tensor:
        """Newton's, along directions of curvature."""
        return torch.where(self.held, 0.0, self.signs.newton_step(self.gradient))

    @cached_property
    def decrement(self) -> float:
        """What the step lowers the quadratic model by."""
        return float(-0.5 * self.gradient @ self.step)

    @cached_property
    def noise(self) -> float:
        """The rounding of the loss here."""
        return self.measure.at(self.here, self.point)

    @property
    def rounding(self) -> float:
        """The same, of a loss whose terms are one observation's at least."""
        return max(self.noise, least_rounding(self.point.size, self.gradient.dtype))

    @property
    def least_rounding(self) -> float:
        """Of any loss of this size."""
        return least_rounding(self.point.value, self.gradient.dtype)

    def shows(self, change: float) -> bool:
        """Whether a change of the loss, of either sign, is more than its rounding here."""
        return abs(change) > (self.measure.at(self.here, self.point, abs(change)))

    def shows_at(self, where: Tensor, change: float) -> bool:
        """The same elsewhere; False where the loss has no gradient."""
        return abs(change) > self.measure.at(where, beside=abs(change))

    def along(self, where: Tensor, way: Tensor, most: float = inf) -> tuple[float, float]:
        """See ``Rounding.along``."""
        return self.measure.along(where, way, most)

    def most_of_fall(self, where: Tensor, way: Tensor) -> float:
        """What a loss may fall by on a way from elsewhere, by its slope there: more is rounding."""
        point = self.objective.at_full(self.coordinates.unflatten(where))
        if point.failure is not None or not isfinite(point.value):
            return inf
        return STEEPER * abs(float(self.coordinates.flatten(point.gradient()) @ way))

    @cached_property
    def unseen(self) -> Tensor:
        """Numbers of bounded supports whose curvature does not show in the loss over a unit of theirs; (d,)."""
        small = self.bounded & (self._shown <= FAINT * self.point.size)
        for number in small.nonzero()[:, 0].tolist():
            small[number] = self._is_hidden(number)
        return small

    @cached_property
    def drowned(self) -> Tensor:
        """The same of a curvature of any size, for those that have gone furthest out; (d,)."""
        drowned = self.unseen | (self.bounded & (self._shown <= self.noise))
        for number in self.outermost(self.bounded & ~drowned & (self.here.abs() > OUT_OF_REACH)):
            drowned[number] = self._is_hidden(number)
        return drowned

    @cached_property
    def adrift(self) -> Tensor:
        """Directions (d, k) whose curvature the loss does not show over a unit, of numbers far out together.

        A Gamma's shape and rate go so where the data know their ratio alone.
        """
        far = self.bounded & (self.here.abs() > FAR_OUT)
        if not bool(far.any()):
            return self.signs.zero[:, :0]
        faint = self.signs.faint(torch.where(self.bounded, 1.0, self.here), self.noise)
        hidden = torch.cat([self.signs.zero, faint], 1)  # what is none beside the others may not be faint beside one
        heavy = hidden.abs() > HEAVY * hidden.norm(dim=0)
        return hidden[:, (heavy & far[:, None]).any(0)]

    def _is_hidden(self, number: int) -> bool:
        """Whether what its curvature changes the loss by over a unit is no more than the rounding on that way.

        That is as much as the slope where the loss does not follow it.
        """
        shown = float(self._shown[number])
        if shown <= self.noise:
            return True
        slope, rounding = self.along(self.here, self.way_of(number))
        follows = rounding < FOLLOWS * abs(slope)
        return shown <= max(rounding, 0.0 if follows else abs(slope))

    def outermost(self, places: Tensor) -> list[int]:
        """The numbers among some (d,) that have gone furthest out, OUTERMOST at most."""
        chosen = places.nonzero()[:, 0]
        found: list[int] = chosen[self.here[chosen].abs().argsort(descending=True)][:OUTERMOST].tolist()
        return found

    def way_of(self, number: int) -> Tensor:
        """A unit of one number, (d,)."""
        return (torch.arange(len(self.here)) == number).to(self.here)

    @cached_property
    def bounded(self) -> Tensor:
        """Which numbers, of those not held, have a bounded support; (d,)."""
        sites = self.objective.sites
        bounded = {n: torch.full_like(v, sites[n].is_bounded, dtype=torch.bool) for n, v in self.point.params.items()}
        return self.coordinates.flatten(bounded) & ~self.held

    @cached_property
    def slope_of_flat(self) -> float:
        """The steepest slope along a direction of no curvature whose largest entry is one; 0 where there is none."""
        flat = self.signs.zero
        return float((flat / flat.abs().amax(dim=0)).T.matmul(self.gradient).abs().max()) if flat.shape[1] else 0.0

    @cached_property
    def _shown(self) -> Tensor:
        """What the curvature of each number changes the loss by over a unit of it; (d,)."""
        return 0.5 * self.free_hessian.diagonal().abs()

    def loss_at(self, where: Tensor) -> float:
        """The loss elsewhere; inf where there is none."""
        return loss_at(self.objective, self.coordinates.unflatten(where))

    def at(self, where: Tensor) -> Place | None:
        """The same elsewhere; None where loss, gradient or Hessian cannot be had."""
        point = self.objective.at_full(self.coordinates.unflatten(where))
        if point.failure is not None or not isfinite(point.value):
            return None
        gradient = self.coordinates.flatten(point.gradient())
        hessian = self.curvature.at(point, list(self.coordinates.names))
        if isinstance(hessian, MatrixFree) or not isfinite(hessian.largest()):
            return None
        if not bool(gradient.isfinite().all()):
            return None
        return Place.of(self.objective, self.curvature, point, hessian, self.held, self.measure)

    def holding(self, places: Tensor) -> Place:
        """The same with more numbers held."""
        return replace(self, held=self.held | places)

    def holding_only(self, places: Tensor) -> Place:
        """The same with these numbers held and no others."""
        return replace(self, held=places)

    def polished(self) -> Place:
        """Where Newton's steps lead while they lower the gradient, and the loss does not rise beyond its rounding."""
        place = self
        for _ in range(POLISHES):
            if not bool(place.step.isfinite().all()) or place.decrement <= 0:
                break
            there = place.at(place.here + place.step)
            rise = -inf if there is None else there.point.value - place.point.value
            if there is None or (rise > 0.0 and place.shows(rise) and there.shows(rise)):
                break
            if not float(there.gradient.abs().max()) < 0.5 * float(place.gradient.abs().max()):
                break
            place = there
        return place

    def settled(self, where: Tensor) -> Place | None:
        """Elsewhere, once Newton's steps have settled what is not held."""
        there = self.at(where)
        return None if there is None else there.polished()

    def floor(self, direction: Tensor, distance: float) -> float:
        """How much higher the floor of the valley is, so far along a direction (d,): all else goes down from there.

        The unit of ``distance`` is that in which each number's own curvature is one observation's.
        """
        unit, distance = self.signs.scale, distance * self.objective.unit**0.5
        along = direction / unit
        along = along / along.norm()
        place: Place | None = self.at(self.here + distance * along * unit)
        lowest = inf
        for _ in range(FLOOR_STEPS):
            if place is None:
                break
            lowest = min(lowest, place.point.value)
            step = unit * Signs.step_beside(place.free_hessian, place.gradient, unit, along)
            place = place.at(place.here + torch.where(self.held, 0.0, step))
        if place is not None:
            lowest = min(lowest, place.point.value)
        return lowest - self.point.value


@dataclass(frozen=True, eq=False)
class Confirmation:
    """What a full Newton step from a place has shown; ``there`` is where it led, where it was taken."""

    check: Check
    there: Place | None = None


def confirmation(place: Place) -> Confirmation:
    """Whether a Newton step does what it would do near a minimum: divide the decrement by at least CONFIRM_FACTOR."""
    step, decrement = place.step, place.decrement

    def answer(ok: bool, message: str, there: Place | None = None) -> Confirmation:
        return Confirmation(Check("confirming step", ok, float(step.abs().max()), message), there)

    eps = torch.finfo(step.dtype).eps
    own = torch.clamp(place.here.abs(), min=1.0)
    relative = float((step.abs() / own).max())
    # A standard error, with one observation weighing one; what runs away has a large one, and is held to its own size.
    error = place.signs.scale * min(1.0, place.objective.unit) ** 0.5
    errors = float((step.abs() / torch.minimum(error, own)).max())
    if errors <= CONFIRM_STEP or relative <= 8 * eps:
        return answer(True, f"the Newton step is {errors:.3g} standard errors")
    # Where numbers hang together a standard error is longer than that, and the decrement knows it.
    together = (2.0 * max(decrement, 0.0) / min(1.0, place.objective.unit)) ** 0.5
    if together <= CONFIRM_STEP and bool((step.abs() <= SHORT * place.here.abs()).all()):
        return answer(True, f"the Newton step is {together:.3g} standard errors")
    if not bool(torch.isfinite(step).all()) or decrement <= 0:
        return answer(False, f"the Newton step is {relative:.3g} of max(1, |u|), and does not lower the model")
    there = place.at(place.here + step)
    if there is None:
        return answer(False, "loss or curvature cannot be had after the confirming step")
    actual = place.point.value - there.point.value
    largest = max(abs(place.point.value), abs(there.point.value))
    rounding = max(least_rounding(largest, step.dtype), eps**0.5 * decrement)
    if abs(actual - decrement) > QUADRATIC * decrement + rounding and place.shows(actual - decrement):
        text = f"a Newton step lowers the loss by {actual:.3g}, not by the {decrement:.3g} of a quadratic"
        return answer(False, text, there)
    if there.signs.negative.shape[1]:
        return answer(False, "the curvature is negative after the confirming step", there)
    # On the way to infinity the decrement falls because the curvature does: the next step is no shorter. So its length
    # is measured in the curvature of both points.
    second = there.step
    lengths = torch.stack([-0.5 * there.gradient @ second, 0.5 * second @ place.free_hessian.matvec(second)]).abs()
    remaining = float(lengths.max())
    ratio = decrement / remaining if remaining > 0 else inf
    message = f"a Newton step divides the decrement by {ratio:.3g} ({CONFIRM_FACTOR:.0f} are needed)"
    if ratio < CONFIRM_FACTOR and decrement <= min(UNSEEN * place.point.size, place.noise):
        within = relative <= eps**0.5  # nothing runs away by such steps, but a rounding may come twice
        rounding = within or (relative <= ROUNDING_STEP and not bool(running_away(place, there).any()))
        rounding &= not bool(place.unseen.any())
        return answer(rounding, f"{message}, and what is left is rounding" if rounding else message, there)
    return answer(ratio >= CONFIRM_FACTOR, message, there)


def running_away(place: Place, there: Place | None) -> Tensor:
    """Which numbers take a second Newton step that is about as long as the first. Shape (d,)."""
    if there is None:
        return torch.zeros_like(place.held)
    first, second = place.step, there.step
    part = (place.gradient * first).abs()
    same = (second.abs() >= SAME_STEP * first.abs()) & (first * second > 0)
    same &= first.abs() > SHORT * place.here.abs()
    running: Tensor = same & (part >= COUNTS * part.max()) & (part > 0)
    foremost = int(torch.where(running, part, -1.0).argmax())
    outwards = bool(running.any()) and bool(first[foremost] * place.here[foremost] > 0)
    return running if outwards else torch.zeros_like(running)
