"""What can be profiled: one number as a smooth function of the unconstrained numbers, with its derivatives.

A parameter's number under an elementwise transform is one unconstrained number, which can simply be held. All else is
a function of several: an entry of a simplex, the standard deviation that a Cholesky factor makes, a
`pyro.deterministic` site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from ..coordinates import Coordinates
from ..record import labelled


@dataclass(frozen=True)
class Derivatives:
    """Of a quantity at one place. Shapes: gradient (d,), hessian (d, d)."""

    value: float
    gradient: Tensor
    hessian: Tensor


class Quantity(Protocol):
    """``name`` and ``index`` as in estimates.csv; values lie between ``lower`` and ``upper``."""

    @property
    def name(self) -> str: ...
    @property
    def index(self) -> str: ...
    @property
    def lower(self) -> float: ...
    @property
    def upper(self) -> float: ...

    def value(self, flat: Tensor) -> float:
        """Shapes: (d,) → a number; nan where it has none."""


def label_of(quantity: Quantity) -> str:
    """As the user writes it: ``tau`` or ``beta[3]``."""
    return labelled(quantity.name, quantity.index)


@dataclass(frozen=True, eq=False)
class Number:
    """One number of a site whose transform is elementwise: it is held by holding ``place`` of the flat vector."""

    name: str
    index: str
    lower: float
    upper: float
    place: int
    entry: int
    """Where it stands in its site, unrolled."""
    coordinates: Coordinates
    transform: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]

    def value(self, flat: Tensor) -> float:
        return float(self._site(flat).reshape(-1)[self.entry])

    def slope(self, flat: Tensor) -> float:
        """d value / d the unconstrained number."""
        leaf = flat.detach().clone().requires_grad_(True)
        found = torch.autograd.grad(self._site(leaf).reshape(-1)[self.entry], leaf, allow_unused=True)[0]
        return 0.0 if found is None else float(found[self.place])

    def placed(self, flat: Tensor, target: float) -> Tensor | None:
        """The flat vector with the number at a value; None where no finite one is there."""
        value = self._site(flat).detach().clone()
        value.view(-1)[self.entry] = target
        with torch.no_grad():
            number = self.inverse(value).reshape(-1)[self.entry]
        if not bool(torch.isfinite(number)):
            return None
        moved = flat.clone()
        moved[self.place] = number
        return moved

    def _site(self, flat: Tensor) -> Tensor:
        return self.transform(self.coordinates.unflatten(flat)[self.name]).contiguous()


@dataclass(frozen=True, eq=False)
class Function:
    """A smooth function of the flat vector: ``of`` gives a scalar tensor with its graph."""

    name: str
    index: str
    lower: float
    upper: float
    of: Callable[[Tensor], Tensor]

    def value(self, flat: Tensor) -> float:
        with torch.no_grad():
            return float(self.of(flat.detach()))

    def gradient(self, flat: Tensor) -> tuple[float, Tensor]:
        """Shapes: (d,) → a number, (d,)."""
        leaf = flat.detach().clone().requires_grad_(True)
        value = self.of(leaf)
        if not value.requires_grad:
            return float(value), torch.zeros_like(flat)
        return float(value.detach()), torch.autograd.grad(value, leaf, allow_unused=True, materialize_grads=True)[0]

    def derivatives(self, flat: Tensor) -> Derivatives:
        """The Hessian is that of ``of``, row by row of the unconstrained numbers that it depends on."""
        leaf = flat.detach().clone().requires_grad_(True)
        value = self.of(leaf)
        zeros = flat.new_zeros(len(flat), len(flat))
        if not value.requires_grad:
            return Derivatives(float(value), zeros[0], zeros)
        (gradient,) = torch.autograd.grad(value, leaf, create_graph=True, allow_unused=True, materialize_grads=True)
        if not gradient.requires_grad:
            return Derivatives(float(value.detach()), gradient.detach(), zeros)
        units = torch.eye(len(flat), dtype=flat.dtype)
        (hessian,) = torch.autograd.grad(
            gradient, leaf, units, is_grads_batched=True, allow_unused=True, materialize_grads=True
        )
        return Derivatives(float(value.detach()), gradient.detach(), 0.5 * (hessian + hessian.T))


def spreads(covariance: Callable[[Tensor], Tensor], name: str, size: int, unit: bool) -> Sequence[Function]:
    """The standard deviations and correlations of a covariance matrix, as functions of the flat vector.

    Their names are those of a report: ``L: sd[0]``, ``L: corr[0,1]``.

    Args: covariance: the flat vector → (size, size). unit: whether it is a correlation matrix, whose deviations are 1.
    """

    def deviation(i: int) -> Callable[[Tensor], Tensor]:
        return lambda flat: covariance(flat)[i, i].sqrt()

    def correlation(i: int, j: int) -> Callable[[Tensor], Tensor]:
        def of(flat: Tensor) -> Tensor:
            matrix = covariance(flat)
            return matrix[i, j] / (matrix[i, i] * matrix[j, j]).sqrt()

        return of

    found = [] if unit else [Function(f"{name}: sd", str(i), 0.0, inf, deviation(i)) for i in range(size)]
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    found += [Function(f"{name}: corr", f"{i},{j}", -1.0, 1.0, correlation(i, j)) for i, j in pairs]
    return found
