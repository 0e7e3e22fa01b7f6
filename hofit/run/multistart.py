"""A fit with several starts: each is tried, what came of it is kept, and the run is the fit from the best one.

The starts are tried first, one whole fit each, without files of their own: ``starts.json`` has a row of each as soon as
it has ended. Then the fit from the best start is done once more, as every other fit is, with its progress and
checkpoints. The first checkpoint says that no start is chosen yet; whoever resumes then goes on with those not tried.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..comparison.modes import best_of, places_of
from ..comparison.outcome import Outcome
from ..comparison.starts import sentence_of
from ..errors import HofitError
from ..fitting.interruption import Interruption
from ..fitting.loop import Clock, Loop, LoopEnd, Observer
from ..fitting.result import FitResult
from ..fitting.state import LoopState, Snapshot
from ..record import STARTS, Estimate, Progress
from ..report.reading import UNREADABLE
from ..status import Status
from .checkpoint import write_checkpoint
from .children import in_children
from .directory import RunDirectory, disk_errors_told
from .finish import ended
from .prepare import prepared
from .session import Request, Session, parse
from .starts import Starts

KEPT = ("status", "converged", "objective", "loss", "gradient_norm", "iterations", "seconds", "unit")
"""Of fit.json, in starts.json."""

ITERATIONS = 10_000
"""Of one start, whose losses are kept, at most."""

NUMBERS = 100_000
"""Estimates of one start that are kept, at most: beyond, modes are told by their loss alone."""


@dataclass(frozen=True)
class Trial:
    """How the fit from one start ended. ``rows`` hold name, index, role, estimate and standard error of each number;
    ``problem`` is why there was no fit."""

    number: int
    kind: str
    fit: dict[str, Any] = field(default_factory=dict)
    rows: list[list[Any]] = field(default_factory=list)
    problem: str | None = None
    progress: list[list[float]] = field(default_factory=list)
    """Seconds and loss of each iteration."""

    def outcome(self) -> Outcome:
        """As comparisons have it."""
        label = f"start {self.number + 1} ({self.kind})"
        return Outcome(label, self.fit, [Estimate(*row) for row in self.rows], {}, self._pairs, None, self.problem)

    @property
    def _pairs(self) -> list[tuple[float, float]]:
        return [(seconds, loss) for seconds, loss in self.progress]

    def line(self, of: int) -> str:
        """What the screen shows of it."""
        loss = self.fit.get("loss")
        ending = self.problem if self.problem is not None else str(self.fit.get("status"))
        numbers = "" if loss is None else f", loss {loss:.10g}, {self.fit['iterations']} iterations"
        seconds = f", {self.fit['seconds']:.2f} s" if "seconds" in self.fit else ""
        return f"start {self.number + 1} of {of} ({self.kind}): {ending}{numbers}{seconds}"


@dataclass
class Watch:
    """Who hears of the starts: a line of each as it ends, observers of the fit that is kept; ``jobs`` are processes."""

    tell: Callable[[str], None]
    observers: Callable[[Session], Sequence[Observer]]
    jobs: int = 1


def best_of_starts(
    request: Request,
    session: Session,
    first: tuple[Loop, LoopEnd | None],
    directory: RunDirectory | None,
    interruption: Interruption,
    watch: Watch,
) -> tuple[Loop, LoopEnd | None]:
    """Try the starts that are not tried yet: the loop of the best one, begun, and its end if it has one.

    ``first`` is the loop that has begun at the own start. Interrupted, it ends there, and resume goes on.
    """
    loop, end = first
    stopped = end or loop.cut_short()
    count = session.config.starts
    starts = Starts(session)
    trials: dict[int, Trial] = {}
    if directory is not None:
        trials = _read(directory.path / STARTS, count)
        with disk_errors_told(directory.path):
            write_checkpoint(directory.path, stopped.snapshot, session.provenance, 1)
    left = [number for number in range(count) if number not in trials]
    if left and not interruption():
        for trial in _tried(request, session, starts, left, interruption, watch):
            trials[trial.number] = trial
            watch.tell(trial.line(count))
            if directory is not None:
                with disk_errors_told(directory.path):
                    known = [asdict(trials[number]) for number in sorted(trials)]
                    directory.write_json(STARTS, {"starts": known})
    if len(trials) < count:  # interrupted
        session.go_back(loop)
        session.warnings.append(f"starts: {len(trials)} of {count} were tried; hofit resume goes on with the others")
        return loop, stopped
    ordered = [trials[number] for number in range(count)]
    chosen = take(session, ordered)
    start = starts.start(chosen)
    session.begin_anew(start.params)
    loop = session.loop(watch.observers(session), interruption, Clock(time.perf_counter()), LoopState(chosen=chosen))
    end = loop.begin(session.start, session.given if chosen == 0 else ())
    if directory is not None:
        with disk_errors_told(directory.path):
            snapshot = (end or loop.cut_short()).snapshot
            write_checkpoint(directory.path, snapshot, session.provenance, 1)
    return loop, end


def trials_of(path: Path, count: int) -> list[Trial]:
    """What a run directory has of its starts, in their order."""
    trials = _read(path / STARTS, count)
    return [trials[number] for number in sorted(trials)]


def take_again(session: Session, path: Path) -> None:
    """Put into a session that is resumed what was found of its starts, for its remarks. It may be lost."""
    trials = trials_of(path, session.config.starts)
    if len(trials) == session.config.starts:
        take(session, trials)


def take(session: Session, trials: Sequence[Trial]) -> int:
    """Put into a session what was found of all its starts: which one is taken, the first that reached the best mode."""
    outcomes = [trial.outcome() for trial in trials]
    places, best = places_of(outcomes), best_of(outcomes)
    session.warnings.append(f"starts: {sentence_of(outcomes)}")
    session.tried = [
        {
            "start": trial.number + 1,
            "kind": trial.kind,
            "status": outcome.status,
            "loss": outcome.loss,
            "iterations": trial.fit.get("iterations"),
            "seconds": trial.fit.get("seconds"),
            "mode": place.mode,
            "relation": place.relation,
            "largest_difference": None if place.difference is None else place.difference.errors,
            "problem": trial.problem,
        }
        for trial, outcome, place in zip(trials, outcomes, places, strict=True)
    ]
    if best is None:
        return 0
    if places[best].mode is None:
        return trials[best].number
    reached = (t.number for t, p, o in zip(trials, places, outcomes, strict=True) if p.mode == 1 and o.converged)
    return next(reached)


def _tried(
    request: Request,
    session: Session,
    starts: Starts,
    numbers: Sequence[int],
    interruption: Interruption,
    watch: Watch,
) -> Iterator[Trial]:
    """A trial of each start, as it ends; fewer where that is interrupted."""
    if watch.jobs > 1 and len(numbers) > 1:
        yield from in_children(Trying(request), numbers, watch.jobs, interruption, _lost)
        return
    for number in numbers:
        trial = _trial(session, starts, number, interruption)
        if trial is None:
            return
        yield trial


def _lost(number: int, why: str) -> Trial:
    return Trial(number, "", problem=why)


@dataclass
class Trying:
    """Tries starts in a process of its own, which prepares its session once."""

    request: Request

    def __call__(self, tasks: Iterable[int], send: Callable[[Any], None], interruption: Interruption) -> None:
        config, mistakes = parse(self.request)
        with prepared(self.request, config, mistakes) as session:
            starts = Starts(session)
            for number in tasks:
                trial = _trial(session, starts, number, interruption)
                if trial is None:
                    return
                send(trial)


def _trial(session: Session, starts: Starts, number: int, interruption: Interruption) -> Trial | None:
    """The fit from one start to its end; None where that is interrupted. A start that fails is a trial, too."""
    start = starts.start(number)
    session.begin_anew(start.params)
    warnings, session.warnings = session.warnings, []
    try:
        watcher = _Losses()
        loop = session.loop([watcher], interruption, Clock(time.perf_counter()), LoopState())
        end = loop.begin(session.start, session.given if number == 0 else ())
        end, result = ended(session, loop, end, interruption)
    except HofitError as error:
        return Trial(number, start.kind, problem=str(error).partition("\n")[0])
    finally:
        session.warnings = warnings
    if end.status is Status.INTERRUPTED:
        return None
    return Trial(number, start.kind, _kept(result), _rows(result), None, watcher.pairs)


class _Losses:
    """Keeps the loss of each iteration, with its time."""

    keeps_every = None

    def __init__(self) -> None:
        self.pairs: list[list[float]] = []

    def on_iteration(self, record: Progress, snapshot: Callable[[], Snapshot] | None) -> None:
        if len(self.pairs) < ITERATIONS:
            self.pairs.append([round(record.seconds, 6), record.loss])

    def on_pause(self, snapshot: Callable[[], Snapshot]) -> None:
        return None


def _kept(result: FitResult) -> dict[str, Any]:
    whole: Mapping[str, Any] = result.fit_json()
    return {key: whole[key] for key in KEPT}


def _rows(result: FitResult) -> list[list[Any]]:
    if sum(value.numel() for value in result.values.values()) > NUMBERS:
        return []
    return [[row.name, row.index, row.role, row.estimate, row.std_error] for row in result.estimate_rows()]


def _read(path: Path, count: int) -> dict[int, Trial]:
    """What starts.json has of the starts; nothing where it is not there, or is damaged: they are tried again."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["starts"]
        trials = [Trial(**one) for one in listed]
        for trial in trials:
            trial.line(count)  # whoever can write the file can write it wrong
            places_of([trial.outcome()])
        return {trial.number: trial for trial in trials if trial.number in range(count)}
    except (OSError, AttributeError, IndexError, *UNREADABLE):
        return {}
