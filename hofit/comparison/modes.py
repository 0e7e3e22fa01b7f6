"""Which fits of one function have ended at the same mode, by the loss and by the estimates in standard errors.

The components of a mixture or of a hidden Markov model may change places: the loss is the same, and the estimates are
those of the other with the numbers along a dimension in another order, and of two components a probability of the one
may have become that of the other. Such fits are the same mode up to labels. Fits
of one loss whose estimates differ otherwise are said to be just that: it may be a symmetry (signs), or a ridge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ..record import Estimate, labelled
from .outcome import Outcome

SAME_LOSS = 1e-3
"""Part of one observation's weight in which losses of one mode may differ: a ratio of likelihoods of 1.001."""

ROUNDING = 1e-9
"""The same relative to the loss, for losses so large that they are not computed more closely."""

SAME_ERRORS = 0.05
"""Standard errors in which estimates of one mode may differ: by the quadratic model that is a loss of about 1e-3."""

SAME_VALUES = 1e-4
"""As SAME_ERRORS, relative, where nothing has a standard error."""

COMPONENTS = 50
"""Of a mixture at most: a larger dimension is one of groups, whose rows do not change places."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Of two fits: the largest difference of any estimate, in standard errors, and whose; None where none has one.

    ``relative`` is the largest of those without an error, relative to the larger of value and one.
    """

    errors: float | None
    where: str
    relative: float

    @property
    def is_none(self) -> bool:
        """Whether it is small enough for one mode. Where errors are known, what has none is on a boundary or flat."""
        return self.relative <= SAME_VALUES if self.errors is None else self.errors <= SAME_ERRORS


@dataclass(frozen=True)
class Place:
    """Where a fit stands in its group: the number of its mode (1 is the best; None for none), how it is related to the
    mode's first fit, and its difference from the best fit of all."""

    mode: int | None
    relation: str
    difference: Difference | None


class Estimates:
    """The estimates of one fit as arrays: site → value and error, of the shape that the indices tell."""

    def __init__(self, rows: Sequence[Estimate]) -> None:
        self.values: dict[str, Array] = {}
        self.errors: dict[str, Array] = {}
        for name, group in groupby((row for row in rows if row.role != "fixed"), key=lambda row: row.name):
            members = list(group)
            last = members[-1].index
            shape = tuple(int(part) + 1 for part in last.split(",")) if last else ()
            self.values[name] = _array([row.estimate for row in members], shape)
            self.errors[name] = _array([row.std_error for row in members], shape)

    @cached_property
    def dimensions(self) -> list[int]:
        """Lengths of dimensions whose components may change places."""
        lengths = {length for value in self.values.values() for length in value.shape}
        return sorted(length for length in lengths if 2 <= length <= COMPONENTS)

    def reordered(self, order: Array, length: int) -> Estimates:
        """Those with the numbers along every dimension of this length in another order."""
        found = Estimates(())
        for mine, theirs in ((self.values, found.values), (self.errors, found.errors)):
            for name, array in mine.items():
                for axis, size in enumerate(array.shape):
                    if size == length:
                        array = np.take(array, order.astype(int), axis)
                theirs[name] = array
        return found


def complemented(one: Estimates, other: Estimates) -> Estimates:
    """Probabilities that are nearer to those of the other when taken from one: of two components, that of the other."""
    found = Estimates(())
    found.errors = one.errors
    for name, value in one.values.items():
        against = other.values.get(name)
        inside = 2 not in value.shape and bool(((value > 0) & (value < 1)).all())
        if inside and against is not None and against.shape == value.shape:
            nearer = np.abs(1.0 - value - against) < np.abs(value - against)
            value = np.where(nearer, 1.0 - value, value)
        found.values[name] = value
    return found


def difference(one: Estimates, other: Estimates) -> Difference:
    """Of one fit from another, whose standard errors count, or where it has none the first one's."""
    largest, where, relative = None, "", 0.0
    for name, value in one.values.items():
        against = other.values.get(name)
        if against is None or against.shape != value.shape:
            continue
        errors = np.where(np.isfinite(other.errors[name]), other.errors[name], one.errors[name])
        apart = np.abs(value - against)
        known = np.isfinite(errors) & (errors > 0)
        if known.any():
            scaled = np.where(known, apart / np.where(known, errors, 1.0), -1.0)
            place = np.unravel_index(int(np.argmax(scaled)), scaled.shape)
            if largest is None or scaled[place] > largest:
                index = ",".join(str(int(i)) for i in place)
                largest, where = float(scaled[place]), labelled(name, index)
        rest = np.where(known | ~np.isfinite(apart), 0.0, apart / np.maximum(1.0, np.abs(against)))
        relative = max(relative, float(rest.max(initial=0.0)))
    return Difference(largest, where, relative)


def relabelled(one: Estimates, other: Estimates) -> tuple[list[int], Estimates] | None:
    """The order in which components have changed places, and the estimates with them back; None where none have.

    The order is read off each site in turn, by sorting along the dimension, and must hold for all sites.
    """
    for length in one.dimensions:
        tried: set[tuple[int, ...]] = {tuple(range(length))}
        for name, value in one.values.items():
            against = other.values.get(name)
            if against is None or against.shape != value.shape:
                continue
            for axis in (axis for axis, size in enumerate(value.shape) if size == length):
                # Columns of what stands beside the dimension: any one that tells the components apart will do.
                mine, theirs = (np.moveaxis(array, axis, 0).reshape(length, -1) for array in (value, against))
                for column in range(min(mine.shape[1], length)):
                    order = np.empty(length)
                    order[np.argsort(theirs[:, column])] = np.argsort(mine[:, column])
                    key = tuple(int(i) for i in order)
                    if key in tried:
                        continue
                    tried.add(key)
                    moved = one.reordered(order, length)
                    moved = complemented(moved, other) if length == 2 else moved
                    if difference(moved, other).is_none:
                        return list(key), moved
    return None


def best_of(outcomes: Sequence[Outcome]) -> int | None:
    """The place of the best: the lowest loss among those that have converged, or among all where none has.

    Of losses that are equal up to rounding the first counts, so that which start is best does not depend on that.
    """
    finite = [(place, one.loss) for place, one in enumerate(outcomes) if one.loss is not None]
    candidates = [(place, loss) for place, loss in finite if outcomes[place].converged] or finite
    if not candidates:
        return None
    lowest = min(loss for _, loss in candidates)
    return next(place for place, loss in candidates if loss - lowest <= ROUNDING * max(1.0, abs(lowest)))


def places_of(outcomes: Sequence[Outcome]) -> list[Place]:
    """Where each fit of one function stands. Fits that have not converged found no mode; they may have reached one."""
    estimates = [Estimates(one.rows) for one in outcomes]
    best = best_of(outcomes)
    places = [Place(None, "", None) for _ in outcomes]
    if best is None:
        return places
    founders: list[int] = []
    by_loss = sorted(
        range(len(outcomes)), key=lambda k: (k != best, not outcomes[k].converged, _finite(outcomes[k].loss))
    )
    for k in by_loss:
        if outcomes[k].loss is None:
            continue
        mode, relation, alike = _mode_of(k, founders, outcomes, estimates)
        if mode is None and outcomes[k].converged:
            founders.append(k)
            mode = len(founders)
        ours = alike if mode == 1 and alike is not None else estimates[k]  # with the labels of the best
        own = difference(ours, estimates[best]) if ours.values else None
        places[k] = Place(mode, relation, own)
    return places


def _mode_of(
    k: int, founders: Sequence[int], outcomes: Sequence[Outcome], estimates: Sequence[Estimates]
) -> tuple[int | None, str, Estimates | None]:
    """The mode that a fit belongs to, by its number, how, and its estimates with the labels of the mode's first fit."""
    ridge: int | None = None
    for number, founder in enumerate(founders, 1):
        if not same_loss(outcomes[k], outcomes[founder]):
            continue
        if not estimates[k].values or difference(estimates[k], estimates[founder]).is_none:
            return number, "" if estimates[k].values else "by its loss alone", None
        found = relabelled(estimates[k], estimates[founder])
        if found is not None:
            return number, f"labels {', '.join(map(str, found[0]))}", found[1]
        ridge = ridge or number
    # Of one loss with other estimates: neither another mode, which would have another loss, nor the same place.
    return (None, "", None) if ridge is None else (ridge, "same loss, other estimates", None)


def same_loss(one: Outcome, other: Outcome) -> bool:
    assert one.loss is not None and other.loss is not None
    size = max(abs(one.loss), abs(other.loss))
    return abs(one.loss - other.loss) <= SAME_LOSS * min(one.unit, other.unit) + ROUNDING * size


def _finite(loss: float | None) -> float:
    return float("inf") if loss is None else loss


def _array(numbers: Sequence[float | None], shape: tuple[int, ...]) -> Array:
    found = np.array([np.nan if number is None else number for number in numbers], dtype=np.float64)
    return found.reshape(shape) if found.size == int(np.prod(shape)) else found
