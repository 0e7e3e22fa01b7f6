"""Is the gradient that torch gives the slope of the loss? Not where a model takes a value out of torch on the way.

What is detached, by a call or by going through a number or numpy, is a constant to the gradient; a fit would end at a
point that is no mode, and find its gradient zero there. A step function has no gradient either.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from math import isfinite, nan

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ..coordinates import Coordinates
from ..errors import ModelError
from ..model.sites import InfeasibleError
from ..objective.base import Objective
from ..objective.density import DensityObjective
from ..point import Params, Point
from ..verdict.rounding import Rounding

BESIDE = 0.4
"""The power of eps that is the step of the first look: 5e-7, or 2e-3 in single precision."""

LOOKED_OVER = 1e-3
"""A difference of slope and gradient up to this part of either is none: it may be curvature."""

STEPS = {torch.float64: (1e-4, 1e-5), torch.float32: (3e-2, 1e-2)}
"""Of central differences, by what the loss is computed in."""

STEADY = 0.05
"""How far, relatively, the slopes by two steps may differ to be taken for slopes."""

WRONG = 0.2
"""How far, relatively, a gradient is off that is wrong."""

ROUNDING = 64.0
"""Units of eps · max(1, |loss|) within which a change of the loss is rounding."""

KNOWN = 1e-6
"""Of the loss's size, the rounding within which its differences are slopes."""

NUDGE = 0.01
"""How far from the start, relative to max(1, |u|), gradients are looked at: at the start itself there may be a kink."""

MOVES = (0.5, -0.5, 0.1, -0.1)
"""How far a parameter is moved, relative to max(1, |u|), whose gradient is zero."""

MOST = 256
"""Names that are looked at by themselves, at most."""

DETACHED = (
    "a value was detached on the way (.detach(), .data, .item(), .tolist(), float(), a function of numpy or math, "
    "torch.tensor(…) of it, torch.no_grad())"
)


class Slopes:
    """The question at one start. Use inside ``program.scope()``.

    Where latents are integrated out the joint density is asked, by all that it depends on: it is what the integral is
    made of, and costs less.
    """

    def __init__(self, objective: Objective, params: Params) -> None:
        """To be made before the point at ``params``, since the leaves are written.

        Raises: ModelError, as ``check``, where latents are integrated out.
        """
        leaves = objective.leaves
        self._program = objective.program
        self._density = DensityObjective(objective.program, "map", jacobian=objective.jacobian, leaves=leaves)
        self._start = {**{name: leaf.detach().clone() for name, leaf in leaves.tensors.items()}, **params}
        step = torch.finfo(torch.get_default_dtype()).eps ** BESIDE
        self._direction = _direction(self._start, self._start, torch.Generator().manual_seed(41), step)
        self._beside = nan
        if objective.stochastic:
            return
        self._beside = self._loss(_moved(self._start, self._direction))
        if objective.integrated or objective.in_pieces:
            known = self._known_at(self._start)
            if known is not None:
                self._check(*known)
            self._beside = nan
        leaves.write(self._start)

    def check(self, point: Point) -> None:
        """Of the point at the start, once its gradient is known. The leaves may be written.

        Raises: ModelError that names what has a wrong gradient.
        """
        self._check(point.value, point.gradient())

    def _check(self, value: float, gradient: Params) -> None:
        if not isfinite(self._beside):
            return
        rounding = ROUNDING * torch.finfo(torch.get_default_dtype()).eps * max(1.0, abs(value))
        zero = [name for name, g in gradient.items() if g.numel() and not bool(g.any())]
        expected, change = _along(gradient, self._direction), self._beside - value
        agrees = abs(change - expected) <= LOOKED_OVER * abs(expected) + rounding
        wrong = [] if agrees else self._wrong()
        without = [] if wrong or not zero else self._without(zero)
        if not agrees or zero:
            self._density.leaves.write(self._start)
        if wrong:
            raise ModelError(
                f"the gradient of the loss is not its slope: part of what depends on {_listed(wrong)} has none. "
                f"Perhaps {DETACHED}, or a function has a backward of its own: compute with the tensor itself"
            )
        if without:
            raise ModelError(
                f"the loss changes with {_listed(without)}, but its gradient is zero wherever it was tried. Perhaps "
                f"{DETACHED}: compute with the tensor itself. Or the loss is a step function of it (a comparison, "
                "round(), an index), which has no slope to follow: hold it (`fixed:`), or let it pass smoothly"
            )

    def _wrong(self) -> list[str]:
        """Names along which two central differences agree with each other and not with the gradient."""
        generator = torch.Generator().manual_seed(43)
        place = _moved(self._start, _direction(self._start, self._start, generator, NUDGE))
        found = self._known_at(place)
        if found is None:
            return []
        value, gradient = found
        narrowed = self._program.lower_precision() is not None
        dtype = torch.float32 if narrowed else torch.get_default_dtype()
        rounding = ROUNDING * torch.finfo(dtype).eps * max(1.0, abs(value))
        wrong = []
        for name in list(gradient)[:MOST]:
            unit = _direction(place, [name], generator, 1.0)
            expected, off, slopes = _along(gradient, unit), True, []
            for step in STEPS[dtype]:
                ends = [self._loss(_moved(place, unit, sign * step)) for sign in (1.0, -1.0)]
                slopes.append((ends[0] - ends[1]) / (2 * step))
                noise = rounding / step
                off &= abs(slopes[-1] - expected) > WRONG * max(abs(slopes[-1]), abs(expected)) + 4 * noise
            if narrowed and not any(slopes):
                continue  # no change that rounding would show
            if off and abs(slopes[0] - slopes[1]) <= STEADY * max(map(abs, slopes)) + noise:
                wrong.append(name)
        return wrong

    def _without(self, names: list[str]) -> list[str]:
        """Names that the loss changes with, and whose gradient is zero at the start and wherever they are moved to."""
        at_start, found = self._loss(self._start), []
        rounding = 1e3 * torch.finfo(torch.get_default_dtype()).eps * max(1.0, abs(at_start))
        for name in names[:MOST]:
            generator, changes = torch.Generator().manual_seed(47), False
            for size in MOVES:
                moved = self._known_at(_moved(self._start, _direction(self._start, [name], generator, size)))
                if moved is None:
                    continue
                value, gradient = moved
                if bool(gradient[name].any()):
                    break
                changes |= abs(value - at_start) > rounding
            else:
                found += [name] if changes else []
        return found

    def _known_at(self, params: Params) -> tuple[float, Params] | None:
        """Loss and gradient of the density; None where they cannot be had."""
        try:
            point = self._density.at(params)
            if point.failure is not None or not isfinite(point.value):
                return None
            return point.value, {name: g.detach() for name, g in point.gradient().items()}
        except (ModelError, LinAlgError):
            return None

    def _loss(self, params: Params) -> float:
        try:
            with torch.no_grad():
                point = self._density.at(params)
        except ModelError:
            return nan
        return point.value if point.failure is None else nan


def wrong_slopes(objective: Objective, point: Point) -> list[str]:
    """What is wrong with the gradient where a fit is stuck: at the start it may have been the slope by chance.

    Nothing is said where the loss is rounded by so much that its differences are no slopes.
    """
    coordinates = Coordinates.of(point.params)
    where = coordinates.flatten(point.params)
    known = max(KNOWN, 1e3 * torch.finfo(where.dtype).eps) * point.size
    if Rounding(objective, coordinates).at(where) > known:
        return []
    try:
        slopes = Slopes(objective, point.params)
        slopes.check(objective.at(point.params))
    except ModelError as error:
        return [f"model: {error}"]
    return []


def site_without_slope(objective: Objective, point: Point) -> str:
    """Where a gradient is not finite, the site that makes it so, and what may help; empty where none does."""
    site = None
    with suppress(ModelError, InfeasibleError, LinAlgError):
        objective.leaves.write({**point.params, **point.inner})
        site = objective.program.site_without_derivative(1)
    if site is None:
        return ""
    return (
        f", by the density of {site}: its slope is no number there, as that of log or sqrt at 0, or at data of nan, "
        "also where a mask or a value of zero weight leaves it out: keep what it takes off the edge, as by "
        ".clamp_min(1e-30), and put a number in the place of nan"
    )


def _direction(place: Params, names: Iterable[str], generator: torch.Generator, size: float) -> Params:
    """Along every number of some names, half to all of ``size`` · max(1, |u|) either way."""
    found = {}
    for name in names:
        u = place[name]
        drawn = torch.rand(u.shape, generator=generator, dtype=torch.float64).to(u) - 0.5
        found[name] = size * (drawn + 0.5 * torch.where(drawn < 0, -1.0, 1.0).to(u)) * u.abs().clamp_min(1.0)
    return found


def _moved(place: Params, direction: Params, times: float = 1.0) -> Params:
    return {**place, **{name: place[name] + times * along for name, along in direction.items()}}


def _along(gradient: Params, direction: Params) -> float:
    parts: list[Tensor] = [(gradient[name] * along).sum() for name, along in direction.items()]
    return float(torch.stack(parts).sum())


def _listed(names: list[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + rest
