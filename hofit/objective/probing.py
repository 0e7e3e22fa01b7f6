"""How far a marginal fit may be off because the log determinant was estimated by probes.

With fixed probes the loss is a function of its own, ½ log det off by a little everywhere. The probes are independent:
how they differ tells by how much, in the loss, and, from the gradient g of each group of them, in the estimates, which
move by −H⁻¹ (g − the mean of all).

Source: Shapiro, Dentcheva & Ruszczyński (2009), "Lectures on Stochastic Programming", section 5.1 (of sample average
approximation).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.expansion import Expansion
from ..curvature.parts import SparseParts
from ..linear.stochastic import StochasticFactor

UNSETTLED = 1e-4
"""Residual of Lanczos' method beyond which its bias may be seen beside the probes' own error."""


@dataclass(frozen=True)
class ProbingError:
    """Standard errors by so many ``probes``: of the ``loss``; of the ``estimates``, the largest, in units of their own
    standard errors, and the name of that; of the integrated latents' standard errors, relative, the largest.

    ``estimates`` is None where the curvature of the loss is not positive. ``residual`` is that of Lanczos' method.
    """

    probes: int
    loss: float
    estimates: tuple[float, str] | None
    spread: float
    residual: float

    def remark(self, integrated: str) -> str:
        """A sentence for the end of a fit."""
        said = [
            f"stochastic: log-determinant by {self.probes} probes (`probes:` sets how many)",
            f"the loss has a standard error of {self.loss:.2g} by that",
        ]
        if self.estimates is not None:
            said.append(
                f"estimates of {self.estimates[0]:.2g} of their own standard errors at most ({self.estimates[1]})"
            )
        said.append(f"standard errors of {integrated} are estimates, within about {100 * self.spread:.2g} %")
        said.append(f"no factor proves that the curvature in {integrated} is positive, no Ritz value denies it")
        if self.residual > UNSETTLED:
            said.append(f"not settled: Lanczos' method has a residual of {self.residual:.2g} left, and is biased by it")
        return "; ".join(said)

    def facts(self) -> dict[str, float]:
        """What fit.json holds."""
        found = {"logdet_probes": float(self.probes), "loss_error": self.loss}
        return found if self.estimates is None else {**found, "estimates_error": self.estimates[0]}


def probing_error(
    expansion: Expansion, factor: StochasticFactor, outer: Coordinates, slope: Tensor, hessian: Tensor
) -> ProbingError:
    """At a point where the ``hessian`` of the loss (p, p) is known. ``slope`` is ∂f/∂u (d,), with its graph."""
    estimate, count = factor.estimate, factor.sparsity.probes
    loss = 0.5 * float(estimate.logarithms.std()) / count**0.5
    gradients = _by_group(expansion, factor, outer, slope)
    estimates = None
    lower, refused = torch.linalg.cholesky_ex((hessian + hessian.T) / 2)
    if not int(refused):
        inverse = torch.cholesky_inverse(lower)
        moves = (gradients - gradients.mean(0)) @ inverse
        groups = len(moves)
        off = (moves.square().sum(0) / (groups * (groups - 1)) / inverse.diagonal()).sqrt()
        estimates = float(off.max()), outer.call(int(off.argmax()))
    return ProbingError(count, loss, estimates, factor.spread(), estimate.residual)


def _by_group(expansion: Expansion, factor: StochasticFactor, outer: Coordinates, slope: Tensor) -> Tensor:
    """The gradient of ½ log det along the path of the mode, as each group of probes has it; shape (G, p)."""
    parts, u = expansion.parts, expansion.coordinates
    assert isinstance(parts, SparseParts)
    changes = [expansion.gradient(0.5 * (parts.values * one).sum()) for one in factor.estimate.slopes]
    moves = factor.solve(torch.stack([u.flatten(change) for change in changes]))
    found = []
    for change, move in zip(changes, moves, strict=True):
        back = expansion.gradient((slope * move).sum())
        found.append(outer.flatten(change) - outer.flatten(back))
    return torch.stack(found).detach()
