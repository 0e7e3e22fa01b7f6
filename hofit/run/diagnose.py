"""A diagnosis of a fit that has ended, from its newest checkpoint to diagnose.json."""

from __future__ import annotations

from contextlib import ExitStack

from ..errors import RunDirectoryError
from ..record import DIAGNOSIS
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
        found = diagnose_fit(session.objective, snapshot.params, session.config.stop, draws, seed)
        about = {
            "iteration": snapshot.loop.iteration,
            "versions": versions(),
            "model_sha256": session.provenance.model_files,
            "data_sha256": session.provenance.data_sha256,
        }
        try:
            directory.write_json(DIAGNOSIS, found.to_plain() | about)
        except OSError as error:
            raise RunDirectoryError(f"{directory.path / DIAGNOSIS} cannot be written: {error.strerror}") from error
        return found
