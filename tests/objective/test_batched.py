"""A loop over sites is computed by few operations, with the model's own loss and derivatives; or by the model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.coordinates import Coordinates
from hofit.model.program import Program
from hofit.objective.density import DensityObjective
from hofit.objective.entries import Entries
from hofit.objective.leaves import Leaves
from tests.tolerances import ROUNDING

N = 30
Y = torch.sin(torch.arange(N, dtype=torch.float64))


def scale() -> Tensor:
    found: Tensor = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    return found


def slope() -> Tensor:
    found: Tensor = pyro.param("slope", torch.tensor(0.3))
    return found


def autoregression_of_second_order() -> None:
    a, b, h, before = slope(), pyro.param("b", torch.tensor(0.2)), torch.tensor(0.0), torch.tensor(0.0)
    for t in range(N):
        before, h = h, pyro.sample(f"h_{t}", dist.Normal(a * h + b * before, scale()))
        pyro.sample(f"y_{t}", dist.Poisson(torch.exp(h)), obs=torch.tensor(float(t % 4)))


def chain_that_is_not_centred() -> None:
    x = torch.tensor(0.0)
    for t in range(N):
        x = slope() * x + scale() * pyro.sample(f"e_{t}", dist.Normal(0.0, 1.0))
        pyro.sample(f"y_{t}", dist.StudentT(4.0, x, 1.0), obs=Y[t])


def groups_of_several_sizes() -> None:
    mean, sd = pyro.sample("mean", dist.Normal(0.0, 5.0)), pyro.sample("sd", dist.HalfNormal(1.0))
    for g in range(N):
        level = pyro.sample(f"level_{g}", dist.Normal(mean, sd))
        n = 1 + g % 4
        with pyro.plate(f"rows_{g}", n):
            pyro.sample(f"y_{g}", dist.Normal(level, 1.0), obs=Y[:n])


def vectors() -> None:
    lower = pyro.sample("lower", dist.LKJCholesky(2, 1.0))
    z = torch.zeros(2)
    for t in range(N):
        z = pyro.sample(f"z_{t}", dist.MultivariateNormal(0.8 * z, scale_tril=scale() * lower))
        pyro.sample(f"y_{t}", dist.Normal(z.sum(), 1.0), obs=Y[t])


def observations() -> None:
    beta = pyro.sample("beta", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    x = torch.cos(torch.arange(3 * N, dtype=torch.float64)).view(N, 3)
    for i in range(N):
        pyro.sample(f"y_{i}", dist.Bernoulli(logits=x[i] @ beta), obs=(Y[i] > 0).double())


def written_into() -> None:
    h = torch.zeros(N)
    for t in range(N):
        h[t] = pyro.sample(f"h_{t}", dist.Normal(h[t - 1] if t else 0.0, scale()))
    with pyro.plate("days", N):
        pyro.sample("y", dist.Normal(h, 1.0), obs=Y)


def summed_in_place() -> None:
    total = torch.zeros(())
    for t in range(N):
        total += dist.Normal(pyro.sample(f"u_{t}", dist.Gamma(2.0, 1.0)), scale()).log_prob(Y[t])
    pyro.factor("all", total)


def stacked() -> None:
    u = torch.stack([pyro.sample(f"u_{g}", dist.Normal(0.0, scale())) for g in range(N)])
    with pyro.plate("rows", 2 * N):
        pyro.sample("y", dist.Normal(u[torch.arange(2 * N) % N], 1.0), obs=Y.repeat(2))


def branches() -> None:
    x = torch.tensor(0.0)
    for t in pyro.markov(range(N)):
        x = pyro.sample(f"x_{t}", dist.Normal(torch.tanh(slope() * x), 0.5))
        pyro.sample(f"y_{t}", dist.Normal(torch.where(x > 0, x, 0.1 * x), 1.0), obs=Y[t])


def decides_by_a_number() -> None:
    for t in range(N):
        x = pyro.sample(f"x_{t}", dist.Normal(0.0, scale()))
        pyro.sample(f"y_{t}", dist.Normal(x if float(x.detach()) > 0.05 else 0.1 * x, 1.0), obs=Y[t])


def small() -> None:
    pyro.sample("x", dist.Normal(0.0, scale()))


LOOPS = [
    (autoregression_of_second_order, 30),
    (chain_that_is_not_centred, 5 * N),
    (groups_of_several_sizes, 40),
    (vectors, 60),
    (observations, 30),
    (written_into, 30),
    (summed_in_place, 40),
    (stacked, 30),
    (branches, 30),
]


def objectives(model: Callable[[], None]) -> tuple[DensityObjective, DensityObjective]:
    """By a program where there is one, and by the model."""
    program = Program(model, {})
    program.discover()
    one = DensityObjective(program, "map_unconstrained")
    plain = DensityObjective(program, "map_unconstrained", leaves=one.leaves)
    plain.batched.give_up(plain.jacobian)
    return one, plain


@pytest.mark.parametrize("model, most", LOOPS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_loop_has_few_operations_and_the_derivatives_of_the_model(model: Callable[[], None], most: int) -> None:
    with Program(model, {}).scope():
        one, plain = objectives(model)
        one.at(one.start())
        generator = torch.Generator().manual_seed(1)
        noise = {k: torch.randn(v.shape, generator=generator, dtype=v.dtype) for k, v in one.start().items()}
        place = {k: v + 0.1 * noise[k] for k, v in one.start().items()}
        points = [objective.at(place) for objective in (one, plain)]
        assert 0 < one.batched.operations(one.jacobian) <= most and not plain.batched.operations(plain.jacobian)
        found, expected = (
            [p.loss.detach(), *p.gradient(True).values(), *p.hvp({k: v[None] for k, v in noise.items()}).values()]
            for p in points
        )
        for ours, true in zip(found, expected, strict=True):
            assert float((ours - true).abs().max()) <= 100 * ROUNDING * max(1.0, float(true.abs().max()))


@pytest.mark.parametrize("model", [decides_by_a_number, small])
def test_what_cannot_be_written_down_or_is_small_is_left_to_the_model(model: Callable[[], None]) -> None:
    with Program(model, {}).scope():
        one, plain = objectives(model)
        assert one.at(one.start()).value == plain.at(one.start()).value
        assert not one.batched.operations(one.jacobian)


def test_a_model_that_changes_is_left_to_itself() -> None:
    far: list[bool] = []

    def model() -> None:
        for t in range(N):
            pyro.sample(f"x_{t}", dist.Normal(1.0 if far else 0.0, scale()))

    with Program(model, {}).scope():
        one, _ = objectives(model)
        before = one.at(one.start()).value
        assert one.batched.operations(one.jacobian)
        far.append(True)
        after = one.at({name: value + 0.5 for name, value in one.start().items()})
        assert after.value != before and not one.batched.operations(one.jacobian)


DAYS, SUBJECTS = 24, 3
STAY, MEANS, TAU = (0.8, 0.7), (-0.8, 1.2), 0.6
OBSERVED = 1.5 * torch.sin(torch.arange(DAYS * SUBJECTS, dtype=torch.float64)).view(DAYS, SUBJECTS)


def hidden_states() -> None:
    stay = pyro.param("stay", torch.tensor(STAY), constraint=constraints.unit_interval)
    move = torch.stack([torch.stack([stay[0], 1 - stay[0]]), torch.stack([1 - stay[1], stay[1]])])
    tau = pyro.param("tau", torch.tensor(TAU), constraint=constraints.positive)
    with pyro.plate("subjects", SUBJECTS):
        level = pyro.sample("level", dist.Normal(0.0, tau))
        z = None
        for t in pyro.markov(range(DAYS)):
            z = pyro.sample(f"z_{t}", dist.Categorical(torch.tensor([0.5, 0.5]) if z is None else move[z]))
            pyro.sample(f"y_{t}", dist.Normal(torch.tensor(MEANS)[z] + level, 1.0), obs=OBSERVED[t])


def test_a_loop_over_hidden_states_is_integrated_by_few_operations() -> None:
    """Held against the forward algorithm on a grid, by numpy."""
    section = {"type": "marginal", "integrate": {"level": "aghq", "z_*": "enumerate"}, "nodes": 25}
    optimizers = [{"params": "*", "optimizer": "trust_region"}]
    config = {"objective": section, "optimizers": optimizers, "stop": {"max_iterations": 0}}
    grid = np.linspace(-8 * TAU, 8 * TAU, 2001)
    move, total = np.array([[STAY[0], 1 - STAY[0]], [1 - STAY[1], STAY[1]]]), 0.0
    for subject in OBSERVED.T.numpy():
        forward = np.full((len(grid), 2), 0.5)
        for t, y in enumerate(subject):
            means = np.array(MEANS) + grid[:, None]
            forward = (forward @ move if t else forward) * np.exp(-((y - means) ** 2) / 2) / np.sqrt(2 * np.pi)
        density = np.exp(-((grid / TAU) ** 2) / 2) / (TAU * np.sqrt(2 * np.pi))
        total -= np.log((forward.sum(1) * density).sum() * (grid[1] - grid[0]))
    assert hofit.fit(hidden_states, config).loss == pytest.approx(total, abs=1e-7)
    with Program(hidden_states, {}, ["z_*"]).scope():
        program = Program(hidden_states, {}, ["z_*"])
        program.discover()
        program.integrate(["level"])
        entries = Entries(program, Leaves(program.leaves), ["level"])
        level = {"level": program.leaves["level"]}
        found = entries.again(level)
        assert 0 < entries.operations <= 15 * DAYS and torch.allclose(found, entries.at(level), rtol=1e-12)
        coordinates = Coordinates.of(level)
        places = torch.linspace(-1.0, 1.0, 3)[:, None].expand(-1, SUBJECTS)
        each = torch.stack([entries.at(coordinates.unflatten(place)) for place in places])
        assert torch.allclose(entries.at_places(places, coordinates, len(found)), each, rtol=1e-12)
