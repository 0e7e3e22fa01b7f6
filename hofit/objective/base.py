"""What a fit asks of an objective, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..curvature.expansion import Expansion
from ..linear.operator import Factor
from ..model.program import Program
from ..point import Params, Point, Source
from .leaves import Leaves
from .stacked import Stacked


@dataclass(frozen=True, eq=False)
class Posterior:
    """Of what is integrated out, at one point: u | θ ~ N(û + Sᵀ (θ − θ̂), H⁻¹), on the unconstrained scale.

    ``expansion`` is that of −log p(data, u, …; θ) at û and ``factor`` that of H, its Hessian over u; ``jacobian`` names
    the latents whose transforms count in it. ``fitted`` is the log of the integral over u by the fit's own method,
    where that is not Laplace's. ``sensitivity`` is S = dû/dθ where it is known, and ``find_sensitivity`` computes it
    where it is not.
    Shapes: u (d,), θ (p,), S (p, d).
    """

    names: list[str]
    jacobian: frozenset[str]
    expansion: Expansion
    factor: Factor
    fitted: float | None
    sensitivity: Tensor | None
    find_sensitivity: Callable[[], Tensor]


Keeper = Callable[[Path, int], list[dict[str, Any]]]
"""Writes files into a folder, of an iteration: what a checkpoint must say of each, its name and digest among it."""


class Objective(Source, Protocol):
    """A loss over the parameters that are optimised. Use inside ``program.scope()``.

    What is answered here is the answer of most.
    """

    type: str
    program: Program
    leaves: Leaves
    jacobian: frozenset[str] = frozenset()
    """Names of the latents whose transforms add their log|det|: their density is that of the unconstrained scale."""
    integrated: Sequence[str] = ()
    """Names of the latents that are integrated out by their Gaussian at every point."""
    in_pieces: bool = False
    """Whether ``program`` has but a part of the data that the loss is of."""
    without_mode: str = ""
    """Why the end of a fit is no mode of a density, as a sentence; empty where it is one."""

    @property
    def unit(self) -> float:
        """What one observation weighs in the loss: see ``Program.unit``."""
        return self.program.unit

    @property
    def stochastic(self) -> bool:
        """Whether the loss is an estimate."""
        return False

    @property
    def settles(self) -> bool:
        """Whether the loss on the full plates is no estimate, so that a verdict can be taken on it."""
        return True

    @property
    def is_likelihood(self) -> bool:
        """Whether minus the loss is the log likelihood: no latent that is optimised has a prior."""
        latents = [site for site in self.sites.values() if site.role == "latent"]
        return all(site.flat and (site.constraint == "real" or site.name not in self.jacobian) for site in latents)

    def facts(self, loss: float) -> dict[str, float]:
        """What fit.json holds of this kind of objective alone, of the loss at the end."""
        return {}

    def posterior(self, point: Point) -> Posterior | None:
        """Of what is integrated out, at a point of this objective; None where nothing is. Raises: NoMode, ModelError.

        To be asked before anything else is evaluated: it may be known still.
        """
        return None

    def describe_inner(self, point: Point) -> str | None:
        """The structure of the Hessian of what is integrated, at a point of this objective; None where nothing is."""
        return None

    def log_evidence(self, loss: float, factor: Factor, size: int) -> float | None:
        """log p(data), by Laplace's method, where the loss is over all that is unknown and all of it is latent.

        ``factor`` is that of the Hessian over the ``size`` numbers.
        """
        return None

    def remarks(self, params: Params) -> list[str]:
        """What is to be said of the loss itself at the end of a fit."""
        return []

    def set_capture(self, mode: str) -> None:
        """Say whether evaluations may be replayed without the model, once that is proved to be the same: ``auto`` or
        ``off``."""
        return None

    def stacked(self) -> Stacked | None:
        """The same objective of many data sets at once; None where there is no such thing."""
        return None

    @property
    def replays(self) -> bool:
        """Whether points are had without the model by now."""
        return False

    def check(self, point: Point) -> None:
        """Hold a point that was replayed against the model. Raises: ModelError where they differ."""
        return None

    def start(self) -> Params:
        """The start point: what the model's own starts and the config's make of each parameter."""

    def resume_from(self, params: Params, inner: Params) -> None:
        """Hear what was found inside the point at ``params``, before the process ended: see ``Point.inner``."""
        return None

    def keeper(self, point: Point) -> Keeper | None:
        """How what was found inside a point is kept beside a checkpoint, where it is with pieces of the data."""
        return None

    def take_start_loss(self) -> float | None:
        """The loss at the start as ``at_full`` has it, where it is known already; asked once."""
        return None

    def at_full(self, params: Params) -> Point:
        """The loss on the full plates, with distributions validated: what a verdict is taken on."""

    def values(self, params: Params) -> Params:
        """The constrained value of every site, fixed and integrated ones included."""

    def explain_non_finite(self, params: Params) -> str:
        """Which sites make the loss non-finite at ``params``, or why they cannot be computed."""
