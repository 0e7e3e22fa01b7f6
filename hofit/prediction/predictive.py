"""A run of the model on other data: each latent at its estimate or, where the data are new to it, of the population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..internals import Subsample
from ..model.discovery import what_it_is
from ..model.plates import full_plates
from ..model.program import Program
from ..model.sites import InfeasibleError, SiteMessenger


@dataclass(frozen=True)
class Change:
    """What is other than in the fit: pairs of counts, before and now, of levels and of rows; None for the same data."""

    levels: Sequence[tuple[int, int]]
    rows: tuple[int, int]


@dataclass
class Fresh:
    """Values of a latent that the fit does not know: ``offset`` (n,) moves them from the middle of their population.

    ``covariance`` is that of the population, (n,) where they are independent, else (…, k, k) a block each.
    """

    offset: Tensor
    covariance: Tensor


def responses(arguments: Mapping[str, Any], observed: Mapping[str, tuple[Any, Tensor]]) -> dict[str, str]:
    """Argument → the site that observes it as it is."""
    found = {}
    for argument, value in arguments.items():
        for name, (_, seen) in observed.items():
            if isinstance(value, Tensor) and value.shape == seen.shape and torch.equal(value.to(seen), seen):
                found[argument] = name
    return found


class Predictive(SiteMessenger):
    """Runs the model with what the leaves hold.

    Args:
        change: how the data differ from the fit's.
        anew: latents that are of their population alone, although the fit has them.
        middle: whether what is new stands in the middle of its population, else it is drawn.
        observe: whether observed sites keep their values, else they are drawn.
    """

    def __init__(
        self,
        program: Program,
        change: Change | None = None,
        anew: frozenset[str] = frozenset(),
        middle: bool = False,
        observe: bool = True,
    ) -> None:
        super().__init__()
        self.program, self.change, self.anew = program, change, anew
        self.middle, self.observe = middle, observe
        self.observed: dict[str, tuple[Any, Tensor]] = {}
        """Observed site → its distribution, and its value: as given, or drawn."""
        self.fresh: dict[str, Fresh] = {}

    def on(self, arguments: Mapping[str, Any]) -> Predictive:
        """Run it. Raises: ModelError where the model cannot be run on these."""
        with full_plates():
            try:
                self.run(self.program.model, arguments)
            except InfeasibleError as error:
                raise ModelError(f"the model cannot be run on these data: {error}") from error
        return self

    def _pyro_sample(self, msg: Any) -> None:
        self.current = name = msg["name"]
        fn = msg["fn"]
        if isinstance(fn, Subsample):
            return
        latent = self.program.latents.get(name)
        if latent is not None:
            known = latent.held if latent.held is not None else latent.transform(latent.leaf)
            msg["value"] = self._of_population(name, fn) if name in self.anew else self._value(msg, known)
        elif msg["is_observed"] and what_it_is(msg) == "is observed":
            if not self.observe:
                msg["value"] = self._drawn(name, fn)
            self.observed[name] = (fn, msg["value"])

    def _value(self, msg: Any, known: Tensor) -> Tensor:
        """What the fit knows of a latent, and what its population has for the rest."""
        fn, name = msg["fn"], msg["name"]
        shape = fn.batch_shape + fn.event_shape
        of_rows = any(self._is_of_rows(name, frame) for frame in msg["cond_indep_stack"] if frame.vectorized)
        if shape == known.shape and not of_rows:
            return known
        if not of_rows:
            self._check_growth(name, known.shape, shape, len(fn.event_shape))
        value = self._of_population(name, fn)
        if not of_rows:
            value = value.clone()
            value[tuple(slice(size) for size in known.shape)] = known
        return value

    def _is_of_rows(self, name: str, frame: Any) -> bool:
        """Whether a plate is one of the table's rows, all of which are new, and not of levels."""
        if self.change is None:
            return False
        sizes = {plate.name: plate.size for plate in self.program.sites[name].plates}
        pair = (sizes.get(frame.name, frame.size), frame.size)
        return pair == self.change.rows and pair not in self.change.levels

    def _check_growth(self, name: str, known: Any, shape: Any, event_dims: int) -> None:
        grown = [(before, now) for before, now in zip(known, shape, strict=False) if before != now]
        levels = [] if self.change is None else list(self.change.levels)
        if len(known) != len(shape) or any(pair not in levels or pair[1] < pair[0] for pair in grown):
            raise ModelError(
                f"the latent {name!r} has shape {tuple(shape)} with these data and {tuple(known)} in the fit, which is "
                "no growth by new levels: it can be predicted on the fit's own rows only (leave --data out)"
            )
        if event_dims and known[-event_dims:] != shape[-event_dims:]:
            raise ModelError(
                f"the latent {name!r} has no plate for its levels, so that new ones cannot be told from the others: "
                "put it into a plate, or leave rows with new levels out"
            )

    def _of_population(self, name: str, fn: Any) -> Tensor:
        if not self.middle:
            return self._drawn(name, fn)
        try:
            mean: Tensor = fn.mean.expand(fn.batch_shape + fn.event_shape)
            blocks = getattr(fn, "covariance_matrix", None) if len(fn.event_shape) == 1 else None
            covariance = fn.variance.expand(mean.shape).reshape(-1) if blocks is None else blocks
        except (NotImplementedError, AttributeError) as error:
            kind = type(fn).__name__
            raise ModelError(f"the population of {name!r} ({kind}) has no known mean: new levels need one") from error
        offset = torch.zeros_like(mean, requires_grad=True)
        self.fresh[name] = Fresh(offset, covariance.detach())
        return mean + offset

    def _drawn(self, name: str, fn: Any) -> Tensor:
        try:
            with torch.no_grad():
                value: Tensor = fn.sample()
        except (NotImplementedError, AttributeError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"{name!r} ({type(fn).__name__}) cannot be drawn, for its distribution is shaped by factors or cannot "
                "be sampled: keep it at its estimate (hofit simulate --conditional), or predict the fit's own rows"
            ) from error
        return value
