"""A fit, from the config to the files of the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ..fitting.loop import Clock, Observer
from ..fitting.result import FitResult
from ..fitting.state import LoopState
from .directory import RunDirectory, refuse_taken
from .finish import finish
from .multistart import Watch, best_of_starts
from .prepare import prepared
from .session import Request, Session, parse
from .signals import interruption_noted


@dataclass
class FitOptions:
    """Where a fit goes and who watches it.

    ``default_stem`` names a directory under runs/ when none is given; ``began`` is when the command did.
    """

    run_dir: Path | None = None
    overwrite: bool = False
    default_stem: str | None = None
    began: float | None = None
    watch: Callable[[Session], Sequence[Observer]] = field(default=lambda session: [])
    tell: Callable[[str], None] = field(default=lambda text: None)
    """Hears how the fit from each start ended, where there are several."""
    jobs: int = 1
    """Processes that try the starts."""


def run_fit(request: Request, options: FitOptions) -> FitResult:
    """Everything from the config to the files of the run."""
    began = time.perf_counter() if options.began is None else options.began
    if options.run_dir is not None:
        refuse_taken(options.run_dir, options.overwrite)
    with ExitStack() as stack:
        config, mistakes = parse(request)
        interruption = stack.enter_context(interruption_noted())
        with interruption.at_once():  # nothing is written yet
            session = stack.enter_context(prepared(request, config, mistakes))
            if options.run_dir is not None or options.default_stem is not None:
                _ = session.provenance  # now, as a resume does: a model may write to its arguments
            several = config.starts > 1
            observers = [] if several else options.watch(session)
            loop = session.loop(observers, interruption, Clock(session.began), LoopState())
            end = loop.begin(session.start, session.given)
        directory = _new_directory(options)
        if directory is not None:
            stack.enter_context(directory)
            directory.write_config(session.provenance.config)
        if several:
            watch = Watch(options.tell, options.watch, options.jobs)
            loop, end = best_of_starts(request, session, (loop, end), directory, interruption, watch)
        return finish(session, loop, end, directory, interruption, began)


def _new_directory(options: FitOptions) -> RunDirectory | None:
    if options.run_dir is not None:
        return RunDirectory.create(options.run_dir, options.overwrite)
    if options.default_stem is not None:
        return RunDirectory.next_free(Path("runs"), options.default_stem)
    return None
