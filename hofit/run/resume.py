"""A fit that goes on from a checkpoint: reopening its run, and verifying that model and data are those it had."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..config.source import Source, from_mapping, set_override
from ..errors import CheckpointError, ConfigError
from ..fitting.interruption import Interruption
from ..fitting.loop import Clock, Observer
from ..fitting.result import FitResult
from ..fitting.state import LoopState, taken_up
from ..model.module import sha256_of_file, source_file
from ..model.randomness import restore_random_state
from ..point import Params
from ..record import PROGRESS
from ..sharding.objective import ShardedObjective, joined_modes
from .checkpoint import Checkpoint, find_checkpoint
from .directory import RunDirectory, disk_errors_told
from .finish import finish
from .multistart import Watch, best_of_starts, take_again
from .prepare import prepared
from .provenance import Provenance
from .recorder import drop_rows_after
from .session import Request, Session, parse
from .signals import interruption_noted

RESUME_MAY_SET = ("stop", "progress", "checkpoint", "metrics", "shard")
"""Sections of the config that change nothing in what an iteration computes, but for rounding."""


@dataclass
class ResumeRequest:
    """A checkpoint, and what may be changed or must be given again."""

    path: Path
    overrides: list[str] = field(default_factory=list)
    allow_changed: bool = False
    model: Callable[..., Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    began: float | None = None
    watch: Callable[[Session], Sequence[Observer]] = field(default=lambda session: [])
    tell: Callable[[str], None] = field(default=lambda text: None)
    """Hears how the fit from each start ended, where some are still to be tried."""
    announce: Callable[[str], None] = field(default=lambda text: None)
    """Is told which file is about to be run, before it is."""


def run_resume(request: ResumeRequest) -> FitResult:
    """Everything from the checkpoint to the files of the run."""
    began = time.perf_counter() if request.began is None else request.began
    with ExitStack() as stack:
        interruption = stack.enter_context(interruption_noted())
        with interruption.at_once():  # nothing is written yet
            checkpoint, directory, session = reopened(stack, request, in_pieces=True)
        state = checkpoint.snapshot.loop
        if _chooses_still(checkpoint, session):
            return _choose(request, checkpoint, session, directory, interruption, began)
        if session.config.starts > 1:
            take_again(session, directory.path)
        if any(assignment.startswith("stop") for assignment in request.overrides):
            state.stalled, state.next_verdict, state.verdict_gradient = 0, 0, float("inf")  # other rules, other counts
        for wrong in checkpoint.passed_over:
            session.warnings.append(f"checkpoint: {wrong}; the fit went on from {checkpoint.path.name}")
        session.warnings.extend(_other_ground(checkpoint.provenance, session.provenance))
        clock = Clock(time.perf_counter(), state.seconds)
        loop = session.loop(request.watch(session), interruption, clock, state)
        session.objective.evaluations.restore(state.evaluations)
        with taken_up():
            session.optimizer.load_state_dict(checkpoint.snapshot.optimizer)
            restore_random_state(checkpoint.snapshot.random_before_trace or checkpoint.snapshot.random_now)
            with interruption.at_once(), session.objective.evaluations.uncounted():  # it was counted when first traced
                end = loop.resume(checkpoint.snapshot.params)
            restore_random_state(checkpoint.snapshot.random_now)
        with disk_errors_told(directory.path):
            state.repeated += drop_rows_after(directory.path / PROGRESS, state.iteration)
            directory.write_config(session.provenance.config)
        return finish(session, loop, end, directory, interruption, began)


def _chooses_still(checkpoint: Checkpoint, session: Session) -> bool:
    return session.config.starts > 1 and checkpoint.snapshot.loop.chosen is None


def _choose(
    request: ResumeRequest,
    checkpoint: Checkpoint,
    session: Session,
    directory: RunDirectory,
    interruption: Interruption,
    began: float,
) -> FitResult:
    """A fit with several starts that ended before one was chosen: the others are tried, and the best is fitted."""
    with interruption.at_once():
        loop = session.loop([], interruption, Clock(time.perf_counter()), LoopState())
        end = loop.begin(session.start, session.given)
    with disk_errors_told(directory.path):
        directory.write_config(session.provenance.config)
    to_fit = Request(from_mapping(session.provenance.config), request.model, request.arguments)
    watch = Watch(request.tell, request.watch)
    loop, end = best_of_starts(to_fit, session, (loop, end), directory, interruption, watch)
    return finish(session, loop, end, directory, interruption, began)


def reopened(
    stack: ExitStack, request: ResumeRequest, in_pieces: bool = False
) -> tuple[Checkpoint, RunDirectory, Session]:
    """The run directory, locked, its checkpoint, and the session that it came from, verified, as it stood there.

    Data in pieces are opened as a whole but where they are asked for ``in_pieces``: what follows a fit takes them all.
    """
    checkpoint = find_checkpoint(request.path)
    source = _resumed_source(checkpoint.provenance, request.overrides)
    model = _resumed_model(request, checkpoint.provenance)
    to_fit = Request(source, model, request.arguments)
    config, mistakes = parse(to_fit)
    if mistakes:
        raise mistakes.error()
    folder = request.path if request.path.is_dir() else request.path.parent
    directory = stack.enter_context(RunDirectory.open(folder))
    if request.path.is_dir():
        checkpoint = find_checkpoint(folder)  # once more: the run may have gone on until it was locked
    if config.shard is not None and not in_pieces:
        config = config.model_copy(update={"shard": None})
        checkpoint = _of_the_whole(checkpoint, folder, config)
    _verify_files(checkpoint, request.allow_changed)
    if request.model is None:
        _refuse_unknown_model(checkpoint.provenance)
        request.announce(f"the model is {checkpoint.provenance.model}")
    session = stack.enter_context(prepared(to_fit, config, mistakes))
    _verify_session(checkpoint, session, request.allow_changed)
    if checkpoint.snapshot.inner and not _chooses_still(checkpoint, session):
        session.objective.resume_from(checkpoint.snapshot.params, checkpoint.snapshot.inner)
    if checkpoint.snapshot.pieces and isinstance(session.objective, ShardedObjective):
        session.objective.go_on_from(
            checkpoint.snapshot.params, folder, checkpoint.snapshot.pieces, request.allow_changed
        )
    return checkpoint, directory, session


def _of_the_whole(checkpoint: Checkpoint, folder: Path, config: Config) -> Checkpoint:
    """The checkpoint of a fit in pieces as that of the whole data would be, whose arguments have no digest."""
    before, snapshot = checkpoint.provenance, checkpoint.snapshot
    inner = joined_modes(folder, snapshot.pieces)
    if config.objective.type == "marginal":
        snapshot = replace(snapshot, inner=inner, pieces=[])
    else:  # what was settled in each piece is a parameter like all others
        both = {**snapshot.params, **inner}
        order = [name for name in before.sites if name in both]
        snapshot = replace(snapshot, params={name: both[name] for name in order}, pieces=[])
    return replace(checkpoint, snapshot=snapshot, provenance=replace(before, arguments=""))


def _resumed_source(provenance: Provenance, overrides: Sequence[str]) -> Source:
    source = from_mapping(provenance.config, "checkpoint's config")
    for assignment in overrides:
        section = assignment.partition("=")[0].strip().partition(".")[0]
        if section not in RESUME_MAY_SET:
            raise ConfigError(
                f"--set {assignment}: a resumed fit goes on exactly where it stopped, so only "
                f"{', '.join(RESUME_MAY_SET)} may be set; start another fit to change {section!r}"
            )
        set_override(source, assignment)
    return source


def _resumed_model(request: ResumeRequest, provenance: Provenance) -> Callable[..., Any] | str:
    missing = [name for name in provenance.given if name not in request.arguments]
    if provenance.from_callable and request.model is None:
        raise CheckpointError(
            f"{request.path} is of a model that was given from Python ({provenance.model}): "
            "use hofit.resume(path, model=...) with the same model and arguments"
        )
    if missing:
        raise CheckpointError(
            f"{request.path} is of a fit that was given arguments from Python: give {', '.join(missing)} again "
            "with hofit.resume"
        )
    return request.model if request.model is not None else provenance.model


def _verify_files(checkpoint: Checkpoint, allow_changed: bool) -> None:
    if allow_changed:
        return
    provenance = checkpoint.provenance
    for kind, files in (("model", provenance.model_files), ("data", provenance.data_files)):
        for name, digest in files.items():
            path = Path(name)
            if name.startswith("<"):
                continue
            if not path.is_file():
                raise CheckpointError(f"the {kind} file {name} is gone since the checkpoint was written")
            if sha256_of_file(path) != digest:
                raise CheckpointError(
                    f"the {kind} file {name} has changed since the checkpoint was written: "
                    "start another fit, or use --allow-changed"
                )


def _refuse_unknown_model(provenance: Provenance) -> None:
    """A checkpoint may be a stranger's: what it does not hold a digest of is not run on its word."""
    file = source_file(provenance.model)
    if file is None or str(file) not in provenance.model_files:
        raise CheckpointError(
            f"the checkpoint names the model {provenance.model}, and holds no digest of it: it is not run. "
            "Look at the model, and start another fit"
        )


def _verify_session(checkpoint: Checkpoint, session: Session, allow_changed: bool) -> None:
    """What only the loaded model can tell: its arguments, and that its parameters are those of the checkpoint."""
    before, now = checkpoint.provenance, session.provenance
    if not allow_changed:
        if before.arguments and before.arguments != now.arguments:
            changed = "the data (the model's arguments) has changed"
            raise CheckpointError(f"{changed} since the checkpoint was written; --allow-changed goes on all the same")
        if before.from_callable and before.model_files != now.model_files:
            raise CheckpointError(f"the model {before.model} has changed since the checkpoint was written")
    saved, found = _forms(checkpoint.snapshot.params, before.sites), _forms(session.start, now.sites)
    if not before.sites:
        found = _forms(session.start, {})
    if saved != found:
        differing = sorted({*saved} ^ {*found}) or [name for name in saved if saved[name] != found[name]]
        raise CheckpointError(f"the model's parameters are not those of the checkpoint: {', '.join(differing)}")
    if list(saved) != list(found):
        order = f"{', '.join(found)} instead of {', '.join(saved)}"
        raise CheckpointError(f"the model's parameters come in another order than in the checkpoint: {order}")


def _forms(params: Params, sites: Mapping[str, str]) -> dict[str, Any]:
    """What a parameter must have in common with that of a checkpoint; of sites that are not known, less."""
    return {name: (tuple(value.shape), value.dtype, sites.get(name)) for name, value in params.items()}


def _other_ground(before: Provenance, now: Provenance) -> list[str]:
    """A remark where torch is another than the checkpoint's: the fit goes on, but its last digits may differ."""
    grounds = [
        f"{name} {before.versions.get(name)} → {version}"
        for name, version in now.versions.items()
        if before.versions.get(name) != version
    ]
    if before.threads != now.threads:
        grounds.append(f"threads {before.threads} → {now.threads}")
    return [f"resume: the fit goes on, but not bit for bit: {', '.join(grounds)}"] if grounds else []
