"""One model, several configs: a run directory of each, one after the other or in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..config.source import Source
from ..errors import ConfigError, HofitError, RunDirectoryError
from ..fitting.interruption import Interruption
from ..fitting.state import Snapshot
from ..record import Progress
from .children import in_children
from .directory import refuse_taken
from .fit import FitOptions, run_fit
from .prepare import prepared
from .provenance import Provenance
from .session import Request, parse
from .signals import interruption_noted

EVERY = 0.2
"""Seconds between two rows that are told of one fit."""


@dataclass(frozen=True)
class Mix:
    """A config under the name of its file, and where its run goes."""

    label: str
    source: Source
    run_dir: Path


@dataclass(frozen=True)
class Standing:
    """Where a fit stands. ``status`` is ``running``, how it ended, or ``failed`` with the reason in ``problem``."""

    label: str
    status: str
    iteration: int = 0
    loss: float | None = None
    seconds: float = 0.0
    problem: str | None = None


Hear = Callable[[Standing], None]


def mixes_of(configs: Sequence[Path], load: Callable[[Path], Source], folder: Path) -> list[Mix]:
    """Each config with its run directory, ``folder/stem``; one file's name twice gets -2, -3 …

    Raises: ConfigError with the mistakes of all files.
    """
    found: list[Mix] = []
    mistakes: list[str] = []
    taken: set[str] = set()
    for path in configs:
        label, number = path.stem, 1
        while label in taken:
            number += 1
            label = f"{path.stem}-{number}"
        taken.add(label)
        try:
            found.append(Mix(label, load(path), folder / label))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return found


def check_mixes(mixes: Sequence[Mix], model: str | None, overwrite: bool) -> None:
    """Everything that can be wrong, before anything is written. Raises: HofitError."""
    mistakes: list[str] = []
    seen: dict[str, tuple[Config, Provenance]] = {}
    for mix in mixes:
        refuse_folder(mix.run_dir, overwrite)
        request = Request(mix.source, model)
        try:
            config, found = parse(request)
            with prepared(request, config, found) as session:
                seen[mix.label] = config, session.provenance
        except ConfigError as error:
            mistakes += error.mistakes
        except HofitError as error:
            raise type(error)(f"{mix.label}: {error}") from error
    if mistakes:
        raise ConfigError(list(dict.fromkeys(mistakes)))
    first, *others = seen
    for label in others:
        differs = _data_differ(seen[first], seen[label])
        if differs:
            raise HofitError(f"{first} and {label} cannot be compared: {differs}; give all configs the same data")


def refuse_folder(path: Path, overwrite: bool) -> None:
    """Raises: RunDirectoryError where a run of a comparison cannot go."""
    try:
        refuse_taken(path, overwrite)
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{error}".replace("--run-dir", "--out")) from error


def _data_differ(one: tuple[Config, Provenance], other: tuple[Config, Provenance]) -> str | None:
    """What differs in the data of two configs of one model."""
    if one[1].data_sha256 == other[1].data_sha256:
        return None
    before, after = one[0].data.model_dump(), other[0].data.model_dump()
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return f"data.{keys[0]} differs" if keys else "the model is given other data"


def run_mixes(
    mixes: Sequence[Mix], model: str | None, overwrite: bool, jobs: int, hear: Hear
) -> tuple[dict[str, str], int | None]:
    """Fit each. What there is of it stands in its run directory; of those that have none, by label, why not; and the
    number of the signal that ended it, if one did."""
    problems: dict[str, str] = {}
    tasks = [(mix, model, overwrite) for mix in mixes]
    if jobs == 1:
        for task in tasks:
            stopped, problem = _fitted(task, hear)
            if problem is not None:
                problems[task[0].label] = problem
            if stopped is not None:
                return problems, stopped
        return problems, None
    with interruption_noted() as interruption:
        for label, problem in in_children(Fitting(), tasks, jobs, interruption, _lost, _heard(hear)):
            if problem is not None:
                problems[label] = problem
                hear(Standing(label, "failed", problem=problem))
        return problems, interruption.received


class Fitting:
    """What a process does with configs: it fits them as they come."""

    def __call__(self, tasks: Iterable[Any], send: Callable[[Any], None], interruption: Interruption) -> None:
        for task in tasks:
            _, problem = _fitted(task, send)
            send((task[0].label, problem))


def _fitted(task: tuple[Mix, str | None, bool], hear: Hear) -> tuple[int | None, str | None]:
    """The signal that ended a fit, if one did, and why there is no run, if there is none."""
    mix, model, overwrite = task
    hear(Standing(mix.label, "running"))
    options = FitOptions(mix.run_dir, overwrite, watch=lambda session: [_Watcher(mix.label, hear)])
    try:
        result = run_fit(Request(mix.source, model), options)
    except HofitError as error:
        hear(Standing(mix.label, "failed", problem=str(error)))
        return None, str(error)
    hear(Standing(mix.label, result.status, result.iterations, result.loss, result.seconds))
    return result.signal, None


def _lost(task: tuple[Mix, str | None, bool], why: str) -> tuple[str, str | None]:
    return task[0].label, why


def _heard(hear: Hear) -> Callable[[Any], bool]:
    """Tells whether a message of a process is one by the way, and hands it on."""

    def heard(message: Any) -> bool:
        if not isinstance(message, Standing):
            return False
        hear(message)
        return True

    return heard


class _Watcher:
    """Tells where a fit stands, some times a second."""

    keeps_every = None

    def __init__(self, label: str, hear: Hear) -> None:
        self._label, self._hear, self._last = label, hear, 0.0

    def on_iteration(self, record: Progress, snapshot: Callable[[], Snapshot] | None) -> None:
        now = time.perf_counter()
        if now - self._last >= EVERY:
            self._last = now
            self._hear(Standing(self._label, "running", record.iteration, record.loss, record.seconds))

    def on_pause(self, snapshot: Callable[[], Snapshot]) -> None:
        return None
