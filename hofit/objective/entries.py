"""The entries of the log density as some of its unknowns move, and which row each entry depends on.

An entry is an observation, or a row of a latent: what the log density is the sum of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..curvature.batching.program import Batch
from ..curvature.layout import Rows
from ..differences import central
from ..errors import ModelError
from ..internals import lacks_derivative
from ..linear.operator import MEMORY_BUDGET
from ..model.program import Program
from ..point import Params
from .batched import AGREEMENT, FEWER, loops, recorded
from .leaves import Leaves

DIGITS = 64
"""A row's number is read off by digits to this base, so that it is found in single precision too."""

ATTEMPTS = 3
"""Places at which the derivatives are taken: one may vanish at the mode."""

CANCELLED = 0.4
"""The power of eps that is the part of an entry's largest derivative below which another of it may be rounding; also
how far, relative to it, a digit may lie from a whole number: 5e-7, or 2e-3 in single precision."""


DIFFERENCED = 1e-4
"""The same of derivatives by differences, which err by about 1e-9 of the largest."""


class NotByRow(Exception):
    """It cannot be told which row an entry depends on, or it depends on several; the message is a sentence."""


class Entries:
    """The entries as functions of the unconstrained values of some sites, the leaves holding all others.

    They can be differentiated, and be had at many places in one batch, where the sites are latents; parameters are
    written to their leaves.

    Args: jacobian: the latents whose transforms count.
    """

    def __init__(self, program: Program, leaves: Leaves, jacobian: Collection[str]) -> None:
        self._program, self._leaves, self._jacobian = program, leaves, jacobian
        self._batched, self._differs = True, False
        self._few: Batch | None = None
        """The entries by few operations, once it was asked whether there are so few."""
        self._asked = False

    @property
    def operations(self) -> int:
        """Operations that the entries are computed by, or 0 where the model computes them."""
        return 0 if self._few is None else len(self._few.steps)

    def again(self, values: Params) -> Tensor:
        """As ``at``, by few operations where the model takes many; shape (n,). To be asked before ``at_places``."""
        found = self.at(values)
        if not self._asked:
            self._asked = True
            made = recorded(self._leaves.tensors, lambda: self.at({})) if loops(self._program) else None
            self._few = None if made is None else made[0]
        if self._few is None:
            return found
        few, holds = self._few({**self._leaves.tensors, **values})
        size = found.detach().abs().clamp_min(1.0)
        off = (few.detach() - found.detach()).abs() > AGREEMENT * torch.finfo(found.dtype).eps * size
        if not bool(holds) or bool(off.any()):
            self._few = None
        return found if self._few is None else few

    def at(self, values: Params) -> Tensor:
        """Shape (n,)."""
        latents = {name: value for name, value in values.items() if name in self._program.latents}
        parameters = {name: value for name, value in values.items() if name not in latents}
        if parameters:
            self._leaves.write(parameters)
        with self._program.substituted(latents):
            return self._program.log_density_entries(self._jacobian)

    def at_places(self, places: Tensor, coordinates: Coordinates, terms: int) -> Tensor:
        """At flat places (k, d), with about ``terms`` entries each. Shape (k, n)."""

        few = self._few
        if few is not None:

            def by_few(place: Tensor) -> tuple[Tensor, Tensor]:
                return few({**self._leaves.tensors, **coordinates.unflatten(place)})

            chunk = max(1, MEMORY_BUDGET // (8 * max(1, terms) * FEWER))
            entries, holds = torch.vmap(by_few, chunk_size=chunk)(places)
            if bool(holds.all()):
                return entries

        def at(place: Tensor) -> Tensor:
            return self.at(coordinates.unflatten(place))

        if self._batched:
            try:
                chunk = max(1, MEMORY_BUDGET // (8 * max(1, terms)))
                found: Tensor = torch.vmap(at, chunk_size=chunk)(places)
                return found
            except (RuntimeError, ModelError):  # the model computes in a way that cannot be batched
                self._batched = False
        return torch.stack([at(place) for place in places.unbind()])

    def row_of_each(self, group: Rows, mode: Tensor, coordinates: Coordinates, terms: int) -> Tensor:
        """Which row of a group each entry depends on; −1 where on none. Shapes: mode (d,) → (n,).

        Along random sizes, once as they are and once times a digit of the row's number, an entry's two derivatives have
        the digit as their ratio.
        Raises: NotByRow.
        """
        count = group.index.shape[0]
        powers = [1]
        while powers[-1] * DIGITS < count:
            powers.append(powers[-1] * DIGITS)
        digits = [torch.arange(count) // power % DIGITS + 1 for power in powers]
        generator = torch.Generator().manual_seed(13)
        slopes = mode.new_zeros(ATTEMPTS, 1 + len(digits), terms)
        for attempt in range(ATTEMPTS):
            noise = torch.randn(mode.shape, generator=generator, dtype=torch.float64).to(mode)
            along = self._derivative_at(mode + 0.3 * attempt * noise, coordinates)
            size = 0.5 + torch.rand(group.index.shape, generator=generator, dtype=torch.float64)
            for number, digit in enumerate([torch.ones(count), *digits]):
                direction = torch.zeros_like(mode)
                direction[group.index] = (size * digit[:, None]).to(mode)
                slopes[attempt, number] = along(direction)
        tolerance = torch.finfo(mode.dtype).eps ** CANCELLED
        if self._differs:
            tolerance = max(tolerance, DIFFERENCED)
        slopes = torch.where(torch.isfinite(slopes).all(1, keepdim=True), slopes, 0.0)
        plain = slopes[:, 0]
        # A slope that cancels at one place, as of a count at its own mean, is rounding and tells of no row.
        seen = plain.abs() > tolerance * plain.abs().amax(0)
        row = torch.zeros(terms, dtype=torch.long)
        for power, times in zip(powers, slopes.unbind(1)[1:], strict=True):
            ratio = torch.where(seen, times / torch.where(seen, plain, 1.0), 0.0)
            digit = ratio.round().amax(0)
            if bool((seen & ((ratio - digit).abs() > tolerance * digit)).any()):
                raise NotByRow(f"an observation depends on several rows of {group.names[0]!r}")
            row += power * (digit.long() - 1)
        return torch.where(seen.any(0), row, -1)

    def _derivative_at(self, place: Tensor, coordinates: Coordinates) -> Callable[[Tensor], Tensor]:
        """The derivative of each entry along a direction: (d,) → (n,). By differences where torch cannot give it."""
        start = place.detach().requires_grad_()
        found = self.at(coordinates.unflatten(start))
        dual = torch.zeros_like(found).requires_grad_()
        (back,) = torch.autograd.grad(found, start, dual, create_graph=True, materialize_grads=True)

        def along(direction: Tensor) -> Tensor:
            if not back.requires_grad:
                return torch.zeros_like(found)
            try:
                return torch.autograd.grad(back, dual, direction, retain_graph=True, materialize_grads=True)[0]
            except RuntimeError as error:
                if not lacks_derivative(error):
                    raise
                self._differs = True  # it is the derivative of a backward, and torch lacks that of some
            with torch.no_grad():
                there = partial(self._beside, place, direction, coordinates)
                return central(there, 1.0 / float(direction.abs().max()))

        return along

    def _beside(self, place: Tensor, direction: Tensor, coordinates: Coordinates, t: float) -> Tensor:
        return self.at(coordinates.unflatten(place + t * direction))


def sums_by_row(change: Tensor, base: Tensor, rows: Tensor, count: int) -> Tensor:
    """How much the entries of each row change. Shapes: change (k, n), base (n,), rows (n,) → (k, count).

    Raises: NotByRow where an entry changes that was said to depend on no row.
    """
    touched = rows >= 0
    rest, size = change[:, ~touched].detach().abs(), base[~touched].detach().abs().clamp_min(1.0)
    if bool((rest > torch.finfo(base.dtype).eps ** 0.5 * size).any()):
        raise NotByRow("an observation depends on rows where its derivatives do not show it")
    return change.new_zeros(len(change), count).index_add(1, rows[touched], change[:, touched])
