"""Is Laplace good enough? Importance ratios of draws from the Gaussian at the mode.

With f = −log p(data, u), û its mode, H = L Lᵀ the Hessian there and u = û + L⁻ᵀ z, z standard normal, the ratio of a
draw over Laplace's own value is r = exp(f(û) − f(u) + ½ |z|²); the mean of r is ∫ exp(−f) du over what Laplace has for
it. Where rows of u are independent, r and its mean fall apart into theirs, and so does Pareto's k, which says whether
the mean can be trusted (see psis).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor, isfinite, log, log10, pi
from typing import Any

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.layout import Layout
from ..curvature.structure import Curvature
from ..errors import HofitError, ModelError
from ..linear.operator import MEMORY_BUDGET, Factor
from ..model.plates import full_plates
from ..model.program import Program
from ..model.sites import InfeasibleError
from ..objective.at_mode import laplace
from ..objective.base import Objective
from ..objective.density import DensityObjective
from ..objective.entries import Entries, NotByRow, sums_by_row
from ..objective.leaves import Leaves
from ..objective.mode import NoMode
from ..objective.quadrature import WIDEST
from ..point import Params
from ..verdict.checks import StopRules
from ..verdict.judge import judge_end
from .errors import gaussian_of
from .gaussian import standard_normal
from .psis import FEWEST_DRAWS, TRUSTED, smoothed

RATIOS_LIMIT = 2**28
"""Ratios that are held at once: 2 GB."""

TEMPORARIES = 8
"""Tensors as large as the entries that a trace holds at once, about."""

NO_GAUSSIAN = "there is no Gaussian at the mode to look at"

WORST = 10
"""Rows with a k above 0.7 that are named at most."""

EXACT = 1e-6
"""A correction below this is not shown."""

SMALL_CORRECTION = 1.0
"""A correction of the log evidence beyond this is called large: with equal prior odds it is a Bayes factor of e."""


@dataclass(frozen=True)
class GroupShape:
    """Pareto's k over the rows of some sites: the ``worst``, whose row is ``index`` of ``site``, and the median.

    ``above`` is the share of rows with k > 0.7, and ``which`` the indices of the worst of them, WORST at most, from the
    worst on; ``length`` counts the numbers of a row.
    −inf where the ratios are constant up to rounding (the density is Gaussian), inf where no tail fits.
    """

    names: tuple[str, ...]
    rows: int
    worst: float
    site: str
    index: str
    above: float
    median: float
    which: tuple[str, ...] = ()
    length: int = 1

    @property
    def count_above(self) -> int:
        return round(self.above * self.rows)

    def to_plain(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "rows": self.rows,
            "worst_k": self.worst,
            "worst_site": self.site,
            "worst_row": self.index,
            "share_above": self.above,
            "rows_above": list(self.which),
            "median_k": self.median,
        }


@dataclass(frozen=True)
class Diagnosis:
    """What the ratios say.

    ``laplace`` is the log of the integral over what is drawn by Laplace, ``corrected`` that plus ``correction``, whose
    Monte Carlo standard error is ``error``; it holds only where ``is_trusted``: the spread of ratios with a k above 0.7
    does not tell how far their mean is off. ``fitted`` is what the fit's own method has for it, where that is another.
    It is the log evidence unless parameters are drawn too, which then have a flat density on the unconstrained scale:
    ``is_evidence`` tells. ``by_row`` says whether rows were taken apart, or all ``size`` numbers drawn jointly.
    """

    objective: str
    groups: list[GroupShape]
    by_row: bool
    size: int
    laplace: float
    correction: float
    error: float
    fitted: float | None
    is_evidence: bool
    draws: int
    seed: int
    remarks: list[str] = field(default_factory=list)

    @property
    def corrected(self) -> float:
        return self.laplace + self.correction

    @property
    def is_trusted(self) -> bool:
        """Whether no k is above 0.7."""
        return not any(group.above > 0 for group in self.groups)

    @property
    def reading(self) -> str:
        """One line."""
        return f"{self._of_the_shape()}; {self._of_the_evidence()}"

    def to_plain(self) -> dict[str, Any]:
        """What diagnose.json holds, but for where it comes from."""
        return {
            "reading": self.reading,
            "objective": self.objective,
            "by_row": self.by_row,
            "size": self.size,
            "threshold": TRUSTED,
            "groups": [group.to_plain() for group in self.groups],
            "is_evidence": self.is_evidence,
            "laplace": self.laplace,
            "corrected": self.corrected,
            "correction": self.correction,
            "error": self.error if self.is_trusted else None,
            "fitted": self.fitted,
            "draws": self.draws,
            "seed": self.seed,
            "remarks": self.remarks,
        }

    def _of_the_shape(self) -> str:
        bad = [group for group in self.groups if group.above > 0]
        if not self.by_row:
            (whole,) = self.groups
            drawn = f"all {self.size} numbers of {' and '.join(whole.names)}, drawn jointly"
            found = f"{drawn if self.size > 1 else whole.names[0]} ({_k(whole.worst)})"
            if not bad:
                return f"{self._good()} {found}"
            return (
                f"Laplace's approximation cannot be shown to be good for {found}: with many numbers k is often above "
                f"{TRUSTED}, and what the ratios say is then rough, with no error that would hold"
            )
        if bad:
            listed = " and ".join(
                f"{group.count_above} of {group.rows} rows of {' and '.join(group.names)} "
                f"(k above {TRUSTED}, {_worst(group)}{_others(group)})"
                for group in bad
            )
            return (
                f"Laplace's approximation is in doubt for {listed}, where what the ratios say is rough, with no error "
                "that would hold"
            )
        listed = " and ".join(
            f"all {group.rows} rows of {' and '.join(group.names)} ({_worst(group)})" for group in self.groups
        )
        return f"{self._good()} {listed}"

    def _good(self) -> str:
        if abs(self.correction) > SMALL_CORRECTION + 2 * self.error:
            side = "low" if self.correction > 0 else "high"
            return f"Laplace is {abs(self.correction):.2g} too {side} in all, by ratios that can be trusted for"
        return "Laplace's approximation is good for"

    def _of_the_evidence(self) -> str:
        what = "the log evidence" if self.is_evidence else "the log integral (parameters flat, unconstrained)"
        if self.error < EXACT and abs(self.correction) < EXACT:
            return f"{what} is {self.laplace:.6f}, as Laplace has it"
        if not self.is_trusted:
            other = "" if self.fitted is None else f" and the fit's quadrature {self.fitted:.2f}"
            return f"the ratios put {what} near {self.corrected:.2f} where Laplace has {self.laplace:.2f}{other}"
        places = min(max(1 - floor(log10(self.error)), 2), 6) if isfinite(self.error) else 2
        other = "" if self.fitted is None else f" and the fit's quadrature {self.fitted:.{places}f}"
        corrected = f"{self.corrected:.{places}f} ± {self.error:.{places}f}"
        return f"{what} is {corrected} where Laplace has {self.laplace:.{places}f}{other}"


def diagnose_fit(objective: Objective, params: Params, stop: StopRules, draws: int, seed: int) -> Diagnosis:
    """The diagnosis of a fit that ended at ``params``. Use inside ``program.scope()``.

    Raises: HofitError where the fit has not converged, or there is no Gaussian at its mode.
    """
    if objective.without_mode:
        raise HofitError(f"{objective.without_mode}: there is no Laplace approximation to look at")
    if draws < FEWEST_DRAWS:
        raise HofitError(f"{draws} draws are too few for a tail: take {FEWEST_DRAWS} at least")
    with full_plates():
        target = _target(objective, params, stop)
        ratios, by_row, remarks = _log_ratios(target, draws, seed)
    found = smoothed(ratios)
    groups = _groups(target, found.shape) if by_row else [_whole(target, found.shape)]
    return Diagnosis(
        objective.type,
        groups,
        by_row,
        target.layout.size,
        target.laplace,
        float(found.log_mean.sum()),
        float(found.error.square().sum().sqrt()),
        target.fitted,
        target.is_evidence,
        draws,
        seed,
        remarks + _what_else(objective, target, groups, by_row),
    )


@dataclass(frozen=True)
class _Target:
    """What is drawn: what ``coordinates`` name, from the Gaussian of ``factor`` at ``params``, which all leaves hold.

    ``laplace`` is the log of the integral over them by Laplace, ``fitted`` by another method of the fit's own.
    """

    program: Program
    leaves: Leaves
    coordinates: Coordinates
    params: Params
    jacobian: frozenset[str]
    layout: Layout
    factor: Factor
    laplace: float
    fitted: float | None = None

    @property
    def is_evidence(self) -> bool:
        """Whether no parameter is drawn."""
        return all(name in self.program.latents for name in self.coordinates.names)

    @property
    def has_rows(self) -> bool:
        """Whether it falls apart into rows: those of parameters cannot be told apart by their entries."""
        return self.is_evidence and bool(self.layout.rows) and not len(self.layout.border)


def _target(objective: Objective, params: Params, stop: StopRules) -> _Target:
    """The point judged anew, as at the end of a fit. Raises: HofitError."""
    curvature = Curvature()
    verdict = judge_end(objective, params, stop, curvature)
    point, program = verdict.point, objective.program
    if point is None or verdict.status is None or not verdict.status.converged:
        raise HofitError(
            f"{NO_GAUSSIAN}: the fit has not converged; `hofit report` says why, and `hofit resume` goes on"
        )
    try:
        posterior = objective.posterior(point)
    except (NoMode, ModelError) as failure:
        raise HofitError(f"{NO_GAUSSIAN}: {failure}") from failure
    if posterior is not None:
        return _Target(
            program,
            objective.leaves,
            Coordinates.of(point.inner, posterior.names),
            {**point.params, **point.inner},
            posterior.jacobian,
            posterior.expansion.layout,
            posterior.factor,
            -float(laplace(posterior.expansion).detach()),
            posterior.fitted,
        )
    gaussian, remarks = gaussian_of(objective, verdict.status, verdict)
    if gaussian is None or curvature.layout is None:
        raise HofitError(f"{NO_GAUSSIAN}: {'; '.join(remarks)}")
    if bool(gaussian.held.any()):
        where = gaussian.without_curvature()
        what = f"there is no curvature along {where}" if where else "a value lies at the edge of its support"
        raise HofitError(f"{NO_GAUSSIAN}: {what}; hold it (`fixed:`) or give it a prior, and fit again")
    log_density = -DensityObjective(program, "map_unconstrained", leaves=objective.leaves).at(gaussian.params).value
    log_volume = 0.5 * gaussian.outer.size * log(2 * pi) - 0.5 * float(gaussian.factor.log_determinant())
    return _Target(
        program,
        objective.leaves,
        gaussian.outer,
        gaussian.params,
        frozenset(program.latents),
        curvature.layout,
        gaussian.factor,
        log_density + log_volume,
    )


def _log_ratios(target: _Target, draws: int, seed: int) -> tuple[Tensor, bool, list[str]]:
    """Of every draw: (S, R) where rows are independent, else (S, 1). Which of the two; what is to be said of it."""
    target.leaves.write(target.params)
    entries = Entries(target.program, target.leaves, target.jacobian)
    base = entries.at({name: target.params[name] for name in target.coordinates.names}).detach()
    drawn = _Draws(target, entries, base, draws)
    why = []
    if target.has_rows:
        try:
            return drawn.log_ratios(seed, drawn.row_of_each()), True, drawn.remarks()
        except NotByRow as failure:
            why.append(f"all numbers are drawn jointly: {failure}")
    return drawn.log_ratios(seed, None), False, why + drawn.remarks()


class _Draws:
    """The draws and their ratios. ``lost`` counts draws at which the density could not be computed."""

    def __init__(self, target: _Target, entries: Entries, base: Tensor, draws: int) -> None:
        self._target, self._entries, self._base, self._draws = target, entries, base, draws
        self._coordinates = target.coordinates
        self._mode = self._coordinates.flatten(target.params)
        self.lost = 0

    def remarks(self) -> list[str]:
        if not self.lost:
            return []
        return [
            f"at {self.lost} of {self._draws} draws the density could not be computed: they count as ratios of zero"
        ]

    def row_of_each(self) -> Tensor:
        """Which row, numbered over all groups, each entry depends on; −1 where on none. Shape (n,).

        Raises: NotByRow.
        """
        target = self._target
        found, start = torch.full(self._base.shape, -1), 0
        for group in target.layout.rows:
            rows = self._entries.row_of_each(group, self._mode, self._coordinates, len(self._base))
            if bool(((rows >= 0) & (found >= 0)).any()):
                raise NotByRow(f"an observation depends on rows of {group.names[0]!r} and on others")
            found = torch.where(rows >= 0, rows + start, found)
            start += len(group.index)
        return found

    def log_ratios(self, seed: int, rows: Tensor | None) -> Tensor:
        """Shape (S, R), or (S, 1) without ``rows``. Raises: NotByRow, HofitError."""
        groups = self._target.layout.rows
        count = 1 if rows is None else sum(len(group.index) for group in groups)
        if self._draws * count > RATIOS_LIMIT:
            most = RATIOS_LIMIT // count
            raise HofitError(f"{self._draws} draws of {count} rows are too many to hold: take --draws {most} at most")
        generator = torch.Generator().manual_seed(seed)
        self.lost = 0
        parts = []
        chunk = max(1, MEMORY_BUDGET // (TEMPORARIES * self._base.element_size() * max(1, len(self._base))))
        for start in range(0, self._draws, chunk):
            noise = standard_normal(min(chunk, self._draws - start), self._mode, generator)
            change = self._entries_at(self._mode + self._target.factor.draw(noise)) - self._base
            half = 0.5 * noise.square()
            if rows is None:
                ratios = change.sum(1, keepdim=True) + half.sum(1, keepdim=True)
            else:
                ratios = sums_by_row(change, self._base, rows, count)
                ratios += torch.cat([half[:, group.index].sum(2) for group in groups], 1)
            wrong = ratios.isnan()
            self.lost += int(wrong.any(1).sum())
            parts.append(ratios.masked_fill(wrong, -torch.inf))
        return torch.cat(parts)

    def _entries_at(self, places: Tensor) -> Tensor:
        """Shapes: (k, d) → (k, n); nan where the density cannot be computed."""
        with torch.no_grad():
            try:
                return self._entries.at_places(places, self._coordinates, len(self._base))
            except InfeasibleError:
                if len(places) == 1:
                    return self._base.new_full((1, len(self._base)), torch.nan)
            return torch.cat([self._entries_at(place[None]) for place in places])


def _groups(target: _Target, shape: Tensor) -> list[GroupShape]:
    """Shape of ``shape``: (R,), over all groups."""
    found = []
    parts = shape.split([len(group.index) for group in target.layout.rows])
    for group, part in zip(target.layout.rows, parts, strict=True):
        worst = int(part.argmax())
        site, index, _ = target.coordinates.row(int(group.index[worst, 0]), target.program.sites)
        bad = part > TRUSTED
        order = part.argsort(descending=True)[: min(WORST, int(bad.sum()))].tolist()
        which = [target.coordinates.row(int(group.index[row, 0]), target.program.sites)[1] for row in order]
        above, median = float(bad.double().mean()), float(part.median())
        length = group.index.shape[1]
        worst_k = float(part[worst])
        found.append(GroupShape(group.names, len(part), worst_k, site, index, above, median, tuple(which), length))
    return found


def _whole(target: _Target, shape: Tensor) -> GroupShape:
    k = float(shape)
    names = target.coordinates.names
    return GroupShape(names, 1, k, names[0], "", float(k > TRUSTED), k)


def _what_else(objective: Objective, target: _Target, groups: list[GroupShape], by_row: bool) -> list[str]:
    """What can be done where k is above 0.7."""
    bad = [group for group in groups if group.above > 0]
    if not bad:
        return []
    names = " and ".join(name for group in bad for name in group.names)
    if target.fitted is not None:
        return [f"the fit's own quadrature of {names} does not rest on these ratios: try it with more `nodes`"]
    few = all(group.length <= WIDEST for group in bad) if by_row else target.layout.size <= WIDEST
    if objective.integrated and few:
        entries = ", ".join(f'"{name}": aghq' for group in bad for name in group.names)
        return [f"a quadrature does not rest on these ratios: fit again with `integrate: {{{entries}}}`"]
    why = f"takes independent rows of {WIDEST} numbers at most" if objective.integrated else "takes integrated latents"
    return [f"a quadrature ({why}) cannot take the place of Laplace here: only a sampler tells, as Pyro's NUTS"]


def _others(group: GroupShape) -> str:
    """The rows above beside the worst."""
    rest = [index for index in group.which[1:] if index]
    if not rest:
        return ""
    more = group.count_above - 1 - len(rest)
    return f", then {'; '.join(rest)}" + (f" and {more} more" if more > 0 else "")


def _worst(group: GroupShape) -> str:
    if group.worst == -torch.inf:
        return _k(group.worst)
    return f"worst {_k(group.worst)}" + (f" at row {group.index}" if group.index else "")


def _k(k: float) -> str:
    """k in words."""
    if isfinite(k):
        return f"k {k:.2f}"
    return "the ratios are constant" if k < 0 else "k infinite"
