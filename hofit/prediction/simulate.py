"""Data drawn from a fit: the observed sites of its own rows, given the effects that it found or with new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.schema import Data
from ..errors import HofitError
from ..model.randomness import random_state_kept, set_seed
from ..model.table import Table
from ..model.text import Column, taken
from ..run.resume import ResumeRequest
from .fitted import Fitted, fitted
from .new_data import own_rows
from .predictive import Predictive, responses


@dataclass(frozen=True)
class Simulation:
    """Observed site → what was drawn for it; ``arguments`` are the model's own with these in their places.

    ``table`` is the fit's table with the drawn columns in it, None where the arguments come from none.
    """

    drawn: dict[str, Tensor]
    arguments: dict[str, Any]
    table: Table | None

    def columns(self) -> dict[str, Column]:
        """The table's; else one for each drawn site, or each number of its rows. Raises: HofitError if they differ."""
        if self.table is not None:
            return dict(self.table.columns)
        found: dict[str, Column] = {}
        for name, value in self.drawn.items():
            rows = value.reshape(len(value) if value.dim() else 1, -1)
            several = rows.shape[1] > 1
            found |= {f"{name}[{k}]" if several else name: rows[:, k].numpy() for k in range(rows.shape[1])}
        if len({len(column) for column in found.values()}) > 1:
            raise HofitError("the observed sites differ in length, and the data come from no table")
        return found


def run_simulate(run: ResumeRequest, seed: int = 0, conditional: bool = False) -> Simulation:
    """One data set like that of the fit, at its estimates.

    Args: conditional: whether integrated latents keep their modes; else they are drawn from their distributions.
    Raises: HofitError.
    """
    with fitted(run) as fit:
        simulator = Simulator(fit, conditional)
        drawn = simulator.draw(seed)
        arguments = simulator.arguments(drawn)
        return Simulation(drawn, arguments, _table(fit.session.config.data, fit.program.arguments, arguments))


class Simulator:
    """Draws data from a fit, as often as it is asked; the leaves hold the estimate at each time.

    Args: conditional: see ``run_simulate``. Raises: HofitError where nothing is observed; ModelError.
    """

    def __init__(self, fit: Fitted, conditional: bool = False) -> None:
        self.program = fit.program
        kept = set(self.program.discrete)
        self._anew = frozenset() if conditional else frozenset(fit.session.objective.integrated) - kept
        with torch.no_grad():
            self.given = Predictive(self.program).on(self.program.arguments).observed
        without_mode = fit.session.objective.without_mode
        if not self.given and without_mode:
            raise HofitError(f"nothing to simulate: {without_mode}, and the guide alone was fitted, which has no data")
        if not self.given:
            raise HofitError("nothing to simulate: the model observes no site (pyro.factor has no distribution)")

    def draw(self, seed: int) -> dict[str, Tensor]:
        """Observed site → data drawn for it. Raises: ModelError."""
        with torch.no_grad(), random_state_kept():
            set_seed(seed)
            made = Predictive(self.program, anew=self._anew, observe=False).on(self.program.arguments).observed
        return {name: value.detach().to(self.given[name][1].dtype) for name, (_, value) in made.items()}

    def arguments(self, drawn: Mapping[str, Tensor]) -> dict[str, Any]:
        """The model's own, with what was drawn in the place of what is observed as it is."""
        own = self.program.arguments
        return {**own, **{argument: drawn[name] for argument, name in self.responses.items()}}

    @cached_property
    def responses(self) -> dict[str, str]:
        """Argument → the site that observes it."""
        return responses(self.program.arguments, self.given)


def _table(data: Data, before: dict[str, Any], now: dict[str, Any]) -> Table | None:
    table = own_rows(data)
    if table is None:
        return None
    columns = dict(table.columns)
    for argument, request in data.columns.items():
        if now[argument] is before[argument]:
            continue
        if isinstance(request.column, list):
            raise HofitError(f"the response {argument!r} is made of several columns: it has none to be written to")
        numbers = now[argument].numpy()
        if request.codes:
            labels = columns[request.column]
            place_of = np.unique(before[argument].numpy(), return_index=True)[1]
            columns[request.column] = taken(labels, place_of[numbers])
        else:
            kind = columns[request.column].dtype  # type: ignore[union-attr]  # text is always coded
            columns[request.column] = numbers.astype(kind) if kind.kind in "iub" else numbers
    if all(now[argument] is before[argument] for argument in data.columns):
        return None  # what is observed was made of several columns
    return Table(table.path, columns)
