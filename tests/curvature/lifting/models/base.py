"""What the models of these tests are made of: data, a registry, and sites in a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from hofit.point import Params
from tests.curvature.hessians import Model

Make = Callable[[], Model]


@dataclass(frozen=True)
class Case:
    """A model, whether its maps are lifted (None: either will do), and what the structure is.

    ``first`` makes of the start a point where the rows look independent: nothing is said of the structure there.
    """

    make: Make
    lifted: bool | None
    structure: str
    first: Callable[[Params], Params] | None = None


class Cases(dict[str, Case]):
    """The models of a file, by name."""

    def case(
        self, lifted: bool | None = True, structure: str = "", first: Callable[[Params], Params] | None = None
    ) -> Callable[[Make], Make]:
        def add(make: Make) -> Make:
            self[make.__name__] = Case(make, lifted, structure, first)
            return make

        return add


G, N = 12, 10
"""Groups, and observations of a group."""
GROUP = torch.arange(G).repeat_interleave(N)
MIXED = torch.randperm(G * N, generator=torch.Generator().manual_seed(3)) % G
ITEM = torch.randperm(G * N, generator=torch.Generator().manual_seed(4)) % 15
X = torch.randn(G, N, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
X3 = torch.randn(G * N, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
Y01 = (torch.rand(G, N, generator=torch.Generator().manual_seed(7)) < 0.5).double()
COUNTS = torch.poisson(torch.full((G * N,), 2.0, dtype=torch.float64), generator=torch.Generator().manual_seed(8))
Z = torch.randn(G * N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def normal(name: str, *shape: int, scale: float = 1.0) -> Tensor:
    value: Tensor = pyro.sample(name, dist.Normal(0.0, scale).expand(shape).to_event(len(shape)))
    return value


def local(name: str, plate: str, size: int, scale: float = 1.0) -> Tensor:
    with pyro.plate(plate, size):
        value: Tensor = pyro.sample(name, dist.Normal(0.0, scale))
    return value


def bernoulli(logits: Tensor, y: Tensor | None = None) -> None:
    pyro.sample("y", dist.Bernoulli(logits=logits).to_event(logits.dim()), obs=Y01.reshape(-1) if y is None else y)


def gaussian(mean: Tensor, scale: Any = 1.0) -> None:
    pyro.sample("y", dist.Normal(mean, scale).to_event(mean.dim()), obs=Z[: mean.numel()].view(mean.shape))


def poisson(rate: Tensor) -> None:
    pyro.sample("y", dist.Poisson(rate).to_event(rate.dim()), obs=COUNTS[: rate.numel()].view(rate.shape))
