"""Profiles of a run's fit, from its newest checkpoint to profile.csv and profile_points.csv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import norm
from torch import Tensor

from ..coordinates import Coordinates
from ..errors import HofitError, refusals_told
from ..objective.base import Objective
from ..point import Params, Point
from ..prediction.fitted import fitted
from ..record import PROFILE, PROFILE_POINTS, Profiled, ProfilePoint, table
from ..run.directory import check_is_directory
from ..run.files import write_whole
from ..run.resume import ResumeRequest
from ..uncertainty.errors import find_uncertainty
from ..uncertainty.gaussian import Gaussian
from ..verdict.checks import Verdict
from ..verdict.edges import edge_numbers
from ..verdict.place import Place as JudgedPlace
from .constrained import DENSE_LIMIT, Landscape
from .edges import drawn_in
from .finding import chosen, quantities_of
from .level import LEVEL, check_level
from .profile import Fit, Profile, profile_of
from .quantities import Function, Quantity, label_of


@dataclass(frozen=True)
class ProfileRequest:
    """Which run, which quantities (patterns; all that have an error without one), at which level.

    ``watch`` is told the number of quantities and, at each, how many are done and what comes next.
    """

    run: ResumeRequest
    params: Sequence[str] = ()
    level: float = LEVEL
    watch: Callable[[int, int, str], None] = field(default=lambda done, count, label: None)


@dataclass(frozen=True)
class ProfileResult:
    """``rows`` and ``points`` as in the files; ``better`` is a place lower than the fit, by name, where one was found.

    ``loss`` is the fit's, ``better_loss`` that of the lower place.
    """

    level: float
    objective: str
    loss: float
    rows: list[Profiled]
    points: list[ProfilePoint]
    remarks: list[str]
    better: dict[str, Any] | None = None
    better_loss: float | None = None

    def to_plain(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "objective": self.objective,
            "loss": self.loss,
            "intervals": [vars(row) for row in self.rows],
            "points": [vars(point) for point in self.points],
            "remarks": self.remarks,
            "better": None if self.better is None else {"loss": self.better_loss, "values": self.better},
        }


def run_profile(request: ProfileRequest) -> ProfileResult:
    """Profiles of the quantities asked for. Raises: HofitError; nothing is written then."""
    check_level(request.level)
    check_is_directory(request.run.path)
    with ExitStack() as stack:
        fit = stack.enter_context(fitted(request.run))
        objective, verdict = fit.session.objective, fit.verdict
        start = _start(objective, verdict, fit.point, fit.gaussian)
        wanted = chosen(quantities_of(objective, fit.point.params, start.has_error), request.params, start.fit.flat)
        _check_size(wanted, start.fit.flat)
        cutoff = float(norm.ppf(0.5 + 0.5 * request.level))
        profiles: list[Profile] = []
        for number, quantity in enumerate(wanted):
            request.watch(number, len(wanted), label_of(quantity))
            profiles.append(profile_of(start.fit, quantity, cutoff))
        request.watch(len(wanted), len(wanted), "")
        found = _result(request, objective, start.fit, profiles, fit.point)
    path = request.run.path
    with refusals_told(path / PROFILE):
        write_whole(path / PROFILE, table(Profiled, found.rows).encode())
        write_whole(path / PROFILE_POINTS, table(ProfilePoint, found.points).encode())
    return found


@dataclass(frozen=True, eq=False)
class _Start:
    fit: Fit
    has_error: Params


def _start(objective: Objective, verdict: Verdict, point: Point, gaussian: Gaussian | None) -> _Start:
    if objective.without_mode:
        raise HofitError(f"{objective.without_mode}: there is no likelihood to be profiled")
    if objective.stochastic:
        raise HofitError("the loss is an estimate of minibatches: a profile needs a loss that is the same each time")
    if verdict.status is None or not verdict.status.converged:
        raise HofitError("no profile: the fit has not converged; `hofit report` says why, `hofit resume` goes on")
    coordinates = Coordinates.of(point.params)
    unread = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in point.params.items()}
    unread |= {name: mask for name, mask in objective.program.unread.items() if name in unread}
    landscape = Landscape(objective, coordinates, coordinates.flatten(unread))
    flat = coordinates.flatten(point.params).detach().clone()
    spot = landscape.spot(flat)
    if spot is None:
        raise HofitError("no profile: no structure makes the Hessian of what is optimised affordable")
    sizes = spot.hessian.diagonal().abs()
    landscape.root = torch.where(sizes > 1e-12 * sizes.max(), sizes, 1.0).sqrt()
    running = edge_numbers(objective, point.params)
    if verdict.held is not None:
        running = running | verdict.held
    running = running & ~landscape.unread
    landscape.parked = torch.where(running, flat, torch.nan)
    place = JudgedPlace.of(objective, landscape.curvature, spot.point, spot.hessian, torch.zeros_like(running))
    fit = Fit(landscape, flat, spot.loss, spot.point.size, running, place.measure.at, drawn_in)
    return _Start(fit, _with_error(fit, objective, verdict, gaussian))


def _with_error(fit: Fit, objective: Objective, verdict: Verdict, gaussian: Gaussian | None) -> Params:
    """Name → which numbers of a value have a standard error, or belong to one that runs to an edge."""
    coordinates = fit.landscape.coordinates
    params = coordinates.unflatten(fit.flat)
    values = objective.values(params)
    errors = find_uncertainty(objective, gaussian, [], values, verdict, False).std_errors
    running, found = coordinates.unflatten(fit.running), {}
    for name in coordinates.names:
        has = torch.isfinite(errors[name]) if name in errors else torch.zeros_like(values[name], dtype=torch.bool)
        same = running[name].shape == has.shape
        found[name] = has | (running[name] if same else running[name].any())
    return found


def _check_size(wanted: Sequence[Quantity], flat: Tensor) -> None:
    several = [one for one in wanted if isinstance(one, Function)]
    if several and len(flat) > DENSE_LIMIT:
        raise HofitError(
            f"{label_of(several[0])} is a function of several numbers, of which {len(flat)} are optimised: "
            f"at most {DENSE_LIMIT} can be; integrate latents out, or profile single numbers"
        )


def _result(
    request: ProfileRequest, objective: Objective, fit: Fit, profiles: Sequence[Profile], point: Point
) -> ProfileResult:
    rows, points, remarks = [], [], _kind(objective)
    best = min(
        (one for one in profiles if one.better is not None), key=lambda one: one.better_loss or 0.0, default=None
    )
    for one in profiles:
        name, index = one.quantity.name, one.quantity.index
        said = list(one.remarks)
        if one.better is not None:
            said = [
                f"the fit is not the maximum: the loss is {one.better_loss:.10g} at another place, not {fit.loss:.10g}"
            ]
        rows.append(Profiled(name, index, request.level, one.estimate, one.lower, one.upper, "; ".join(said)))
        points += [ProfilePoint(name, index, place.value, place.zeta, place.loss) for place in one.places]
    better = None
    if best is not None and best.better is not None:
        values = objective.values(fit.landscape.coordinates.unflatten(best.better))
        better = {name: value.tolist() for name, value in values.items() if name in point.params}
        remarks.append(
            "the fit is not the maximum, and no interval can be told where that shows: fit again from the place that "
            "was found, by init.values"
        )
    return ProfileResult(
        request.level,
        objective.type,
        fit.loss,
        rows,
        points,
        remarks,
        better,
        None if best is None else best.better_loss,
    )


def _kind(objective: Objective) -> list[str]:
    """What the profile is of, where that is no likelihood of all parameters."""
    flat = [name for name in objective.integrated if objective.sites[name].flat]
    if flat:
        return [
            f"restricted likelihood: {', '.join(flat)} is integrated out under a flat prior "
            "(lme4's confint refits by ML)"
        ]
    if not objective.is_likelihood:
        return ["what is profiled is the density with its priors, not the likelihood alone"]
    return []
