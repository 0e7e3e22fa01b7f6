"""Item response theory, two parameters an item, simulated: persons of differing ability answer items.

    y_pi ~ Bernoulli(logit⁻¹(a_i (θ_p − b_i)))
    θ_p ~ Normal(0, 1),   log a_i ~ Normal(0, 0.5),   b_i ~ Normal(0, 1)

Latents: `theta` = θ, the abilities; `log_a` = log a (items,), the discriminations; `b` (items,), the difficulties.
One density, written in two ways: `nested` keeps the answers in plate persons × items, with θ (persons, 1); `indexed`
has a row an answer, with the numbers of its person and its item, and θ (persons,).

`load_data` takes `persons`, `items`, `seed` and `layout`: nested or indexed, for the model of that name. Of a fit in
pieces (`shard`) each has some of the persons: `rank` of `world_size`.
Reference: Birnbaum (1968), in Lord & Novick, Statistical Theories of Mental Test Scores, chapters 17 to 20.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor


def nested(y: Tensor) -> None:
    """y (persons, items)."""
    persons = pyro.plate("persons", y.shape[0], dim=-2)
    items = pyro.plate("items", y.shape[1], dim=-1)

    with persons:
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))  # (persons, 1)
    with items:
        log_a = pyro.sample("log_a", dist.Normal(0.0, 0.5))  # (items,)
        b = pyro.sample("b", dist.Normal(0.0, 1.0))  # (items,)

    with persons, items:
        pyro.sample("y", dist.Bernoulli(logits=log_a.exp() * (theta - b)), obs=y)


def indexed(y: Tensor, person: Tensor, item: Tensor, n_persons: int, n_items: int) -> None:
    """y, person and item (answers,); person and item count from 0."""
    with pyro.plate("persons", n_persons):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))  # (persons,)
    with pyro.plate("items", n_items):
        log_a = pyro.sample("log_a", dist.Normal(0.0, 0.5))  # (items,)
        b = pyro.sample("b", dist.Normal(0.0, 1.0))  # (items,)

    with pyro.plate("answers", len(y)):
        pyro.sample("y", dist.Bernoulli(logits=log_a.exp()[item] * (theta[person] - b[item])), obs=y)


model = nested


def load_data(
    persons: int = 5000, items: int = 40, seed: int = 0, layout: str = "nested", rank: int = 0, world_size: int = 1
) -> dict[str, Tensor | int]:
    """The arguments of the model named ``layout``; the same numbers for both. Raises ValueError for another layout."""
    if layout not in ("nested", "indexed"):
        raise ValueError(f"layout {layout!r}: there are nested and indexed")
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(persons, 1, generator=generator)
    a = (0.5 * torch.randn(items, generator=generator)).exp()
    b = torch.randn(items, generator=generator)
    y = torch.bernoulli(torch.sigmoid(a * (theta - b)), generator=generator)
    y = y[rank * persons // world_size : (rank + 1) * persons // world_size]
    if layout == "nested":
        return {"y": y}
    person = torch.arange(len(y)).repeat_interleave(items)
    item = torch.arange(items).repeat(len(y))
    return {"y": y.flatten(), "person": person, "item": item, "n_persons": len(y), "n_items": items}
