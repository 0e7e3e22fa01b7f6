"""The objective `elbo`: minus the evidence lower bound, estimated by reparameterised draws of a guide."""

from __future__ import annotations

import torch

from ..errors import ModelError
from ..model.elbo import ElboProgram
from ..model.sites import InfeasibleError
from ..point import Params
from .density import DensityObjective
from .stacked import Stacked


class ElboObjective(DensityObjective):
    """−E[log p(data, latents; parameters) − log q(latents; parameters)] over the guide's q, every constant included.

    With fixed draws the mean over them is the loss, deterministic and differentiable (Giordano, Ingram & Broderick
    2024, JMLR 25(18)): a verdict says that it is at a minimum. Else a loss is an estimate, and nothing can say so.
    """

    without_mode = "an elbo fit has a guide instead of a mode"

    def __init__(self, program: ElboProgram) -> None:
        super().__init__(program, "elbo")
        self._elbo = program

    def set_capture(self, mode: str) -> None:
        return None  # each evaluation draws

    def stacked(self) -> Stacked | None:
        return None

    @property
    def stochastic(self) -> bool:
        return not self.settles or super().stochastic

    @property
    def settles(self) -> bool:
        return self._elbo.fixed_seed is not None

    @property
    def is_likelihood(self) -> bool:
        return False

    def facts(self, loss: float) -> dict[str, float]:
        return {"elbo": -loss}

    def remarks(self, params: Params) -> list[str]:
        """How far the loss is to be believed: by draws that the fit has not seen."""
        self.leaves.write(params)
        try:
            losses = -self._elbo.bounds()
        except (InfeasibleError, ModelError):
            return super().remarks(params)
        if not bool(torch.isfinite(losses).all()):
            return super().remarks(params)
        mean, error = float(losses.mean()), float(losses.std()) / len(losses) ** 0.5
        draws = self._elbo.particles
        kind = "fixed draws: the loss is over" if self.settles else "stochastic: the loss of an iteration is over"
        over = f"over {len(losses)} others it is {mean:.6g} (standard error {error:.2g})"
        return [f"{kind} {draws} draw{'s' if draws > 1 else ''} of the guide; {over}", *super().remarks(params)]
