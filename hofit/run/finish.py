"""From the first iteration to the result and its files: where a fit and a resumed fit go the same way."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial

from ..fitting.interruption import Interrupted, Interruption
from ..fitting.loop import Loop, LoopEnd
from ..fitting.result import FitResult
from ..record import DERIVED, ESTIMATES, FIT, OF_AN_END, Derived, Estimate, table
from ..sharding.gathered import Gathered
from ..status import Status
from ..uncertainty.errors import find_uncertainty, gaussian_of
from ..uncertainty.gaussian import Gaussian
from ..uncertainty.likelihood import likelihood_of
from .directory import RunDirectory, disk_errors_told
from .environment import versions
from .large import large_sites, write_large
from .meant import joint_mode
from .recorder import RunRecorder
from .session import Session, again
from .tensorboard import EventRecorder


def finish(
    session: Session,
    loop: Loop,
    end: LoopEnd | None,
    directory: RunDirectory | None,
    interruption: Interruption,
    began: float,
) -> FitResult:
    """Iterate to the end, if the start was not one, and write what a run directory holds.

    ``began`` is when the command did. Raises: DiskError when the disk does not take it.
    """
    if directory is None:
        result = ended(session, loop, end, interruption)[1]
        result.total_seconds = time.perf_counter() - began
        return result
    with disk_errors_told(directory.path):
        with ExitStack() as stack:
            policy = session.config.checkpoint
            recorder = stack.enter_context(closing(RunRecorder(directory, session.provenance, policy, interruption)))
            loop.observers.append(recorder)
            if "tensorboard" in session.config.metrics:
                loop.observers.append(stack.enter_context(closing(EventRecorder(directory))))
            end, result = ended(session, loop, end, interruption)
            recorder.checkpoint(end.snapshot)
        large = large_sites(result)
        for name in large:
            path = write_large(result, name, directory.path)
            result.remarks.append(f"estimates: the {result.values[name].numel()} of {name} are in {path.name}")
        directory.write(ESTIMATES, table(Estimate, result.estimate_rows(large)))
        derived = result.derived_rows()
        if derived:
            directory.write(DERIVED, table(Derived, derived))
        result.run_dir = directory.path
        result.total_seconds = time.perf_counter() - began
        for name in OF_AN_END:  # these were of an earlier one
            (directory.path / name).unlink(missing_ok=True)
        directory.write_json(FIT, result.fit_json())
        return result


def ended(session: Session, loop: Loop, end: LoopEnd | None, interruption: Interruption) -> tuple[LoopEnd, FitResult]:
    """The end, and what is known there; whoever interrupts does not wait for standard errors either."""
    end = end or loop.go()
    if end.status is not Status.INTERRUPTED:
        try:
            with interruption.at_once():
                return end, result_of(session, end, interruption)
        except Interrupted:
            end = loop.cut_short()
    return end, result_of(session, end, interruption)


def result_of(
    session: Session, end: LoopEnd, interruption: Interruption, gaussian: Gaussian | None = None
) -> FitResult:
    """What a fit returns. ``gaussian`` is that at its end, where it is known."""
    program, provenance, objective = session.program, session.provenance, session.objective
    with objective.evaluations.uncounted():  # standard errors are no part of the fit
        remarks: list[str] = []
        if gaussian is None:
            gaussian, remarks = gaussian_of(objective, end.status, end.verdict)
        found = _whole(session, end, gaussian, remarks) if session.gather is None else session.gather(end, gaussian)
        uncertainty = found.uncertainty
        meant = joint_mode(objective, end.status, end.verdict.limiting)
    likelihood = likelihood_of(objective, uncertainty, end.verdict.loss, session.config.data.observations)
    return FitResult(
        ended=end.status,
        loss=end.verdict.loss,
        gradient_norm=end.verdict.gradient_norm,
        iterations=end.snapshot.loop.iteration,
        seconds=end.snapshot.loop.seconds,
        objective=objective.type,
        params=found.params | end.params,
        values=found.values,
        uncertainty=uncertainty,
        remarks=[*session.warnings, *end.remarks, *meant, *uncertainty.remarks, *likelihood.remarks],
        checks=[*end.verdict.checks, *likelihood.checks],
        facts=objective.facts(end.verdict.loss),
        evaluations=asdict(objective.evaluations),
        sites=found.sites,
        unread=found.unread,
        owners=session.owners,
        log_likelihood=likelihood.value,
        observations=likelihood.observations,
        restricted=likelihood.restricted,
        observed_sums=likelihood.sums,
        estimated=objective.stochastic,
        unit=objective.unit,
        starts=session.tried,
        signal=interruption.received,
        repeated=end.snapshot.loop.repeated,
        versions=versions(),
        model_sha256=provenance.model_files,
        data_sha256=provenance.data_sha256,
        labels=session.labels,
        in_pieces=objective.in_pieces,
        program_again=None if objective.in_pieces else partial(again, session.config, program, program.arguments),
    )


def _whole(session: Session, end: LoopEnd, gaussian: Gaussian | None, remarks: list[str]) -> Gathered:
    """Values and errors of all that the fit has, where its data are in one piece."""
    program, objective = session.program, session.objective
    full = session.config.objective.uncertainty == "full"
    values = objective.values(end.params)
    uncertainty = find_uncertainty(objective, gaussian, remarks, values, end.verdict, full)
    params = {name: program.unconstrained(name).detach().clone() for name in program.sites}
    return Gathered(program.sites, values, params, program.unread, uncertainty)
