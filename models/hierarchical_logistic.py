"""Hierarchical logistic regression, simulated: every group has an intercept and a slope of its own.

    y_gi ~ Bernoulli(logit⁻¹(β₀ + b₀_g + (β₁ + b₁_g) x_gi)),   i = 1 … 10
    b_g = (b₀_g, b₁_g) ~ Normal(0, diag(0.8², 0.5²)),   β ~ Normal(0, 2.5)

Latents: `beta` = β (2,) and `b`, each group's departure from it. One density, written in two ways:
`nested` keeps rows in plate groups × observations, with b (groups, 1, 2); `indexed` gives every row the number of its
group, with b (groups, 2).

`load_data` takes `groups`, `seed` and `layout`: nested or indexed, for the model of that name.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

ROWS_PER_GROUP = 10
SD = (0.8, 0.5)
TRUE_BETA = (-0.5, 1.0)


def nested(x: Tensor, y: Tensor) -> None:
    """x and y (groups, rows of a group)."""
    groups = pyro.plate("groups", x.shape[0], dim=-2)
    rows = pyro.plate("rows", x.shape[1], dim=-1)

    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 2.5).to_event(1))
    with groups:
        b = pyro.sample("b", dist.Normal(0.0, torch.tensor(SD)).to_event(1))  # (groups, 1, 2)

    line = beta + b
    with groups, rows:
        pyro.sample("y", dist.Bernoulli(logits=line[..., 0] + line[..., 1] * x), obs=y)


def indexed(x: Tensor, y: Tensor, group: Tensor, n_groups: int) -> None:
    """x, y and group (rows,); group counts from 0."""
    beta = pyro.sample("beta", dist.Normal(torch.zeros(2), 2.5).to_event(1))
    with pyro.plate("groups", n_groups):
        b = pyro.sample("b", dist.Normal(0.0, torch.tensor(SD)).to_event(1))  # (groups, 2)

    line = beta + b[group]  # (rows, 2)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=line[:, 0] + line[:, 1] * x), obs=y)


model = nested


def load_data(groups: int = 1000, seed: int = 0, layout: str = "nested") -> dict[str, Tensor | int]:
    """The arguments of the model named ``layout``; the same numbers for both. Raises ValueError for another layout."""
    if layout not in ("nested", "indexed"):
        raise ValueError(f"layout {layout!r}: there are nested and indexed")
    generator = torch.Generator().manual_seed(seed)
    beta, sd = torch.tensor(TRUE_BETA), torch.tensor(SD)
    line = beta + sd * torch.randn(groups, 1, 2, generator=generator)
    x = torch.randn(groups, ROWS_PER_GROUP, generator=generator)
    y = torch.bernoulli(torch.sigmoid(line[..., 0] + line[..., 1] * x), generator=generator)
    if layout == "nested":
        return {"x": x, "y": y}
    group = torch.arange(groups).repeat_interleave(ROWS_PER_GROUP)
    return {"x": x.flatten(), "y": y.flatten(), "group": group, "n_groups": groups}
