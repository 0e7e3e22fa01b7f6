"""What was looked at in a point, what was found, and by which rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator
from ..point import Params, Point, max_norm
from ..status import Status


class StopRules(Protocol):
    """The ``stop`` section of a config."""

    max_iterations: int
    max_seconds: float | None
    gradient: float
    decrement: float | None
    relative_loss: float
    patience: int


@dataclass(frozen=True)
class StopState:
    """Where a fit stands when it asks for a verdict.

    ``stalled`` says that the optimizer lowers the loss no further to speak of: only then does a boundary decide, and,
    where it is ``rounding`` that holds it up, the decrement; before, the fit can still go on. ``final`` says that the
    fit ends here whatever is found, ``judged`` that its optimizer refuses steps by the loss.
    """

    stalled: bool = False
    rounding: bool = False
    final: bool = False
    judged: bool = False

    @property
    def ends(self) -> bool:
        """Whether nothing better can be hoped for: a point that is refuted ends the fit."""
        return self.stalled or self.final


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``ok`` None: it could not be checked, and ``message`` says why."""

    name: str
    ok: bool | None
    value: float | None
    message: str


@dataclass(frozen=True)
class Finding:
    """What one question of the verdict found: what was looked at, how the fit ends for it, what is to be said of it.

    ``nearly`` says that a minimum is there, within the decrement's tolerance, and only the gradient is still too large.
    ``lower`` is a place that is lower, off the way of the optimizer: the fit can go on from there.
    """

    check: Check | None = None
    status: Status | None = None
    remark: str | None = None
    nearly: bool = False
    lower: Params | None = None


@dataclass
class Verdict:
    """``status`` is set when the point settles how the fit ends; None when the fit should go on."""

    status: Status | None
    gradient_norm: float
    loss: float
    nearly: bool = False
    """See ``Finding``."""
    checks: list[Check] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    point: Point | None = None
    """What was judged, or where the answer was found."""
    traced: float | None = None
    """The loss at what was judged, where the answer was found elsewhere."""
    hessian: Operator | MatrixFree | None = None
    """The Hessian over all parameters there, where it was looked at."""
    held: Tensor | None = None
    """Which numbers were held when the rest was found to be a minimum: on an edge, far out, or never read; (d,)."""
    limiting: Params = field(default_factory=dict)
    """Name → which values of a site run to a limit, and so have no error; booleans in its shape."""
    lower: Params | None = None
    """See ``Finding``."""

    def settle(self, point: Point, hessian: Operator, held: Tensor) -> None:
        """Take the point where the answer was found for the one that was judged."""
        self.traced = self.loss
        self.point, self.hessian, self.held, self.loss = point, hessian, held, point.value
        self.gradient_norm = max_norm(point.gradient())

    def take(self, finding: Finding) -> None:
        """Gather the answer to one more question; a later status stands."""
        self.checks += [finding.check] if finding.check is not None else []
        self.remarks += [finding.remark] if finding.remark is not None else []
        self.status = finding.status or self.status
        self.nearly |= finding.nearly
        self.lower = finding.lower or self.lower
