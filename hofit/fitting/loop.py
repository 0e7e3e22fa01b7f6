"""The loop: a fit is a loop over points, and an optimizer proposes the next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Protocol

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ..curvature.structure import Curvature
from ..errors import ModelError, StepImpossible
from ..internals import foreach_sub
from ..model.faults import user_fault
from ..model.randomness import capture_random_state
from ..objective.base import Objective
from ..optim.base import Optimizer
from ..point import Params, Point, max_norm, max_norms
from ..record import Progress
from ..status import Status
from ..verdict.checks import Check, StopRules, StopState, Verdict
from ..verdict.edges import unbounded_parameters
from ..verdict.judge import gradient_tolerance, judge
from ..verdict.limits import falling_numbers
from .burst import Burst
from .interruption import Interrupted, Interruption
from .slopes import Slopes, site_without_slope, wrong_slopes
from .start import better_start, trouble_at
from .state import LoopState, Snapshot, taken_up

VERDICT_BACKOFF = 2
"""A point that was not confirmed is checked again after this many times the iterations, or …"""
VERDICT_GRADIENT_DROP = 0.1
"""… when the gradient norm has fallen to this part of what it was."""

NEARLY_THERE = 10
"""Iterations, at least, that a fit goes on for where only the gradient is still too large."""

ROUNDING = 16.0
"""Units of eps · the loss's size within which a change of the loss is rounding."""

STUCK_AT, GONE = 100.0, 1e6
"""Unconstrained size beyond which it is asked whether the loss falls for ever: of a fit that is stuck, or another."""

ESCAPES = 20
"""Times that a fit is taken to a lower place off its way, at most."""

SAME = 1e3
"""Units of eps · the loss's size within which two traces at one point are the same."""


class Observer(Protocol):
    """Who watches a fit: progress on the screen, the run directory."""

    @property
    def keeps_every(self) -> int | None:
        """Iterations after which it wants to keep a snapshot; None where it wants none at a certain one."""

    def on_iteration(self, record: Progress, snapshot: Callable[[], Snapshot] | None) -> None:
        """``snapshot`` is None where nothing can be kept: the fit is further on already."""

    def on_pause(self, snapshot: Callable[[], Snapshot]) -> None:
        """Before a verdict, which may take long: what is not saved now may be lost."""


class Clock:
    """Seconds since ``began`` (of ``time.perf_counter``), going on from where a checkpoint left off."""

    def __init__(self, began: float, already: float = 0.0) -> None:
        self._origin = began - already

    def seconds(self, now: float | None = None) -> float:
        """Until now, or a time of ``time.perf_counter``."""
        return (time.perf_counter() if now is None else now) - self._origin


@dataclass
class LoopEnd:
    """How the loop ended, and where."""

    status: Status
    params: Params
    verdict: Verdict
    remarks: list[str]
    snapshot: Snapshot


class Loop:
    """One fit from a start (or a checkpoint) to its end.

    ``interruption`` is asked once an iteration, and heard at once in a verdict: the fit then ends ``interrupted``.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        stop: StopRules,
        observers: list[Observer],
        interruption: Interruption,
        clock: Clock,
        state: LoopState,
    ) -> None:
        self.objective, self.optimizer, self.stop = objective, optimizer, stop
        self._curvature = Curvature()
        self.observers, self.interruption, self.clock, self.state = observers, interruption, clock, state
        self._ahead = 2
        """Iterations to be taken at once, where that can be."""
        self._lower: Params | None = None
        """Where the next iteration goes, instead of where the optimizer would."""
        self._before: Snapshot | None = None
        """As the fit stood before the newest verdict: whoever goes on from there takes it again, and counts it then."""
        self.point: Point
        """Where the fit stands; known once it has begun."""

    def begin(self, params: Params, given: Collection[str] = ()) -> LoopEnd | None:
        """Trace the start, before anything is written; an end if nothing can be fitted from there, nor from another.

        ``given`` are the names whose start is not to be replaced.
        Raises: ModelError when the loss is random, or the model is not the same when it is traced again.
        """
        self._fresh = True
        end = self._begin_at(params)
        trouble = end.remarks[0] if end is not None else trouble_at(self.objective, self.point)
        if trouble is not None and (end is None or end.status is Status.NON_FINITE):
            moved = better_start(self.objective, params, given)
            if moved is not None:
                self.state.start = f"start: another was taken, found by trying: {trouble}"
                end = self._begin_at(moved)
            elif end is None:
                end = self._begin_at(params)
        if end is None:
            self._take_unit()
        return end

    def _take_unit(self) -> None:
        """Find what one observation weighs in the loss: its tolerances are relative to that."""
        program, point = self.objective.program, self.point
        weight = program.weight
        if weight is None:  # of factors, a loss below one may be one in another unit
            weight = min(1.0, max(abs(point.value), self._norm)) if isfinite(self._norm) else 1.0
        self.state.unit = program.unit = weight if weight > 0 else 1.0

    def _begin_at(self, params: Params) -> LoopEnd | None:
        slopes = Slopes(self.objective, params)
        known = self.objective.take_start_loss()
        validated = self.objective.at_full(params) if known is None else None
        point = self.objective.at(params)  # the last to write the leaves: its gradient needs no new trace
        end = None
        if known is None or not _same_loss(point, known):
            end = self._check_start(point, validated or self.objective.at_full(params))
        end = end or self._look(point)
        if end is None:
            slopes.check(point)
        return end

    def resume(self, params: Params) -> LoopEnd | None:
        """As ``begin``, from a checkpoint's point: that has been checked and shown already."""
        self._fresh = False
        self.objective.program.unit = self.state.unit
        return self._look(self.objective.at(params))

    def _look(self, point: Point) -> LoopEnd | None:
        self.point = point
        self.optimizer.begin_at(point)
        self._norm = max_norm(point.gradient(self.optimizer.second_order))
        return None if isfinite(self._norm) else self._non_finite(point, point, "at the start")

    def go(self) -> LoopEnd:
        """Iterate from where ``begin`` has been to the end."""
        if self._fresh:
            self._record(self.point, None, self._norm, None)
        try:
            return self._iterate(self.point, self._norm)
        except Interrupted:
            return self.cut_short()
        except ModelError as error:
            return self._end_at(self.point, Status.MODEL_ERROR, [f"model error: {error}"])
        except StepImpossible as error:
            why = f": {user_fault(error.fault)}" if error.fault is not None else ""
            return self._end_at(self.point, Status.MODEL_ERROR, [f"{error}{why}"])

    def cut_short(self) -> LoopEnd:
        """The end where the fit stands, without the verdict or whatever else was under way there."""
        kept = self._snapshot(self.point)
        self.objective.evaluations.restore(kept.loop.evaluations)
        return self._end_at(self.point, Status.INTERRUPTED, [])

    def _iterate(self, point: Point, norm: float) -> LoopEnd:
        while True:
            self.point = point
            end = self._stop_here(point, norm)
            if end is not None:
                return end
            length = self._iterations_ahead() if self._fresh else 1
            with nullcontext() if self._fresh else taken_up():
                step = self._step(point, norm) if length < 2 else self._step_ahead(point, norm, length)
            self._fresh = True
            if isinstance(step, LoopEnd):
                return step
            point, norm = step

    def _step(self, point: Point, norm: float) -> tuple[Point, float] | LoopEnd:
        """One iteration from a point, with its gradient's norm: the next, and its."""
        try:
            candidate, accepted = self._advance(point)
        except LinAlgError as error:
            return self._non_finite(point, point, str(error))
        if candidate is point:
            step_norm = 0.0
        else:
            if not isfinite(candidate.value):
                return self._non_finite(point, candidate)
            gradient = candidate.gradient(self.optimizer.second_order)
            norm, step_norm = max_norms(list(gradient.values()), _moves(point.params, candidate.params))
            if not (isfinite(norm) and isfinite(step_norm)):
                return self._non_finite(point, candidate)
        self._count(point, candidate, accepted)
        self._record(candidate, candidate.value - point.value, norm, step_norm)
        return candidate, norm

    def _step_ahead(self, point: Point, norm: float, length: int) -> tuple[Point, float] | LoopEnd:
        """As `_step`, by several iterations of which none but the last can be the end."""
        burst = Burst(self.objective, self.optimizer, point, length)
        self._ahead, tolerance = burst.length_next, gradient_tolerance(self.objective, self.stop)
        if not burst.points:
            return self._step(point, norm)
        reports = self.optimizer.reports()
        for k, candidate in enumerate(burst.points):
            if not all(map(isfinite, (burst.losses[k], burst.norms[k], burst.step_norms[k]))):
                burst.put_back(k)
                self.point = point
                return self._step(point, norm)
            self._count(point, candidate, True)
            change, norm = burst.losses[k] - point.value, burst.norms[k]
            state, seconds = self.state, self.clock.seconds(burst.ended[k])
            acts = self._asks_for_verdict(norm, tolerance, self.optimizer.exhausted()) or self._is_cut_short(seconds)
            if acts and k + 1 < len(burst.points):
                burst.put_back(k + 1)
            last = acts or k + 1 == len(burst.points)
            row = Progress(state.iteration, burst.losses[k], change, norm, burst.step_norms[k], seconds, reports)
            self._show(row, candidate if last else None)
            point = candidate
            if last:
                break
        return point, norm

    def _iterations_ahead(self) -> int:
        """How many iterations may be taken before one looks."""
        optimizer, state = self.optimizer, self.state
        if self._lower is not None or not (optimizer.rewinds and self.objective.replays):
            return 1
        every = [observer.keeps_every for observer in self.observers if observer.keeps_every is not None]
        wanted = [one - state.iteration % one for one in every]
        return min(self._ahead, self.stop.max_iterations - state.iteration, *wanted)

    def _count(self, point: Point, candidate: Point, accepted: bool) -> None:
        """Count an iteration, and how many in a row have hardly changed the loss."""
        state, change, size = self.state, candidate.value - point.value, candidate.size
        state.iteration += 1
        if accepted and not self.objective.stochastic:
            eps = torch.finfo(candidate.loss.dtype).eps
            state.stalled = _counted(state.stalled, abs(change) <= self.stop.relative_loss * size)
            state.rounded = _counted(state.rounded, abs(change) <= ROUNDING * eps * size)

    def _advance(self, point: Point) -> tuple[Point, bool]:
        """The optimizer's next point, or a lower one that the verdict has found off its way."""
        if self._lower is None:
            return self.optimizer.advance(point)
        lower, self._lower = self._lower, None
        self.state.escapes += 1
        self.state.stalled = self.state.rounded = self.state.next_verdict = 0
        candidate = self.objective.at(lower)
        self.optimizer.restart()
        return candidate, True

    def _stop_here(self, point: Point, norm: float) -> LoopEnd | None:
        """Whether the fit ends at this point, in order of what is asked first."""
        stop, state = self.stop, self.state
        exhausted = self.optimizer.exhausted()
        stalled = state.stalled >= stop.patience or exhausted
        rounding = state.rounded >= stop.patience or exhausted
        if self._asks_for_verdict(norm, gradient_tolerance(self.objective, stop), exhausted):
            verdict = self._judge(point, StopState(stalled, rounding, judged=self.optimizer.judges))
            gone = verdict.status in (None, Status.NON_FINITE)
            if gone and verdict.lower is not None and state.escapes < ESCAPES:
                self._lower = verdict.lower
            elif verdict.nearly:
                state.stalled = -max(NEARLY_THERE, state.iteration // 4)
            elif verdict.status in (None, Status.NO_PROGRESS) and stalled:
                return self._end_undecided(point, Status.NO_PROGRESS, verdict)
            if verdict.status is not None and self._lower is None:
                return self._end(point, verdict.status, verdict, [])
            state.next_verdict = VERDICT_BACKOFF * max(state.iteration, 5)
            state.verdict_gradient = norm
        if self.interruption():
            return self._end_at(point, Status.INTERRUPTED, [])
        if state.iteration >= stop.max_iterations:
            return self._end_final(point, Status.MAX_ITERATIONS)
        if stop.max_seconds is not None and self.clock.seconds() >= stop.max_seconds:
            return self._end_final(point, Status.TIME)
        return None

    def _asks_for_verdict(self, norm: float, tolerance: float, exhausted: bool) -> bool:
        state = self.state
        stalled = state.stalled >= self.stop.patience or exhausted
        due = state.iteration >= state.next_verdict or norm <= VERDICT_GRADIENT_DROP * state.verdict_gradient
        return self.objective.settles and (stalled or (norm <= tolerance and due))

    def _is_cut_short(self, seconds: float) -> bool:
        stop = self.stop
        late = stop.max_seconds is not None and seconds >= stop.max_seconds
        return late or self.state.iteration >= stop.max_iterations or self.interruption()

    def _check_start(self, point: Point, validated: Point) -> LoopEnd | None:
        """The start point must be finite, in every support, and the same when it is traced again."""
        for one in (validated, point):
            if one.failure is not None or not isfinite(one.value):
                return self._non_finite(point, one, "at the start")
        if not self.objective.stochastic and not _same_loss(point, validated.value):
            raise ModelError(
                f"the loss is random: traced twice at one point it is {point.value!r} and {validated.value!r}. "
                "A deterministic objective needs a model without draws of its own (dropout, torch.rand): call "
                "module.eval(), draw in load_data, or make it a pyro.sample site"
                f"{self._precision()}"
            )
        return None

    def _end_final(self, point: Point, status: Status) -> LoopEnd:
        try:
            if not self.objective.settles:
                return self._end_estimated(point, status)
            verdict = self._judge(point, StopState(final=True))
        except ModelError as error:
            if "allocate" not in str(error):
                raise
            return self._end_at(point, status, ["the verdict could not be taken on the full plates: memory"])
        if verdict.status is not None and verdict.status is not Status.NO_PROGRESS:
            return self._end(point, verdict.status, verdict, [])
        return self._end_undecided(point, status, verdict)

    def _judge(self, point: Point, state: StopState) -> Verdict:
        """The verdict on a point, with all saved before it: it may take as long as many iterations.

        Raises: ModelError when the loss is not what it was: the model is random.
        """
        before = self._before = self._snapshot(point)
        for observer in self.observers:
            observer.on_pause(lambda: before)
        with self.interruption.at_once():
            self.objective.check(point)
            verdict = judge(self.objective, point.params, self._curvature, self.stop, state)
        if verdict.status is Status.NON_FINITE and verdict.lower is None:
            there = self.objective.at(point.params)
            if there.failure is not None or not isfinite(there.value):
                # It was found on a way that cannot be gone again: what is known of it is all that there is.
                gradient = point.known_gradient
                norm = max_norm(gradient) if gradient is not None else float("nan")
                return Verdict(None, norm, point.value, checks=verdict.checks)
        again = verdict.loss if verdict.traced is None else verdict.traced
        if not self.objective.stochastic and isfinite(again) and not _same_loss(point, again):
            raise ModelError(
                f"the loss is random (stochastic): at the last point it was {point.value!r}, traced again it is "
                f"{again!r}{self._precision()}"
            )
        return verdict

    def _precision(self) -> str:
        found = self.objective.program.lower_precision()
        return f"\n{found}" if found is not None else ""

    def _end_undecided(self, point: Point, status: Status, verdict: Verdict) -> LoopEnd:
        """No minimum was proved: say so, and whether it is because the loss has none."""
        with self.interruption.at_once():
            return self._undecided(point, status, verdict)

    def _undecided(self, point: Point, status: Status, verdict: Verdict) -> LoopEnd:
        full = self.objective.at_full(point.params)
        running = unbounded_parameters(self.objective, full, self.stop.gradient)
        if running:
            remark = f"unbounded (diverges): the loss still falls as {', '.join(running)} nears the edge of its support"
            return self._end(point, Status.UNBOUNDED, verdict, [remark])
        if self.objective.settles:
            usable = full.failure is None and isfinite(full.value) and isfinite(max_norm(full.gradient()))
            tolerance = gradient_tolerance(self.objective, self.stop)
            far = STUCK_AT if status is Status.NO_PROGRESS else GONE
            falling = falling_numbers(self.objective, full, tolerance, far) if usable else []
            if falling:
                remark = f"unbounded (diverges): the loss falls without end along {', '.join(falling)}"
                return self._end(point, Status.UNBOUNDED, verdict, [remark])
        remarks = wrong_slopes(self.objective, point) if status is Status.NO_PROGRESS else []
        return self._end(point, status, verdict, remarks)

    def _end_estimated(self, point: Point, status: Status) -> LoopEnd:
        """Where even the full loss is an estimate: its value and gradient, of which a verdict would be luck."""
        full = self.objective.at_full(point.params)
        norm = max_norm(full.gradient()) if isfinite(full.value) else float("nan")
        check = Check("verdict", None, None, "not taken: the loss is an estimate by draws that change")
        return self._end(point, status, Verdict(None, norm, full.value, checks=[check]), [])

    def _end_at(self, point: Point, status: Status, remarks: list[str]) -> LoopEnd:
        """End without a verdict: only what is known already is said."""
        gradient = point.known_gradient
        norm = max_norm(gradient) if gradient is not None else float("nan")
        not_taken = Check("verdict", None, None, "not taken: the fit was cut short")
        verdict = Verdict(None, norm, point.value, checks=[not_taken])
        return self._end(point, status, verdict, remarks)

    def _non_finite(self, last_good: Point, bad: Point, when: str = "") -> LoopEnd:
        self.objective.check(bad)
        why = self._why_not_finite(last_good, bad)
        remark = f"not finite{' ' + when if when else f' at iteration {self.state.iteration + 1}'}: {why}"
        if bad.failure is None and bad.value == float("-inf"):
            return self._end_at(last_good, Status.UNBOUNDED, [f"unbounded (diverges): the loss is −inf; {why}"])
        if last_good is not bad:
            full = self.objective.at_full(last_good.params)
            running = unbounded_parameters(self.objective, full, self.stop.gradient)
            if running:
                names = ", ".join(running)
                return self._end_at(
                    last_good, Status.UNBOUNDED, [f"unbounded (diverges): {names} ran to the edge", remark]
                )
        return self._end_at(last_good, Status.NON_FINITE, [remark])

    def _why_not_finite(self, last_good: Point, bad: Point) -> str:
        if bad.failure is not None:
            return bad.failure
        wrong = [name for name, value in bad.params.items() if not bool(torch.isfinite(value).all())]
        if wrong:
            return f"the step of {', '.join(map(repr, wrong))}"
        if not isfinite(bad.value):
            try:
                return self.objective.explain_non_finite(bad.params) or "the loss"
            except ModelError as error:
                return str(error)
        wrong = [name for name, g in bad.gradient().items() if not bool(torch.isfinite(g).all())]
        return f"the gradient of {', '.join(map(repr, wrong))}{site_without_slope(self.objective, bad)}"

    def _end(self, point: Point, status: Status, verdict: Verdict, remarks: list[str]) -> LoopEnd:
        started = [self.state.start] if self.state.start else []
        everything = [*started, *remarks, *verdict.remarks, *self.optimizer.remarks()]
        if status is not Status.INTERRUPTED:  # whoever interrupts does not wait
            everything += self.objective.remarks(point.params)
        rounded = status is not Status.CONVERGED or any(remark.startswith("precision") for remark in everything)
        if rounded and status is not Status.INTERRUPTED:
            everything += [found for found in [self.objective.program.lower_precision()] if found is not None]
        settled = verdict.point if verdict.point is not None and status.converged else point
        return LoopEnd(status, settled.params, verdict, everything, self._snapshot(point))

    def _record(self, point: Point, change: float | None, norm: float, step_norm: float | None) -> None:
        seconds, reports = self.clock.seconds(), self.optimizer.reports()
        self._show(Progress(self.state.iteration, point.value, change, norm, step_norm, seconds, reports), point)

    def _show(self, record: Progress, point: Point | None) -> None:
        """Tell of an iteration; of a point that can be kept, as the optimizer stands there."""
        for observer in self.observers:
            observer.on_iteration(record, None if point is None else partial(self._checked, point))

    def _checked(self, point: Point) -> Snapshot:
        """What is kept of a point, held against a trace where the model is not traced at each. Raises: ModelError."""
        self.objective.check(point)
        return self._snapshot(point)

    def _snapshot(self, point: Point) -> Snapshot:
        self.state.seconds = self.clock.seconds()
        if self._before is not None and self._before.loop.iteration == self.state.iteration:
            return replace(self._before, loop=replace(self._before.loop, seconds=self.state.seconds))
        drawn = point.random_state
        return Snapshot(
            point.params,
            self.optimizer.state_dict(),
            replace(self.state, evaluations=self.objective.evaluations.copy()),
            capture_random_state(),
            drawn if isinstance(drawn, dict) else None,
            point.inner,
            self.objective.keeper(point),
        )


def _same_loss(point: Point, again: float) -> bool:
    """Whether a second trace gave the loss of the first, up to rounding."""
    return abs(again - point.value) <= SAME * torch.finfo(point.loss.dtype).eps * point.size


def _counted(count: int, small: bool) -> int:
    """Steps in a row; a count below zero is a wait that only a large change ends early."""
    return count + 1 if small else min(count, 0)


def _moves(before: Params, after: Params) -> list[Tensor]:
    moved = [name for name in before if after[name] is not before[name]]
    if not moved:
        return []
    return list(foreach_sub([after[name] for name in moved], [before[name] for name in moved]))
