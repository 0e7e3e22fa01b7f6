"""A diagnosis of a fit that has ended, from its newest checkpoint to diagnose.json."""

from __future__ import annotations

from contextlib import ExitStack

from ..errors import RunDirectoryError
from ..uncertainty.diagnosis import Diagnosis, diagnose_fit
from .environment import versions
from .resume import ResumeRequest, reopened


def run_diagnose(request: ResumeRequest, draws: int, seed: int) -> Diagnosis:
    """Everything from the newest checkpoint to diagnose.json."""
    if not request.path.is_dir():
        raise RunDirectoryError(f"no run directory {request.path}")
    with ExitStack() as stack:
        checkpoint, directory, session = reopened(stack, request)
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
