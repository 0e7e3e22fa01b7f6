"""Fit, resume and diagnose, from Python: what the commands call, and what notebooks call."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .config.load import load_source
from .config.source import Source, from_mapping, set_override
from .errors import CheckpointError, ConfigError, RunDirectoryError
from .fitting.loop import Clock, Loop, LoopEnd, Observer
from .fitting.result import FitResult
from .fitting.state import LoopState
from .model.module import sha256_of_file
from .model.randomness import restore_random_state
from .point import Params
from .run.checkpoint import Checkpoint, Provenance, find_checkpoint
from .run.directory import PROGRESS, RunDirectory, RunRecorder, drop_rows_after, taken
from .run.session import Request as Request
from .run.session import Session, parse, prepared, versions
from .run.signals import Interruption, interruption_noted
from .uncertainty.diagnosis import Diagnosis, diagnose_fit
from .uncertainty.errors import find_uncertainty, gaussian_of

RESUME_MAY_SET = ("stop", "progress", "checkpoint")


def fit(
    model: Callable[..., Any] | str | Path,
    config: str | Path | Mapping[str, Any],
    /,
    *,
    run_dir: str | Path | None = None,
    data: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> FitResult:
    """Fit a Pyro model.

    Args:
        model: a callable, a PyroModule instance, or ``path.py``, ``path.py:name``, ``package.module:name``.
        config: path of a YAML file, or a mapping of the same keys.
        run_dir: where to write the run; nothing is written without it.
        data: arguments of the model, as a mapping, for names that clash with those of this function.
        arguments: arguments of the model. With a callable, no ``load_data`` is called.
    Returns: the result that the command line prints.
    Raises: HofitError for wrong input; everything else is a status.

    Pyro's parameter store, seeds, validation flags, default dtype and device are left as they were found.
    ``torch.nn`` modules inside the model hold the fitted weights afterwards, as after any training.
    """
    reference = str(model) if isinstance(model, Path) else model
    request = Request(load_source(config), reference, _merged(data, arguments))
    return run_fit(request, FitOptions(run_dir=None if run_dir is None else Path(run_dir)))


def resume(
    checkpoint: str | Path,
    /,
    *,
    model: Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    set: Sequence[str] = (),
    allow_changed: bool = False,
    **arguments: Any,
) -> FitResult:
    """Go on from a checkpoint file, or from a run directory's newest good one, exactly where it stopped.

    Args:
        model, data, arguments: only for a fit that was given a callable or arguments from Python: give them again.
        set: ``key=value`` for settings under stop, progress and checkpoint.
        allow_changed: go on although the model or the data changed.
    Raises: CheckpointError when the checkpoint is damaged, or of another model or data; HofitError.
    """
    return run_resume(ResumeRequest(Path(checkpoint), list(set), allow_changed, model, _merged(data, arguments)))


def diagnose(
    run_dir: str | Path,
    /,
    *,
    draws: int = 1000,
    seed: int = 0,
    model: Callable[..., Any] | None = None,
    data: Mapping[str, Any] | None = None,
    allow_changed: bool = False,
    **arguments: Any,
) -> Diagnosis:
    """Say whether the Gaussian at the mode of a fit is good enough; writes diagnose.json into its run directory.

    Args:
        draws: from that Gaussian.
        model, data, arguments: as for ``resume``.
        allow_changed: go on although the model or the data changed.
    Raises: CheckpointError when there is no checkpoint, or it is of another model or data; HofitError where the fit
        has not converged or there is no Gaussian.
    """
    request = ResumeRequest(Path(run_dir), [], allow_changed, model, _merged(data, arguments))
    return run_diagnose(request, draws, seed)


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


def run_fit(request: Request, options: FitOptions) -> FitResult:
    """Everything from the config to the files of the run."""
    began = time.perf_counter() if options.began is None else options.began
    refusal = taken(options.run_dir) if options.run_dir is not None else None
    if refusal and not (options.overwrite and options.run_dir is not None and options.run_dir.is_dir()):
        raise RunDirectoryError(f"{refusal}: choose another --run-dir, or --overwrite")
    with ExitStack() as stack:
        config, mistakes = parse(request)
        interruption = stack.enter_context(interruption_noted())
        session = stack.enter_context(prepared(request, config, mistakes))
        if options.run_dir is not None or options.default_stem is not None:
            _ = session.provenance  # now, as a resume does: a model may write to its arguments
        clock = Clock(session.began)
        loop = _loop(session, options.watch(session), interruption, clock, LoopState())
        end = loop.begin(session.start, fresh=True)
        directory = _new_directory(options)
        if directory is not None:
            stack.enter_context(directory)
            directory.write_config(session.provenance.config)
        return _finish(stack, session, loop, end, directory, interruption, began)


def run_resume(request: ResumeRequest) -> FitResult:
    """Everything from the checkpoint to the files of the run."""
    began = time.perf_counter() if request.began is None else request.began
    with ExitStack() as stack:
        interruption = stack.enter_context(interruption_noted())
        checkpoint, directory, session = _reopened(stack, request)
        state = checkpoint.snapshot.loop
        if any(assignment.startswith("stop") for assignment in request.overrides):
            state.stalled, state.next_verdict, state.verdict_gradient = 0, 0, float("inf")  # other rules, other counts
        clock = Clock(time.perf_counter(), state.seconds)
        loop = _loop(session, request.watch(session), interruption, clock, state)
        session.optimizer.load_state_dict(checkpoint.snapshot.optimizer)
        session.objective.evaluations = state.evaluations
        restore_random_state(checkpoint.snapshot.random_before_trace or checkpoint.snapshot.random_now)
        if checkpoint.snapshot.inner:
            session.objective.resume_from(checkpoint.snapshot.params, checkpoint.snapshot.inner)
        counted = asdict(state.evaluations)
        end = loop.begin(checkpoint.snapshot.params, fresh=False)
        for name, count in counted.items():  # the point was counted when it was first traced
            setattr(session.objective.evaluations, name, count)
        restore_random_state(checkpoint.snapshot.random_now)
        drop_rows_after(directory.path / PROGRESS, state.iteration)
        directory.write_config(session.provenance.config)
        return _finish(stack, session, loop, end, directory, interruption, began)


def run_diagnose(request: ResumeRequest, draws: int, seed: int) -> Diagnosis:
    """Everything from the newest checkpoint to diagnose.json."""
    if not request.path.is_dir():
        raise RunDirectoryError(f"no run directory {request.path}")
    with ExitStack() as stack:
        checkpoint, directory, session = _reopened(stack, request)
        snapshot = checkpoint.snapshot
        if snapshot.inner:
            session.objective.resume_from(snapshot.params, snapshot.inner)
        found = diagnose_fit(session.objective, snapshot.params, session.config.stop, draws, seed)
        provenance = session.provenance
        directory.write_diagnosis(
            {
                **found.to_plain(),
                "iteration": snapshot.loop.iteration,
                "versions": versions(),
                "model_sha256": provenance.model_files,
                "data_sha256": provenance.data_sha256,
            }
        )
        return found


def _reopened(stack: ExitStack, request: ResumeRequest) -> tuple[Checkpoint, RunDirectory, Session]:
    """The run directory, locked, its checkpoint, and the session that it came from, verified."""
    checkpoint = find_checkpoint(request.path)
    source = _resumed_source(checkpoint.provenance, request.overrides)
    model = _resumed_model(request, checkpoint.provenance)
    to_fit = Request(source, model, request.arguments)
    config, mistakes = parse(to_fit)
    if mistakes:
        raise ConfigError(mistakes)
    folder = request.path if request.path.is_dir() else request.path.parent
    directory = stack.enter_context(RunDirectory.open(folder))
    if request.path.is_dir():
        checkpoint = find_checkpoint(folder)  # once more: the run may have gone on until it was locked
    _verify_files(checkpoint, request.allow_changed)
    session = stack.enter_context(prepared(to_fit, config, []))
    _verify_session(checkpoint, session, request.allow_changed)
    return checkpoint, directory, session


def _merged(data: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    doubled = sorted({*(data or {})} & {*arguments})
    if doubled:
        raise ConfigError(f"argument {doubled[0]!r} is given twice: in data= and by name")
    return {**(data or {}), **arguments}


def _loop(
    session: Session, observers: Sequence[Observer], interruption: Interruption, clock: Clock, state: LoopState
) -> Loop:
    return Loop(session.objective, session.optimizer, session.config.stop, list(observers), interruption, clock, state)


def _new_directory(options: FitOptions) -> RunDirectory | None:
    if options.run_dir is not None:
        return RunDirectory.create(options.run_dir, options.overwrite)
    if options.default_stem is not None:
        return RunDirectory.next_free(Path("runs"), options.default_stem)
    return None


def _finish(
    stack: ExitStack,
    session: Session,
    loop: Loop,
    end: LoopEnd | None,
    directory: RunDirectory | None,
    interruption: Interruption,
    began: float,
) -> FitResult:
    recorder = None
    if directory is not None:
        policy = session.config.checkpoint
        recorder = RunRecorder(directory, session.provenance, policy.every, policy.seconds, policy.keep)
        stack.callback(recorder.close)
        loop.observers.append(recorder)
    try:
        end = end or loop.go()
        result = _result(session, end, interruption)
        if directory is not None and recorder is not None:
            recorder.checkpoint(end.snapshot)
            directory.write_estimates(result.estimates())
            directory.write_derived(result.derived_rows())
            result.run_dir = directory.path
        result.total_seconds = time.perf_counter() - began
        if directory is not None:
            directory.write_fit(result.fit_json())
        return result
    except OSError as error:
        if directory is None:
            raise
        raise RunDirectoryError(
            f"{directory.path} cannot be written ({error.strerror or error}): what was written before stands; "
            f"`hofit resume {directory.path}` goes on from its newest checkpoint"
        ) from error


def _result(session: Session, end: LoopEnd, interruption: Interruption) -> FitResult:
    program, provenance, objective = session.program, session.provenance, session.objective
    counted = asdict(objective.evaluations)
    gaussian, remarks = gaussian_of(objective, end.status, end.verdict)
    values = objective.values(end.params)
    full = session.config.objective.uncertainty == "full"
    uncertainty = find_uncertainty(program, gaussian, remarks, values, end.verdict.loss, objective.type, full)
    for name, count in counted.items():  # standard errors are no part of the fit
        setattr(objective.evaluations, name, count)
    params: Params = {name: program.unconstrained(name).detach().clone() for name in program.order} | end.params
    no_priors = (
        objective.type != "elbo"
        and not program.has_factor
        and all(site.role != "latent" for site in program.sites.values())
    )
    return FitResult(
        ended=end.status,
        loss=end.verdict.loss,
        gradient_norm=end.verdict.gradient_norm,
        iterations=end.snapshot.loop.iteration,
        seconds=end.snapshot.loop.seconds,
        objective=objective.type,
        params=params,
        values=values,
        uncertainty=uncertainty,
        remarks=[*end.remarks, *uncertainty.remarks],
        checks=end.verdict.checks,
        evaluations=counted,
        sites=program.sites,
        owners=session.owners,
        log_likelihood=-end.verdict.loss if no_priors else None,
        terminated=interruption.received == signal.SIGTERM,
        versions=versions(),
        model_sha256=provenance.model_files,
        data_sha256=provenance.data_sha256,
    )


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


def _verify_session(checkpoint: Checkpoint, session: Session, allow_changed: bool) -> None:
    """What only the loaded model can tell: its arguments, and that its parameters are those of the checkpoint."""
    before, now = checkpoint.provenance, session.provenance
    if not allow_changed:
        if before.arguments != now.arguments:
            changed = "the data (the model's arguments) has changed"
            raise CheckpointError(f"{changed} since the checkpoint was written; --allow-changed goes on all the same")
        if before.from_callable and before.model_files != now.model_files:
            raise CheckpointError(f"the model {before.model} has changed since the checkpoint was written")
    saved = {name: tuple(p.shape) for name, p in checkpoint.snapshot.params.items()}
    found = {name: tuple(p.shape) for name, p in session.start.items()}
    if saved != found:
        differing = sorted({*saved} ^ {*found}) or [name for name in saved if saved[name] != found[name]]
        raise CheckpointError(f"the model's parameters are not those of the checkpoint: {', '.join(differing)}")
