"""A diagnosis of a fit that has ended, from its newest checkpoint to diagnose.json."""

from __future__ import annotations

from contextlib import ExitStack

from ..errors import refusals_told
from ..record import DIAGNOSIS
from ..uncertainty.diagnosis import Diagnosis, diagnose_fit
from .directory import check_is_directory
from .environment import versions
from .resume import ResumeRequest, reopened


def run_diagnose(request: ResumeRequest, draws: int, seed: int) -> Diagnosis:
    """Everything from the newest checkpoint to diagnose.json."""
    check_is_directory(request.path)
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
        with refusals_told(directory.path / DIAGNOSIS):
            directory.write_json(DIAGNOSIS, found.to_plain() | about)
        return found
