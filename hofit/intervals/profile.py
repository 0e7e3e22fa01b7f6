"""A profile likelihood: how far the lowest loss rises as one quantity is held away from its estimate.

With ℓ̂ the loss at the fit and ℓ(ψ) the lowest with the quantity at ψ, ζ(ψ) = sign(ψ − ψ̂) √(2 (ℓ(ψ) − ℓ̂)) is the signed
root. A straight ζ is a Gaussian likelihood; the interval of a level ends where |ζ| is the normal quantile. Each side is
walked outwards from the fit, each place begun at the one before, moved as the path says; the root is then found by
safeguarded Newton steps, for the slope of the profile is the multiplier of the constraint and costs nothing.

Source: Bates & Watts (1988), Nonlinear Regression Analysis and Its Applications, section 6.1 (profile t);
Bates, Mächler, Bolker & Walker (2015), J. Stat. Softw. 67(1), section 5.1; Self & Liang (1987) on boundaries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import copysign, inf, isfinite, sqrt

from torch import Tensor

from .constrained import Landscape, Lowest, Spot, Surface, lowest, surface_of
from .quantities import Number, Quantity

PARTS = 4
"""Places on a side as far as the root, about; a picture needs as many."""

BEYOND = 1.25
"""How much further than the root a side is walked, so that a picture shows how the profile goes on."""

PLACES = 80
"""On a side at most."""

STRETCH = 4.0
"""What one step outwards may be times the last."""

INWARDS = 0.125
"""What is left of the way to an end of the support after a step that would have passed it."""

AT_END = 1e-7
"""Of the way from the estimate to an end of the support, what no longer counts."""

LEVEL = 1e-3
"""Of what ζ lacks to the root: a profile that still rises by less than this to its end, or on its way to infinity,
does not reach it."""

FAR = 1e9
"""Times the first step, on the way to infinity."""

ROOT = 1e-9
"""How near |ζ| is to the quantile at a root."""

ROOTS = 40
"""Steps of the search for a root at most."""

LOWER = 1e-7
"""By how much, of the loss's size, a place must be lower than the fit to say that the fit is no maximum."""

FALLS = 1e-4
"""By how much |ζ| must fall outwards to be said to."""


@dataclass(frozen=True)
class Place:
    """One place of a profile."""

    value: float
    zeta: float
    loss: float


@dataclass
class Profile:
    """Of one quantity: ``places`` in order of their values; ``lower`` and ``upper`` are None where they are not known.

    ``better`` (d,) is a place that is lower than the fit, where there is one; there is no interval then.
    """

    quantity: Quantity
    estimate: float
    lower: float | None = None
    upper: float | None = None
    places: list[Place] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    better: Tensor | None = None
    better_loss: float | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """Where the profiles begin: the estimate (d,), its loss, and the size by which losses are compared."""

    landscape: Landscape
    flat: Tensor
    loss: float
    size: float
    running: Tensor
    """Numbers that run to an edge, or to infinity, at the fit, (d,)."""
    noise: Callable[[Tensor], float]
    """The rounding of the loss at a place (d,)."""
    rescue: Callable[[Landscape, Spot, Tensor], Tensor | None]
    """A lower place with numbers drawn in from an edge: see ``edges.py``."""


def profile_of(fit: Fit, quantity: Quantity, cutoff: float) -> Profile:
    """Both sides, as far as |ζ| is a little more than ``cutoff``."""
    estimate = quantity.value(fit.flat)
    found = Profile(quantity, estimate, places=[Place(estimate, 0.0, fit.loss)])
    sides = [_Side(fit, quantity, estimate, sign, cutoff) for sign in (-1.0, 1.0)]
    for side in sides:
        side.walk()
        found.places += side.places
        found.remarks += [one for one in side.remarks if one not in found.remarks]
        if side.better is not None:
            found.better, found.better_loss = side.better.spot.flat, side.better.spot.loss
            break
    found.places.sort(key=lambda place: place.value)
    if found.better is None:
        found.lower, found.upper = sides[0].bound, sides[1].bound
    return found


class _Side:
    """One side of a profile, walked outwards."""

    def __init__(self, fit: Fit, quantity: Quantity, estimate: float, sign: float, cutoff: float) -> None:
        self.fit, self.quantity, self.estimate, self.sign, self.cutoff = fit, quantity, estimate, sign, cutoff
        self.surface: Surface = surface_of(quantity, fit.landscape)
        self.end = quantity.upper if sign > 0 else quantity.lower
        self.places: list[Place] = []
        self.remarks: list[str] = []
        self.better: Lowest | None = None
        self.bound: float | None = None
        self._reached: list[tuple[float, float, Lowest]] = []
        """Value, |ζ| and what was found there, outwards."""
        self._unsettled = False

    def walk(self) -> None:
        begin = lowest(self.fit.landscape, self.surface, self.estimate, self.fit.flat)
        if begin is None:
            self.remarks.append("no profile: loss or curvature cannot be had at the estimate")
            return
        if self._runs_out() or abs(self.end - self.estimate) <= AT_END * self._scale():
            self.bound = self.end
            self.remarks.append(f"the estimate lies at the end of the support, {self.end:g}, which bounds the interval")
            return
        self._reached.append((self.estimate, 0.0, begin))
        known = begin.curvature > 0 and not self._runs()
        first = self.cutoff / PARTS / sqrt(begin.curvature) if known else 0.1 * self._scale()
        first = min(first, 0.25 * abs(self.end - self.estimate)) if isfinite(self.end) else first
        step, blocked = first, self.end
        for _ in range(PLACES):
            value = self._reached[-1][0]
            wanted = value + self.sign * step
            if isfinite(blocked) and (blocked - wanted) * self.sign <= 0:
                wanted = blocked - INWARDS * (blocked - value)
            found = self._at(wanted, outwards=True)
            if self.better is not None:
                return
            if found is None:  # beyond what can be reached: from now on that is the end
                blocked = wanted
            else:
                self._reached.append((wanted, found[0], found[1]))
                if found[0] >= BEYOND * self.cutoff * (1 - 1e-3) or (
                    self._passed() and blocked != inf and self._at_end(blocked)
                ):
                    break
                step = self._next(step)
            if not self._passed() and self._levelled(blocked, first):
                break
            if isfinite(blocked) and abs(blocked - self._reached[-1][0]) <= AT_END * abs(blocked - self.estimate):
                break
        self._conclude(blocked)

    def _runs_out(self) -> bool:
        """Whether the quantity is a number that runs to its end on this side at the fit."""
        own = self.quantity
        if not isinstance(own, Number) or not self._runs():
            return False
        outwards = float(self.fit.flat[own.place]) * own.slope(self.fit.flat)
        return outwards * self.sign > 0

    def _runs(self) -> bool:
        return isinstance(self.quantity, Number) and bool(self.fit.running[self.quantity.place])

    def _scale(self) -> float:
        """A size for values where nothing tells one."""
        return max(1.0, abs(self.estimate))

    def _at(self, value: float, outwards: bool = False) -> tuple[float, Lowest] | None:
        """|ζ| at a value, and where; from the nearest place known. A place lower than the fit is kept as better.

        Only on the walk ``outwards`` are numbers drawn in: between two places they are where these have them.
        """
        known, _, start = min(self._reached, key=lambda one: abs(one[0] - value))
        landscape = self.fit.landscape
        flat = start.spot.flat + (value - known) * start.way
        found = lowest(landscape, self.surface, value, flat)
        if found is None or not found.settled:
            again = lowest(landscape, self.surface, value, start.spot.flat)
            found = again if found is None or (again is not None and again.spot.loss < found.spot.loss) else found
        if found is None:
            return None
        drawn_in = self.fit.rescue(landscape, found.spot, found.across != 0) if outwards else None
        if drawn_in is not None:
            other = lowest(landscape, self.surface, value, drawn_in)
            found = other if other is not None and other.spot.loss < found.spot.loss else found
        self._unsettled |= not found.settled
        rise = found.spot.loss - self.fit.loss
        if rise < -LOWER * self.fit.size and rise < -self.fit.noise(found.spot.flat):
            self.better = found
        zeta = sqrt(2.0 * max(rise, 0.0))
        self.places.append(Place(value, copysign(zeta, self.sign), found.spot.loss))
        return zeta, found

    def _slope(self, zeta: float, found: Lowest) -> float:
        """d |ζ| / d value outwards: the multiplier over ζ; at the fit, the root of the curvature."""
        if zeta < 1e-3:
            return sqrt(max(found.curvature, 0.0))
        return self.sign * found.slope / zeta

    def _next(self, step: float) -> float:
        """So far that |ζ| rises by a part of the cutoff."""
        value, zeta, found = self._reached[-1]
        taken = abs(value - self._reached[-2][0])
        slope = self._slope(zeta, found)
        wanted = self.cutoff / PARTS / slope if slope > 0 else inf
        return min(max(wanted, taken / STRETCH), STRETCH * max(taken, step))

    def _passed(self) -> bool:
        return any(zeta >= self.cutoff for _, zeta, _ in self._reached)

    def _at_end(self, blocked: float) -> bool:
        return abs(blocked - self._reached[-1][0]) <= 1e-3 * abs(blocked - self.estimate)

    def _levelled(self, blocked: float, first: float) -> bool:
        """Whether the profile will not reach the root: what it still rises by to its end is next to nothing."""
        if len(self._reached) < 3:
            return False
        (_, lower, _), (value, zeta, found) = self._reached[-2:]
        lacks = LEVEL * (self.cutoff - zeta)
        if isfinite(blocked):
            near = abs(blocked - value) <= 0.01 * abs(blocked - self.estimate)
            return near and abs(zeta - lower) <= lacks and self._slope(zeta, found) * abs(blocked - value) <= lacks
        away = abs(value - self.estimate)
        if away <= 100 * first:
            return False
        if away > FAR * first:
            return True
        # What rises like −1/ψ rises by its slope times the way it has gone; like log ψ, for ever. Near a zero of the
        # slope, as at a variance of nothing, the slope still grows.
        slope, former = self._slope(zeta, found), self._slope(lower, self._reached[-2][2])
        return zeta > FALLS and slope < 0.5 * former and slope * away <= lacks

    def _conclude(self, blocked: float) -> None:
        self._say_where_it_falls()
        if self._unsettled:
            self.remarks.append("the other numbers did not settle everywhere on the way: the profile may be too high")
        crossing = next((k for k, (_, zeta, _) in enumerate(self._reached) if zeta >= self.cutoff), None)
        if crossing is not None:
            self.bound = self._root(crossing)
            return
        value, zeta, _ = self._reached[-1]
        reached = f"ζ is {copysign(zeta, self.sign):.4g} there, and ±{self.cutoff:.4g} is not reached"
        side = "upper" if self.sign > 0 else "lower"
        if isfinite(self.end) and blocked == self.end:
            self.bound = self.end
            self.remarks.append(f"the {side} end is that of the support, {self.end:g}: {reached}")
        elif isfinite(blocked):
            self.bound = value
            self.remarks.append(f"the {side} end is where the values end, near {value:.6g}: {reached}")
        else:
            self.bound = copysign(inf, self.sign)
            self.remarks.append(f"no {side} end: the profile levels off, at {value:.4g} {reached}")

    def _say_where_it_falls(self) -> None:
        highest = 0.0
        for value, zeta, _ in self._reached:
            if zeta < highest - FALLS:
                self.remarks.append(
                    f"the profile is not monotone: |ζ| falls from {highest:.4g} to {zeta:.4g} on the way to "
                    f"{value:.4g}; the interval ends where it is first reached"
                )
                return
            highest = max(highest, zeta)

    def _root(self, crossing: int) -> float:
        """Where |ζ| is the cutoff, between a place and the one before."""
        inside, outside = self._reached[crossing - 1], self._reached[crossing]
        value, zeta, found = min(inside, outside, key=lambda one: abs(one[1] - self.cutoff))
        for _ in range(ROOTS):
            if abs(zeta - self.cutoff) <= ROOT:
                return value
            slope = self._slope(zeta, found)
            trial = value + self.sign * (self.cutoff - zeta) / slope if slope > 0 else inf
            low, high = sorted((inside[0], outside[0]))
            if not low < trial < high:
                trial = 0.5 * (low + high)
            if trial in (low, high):
                return value
            there = self._at(trial)
            if self.better is not None:
                return value
            if there is None:
                self.remarks.append("no place could be had at the end of the interval, which is that of the last")
                return value
            value, (zeta, found) = trial, there
            reached = (value, zeta, found)
            if zeta < self.cutoff:
                inside = reached
            else:
                outside = reached
            self._reached.append(reached)
        return value
