"""Hessians on their own pattern: what neighbours are written as, when the pattern is taken, and its evidence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

from hofit.curvature import choice, cost
from hofit.curvature.structure import Curvature
from hofit.errors import StepImpossible
from hofit.linear.dense import Dense
from hofit.linear.low_rank import LowRank
from hofit.linear.sparse import Sparse
from hofit.model.program import Program
from hofit.objective.marginal import MarginalObjective
from hofit.point import Params
from tests.curvature.hessians import check, objective, random_point
from tests.tolerances import CURVATURE_BY_DIFFERENCES, SLOPE, close

N = 80
COUNT = torch.poisson(torch.full((N,), 2.0, dtype=torch.float64), generator=torch.Generator().manual_seed(1))
ONE, OTHER = torch.arange(N - 1), torch.arange(1, N)
WEIGHTS = torch.linspace(-1.0, 1.0, N, dtype=torch.float64)
UNIT = torch.eye(N, dtype=torch.float64)
SECOND = UNIT - 2 * UNIT.roll(1, 1).triu() + UNIT.roll(2, 1).triu()
PRECISION = SECOND.T @ SECOND + 0.1 * UNIT
COO = PRECISION.to_sparse()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch calls this layout beta
    CSR = PRECISION.to_sparse_csr()
BASIS = torch.stack([torch.relu(1 - (torch.arange(N) / 4 - k).abs()) for k in range(N // 4)], 1).double()

Energy = Callable[[Tensor], Tensor]

NEIGHBOURS: dict[str, Energy] = {
    "slices": lambda x: (x[1:] - x[:-1]).square().sum(),
    "second differences": lambda x: (x[2:] - 2 * x[1:-1] + x[:-2]).square().sum(),
    "diff": lambda x: torch.diff(x).square().sum(),
    "diff twice": lambda x: x.diff(n=2).square().sum(),
    "diff of a grid": lambda x: sum(
        (x.reshape(8, 10).diff(dim=d).square().sum() for d in (0, 1)), start=torch.zeros(())
    ),
    "slices of a grid": lambda x: (
        (x.reshape(8, 10)[1:] - x.reshape(8, 10)[:-1]).square().sum()
        + (x.reshape(8, 10)[:, 1:] - x.reshape(8, 10)[:, :-1]).square().sum()
    ),
    "roll": lambda x: (x - torch.roll(x, 1)).square().sum(),
    "edges": lambda x: (x[ONE] - x[OTHER]).square().sum(),
    "pad": lambda x: (x - torch.nn.functional.pad(x[:-1], (1, 0))).square().sum(),
    "cat": lambda x: (x - torch.cat([torch.zeros(1), 0.9 * x[:-1]])).square().sum(),
    "unfold": lambda x: (x.unfold(0, 3, 1) @ torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)).square().sum(),
    "not linear": lambda x: (x[2:] - 0.5 * x[1:-1].tanh() - x[:-2]).square().sum(),
    "mostly zero": lambda x: (SECOND @ x).square().sum(),
    "quadratic form": lambda x: x @ (PRECISION @ x),
    "quadratic form, from the left": lambda x: x @ PRECISION @ x,
    "sparse": lambda x: x @ (COO @ x),
    "sparse.mm": lambda x: (x * torch.sparse.mm(COO, x[:, None])[:, 0]).sum(),
    "csr": lambda x: (x * (CSR @ x)).sum(),
    "soft constraint": lambda x: x.diff().square().sum() + 100 * x.sum().square(),
    "centred": lambda x: (x - x.mean()).diff().square().sum() + (x - x.mean()).pow(4).sum(),
    "scaled by a sum": lambda x: (x.diff() * (WEIGHTS @ x)).square().sum(),
    "two sums": lambda x: x.diff().square().sum() + (x.sum() * (WEIGHTS @ x)).tanh() + x.sum().square(),
    "basis": lambda x: (BASIS @ x[: N // 4]).exp().sum() + x.square().sum(),
}


def field(energy: Energy) -> None:
    """Counts, their log rates in a field; the precision and an intercept are parameters."""
    mu = pyro.param("mu", torch.tensor(0.3))
    tau = pyro.param("tau", torch.tensor(2.0), constraint=constraints.positive)
    x = pyro.sample("x", dist.ImproperUniform(constraints.real, (), (N,)))
    pyro.factor("smooth", 0.5 * N * tau.log() - 0.5 * tau * energy(x) - 0.5 * x.square().sum())
    with pyro.plate("t", N):
        pyro.sample("y", dist.Poisson((mu + x).exp()), obs=COUNT)


def autoregression(order: int) -> None:
    """AR(p) with estimated coefficients."""
    phi = pyro.param("phi", torch.full((order,), 0.3))
    x = pyro.sample("x", dist.ImproperUniform(constraints.real, (), (N,)))
    mean = sum((phi[k] * x[order - 1 - k : N - 1 - k] for k in range(order)), start=torch.zeros(()))
    pyro.factor("first", dist.Normal(0.0, 1.0).log_prob(x[:order]).sum())
    pyro.factor("steps", dist.Normal(mean, 0.5).log_prob(x[order:]).sum())
    with pyro.plate("t", N):
        pyro.sample("y", dist.Poisson(x.exp()), obs=COUNT)


def subjects() -> None:
    """An AR(1) a subject: 8 subjects, 10 times."""
    rho = pyro.param("rho", torch.tensor(0.5), constraint=constraints.interval(-1.0, 1.0))
    with pyro.plate("subjects", 8):
        x = pyro.sample("x", dist.ImproperUniform(constraints.real_vector, (), (10,)))
    pyro.factor("first", dist.Normal(0.0, 1.0 / (1 - rho**2).sqrt()).log_prob(x[:, 0]).sum())
    pyro.factor("steps", dist.Normal(rho * x[:, :-1], 1.0).log_prob(x[:, 1:]).sum())
    with pyro.plate("t", N):
        pyro.sample("y", dist.Poisson(x.reshape(-1).exp()), obs=COUNT)


def levels() -> None:
    """Three levels of nesting beside a crossing."""
    sd = pyro.param("sd", torch.tensor([1.0, 0.7, 0.5, 0.4]), constraint=constraints.positive)
    sizes = (("region", 4), ("school", 16), ("room", 40), ("teacher", 20))
    rate = torch.zeros(N)
    for k, (name, size) in enumerate(sizes):
        with pyro.plate(f"{name}s", size):
            u = pyro.sample(name, dist.Normal(0.0, sd[k]))
        rate = rate + u[(torch.arange(N) * (7 if name == "teacher" else 1)) % size]
    pyro.sample("y", dist.Poisson(rate.exp()).to_event(1), obs=COUNT)


MODELS: dict[str, Callable[[], Any]] = {
    **{name: partial(field, energy) for name, energy in NEIGHBOURS.items()},
    **{f"AR({order})": partial(autoregression, order) for order in (1, 2, 3)},
    "levels": levels,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_hessian_is_autograds(name: str) -> None:
    with objective(MODELS[name]) as at:
        names = [one for one in at.start() if at.sites[one].role == "latent"]
        curvature = Curvature("sparse")
        for seed in (1, 2):
            operator = check(curvature, at, random_point(at.start(), seed), names)
            assert isinstance(operator, Sparse | LowRank), curvature.describe(operator)
        assert curvature.lifts and "sparse" in curvature.describe(operator)


@pytest.mark.parametrize("model", [*MODELS.values(), subjects], ids=[*MODELS, "subjects"])
def test_the_evidence_has_the_derivatives_of_its_differences(model: Callable[[], Any]) -> None:
    program = Program(model, {})
    with program.scope():
        program.discover("median")
        integrated = [name for name, site in program.sites.items() if site.role == "latent"]
        objective = MarginalObjective(program, integrated, structure="sparse")
        start = objective.start()
        point = objective.at(start)
        step = 1e-4
        flat = torch.cat([value.reshape(-1) for value in start.values()])
        gradient = torch.cat([value.reshape(-1) for value in point.gradient().values()])
        hessian = whole_hessian(objective, start)
        for k in range(len(flat)):
            up, down = (objective.at(moved(start, k, sign * step)) for sign in (1, -1))
            slope = (up.loss - down.loss) / (2 * step)
            assert close(gradient[k], slope, SLOPE)
            sides = [torch.cat([v.reshape(-1) for v in side.gradient().values()]) for side in (up, down)]
            assert close(hessian[k], (sides[0] - sides[1]) / (2 * step), CURVATURE_BY_DIFFERENCES)


def moved(params: Params, place: int, by: float) -> Params:
    flat = torch.cat([value.reshape(-1) for value in params.values()]).clone()
    flat[place] += by
    parts = flat.split([value.numel() for value in params.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(params.items(), parts, strict=True)}


def whole_hessian(objective: MarginalObjective, params: Params) -> Tensor:
    size = sum(value.numel() for value in params.values())
    unit = torch.eye(size)
    parts = unit.split([value.numel() for value in params.values()], 1)
    probes = {n: part.view(size, *v.shape) for (n, v), part in zip(params.items(), parts, strict=True)}
    point = objective.at_full(params)
    found = point.hvp(probes)
    return torch.cat([value.reshape(size, -1) for value in found.values()], 1)


def walk(size: int) -> None:
    x = pyro.sample("x", dist.ImproperUniform(constraints.real, (), (size,)))
    pyro.factor("steps", -x.diff().square().sum() - x.exp().sum())


def test_auto_takes_the_pattern_where_it_costs_less() -> None:
    for size, expected in ((100, Dense), (1000, Sparse)):
        with objective(partial(walk, size)) as at:
            assert isinstance(check(Curvature(), at, at.start()), expected)


def test_a_state_goes_on_with_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    with objective(partial(walk, 1000)) as at:
        curvature, again = Curvature(), Curvature()
        before = curvature.at(at.at(at.start()), ["x"])
        again.load_state_dict(curvature.state_dict())
        monkeypatch.setattr(cost, "CLEARLY", math.inf)
        after = again.at(at.at(at.start()), ["x"])
        assert isinstance(before, Sparse) and isinstance(after, Sparse)
        assert torch.equal(before.values, after.values)


def test_a_pattern_that_is_too_large_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "ENTRIES_LIMIT", N)
    with objective(MODELS["slices"]) as at, pytest.raises(StepImpossible, match=f"more than {N} entries"):
        Curvature("sparse").at(at.at(at.start()), ["x"])
    monkeypatch.setattr(choice, "ENTRIES_LIMIT", 10**6)
    monkeypatch.setattr(choice, "FILL_LIMIT", 8)
    with objective(MODELS["slices"]) as at, pytest.raises(StepImpossible, match="GiB"):
        Curvature("sparse").at(at.at(at.start()), ["x"])
