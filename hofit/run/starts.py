"""Where the fits of ``starts`` begin: the config's own start, then draws from the prior, jittered starts, and for
mixtures and hidden Markov models locations that are spread over the data.

Start k is the same whatever the number of starts, so that a fit with more of them tries the same ones first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import ModelError
from ..model.locations import locations, placed
from ..model.randomness import random_state_kept, set_seed
from ..point import Params
from .session import Session

RADII = (0.5, 1.0, 2.0)
"""How far jitter goes, in turn: standard deviations on the unconstrained scale, in units of the start's size."""

STRIDE = 7919
"""Between the seeds of two starts: a prime, so that those of nearby seeds are not each other's."""


@dataclass(frozen=True)
class Start:
    """Start ``number``, from 0, with the leaves where it begins; ``kind`` is own, prior, jitter or spread."""

    number: int
    kind: str
    params: Params


class Starts:
    """The starts of a session that stands at its own."""

    def __init__(self, session: Session) -> None:
        program = session.program
        self._session, self._program = session, program
        self._leaves = session.objective.leaves.tensors
        self._own: Params = {name: leaf.detach().clone() for name, leaf in self._leaves.items()}
        self._free = [name for name in session.objective.start() if name in self._own]
        sites = program.sites
        self._latents = [name for name in self._free if sites[name].role == "latent"]

    @cached_property
    def kinds(self) -> list[str]:
        """Of the starts after the own one, in turn."""
        spread = ["spread"] if self._locations else []
        return [*spread, *(["prior"] if self._latents else []), "jitter"]

    @cached_property
    def _locations(self) -> Mapping[str, Tensor]:
        if self._session.config.objective.type == "elbo":  # what is optimised are the parameters of the guide
            return {}
        with self._at_own_start():
            try:
                return locations(self._program, self._free)
            except ModelError:  # the model does not run with one value of its discrete latents
                return {}

    def start(self, number: int) -> Start:
        """Start ``number``, from 0."""
        if number == 0:
            return Start(0, "own", dict(self._own))
        kind = self.kinds[(number - 1) % len(self.kinds)]
        seed = (self._session.config.seed + STRIDE * number) % 2**32
        generator = torch.Generator().manual_seed(seed)
        radius = RADII[(number - 1) // len(self.kinds) % len(RADII)]
        moved: Params = {}
        if kind == "spread":
            with self._at_own_start():
                moved = placed(self._program, self._locations, generator)
        elif kind == "prior":
            moved = self._drawn(seed)
        if kind != "spread":
            moved |= {name: self._jittered(name, radius, generator) for name in self._free if name not in moved}
        return Start(number, kind, {**self._own, **moved})

    def _drawn(self, seed: int) -> Params:
        """A draw of each latent from its prior, given the parameters; not of those that cannot be drawn."""
        held = {name: self._program.constrained(name, value) for name, value in self._held().items()}
        with self._at_own_start(), random_state_kept():
            set_seed(seed)
            try:
                drawn, _ = self._program.drawn_again("sample", held)
            except ModelError:  # a draw that the model cannot go on from
                return {}
        return {
            n: drawn[n] for n in self._latents if n in drawn and bool(torch.isfinite(drawn[n]).all() and drawn[n].any())
        }

    def _held(self) -> Params:
        program = self._program
        fixed = [name for name, site in program.sites.items() if site.role == "fixed" and name in program.latents]
        return {name: program.unconstrained(name).detach() for name in fixed}

    def _jittered(self, name: str, radius: float, generator: torch.Generator) -> Tensor:
        own = self._own[name]
        noise = torch.randn(own.shape, generator=generator, dtype=torch.float64).to(own)
        return own + radius * own.abs().clamp_min(1.0) * noise

    @contextmanager
    def _at_own_start(self) -> Iterator[None]:
        """Inside, the leaves are those of the own start; the model may be run, which may write them."""
        leaves = self._session.objective.leaves
        leaves.write(self._own)
        try:
            yield
        finally:
            leaves.invalidate()
            leaves.write(self._own)
