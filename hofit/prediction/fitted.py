"""A run opened again at its estimate, with the Gaussian there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ..model.program import Program
from ..point import Params, Point
from ..run.resume import ResumeRequest, reopened
from ..run.session import Session
from ..uncertainty.errors import gaussian_of
from ..uncertainty.gaussian import Gaussian
from ..verdict.checks import Verdict
from ..verdict.judge import judge_end


@dataclass(frozen=True)
class Fitted:
    """A session whose leaves hold the estimate, modes of what is integrated included.

    ``gaussian`` is None where the fit has none: ``remarks`` say why. ``point`` is where the leaves stand, as the
    ``verdict`` on it was taken.
    """

    session: Session
    gaussian: Gaussian | None
    remarks: list[str]
    verdict: Verdict
    point: Point

    @property
    def program(self) -> Program:
        return self.session.program

    def write(self, params: Params) -> None:
        """Let the leaves hold these unconstrained values."""
        self.session.objective.leaves.write(params)


@contextmanager
def fitted(request: ResumeRequest) -> Iterator[Fitted]:
    """The run of a directory, locked, at the estimate of its newest checkpoint.

    Raises: CheckpointError where model or data are not those of the run; HofitError.
    """
    with ExitStack() as stack:
        checkpoint, _, session = reopened(stack, request)
        objective, snapshot = session.objective, checkpoint.snapshot
        verdict = judge_end(objective, snapshot.params, session.config.stop)
        converged = verdict.status is not None and verdict.status.converged and verdict.point is not None
        point = verdict.point if converged and verdict.point is not None else objective.at(snapshot.params)
        gaussian, remarks = None, ["standard errors: none, the fit has not converged"]
        if verdict.status is not None and converged:
            gaussian, remarks = gaussian_of(objective, verdict.status, verdict)
        found = Fitted(session, gaussian, remarks, verdict, point)
        found.write({**point.params, **point.inner})
        yield found
