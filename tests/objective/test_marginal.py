"""The evidence with latents integrated by Laplace's method: its derivatives on each structure, references, failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import optimize
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.coordinates import Coordinates
from hofit.curvature import expansion as expansion_module
from hofit.curvature.expansion import Expansion, LossGraph
from hofit.errors import ConfigError, ModelError
from hofit.fitting.result import FitResult
from hofit.linear import sparse as sparse_module
from hofit.linear.multifrontal import factorise
from hofit.model.program import Program
from hofit.objective import mode as mode_module
from hofit.point import max_norm

from .conftest import Make, slopes_along

GRADIENT, HESSIAN = 1e-6, 1e-5
"""Relative: the issue's bar of the gradient against central differences; the Hessian's, of a gradient's differences."""


TRUST_REGION = [{"params": "*", "optimizer": "trust_region"}]


def scalar(name: str, start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start))
    return value


def positive(name: str, *start: float) -> Tensor:
    value: Tensor = pyro.param(name, torch.tensor(start).squeeze(), constraint=constraints.positive)
    return value


def observe_counts(y: Tensor, log_rate: Tensor) -> None:
    with pyro.plate("observations", len(y)):
        pyro.sample("y", dist.Poisson(log_rate.exp()), obs=y)


ROWS, EACH = 8, 5
GROUP = torch.arange(ROWS).repeat_interleave(EACH)


def counts(n: int = ROWS * EACH, seed: int = 3) -> Tensor:
    return torch.poisson(2.0 * torch.ones(n), generator=torch.Generator().manual_seed(seed))


def covariate(n: int = ROWS * EACH, seed: int = 4) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


# models, one for each structure -----------------------------------------------------------------------------------


def diagonal() -> None:
    sd, mu, slope = positive("sd", 1.2), scalar("mu", 0.1), scalar("slope", 0.3)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    observe_counts(counts(), mu + slope * covariate() + b[GROUP])


def noncentred() -> None:
    sd, mu, slope = positive("sd", 1.2), scalar("mu", 0.1), scalar("slope", 0.3)
    with pyro.plate("rows", ROWS):
        eta = pyro.sample("b", dist.Normal(0.0, 1.0))
    observe_counts(counts(), mu + slope * covariate() + (sd * eta)[GROUP])


def correlated(length: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", *[0.8] * length)
        low = pyro.param("low", torch.eye(length), constraint=constraints.corr_cholesky)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(length), scale_tril=sd[:, None] * low))
        powers = torch.stack([covariate() ** k / (k + 1) for k in range(length)], -1)
        observe_counts(counts(), mu + (powers * b[GROUP]).sum(-1))

    return model


def arrowhead() -> None:
    sd = positive("sd", 1.2)
    a = pyro.sample("a", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    observe_counts(counts(), a[0] + a[1] * covariate() + b[GROUP])


def nested() -> None:
    mu, within, between = scalar("mu", 0.1), positive("within", 1.2), positive("between", 0.8)
    with pyro.plate("schools", 3):
        a = pyro.sample("a", dist.Normal(0.0, between))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(a[torch.arange(ROWS) % 3], within))
    observe_counts(counts(), mu + 0.2 * covariate() + b[GROUP])


def nested_plates() -> None:
    mu, sigma, sd = scalar("mu", 0.1), positive("sigma", 1.2), positive("sd", 0.8, 0.5)
    with pyro.plate("rows", 5, dim=-2):
        b = pyro.sample("b", dist.Normal(torch.zeros(2), sd).to_event(1))  # (5, 1, 2)
        with pyro.plate("columns", 8, dim=-1):
            line = mu + b[..., 0] + b[..., 1] * torch.linspace(-1, 1, 8)
            pyro.sample("y", dist.Normal(line, sigma), obs=covariate().view(5, 8))


def inner_rows() -> None:
    mu, outer, inner = scalar("mu", 0.1), positive("outer", 0.8), positive("inner", 0.5)
    with pyro.plate("columns", 5, dim=-1):
        a = pyro.sample("a", dist.Normal(0.0, outer))
        with pyro.plate("rows", 8, dim=-2):
            b = pyro.sample("b", dist.Normal(a, inner))  # (8, 5)
            pyro.sample("y", dist.Poisson((mu + b).exp()), obs=counts().view(8, 5))


def crossed(first: int, second: int, observations: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(8)
    one = torch.randint(0, first, (observations,), generator=generator)
    other = torch.randint(0, second, (observations,), generator=generator)

    def model() -> None:
        mu, sd_a, sd_b = scalar("mu", 0.1), positive("sd_a", 0.8), positive("sd_b", 0.5)
        with pyro.plate("first", first):
            a = pyro.sample("a", dist.Normal(0.0, sd_a))
        with pyro.plate("second", second):
            b = pyro.sample("b", dist.Normal(0.0, sd_b))
        observe_counts(counts(observations), mu + a[one] + b[other])

    return model


def gaussian_process(n: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd, length = scalar("mu", 0.1), positive("sd", 0.8), positive("length", 0.2)
        t = torch.linspace(0, 1, n)
        covariance = sd**2 * torch.exp(-(t[:, None] - t).abs() / length)
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(n), covariance))
        observe_counts(counts(n), mu + b)

    return model


def random_walk(n: int) -> Callable[[], None]:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", 0.4)
        steps = pyro.sample("b", dist.Normal(0.0, sd).expand([n]).to_event(1))
        observe_counts(counts(n), mu + steps.cumsum(0))

    return model


def restricted() -> None:
    """Fixed effects integrated under a flat prior: the restricted likelihood."""
    sigma, sd = positive("sigma", 1.2), positive("sd", 0.8)
    a = pyro.sample("a", dist.ImproperUniform(constraints.real, (), (2,)))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    with pyro.plate("observations", ROWS * EACH):
        pyro.sample("y", dist.Normal(a[0] + a[1] * covariate() + b[GROUP], sigma), obs=covariate(seed=9))


def constrained(kind: str) -> Callable[[], None]:
    def model() -> None:
        mu, shape = scalar("mu", 0.2), positive("shape", 2.0)
        prior = {
            "gamma": lambda: dist.Gamma(shape, shape),
            "log_normal": lambda: dist.LogNormal(mu, shape / 2),
            "beta": lambda: dist.Beta(shape, 1 + shape),
            "dirichlet": lambda: dist.Dirichlet(torch.stack([shape, shape + 1, 2 * shape])),
        }[kind]()
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", prior)
        b = b[..., 0] if kind == "dirichlet" else b
        with pyro.plate("observations", ROWS * EACH):
            bounded = kind in ("beta", "dirichlet")
            pyro.sample(
                "y", dist.Binomial(20, b[GROUP]) if bounded else dist.Poisson(b[GROUP] * mu.exp()), obs=counts()
            )

    return model


def multivariate_likelihood() -> None:
    mu, sigma, sd, r = scalar("mu", 0.1), positive("sigma", 0.7), positive("sd", 0.6), scalar("r", 0.3)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
        covariance = sigma**2 * (torch.eye(EACH) + torch.sigmoid(r) * (1 - torch.eye(EACH)))
        mean = (mu + b)[:, None].expand(ROWS, EACH)
        pyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=covariate().view(ROWS, EACH))


def factor() -> None:
    mu, sd = scalar("mu", 0.1), positive("sd", 0.6)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    logit = mu + b[GROUP]
    with pyro.plate("observations", ROWS * EACH):
        pyro.factor("likelihood", (covariate() > 0) * logit - torch.nn.functional.softplus(logit))


def one_compartment() -> None:
    """Theophylline's curve, nonlinear in the logarithms of absorption and clearance."""
    means = [scalar(name, start) for name, start in (("lKe", -2.5), ("lKa", 0.5), ("lCl", -3.0))]
    sd, sigma = positive("sd", 0.5, 0.3), positive("sigma", 0.8)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd).to_event(1))
    ke, ka, cl = means[0].exp(), (means[1] + b[GROUP, 0]).exp(), (means[2] + b[GROUP, 1]).exp()
    time = torch.tensor([0.5, 1.0, 3.0, 9.0, 24.0]).repeat(ROWS)
    curve = 4.0 * ke * ka / cl * (torch.exp(-ke * time) - torch.exp(-ka * time)) / (ka - ke)
    seen = torch.tensor([4.0, 6.5, 7.5, 5.0, 1.4]).repeat(ROWS) + 0.8 * covariate()
    with pyro.plate("observations", ROWS * EACH):
        pyro.sample("y", dist.Normal(curve, sigma), obs=seen)


@dataclass(frozen=True)
class Case:
    model: Callable[[], None]
    found: str
    """What the structure of the integrated latents is described as."""
    integrated: tuple[str, ...] = ("b",)


STRUCTURES = {
    "diagonal": Case(diagonal, "diagonal: 8 rows of 1"),
    "not centred": Case(noncentred, "diagonal: 8 rows of 1"),
    "rows of 2": Case(correlated(2), "rows: 8 rows of 2"),
    "rows of 6": Case(correlated(6), "rows: 8 rows of 6"),
    "rows of 8": Case(correlated(8), "rows: 8 rows of 8"),
    "arrowhead": Case(arrowhead, "arrowhead: 8 rows of 1 (b); border of 2", ("a", "b")),
    "nested": Case(nested, "arrowhead: 8 rows of 1 (b); border of 3", ("a", "b")),
    "nested plates": Case(nested_plates, "rows: 5 rows of 2"),
    "inner rows": Case(inner_rows, "arrowhead: 40 rows of 1 (b); border of 5", ("a", "b")),
    "crossed": Case(crossed(10, 6, 50), "arrowhead: 10 rows of 1 (a); border of 6", ("a", "b")),
    "crossed, sparse": Case(crossed(80, 66, 120), "arrowhead: 80 rows of 1 (a); border of 66", ("a", "b")),
    "Gaussian process of 40": Case(gaussian_process(40), "dense (40)"),
    "Gaussian process of 100": Case(gaussian_process(100), "dense (100)"),
    "random walk of 100": Case(random_walk(100), "dense (100)"),
    "restricted": Case(restricted, "arrowhead: 8 rows of 1 (b); border of 2", ("a", "b")),
    "gamma": Case(constrained("gamma"), "diagonal: 8 rows of 1"),
    "log-normal": Case(constrained("log_normal"), "diagonal: 8 rows of 1"),
    "beta": Case(constrained("beta"), "diagonal: 8 rows of 1"),
    "dirichlet": Case(constrained("dirichlet"), ""),
    "multivariate likelihood": Case(multivariate_likelihood, "diagonal: 8 rows of 1"),
    "factor": Case(factor, "diagonal: 8 rows of 1"),
    "nonlinear": Case(one_compartment, "rows: 8 rows of 2"),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_gradient_and_hessian_are_those_of_the_loss(name: str, path: str, evidence: Make) -> None:
    """Reference: central differences of the loss, and of the gradient, along a random direction."""
    case = STRUCTURES[name]
    own = evidence(case.model, list(case.integrated))
    x = own.near_start(0.2)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    point = own.at(x)
    assert point.failure is None
    gradient, hessian = own.flat(point.gradient()), own.hessian(point)
    layout = own.objective.curvature.layout
    assert layout is not None and layout.describe().startswith(case.found)
    slope, change = slopes_along(own, x, direction)
    assert abs(float(gradient @ direction - slope)) <= GRADIENT * float(gradient.norm() * direction.norm())
    assert float((hessian @ direction - change).abs().max()) <= HESSIAN * float(hessian.abs().max())
    assert torch.allclose(hessian, hessian.T, rtol=1e-9, atol=1e-9 * float(hessian.abs().max()))


# references -------------------------------------------------------------------------------------------------------


def gaussian(y: Tensor, x: Tensor, group: Tensor) -> None:
    mu, sigma, sd = scalar("mu", 0.1), positive("sigma", 1.2), positive("sd", 0.8, 0.5)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd).to_event(1))
    with pyro.plate("observations", len(y)):
        pyro.sample("y", dist.Normal(mu + b[group, 0] + b[group, 1] * x, sigma), obs=y)


def evidence_by_covariance(y: Tensor, x: Tensor, group: Tensor) -> None:
    """The same with b integrated by hand: y ~ Normal(μ, σ² I + Z Σ Zᵀ)."""
    mu, sigma, sd = scalar("mu", 0.1), positive("sigma", 1.2), positive("sd", 0.8, 0.5)
    same = (group[:, None] == group).double()
    covariance = sigma**2 * torch.eye(len(y)) + same * (sd[0] ** 2 + sd[1] ** 2 * torch.outer(x, x))
    pyro.sample("y", dist.MultivariateNormal(mu.expand(len(y)), covariance), obs=y)


EFFECTS = torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(23), dtype=torch.float64)
DATA = {
    "y": covariate(seed=21).double() + EFFECTS[GROUP, 0] + EFFECTS[GROUP, 1] * covariate(seed=22).double(),
    "x": covariate(seed=22).double(),
    "group": GROUP,
}


def crossed_gaussian(y: Tensor) -> None:
    one, other = torch.arange(len(y)) % 700, torch.randperm(len(y), generator=torch.Generator().manual_seed(3)) % 600
    mu, sd_a, sd_b = scalar("mu", 0.1), positive("sd_a", 0.8), positive("sd_b", 0.5)
    with pyro.plate("first", 700):
        a = pyro.sample("a", dist.Normal(0.0, sd_a))
    with pyro.plate("second", 600):
        b = pyro.sample("b", dist.Normal(0.0, sd_b))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu + a[one] + b[other], 0.7), obs=y)


@pytest.fixture
def factorised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A place for each sparse matrix that is factorised."""
    found: list[int] = []

    def counted(*arguments: Any) -> Any:
        found.append(1)
        return factorise(*arguments)

    monkeypatch.setattr(sparse_module, "factorise", counted)
    return found


def test_where_the_latents_do_not_move_their_hessian_one_factor_does(evidence: Make, factorised: list[int]) -> None:
    own = evidence(crossed_gaussian, ["a", "b"], y=covariate(1400, seed=5).double())
    point = own.at(own.near_start())
    assert "sparse" in own.objective.describe_inner(point)
    assert len(factorised) == own.objective.evaluations.inner  # none at the mode
    own.hessian(point)
    again = own.objective.at_full(point.params)
    assert again.loss == point.loss and len(factorised) == own.objective.evaluations.inner


def test_a_factor_nearby_leads_to_the_same_mode(
    evidence: Make, factorised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for slow in (float("inf"), 0.0):
        monkeypatch.setattr(mode_module, "SLOW", slow)
        own = evidence(crossed(700, 600, 1400), ["a", "b"])
        point = own.at(own.near_start())
        own.hessian(point)
        factorised.clear()
        there = point.at({name: value + 0.02 for name, value in point.params.items()})
        seen.append((there.loss, own.flat(there.gradient()), len(factorised)))
    (loss, gradient, without), (followed, other, count) = seen
    assert count == 1 < without
    assert torch.allclose(followed, loss, rtol=1e-13) and torch.allclose(other, gradient, rtol=1e-9, atol=1e-9)


def test_where_the_hessian_stays_the_next_mode_is_reached_by_its_own_factor(
    evidence: Make, factorised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mode_module, "SLOW", 0.0)
    own = evidence(crossed_gaussian, ["a", "b"], y=covariate(1400, seed=5).double())
    point = own.at(own.near_start())
    assert point.factor is None
    own.hessian(point)
    factorised.clear()
    before = own.objective.evaluations.inner
    there = point.at({name: value + 0.2 for name, value in point.params.items()})
    assert there.failure is None and len(factorised) == 1
    assert own.objective.evaluations.inner == before + 1


def test_a_step_more_at_the_mode_takes_no_other_factor(
    evidence: Make, factorised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = evidence(crossed_gaussian, ["a", "b"], y=covariate(1400, seed=5).double())
    point = own.at(own.near_start())
    off = {name: value + 1e-6 for name, value in point.inner.items()}
    monkeypatch.setattr(mode_module.ModeFinder, "find", lambda *_: off)
    factorised.clear()
    again = own.objective.near(point, {name: value + 0.0 for name, value in point.params.items()})
    assert len(factorised) == 1 and torch.allclose(again.loss, point.loss, rtol=1e-13)


def test_gaussian_latents_are_integrated_exactly_in_one_inner_step(path: str, evidence: Make) -> None:
    own = evidence(gaussian, ["b"], **DATA)
    x = own.near_start()
    point = own.at(x)
    assert own.objective.evaluations.inner <= 2  # the step, and the one that finds nothing left
    loss, gradient, hessian = point.loss, own.flat(point.gradient()), own.hessian(point)
    reference = DensityReference(evidence_by_covariance, DATA)
    expected = reference.at(x)
    assert float(loss) == pytest.approx(float(expected[0]), rel=1e-12)
    assert torch.allclose(gradient, expected[1], rtol=1e-10, atol=1e-10)
    assert torch.allclose(hessian, expected[2], rtol=1e-9, atol=1e-9)


@dataclass
class DensityReference:
    """Loss, gradient and Hessian of a model with nothing to integrate, by torch alone."""

    model: Callable[..., None]
    data: dict[str, Tensor]

    def at(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        program = Program(self.model, self.data)
        with program.scope():
            program.discover()
            leaves = program.leaves
            values = Coordinates.of(leaves).unflatten(x)
            with torch.no_grad():
                for name, leaf in leaves.items():
                    leaf.copy_(values[name])
            loss = -program.log_density()
            first = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
            flat = torch.cat([one.reshape(-1) for one in first])
            rows = [torch.autograd.grad(one, list(leaves.values()), retain_graph=True) for one in flat]
            return loss.detach(), flat.detach(), torch.stack([torch.cat([g.reshape(-1) for g in r]) for r in rows])


def test_a_fit_of_the_evidence_is_that_of_the_closed_form() -> None:
    ours = fit(gaussian, b="laplace", **DATA)
    closed = hofit.fit(evidence_by_covariance, {"optimizers": TRUST_REGION}, data=DATA)
    assert ours.converged and ours.loss == pytest.approx(closed.loss, rel=1e-10)
    for name, value in closed.values.items():
        assert torch.allclose(ours.values[name], value, atol=1e-5)
    assert ours.iterations == closed.iterations


def test_conditional_modes_are_henderson_s_row_by_row() -> None:
    """Reference: (Zᵀ Z / σ² + Σ⁻¹) b = Zᵀ (y − μ) / σ², a solve by numpy each row."""
    result = fit(gaussian, b="laplace", **DATA)
    mu, sigma, sd = (result.values[name].numpy() for name in ("mu", "sigma", "sd"))
    for row in range(ROWS):
        own = GROUP.eq(row).numpy()
        z = np.stack([np.ones(own.sum()), DATA["x"].numpy()[own]], 1)
        precision = z.T @ z / sigma**2 + np.diag(sd.clip(1e-8) ** -2.0)
        mode = np.linalg.solve(precision, z.T @ (DATA["y"].numpy()[own] - mu) / sigma**2)
        assert np.allclose(result.values["b"][row].numpy(), mode, rtol=1e-5, atol=1e-9)


# failures ---------------------------------------------------------------------------------------------------------


def fit(model: Callable[..., None], optimizers: Any = TRUST_REGION, more: Any = None, /, **given: Any) -> FitResult:
    methods = {name: given.pop(name) for name in list(given) if isinstance(given[name], str)}
    config = {"objective": {"type": "marginal", "integrate": methods}, "optimizers": optimizers, **(more or {})}
    return hofit.fit(model, config, **given)


def flat_without_data() -> None:
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.ImproperUniform(constraints.real, (), ()))
    with pyro.plate("observations", 35):
        pyro.sample("y", dist.Normal(b[GROUP[:35]], positive("sigma", 1.0)), obs=covariate(35))


def separated() -> None:
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.ImproperUniform(constraints.real, (), ()))
    with pyro.plate("observations", ROWS * EACH):
        logits = scalar("slope", 0.0) * covariate() + b[GROUP]
        mixed = (torch.arange(ROWS * EACH) % 2).double()
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=torch.where(GROUP == 5, 1.0, mixed))


def unbounded() -> None:
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.factor("likelihood", torch.where(torch.arange(ROWS) == 3, scalar("mu", 1.0) * b**2, 0.0))


@pytest.mark.parametrize(
    ("model", "row", "start"), [(flat_without_data, 7, {}), (separated, 5, {}), (unbounded, 3, {"mu": 1.0})]
)
def test_no_proper_mode_is_a_status_that_names_site_and_row(
    model: Callable[[], None], row: int, start: dict[str, float]
) -> None:
    result = fit(model, TRUST_REGION, {"init": {"values": start}}, b="laplace")
    assert result.status == "non_finite" and not result.converged
    assert any("no proper mode" in remark and f"'b', row {row}" in remark for remark in result.remarks)


def test_rows_without_observations_and_separated_rows_with_a_prior_are_integrated() -> None:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", 1.0)
        with pyro.plate("rows", ROWS + 2):
            b = pyro.sample("b", dist.Normal(0.0, sd))
        with pyro.plate("observations", ROWS * EACH):
            y = torch.where(GROUP == 5, 1.0, (torch.arange(ROWS * EACH) % 2).double())
            pyro.sample("y", dist.Bernoulli(logits=mu + b[GROUP]), obs=y)

    result = fit(model, b="laplace")
    assert result.converged
    assert torch.equal(result.values["b"][ROWS:], torch.zeros(2))


def test_nan_in_the_data_is_named() -> None:
    y = torch.where(torch.arange(40) == 3, torch.nan, DATA["y"])
    result = fit(gaussian, b="laplace", **{**DATA, "y": y})
    assert result.status == "non_finite" and any("'y'" in remark for remark in result.remarks)


@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs", "newton_cg"])
def test_a_step_to_where_there_is_no_mode_is_taken_back(optimizer: str) -> None:
    """Below v = −1 the density of b has no mode, and from v = 6 a full Newton step goes there.

    Reference: minus the log evidence is 4 log(1 + v) + 20 √(1 + (v − 1)²), with one minimum right of −1 + ε.
    """

    def model() -> None:
        v = scalar("v", 6.0)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.factor("edge", -0.5 * v * b**2)
        pyro.factor("valley", -20.0 * (1 + (v - 1) ** 2).sqrt())

    result = fit(model, [{"params": "*", "optimizer": optimizer}], b="laplace")
    expected = optimize.brentq(lambda v: 4 / (1 + v) + 20 * (v - 1) / (1 + (v - 1) ** 2) ** 0.5, 0.5, 1.0)
    assert result.converged, result.remarks
    assert float(result.values["v"]) == pytest.approx(expected, rel=1e-6)


# what is refused --------------------------------------------------------------------------------------------------


def with_others(y: Tensor, x: Tensor, group: Tensor) -> None:
    gaussian(y, x, group)
    pyro.factor("tilt", torch.zeros(()))
    pyro.deterministic("ratio", y.mean())


@pytest.mark.parametrize(
    ("integrate", "more", "says"),
    [
        ({"y": "laplace"}, {}, "objective.integrate.y: 'y' is observed"),
        (
            {"ratio": "laplace"},
            {},
            "objective.integrate.ratio: 'ratio' is a pyro.deterministic site, a function of others",
        ),
        ({"rows": "laplace"}, {}, "objective.integrate.rows: 'rows' is a plate"),
        ({"tilt": "laplace"}, {}, "objective.integrate.tilt: 'tilt' is a pyro.factor, which has no value"),
        ({"b": "laplace"}, {"fixed": {"ratio": 1.0}}, "fixed.ratio: 'ratio' is a pyro.deterministic site"),
        ({"mu": "laplace"}, {}, "objective.integrate.mu: 'mu' is a parameter: only latents"),
        ({"bb": "laplace"}, {}, "objective.integrate.bb: no latent matches 'bb'; did you mean \"b\"?"),
        ({"b": "laplace"}, {"fixed": {"b": 0.0}}, "objective.integrate.b: 'b' is both fixed and integrated"),
        (
            {"b": "laplace"},
            {"fixed": {"mu": None, "sd": None, "sigma": None}},
            "objective.integrate: everything is integrated or fixed: there is nothing left to fit",
        ),
        (
            {"b": "laplace"},
            {"optimizers": [{"params": "mu", "optimizer": "adam"}, {"params": "*", "optimizer": "gauss_newton"}]},
            "optimizers.1.optimizer: gauss_newton reads the model itself",
        ),
        (
            {"b": "laplace"},
            {"optimizers": [{"params": "b", "optimizer": "adam"}, *TRUST_REGION]},
            "optimizers.0.params: the entry gets no parameter: all it matches are taken above, fixed or integrated",
        ),
        ({"b": "laplace"}, {"objective": {"type": "map", "integrate": {"b": "laplace"}}}, "need type: marginal"),
    ],
)
def test_what_cannot_be_integrated_is_refused_by_key(integrate: Any, more: Any, says: str) -> None:
    config = {"objective": {"type": "marginal", "integrate": integrate}, "optimizers": TRUST_REGION, **more}
    with pytest.raises(ConfigError) as caught:
        hofit.fit(with_others, config, data=DATA)
    assert len(caught.value.mistakes) == 1 and says in caught.value.mistakes[0]


@pytest.mark.parametrize("optimizer", ["adam", "trust_region"])
def test_a_subsampled_plate_is_refused(optimizer: str) -> None:
    def model() -> None:
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.Normal(0.0, positive("sd", 1.0)))
        with pyro.plate("observations", 40, subsample_size=10) as chosen:
            pyro.sample("y", dist.Normal(b[GROUP[chosen]], 1.0), obs=DATA["y"][chosen])

    with pytest.raises(ModelError, match="'observations' is subsampled: a marginal needs the whole plate"):
        fit(model, [{"params": "*", "optimizer": optimizer}], b="laplace")


def test_a_long_walk_is_taken_on_its_pattern_and_one_by_its_steps_refused_with_the_remedy() -> None:
    def by_levels() -> None:
        x = pyro.sample("x", dist.ImproperUniform(constraints.real, (), (2001,)))
        steps = dist.Normal(0.0, positive("sd", 0.4))
        pyro.factor("walk", steps.log_prob(x.diff()).sum() + steps.log_prob(x[0]))
        observe_counts(counts(2001), scalar("mu", 0.1) + x)

    assert fit(by_levels, x="laplace").converged
    with pytest.raises(ModelError, match=r"neither sparse nor in rows .* take the sums themselves as the latents"):
        fit(random_walk(2001), b="laplace")


# optimizers, and resuming -----------------------------------------------------------------------------------------

MIXES = {
    "trust region": TRUST_REGION,
    "newton": [{"params": "*", "optimizer": "newton", "trust_radius": 1.0}],
    "lbfgs": [{"params": "*", "optimizer": "lbfgs"}],
    "adam": [{"params": "*", "optimizer": "adam", "lr": 0.1}],
    "mixed": [{"params": "sd", "optimizer": "trust_region"}, {"params": "*", "optimizer": "adam", "lr": 0.3}],
}


@pytest.mark.parametrize(("name", "order"), [*((name, "simultaneous") for name in MIXES), ("mixed", "alternating")])
def test_a_resumed_fit_is_the_same_to_the_bit(name: str, order: str, tmp_path: Path) -> None:
    """Of the mixed ones one has its first steps refused."""
    method = "aghq" if name == "mixed" else "laplace"
    whole = fit(diagonal, MIXES[name], {"order": order, "stop": {"max_iterations": 8}}, b=method)
    for k in (1, 7) if name in ("trust region", "mixed") else (3,):
        run = tmp_path / str(k)
        config = {
            "objective": {"type": "marginal", "integrate": {"b": method}},
            "optimizers": MIXES[name],
            "order": order,
            "stop": {"max_iterations": k},
        }
        hofit.fit(diagonal, config, run_dir=run)
        resumed = hofit.resume(run, model=diagonal, set=["stop.max_iterations=8"])
        assert resumed.iterations == whole.iterations and resumed.loss == whole.loss
        for kind in ("params", "values"):
            for parameter, value in getattr(whole, kind).items():
                assert torch.equal(getattr(resumed, kind)[parameter], value), (kind, parameter, k)


def test_a_resumed_fit_goes_on_counting_the_steps_to_the_mode(tmp_path: Path) -> None:
    config = {
        "objective": {"type": "marginal", "integrate": {"b": "laplace"}},
        "optimizers": TRUST_REGION,
        "stop": {"max_iterations": 2},
    }
    half = hofit.fit(diagonal, config, run_dir=tmp_path / "half")
    resumed = hofit.resume(tmp_path / "half", model=diagonal, set=["stop.max_iterations=3"])
    assert resumed.iterations > half.iterations and resumed.evaluations["inner"] > half.evaluations["inner"]


def test_an_alternating_mix_reaches_what_one_optimizer_does() -> None:
    alone = fit(diagonal, b="laplace")
    parts = [{"params": "sd", "optimizer": "trust_region"}, {"params": "*", "optimizer": "newton"}]
    mixed = fit(diagonal, parts, {"order": "alternating"}, b="laplace")
    assert alone.converged and mixed.converged
    assert mixed.loss == pytest.approx(
        alone.loss, rel=1e-10
    )  # both are near the loss at the edge, and not at one point


@pytest.mark.parametrize("method", ["laplace", "aghq"])
def test_a_fit_in_single_precision_is_near_that_in_double(method: str) -> None:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", 1.0)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.Normal(0.0, sd))
        observe_counts(counts() + GROUP, mu + b[GROUP])

    double = fit(model, b=method)
    single = fit(model, TRUST_REGION, {"dtype": "float32", "stop": {"gradient": 1e-2}}, b=method)
    assert double.converged and single.converged
    assert single.loss == pytest.approx(double.loss, rel=1e-5)
    assert float(single.values["sd"]) == pytest.approx(float(double.values["sd"]), rel=1e-3)


def neighbours() -> None:
    mu, sd, weight = scalar("mu", 0.1), positive("sd", 1.2), scalar("weight", 0.0)
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, sd))
    observe_counts(counts(), mu + (b + weight * b.roll(1))[GROUP])


def conditional_autoregression() -> None:
    sd, rho = positive("sd", 1.2), scalar("rho", 0.0)
    beside = torch.ones(39).diag(1)
    precision = (torch.eye(40) - rho * (beside + beside.T)) / sd**2
    f = pyro.sample("b", dist.MultivariateNormal(torch.zeros(40), precision_matrix=precision))
    observe_counts(counts(), f)


def uncorrelated_at_the_start() -> None:
    mu, sd, rho = scalar("mu", 0.1), positive("sd", 1.2), scalar("rho", 0.0).tanh()
    scale = torch.stack([torch.stack([sd, 0 * sd]), torch.stack([rho, (1 - rho**2).sqrt()])])
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=scale))
    observe_counts(counts(), mu + b[GROUP, 0] + b[GROUP, 1] * covariate())


def test_rows_whose_numbers_are_uncorrelated_at_the_start_stay_rows(evidence: Make, path: str) -> None:
    """The slope in the correlation is that of what is not there yet: the off-diagonal entries of each block."""
    own = evidence(uncorrelated_at_the_start, ["b"])
    at_start = own.gradient(own.start)
    layout = own.objective.curvature.layout
    assert layout is not None and [tuple(one.index.shape) for one in layout.rows] == [(ROWS, 2)]
    direction = torch.zeros_like(own.start)
    direction[-1] = 1.0
    slope, _ = slopes_along(evidence(uncorrelated_at_the_start, ["b"]), own.start, direction)
    torch.testing.assert_close(at_start[-1], slope, rtol=GRADIENT, atol=0.0)


@pytest.mark.parametrize("model", [neighbours, conditional_autoregression])
def test_rows_that_are_apart_only_at_the_start_do_not_hide_the_slope_of_what_couples_them(
    evidence: Make, path: str, model: Callable[[], None]
) -> None:
    own = evidence(model, ["b"])
    at_start = own.gradient(own.start)
    direction = torch.zeros_like(own.start)
    direction[-1] = 1.0  # the weight, or rho: the couplings vanish where it is zero
    slope, _ = slopes_along(evidence(model, ["b"]), own.start, direction)
    torch.testing.assert_close(at_start[-1], slope, rtol=GRADIENT, atol=0.0)


def test_what_overflows_far_out_is_not_taken_for_a_derivative_that_torch_lacks(evidence: Make) -> None:
    def model() -> None:
        mu, sd = scalar("mu", 0.1), positive("sd", 1.2)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.Normal(mu, sd))
        observe_counts(counts(), b[GROUP])

    own = evidence(model, ["b"])
    at_start, objective = own.at(own.start), own.objective
    far = objective.near(at_start, {**at_start.params, "sd": torch.tensor(-185.0)})
    assert not isfinite(far.value) or not isfinite(max_norm(far.gradient()))  # 1/sd⁴ is no number
    assert not objective.lacking
    beside = {**at_start.params, "sd": torch.tensor(-184.0)}
    objective.resume_from(beside, far.inner)  # the last good point may be as far out
    objective.at({**beside, "sd": torch.tensor(-186.0)})
    assert not objective.lacking


def test_rows_are_proved_apart_once_for_all_places(evidence: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    own, proofs, stay_apart = evidence(diagonal, ["b"]), [], expansion_module._stay_apart

    def proved(expansion: Expansion, plain: LossGraph, groups: Sequence[int]) -> bool:
        proofs.append(groups)
        return stay_apart(expansion, plain, groups)

    monkeypatch.setattr(expansion_module, "_stay_apart", proved)
    for seed in range(3):
        own.at(own.near_start(0.1 * (seed + 1)))
    assert len(proofs) == 1


def test_a_support_that_moves_with_a_parameter_is_described_without_a_warning(evidence: Make) -> None:
    def model() -> None:
        wide = positive("wide", 2.0)
        with pyro.plate("rows", ROWS):
            b = pyro.sample("b", dist.Uniform(-wide, wide))
        observe_counts(counts(), b[GROUP])

    assert "> -2" in evidence(model, ["b"]).objective.sites["b"].constraint


def test_data_of_another_precision_do_not_stop_a_single_precision_fit() -> None:
    result = fit(gaussian, TRUST_REGION, {"dtype": "float32"}, b="laplace", y=DATA["y"], x=DATA["x"], group=GROUP)

    def closed_over() -> None:
        gaussian(DATA["y"], DATA["x"], GROUP)  # float64, whatever the run's dtype is

    mixed = fit(closed_over, TRUST_REGION, {"dtype": "float32"}, b="laplace")
    assert mixed.loss == pytest.approx(result.loss, rel=1e-4)
