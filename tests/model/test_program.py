"""One trace: names, shapes, plates, and the log density against an independent computation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule, PyroParam, PyroSample
from scipy import stats
from torch import Tensor
from torch.distributions import biject_to, transform_to

import hofit
from hofit import FitResult
from hofit.errors import ModelError

EXACT = 1e-12
"""Two float64 computations of one density, relative."""

ADAM = [{"params": "*", "optimizer": "adam"}]


def at_start(model: Callable[..., Any], given: Mapping[str, Any] | None = None, **config: Any) -> FitResult:
    """The result of a fit of no iteration: everything is where it starts."""
    return hofit.fit(model, {"optimizers": ADAM, "stop": {"max_iterations": 0}, **config}, data=given)


def density_at(model: Callable[..., Any], values: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> float:
    """log p of the constrained values."""
    result = at_start(model, given, init={"values": dict(values)})
    for name, value in values.items():
        assert torch.allclose(result.values[name], torch.as_tensor(value), rtol=EXACT, atol=EXACT)
    return -result.loss


# the density, against scipy ---------------------------------------------------------------------------------------


def test_latents_and_observations_add_up() -> None:
    y = [0.3, -1.2, 2.0]

    def model(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(1.0, 2.0))
        scale = pyro.sample("scale", dist.Gamma(2.0, 3.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(mean, scale), obs=y)

    expected = (
        stats.norm.logpdf(0.7, 1, 2) + stats.gamma.logpdf(0.4, 2, scale=1 / 3) + stats.norm.logpdf(y, 0.7, 0.4).sum()
    )
    assert density_at(model, {"mean": 0.7, "scale": 0.4}, {"y": y}) == pytest.approx(expected, rel=EXACT)


def test_parameters_without_priors_leave_the_likelihood() -> None:
    y = [3, 0, 7]

    def model(y: Tensor) -> None:
        rate = pyro.param("rate", torch.ones(3), constraint=constraints.positive)
        pyro.sample("y", dist.Poisson(rate).to_event(1), obs=y)

    result = at_start(model, {"y": y}, init={"values": {"rate": [2.0, 0.5, 6.0]}})
    expected = stats.poisson.logpmf(y, [2.0, 0.5, 6.0]).sum()
    assert result.log_likelihood == pytest.approx(expected, rel=EXACT)


def test_there_is_no_log_likelihood_with_a_prior_or_a_penalty() -> None:
    def with_prior() -> None:
        pyro.sample("y", dist.Normal(pyro.sample("x", dist.Normal(0.0, 1.0)), 1.0), obs=torch.tensor(1.0))

    def with_penalty() -> None:
        x = pyro.param("x", torch.tensor(1.0))
        pyro.factor("f", -(x**2))
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(1.0))

    assert at_start(with_prior).log_likelihood is None
    assert at_start(with_penalty).log_likelihood is None


@pytest.mark.parametrize(
    ("wrap", "factor"),
    [
        (lambda model: pyro.poutine.scale(model, scale=2.5), 2.5),
        (lambda model: pyro.poutine.mask(model, mask=False), 0.0),
        (lambda model: pyro.poutine.mask(model, mask=torch.tensor([True, False, True])), 2.0 / 3.0),
    ],
    ids=["scale", "mask all", "mask some"],
)
def test_poutine_scale_and_mask_weigh_the_density(wrap: Callable[..., Any], factor: float) -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor(0.5))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(x, 1.0), obs=torch.ones(3))

    assert -at_start(wrap(model)).loss == pytest.approx(factor * 3 * stats.norm.logpdf(0.5), rel=EXACT)


@pytest.mark.parametrize(
    ("mask", "rows"), [(torch.tensor([True, False, True]), [0, 2]), (False, []), (True, [0, 1, 2])]
)
def test_the_sums_of_what_is_observed_leave_out_what_is_masked(mask: Any, rows: list[int]) -> None:
    y = torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]])

    def model() -> None:
        x = pyro.param("x", torch.tensor(0.5))
        with pyro.plate("rows", 3), pyro.poutine.mask(mask=mask):
            pyro.sample("y", dist.Normal(x, 1.0).expand([3, 2]).to_event(1), obs=y)
        pyro.sample("z", dist.Normal(x, 1.0), obs=torch.tensor(3.0))

    seen = [*y[rows].reshape(-1).tolist(), 3.0]
    assert at_start(model).observed_sums == [sum(seen), sum(value**2 for value in seen)]


def test_a_mask_and_a_scale_around_one_site_weigh_that_site_alone() -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor(0.5))
        with pyro.poutine.scale(scale=3.0), pyro.plate("rows", 2), pyro.poutine.mask(mask=torch.tensor([True, False])):
            pyro.sample("y", dist.Normal(x, 1.0), obs=torch.zeros(2))
        pyro.sample("z", dist.Normal(x, 2.0), obs=torch.tensor(1.0))

    expected = 3 * stats.norm.logpdf(0.5) + stats.norm.logpdf(0.5, 0, 2)
    assert -at_start(model).loss == pytest.approx(expected, rel=EXACT)


def test_a_factor_adds_what_it_says() -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor(0.5))
        pyro.factor("f", -3.0 * x)
        with pyro.plate("rows", 2):
            pyro.factor("g", torch.stack([x, 2 * x]))

    assert -at_start(model).loss == pytest.approx(-1.5 + 0.5 + 1.0, rel=EXACT)


def test_a_site_observed_with_none_is_a_latent() -> None:
    def model(y: Tensor | None) -> None:
        pyro.sample("y", dist.Normal(1.0, 2.0), obs=y)

    assert at_start(model, {"y": None}).sites["y"].role == "latent"
    assert density_at(model, {"y": 0.2}, {"y": None}) == pytest.approx(stats.norm.logpdf(0.2, 1, 2), rel=EXACT)
    with pytest.raises(ModelError, match="nothing to fit"):
        at_start(model, {"y": torch.tensor(1.0)})


def test_obs_mask_makes_a_latent_of_what_is_not_observed() -> None:
    y, mask = [1.0, 2.0, 3.0], [True, False, True]

    def model(y: Tensor, mask: Tensor) -> None:
        x = pyro.param("x", torch.tensor(0.5))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(x, 1.0), obs=y, obs_mask=mask)

    result = at_start(model, {"y": y, "mask": mask}, init={"values": {"y_unobserved": 0.1}})
    assert list(result.sites) == ["x", "y_unobserved"]
    expected = stats.norm.logpdf([1.0, 0.1, 3.0], 0.5).sum()
    assert -result.loss == pytest.approx(expected, rel=EXACT)


def test_deterministic_and_delta_sites_are_no_parameters() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        twice = pyro.deterministic("twice", 2 * x)
        same = pyro.sample("same", dist.Delta(twice))
        vector = pyro.deterministic("vector", same.expand(3), event_dim=1)
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(vector, 1.0), obs=torch.zeros(3))

    assert list(at_start(model).sites) == ["x"]
    expected = stats.norm.logpdf(0.3) + 3 * stats.norm.logpdf(0.6)
    assert density_at(model, {"x": 0.3}) == pytest.approx(expected, rel=EXACT)


def test_conditioned_sites_are_observations() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(x, 1.0))

    conditioned = pyro.poutine.condition(model, data={"y": torch.tensor(2.0)})
    assert list(at_start(conditioned).sites) == ["x"]
    expected = stats.norm.logpdf(0.5) + stats.norm.logpdf(2.0, 0.5)
    assert density_at(conditioned, {"x": 0.5}) == pytest.approx(expected, rel=EXACT)


def test_a_support_that_depends_on_another_latent_moves_with_it() -> None:
    def model() -> None:
        low = pyro.sample("low", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Uniform(low, low + 3.0))
        pyro.sample("y", dist.Normal(x, 1.0), obs=torch.tensor(1.0))

    config = {"optimizers": ADAM, "stop": {"max_iterations": 30}, "init": {"strategy": "zero"}}
    result = hofit.fit(model, config)
    low, x = float(result.values["low"]), float(result.values["x"])
    assert low != 0.0
    fraction = torch.sigmoid(result.params["x"])
    assert x == pytest.approx(low + 3 * float(fraction), rel=EXACT)
    expected = stats.norm.logpdf(low) + stats.uniform.logpdf(x, low, 3) + stats.norm.logpdf(1.0, x)
    assert -result.loss == pytest.approx(expected, rel=EXACT)


def test_mixed_effects_density_is_the_multivariate_normal_s() -> None:
    covariance = np.array([[4.0, 1.0], [1.0, 2.0]])
    b = np.array([[0.1, -0.5], [1.0, 2.0], [-0.3, 0.2]])

    def model(y: Tensor) -> None:
        with pyro.plate("subjects", 3):
            effect = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), torch.as_tensor(covariance)))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal(effect.sum(-1), 0.5), obs=y)

    expected = (
        stats.multivariate_normal.logpdf(b, np.zeros(2), covariance).sum()
        + stats.norm.logpdf([1.0, 2.0, 3.0], b.sum(1), 0.5).sum()
    )
    assert density_at(model, {"b": b.tolist()}, {"y": [1.0, 2.0, 3.0]}) == pytest.approx(expected, rel=EXACT)


# constraints ------------------------------------------------------------------------------------------------------

CORRELATION_TRIL = [[1.0, 0.0], [0.6, 0.8]]

LATENTS: dict[str, tuple[Callable[[], Any], Any, tuple[int, ...]]] = {
    "positive": (lambda: dist.Gamma(2.0, 1.0), 0.4, ()),
    "half cauchy": (lambda: dist.HalfCauchy(1.0), 0.4, ()),
    "unit interval": (lambda: dist.Beta(2.0, 3.0), 0.2, ()),
    "interval": (lambda: dist.Uniform(-2.0, 5.0), 0.2, ()),
    "greater than": (lambda: dist.Pareto(1.5, 2.0), 2.5, ()),
    "circular": (lambda: dist.VonMises(0.5, 2.0), -0.4, ()),
    "simplex": (lambda: dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])), [0.2, 0.3, 0.5], (2,)),
    "corr_cholesky": (lambda: dist.LKJCholesky(2, 1.5), CORRELATION_TRIL, (1,)),
    "ordered": (lambda: dist.ImproperUniform(constraints.ordered_vector, (), (3,)), [-1.0, 0.5, 0.75], (3,)),
    "lower_cholesky": (
        lambda: dist.ImproperUniform(constraints.lower_cholesky, (), (2, 2)),
        [[1.0, 0], [3, 2]],
        (2, 2),
    ),
    "positive_definite": (lambda: dist.Wishart(4.0, torch.eye(2)), [[2.0, 0.5], [0.5, 1.0]], (2, 2)),
    "rows of simplexes": (lambda: dist.Dirichlet(torch.ones(2, 3)).to_event(1), [[0.2, 0.3, 0.5]] * 2, (2, 2)),
}


UNMEASURED = ("circular", "lower_cholesky", "positive_definite")
"""Supports that torch maps to the reals without a determinant: they have `transform_to`, but no `biject_to`."""


@pytest.mark.parametrize("kind", LATENTS)
def test_a_constrained_latent_becomes_an_unconstrained_parameter_and_comes_back(kind: str) -> None:
    make, value, shape = LATENTS[kind]

    def model() -> None:
        pyro.sample("x", make())

    result = at_start(model, init={"values": {"x": value}})
    expected = torch.as_tensor(value, dtype=torch.float64)
    assert tuple(result.params["x"].shape) == shape
    assert torch.allclose(result.values["x"], expected, rtol=1e-12, atol=1e-12)
    transform = (transform_to if kind in UNMEASURED else biject_to)(make().support)
    assert torch.allclose(transform(result.params["x"]), expected, rtol=1e-12, atol=1e-12)
    assert result.loss == pytest.approx(-float(make().log_prob(expected).sum()), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("positive", stats.gamma.logpdf(0.4, 2.0)),
        ("half cauchy", stats.halfcauchy.logpdf(0.4)),
        ("unit interval", stats.beta.logpdf(0.2, 2, 3)),
        ("interval", -math.log(7)),
        ("greater than", stats.pareto.logpdf(2.5, 2.0, scale=1.5)),
        ("circular", stats.vonmises.logpdf(-0.4, 2.0, 0.5)),
        ("simplex", stats.dirichlet.logpdf([0.2, 0.3, 0.5], [1, 2, 3])),
        ("positive_definite", stats.wishart.logpdf([[2.0, 0.5], [0.5, 1.0]], 4, np.eye(2))),
    ],
)
def test_scipy_agrees_on_the_density_of_a_constrained_latent(kind: str, expected: float) -> None:
    make, value, _ = LATENTS[kind]
    found = density_at(lambda: pyro.sample("x", make()), {"x": value})
    assert found == pytest.approx(expected, rel=1e-8)  # Pyro's Bessel function has nine digits


@pytest.mark.parametrize("kind", [kind for kind in LATENTS if kind not in UNMEASURED])
def test_the_unconstrained_objective_adds_the_log_determinant_of_the_transform(kind: str) -> None:
    """Against the determinant of the autograd Jacobian of the free coordinates."""
    make, value, _ = LATENTS[kind]

    def model() -> None:
        pyro.sample("x", make())

    config = {"init": {"values": {"x": value}}}
    mode, plain = at_start(model, objective="map_unconstrained", **config), at_start(model, **config)
    u = plain.params["x"]
    transform = biject_to(make().support)
    free = _free_coordinates(kind)
    jacobian = torch.autograd.functional.jacobian(lambda v: free(transform(v.reshape(u.shape))), u.reshape(-1))
    assert plain.loss - mode.loss == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), rel=1e-9, abs=1e-9)


def _free_coordinates(kind: str) -> Callable[[Tensor], Tensor]:
    """As many coordinates of a value as it has degrees of freedom."""
    if "simplex" in kind:
        return lambda value: value[..., :-1].reshape(-1)
    if kind == "corr_cholesky":
        return lambda value: value[1:2, 0]
    return lambda value: value.reshape(-1)


PARAMETERS: dict[str, tuple[Any, Any]] = {
    "real": (constraints.real, [0.3, -0.2]),
    "positive": (constraints.positive, [0.3, 2.0]),
    "softplus_positive": (constraints.softplus_positive, [0.3, 2.0]),
    "greater_than": (constraints.greater_than(2.0), [2.3, 4.0]),
    "less_than": (constraints.less_than(2.0), [1.3, -4.0]),
    "interval": (constraints.interval(-1.0, 1.0), [0.3, -0.9]),
    "simplex": (constraints.simplex, [0.2, 0.3, 0.5]),
    "ordered_vector": (constraints.ordered_vector, [-1.0, 0.0, 2.5]),
    "corr_cholesky": (constraints.corr_cholesky, CORRELATION_TRIL),
    "lower_cholesky": (constraints.lower_cholesky, [[1.0, 0.0], [3.0, 2.0]]),
    "positive_definite": (constraints.positive_definite, [[2.0, 0.5], [0.5, 1.0]]),
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_constrained_parameter_starts_at_its_own_value(kind: str) -> None:
    constraint, value = PARAMETERS[kind]

    def model() -> None:
        x = pyro.param("x", torch.tensor(value), constraint=constraint)
        pyro.factor("f", -x.square().sum())

    result = at_start(model)
    expected = torch.as_tensor(value, dtype=torch.float64)
    assert torch.allclose(result.values["x"], expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(transform_to(constraint)(result.params["x"]), expected, rtol=1e-12, atol=1e-12)
    assert result.loss == pytest.approx(float(expected.square().sum()), rel=1e-10)


# plates and rows --------------------------------------------------------------------------------------------------


def test_nested_plates_give_rows() -> None:
    def model() -> None:
        top = pyro.sample("top", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("outer", 3, dim=-2):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
            with pyro.plate("inner", 5, dim=-1):
                pyro.sample("b", dist.Dirichlet(torch.ones(4)))
                pyro.sample("y", dist.Normal(a + top.sum(), 1.0), obs=torch.zeros(3, 5))
        with pyro.plate("own", 6):
            pyro.sample("c", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))

    sites = at_start(model).sites
    found = {name: (tuple(s.shape), s.rows, s.row_length) for name, s in sites.items()}
    assert found == {
        "top": ((4,), 1, 4),
        "a": ((3, 1), 3, 1),
        "b": ((3, 5, 3), 15, 3),
        "c": ((6, 2), 6, 2),
    }
    plates = {name: {(plate.name, plate.size) for plate in site.plates} for name, site in sites.items()}
    assert plates["b"] == {("outer", 3), ("inner", 5)}
    assert plates["a"] == {("outer", 3)}
    assert plates["top"] == set()


def test_a_parameter_has_rows_where_it_says_its_event_dimensions() -> None:
    def model() -> None:
        with pyro.plate("groups", 3):
            x = pyro.param("x", torch.zeros(3, 2), event_dim=1)
        free = pyro.param("free", torch.zeros(3, 2))
        with pyro.plate("rows", 3):
            pyro.sample("y", dist.Normal((x + free).sum(-1), 1.0), obs=torch.zeros(3))

    sites = at_start(model).sites
    assert (sites["x"].rows, sites["x"].row_length) == (3, 2)
    assert (sites["free"].rows, sites["free"].row_length) == (1, 6)


def test_a_plate_as_a_loop_makes_a_site_of_every_turn() -> None:
    def model() -> None:
        for i in pyro.plate("groups", 2):
            x = pyro.sample(f"x_{i}", dist.Normal(0.0, 1.0))
            pyro.sample(f"y_{i}", dist.Normal(x, 1.0), obs=torch.tensor(1.0))

    sites = at_start(model).sites
    assert list(sites) == ["x_0", "x_1"]
    assert sites["x_0"].rows == 1


SUBSET = {"optimizers": [{"params": "*", "optimizer": "sgd", "lr": 0.1}]}


def subsampled(y: Tensor) -> None:
    mean = pyro.param("mean", torch.tensor(0.5))
    with pyro.plate("rows", len(y), subsample_size=2) as chosen:
        b = pyro.sample("b", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y[chosen])


def test_a_local_latent_of_a_subsampled_plate_is_whole_and_moves_where_it_was_drawn() -> None:
    y = torch.arange(6.0)
    before = at_start(subsampled, {"y": y})
    assert before.sites["b"].shape == (6,)
    after = hofit.fit(subsampled, {**SUBSET, "stop": {"max_iterations": 1}}, y=y)
    moved = (after.params["b"] != before.params["b"]).nonzero().reshape(-1)
    assert len(moved) == 2
    # The gradient of the drawn rows by hand: pyro scales what it draws by 6/2.
    b = before.params["b"][moved]
    expected = b - 0.1 * 3.0 * ((b - 0.5) + (b - y[moved]))
    assert torch.allclose(after.params["b"][moved], expected, rtol=EXACT)


def test_the_loss_that_is_reported_of_a_subsampled_model_is_that_of_the_full_plates() -> None:
    y = torch.arange(6.0)
    result = at_start(subsampled, {"y": y}, init={"values": {"b": 0.2}})
    expected = 6 * stats.norm.logpdf(0.2, 0.5) + stats.norm.logpdf(y.numpy(), 0.2).sum()
    assert -result.loss == pytest.approx(expected, rel=EXACT)
    assert any("rows" in remark and "stochastic" in remark for remark in result.remarks)


def test_a_subsampled_plate_is_refused_by_name_where_a_part_needs_the_whole() -> None:
    config = {"optimizers": [{"params": "*", "optimizer": "newton"}]}
    with pytest.raises(ModelError, match="'rows'"):
        hofit.fit(subsampled, config, y=torch.arange(6.0))


# modules ----------------------------------------------------------------------------------------------------------


def test_weights_of_a_module_are_parameters_under_their_plain_names() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))

    def model(x: Tensor) -> None:
        pyro.module("net", net)
        pyro.sample("y", dist.Normal(net(x).squeeze(-1), 1.0).to_event(1), obs=torch.zeros(4))

    x = torch.randn(4, 2)
    result = at_start(model, {"x": x})
    assert list(result.params) == ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"]
    expected = stats.norm.logpdf(net(x).detach().numpy()).sum()
    assert -result.loss == pytest.approx(expected, rel=EXACT)


def test_a_module_holds_the_fitted_weights_afterwards() -> None:
    net = torch.nn.Linear(1, 1)

    def model(x: Tensor, y: Tensor) -> None:
        pyro.module("net", net)
        pyro.sample("y", dist.Normal(net(x), 1.0).to_event(2), obs=y)

    x = torch.tensor([[0.0], [1.0], [2.0]])
    result = hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "newton"}]}, x=x, y=3 * x - 1)
    assert result.converged
    assert torch.equal(net.weight, result.params["net.weight"])
    assert net.weight.item() == pytest.approx(3.0, abs=1e-5)
    assert net.bias.item() == pytest.approx(-1.0, abs=1e-5)


class Regression(PyroModule):
    """A PyroParam, a PyroSample, a PyroModule inside and a plain nn.Module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = PyroParam(torch.tensor(0.5), constraints.positive)
        self.offset = PyroSample(dist.Normal(0.0, 2.0))
        self.inner = PyroModule[torch.nn.Linear](2, 1)
        self.inner.bias = PyroSample(dist.Normal(0.0, 1.0).expand([1]).to_event(1))
        self.plain = torch.nn.Linear(2, 1, bias=False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        mean = (self.inner(x) + self.plain(x)).squeeze(-1) + self.offset
        drawn: Tensor = pyro.sample("y", dist.Normal(mean, self.scale).to_event(1), obs=y)
        return drawn


def test_a_pyro_module_with_params_samples_and_a_plain_module_inside_is_a_model() -> None:
    model, x, y = Regression(), torch.randn(4, 2), torch.zeros(4)
    values = {"offset": 0.3, "inner.bias": [0.4], "scale": 0.8}
    result = at_start(model, {"x": x, "y": y}, init={"values": values})
    roles = {name: site.role for name, site in result.sites.items()}
    assert roles == {
        "inner.weight": "parameter",
        "inner.bias": "latent",
        "plain.weight": "parameter",
        "offset": "latent",
        "scale": "parameter",
    }
    weight = (result.values["inner.weight"] + result.values["plain.weight"]).numpy()
    mean = (x.numpy() @ weight.T)[:, 0] + 0.4 + 0.3
    expected = stats.norm.logpdf(0.3, 0, 2) + stats.norm.logpdf(0.4) + stats.norm.logpdf(0.0, mean, 0.8).sum()
    assert -result.loss == pytest.approx(expected, rel=EXACT)


def test_a_pyro_module_is_fitted() -> None:
    model, x = Regression(), torch.randn(20, 2)
    config = {"optimizers": [{"params": "*", "optimizer": "adam", "lr": 0.05}], "stop": {"max_iterations": 20}}
    start = at_start(model, {"x": x, "y": x[:, 0]}).loss
    assert hofit.fit(model, config, x=x, y=x[:, 0]).loss < start


# what a fit leaves alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constraint", [constraints.real, constraints.positive])
@pytest.mark.parametrize("optimizer", ["adam", "newton"])
def test_the_caller_s_own_tensors_are_never_written_to(constraint: Any, optimizer: str) -> None:
    start, gradient_start = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0], requires_grad=True)
    y = torch.tensor([3.0, 4.0])

    def model(y: Tensor) -> None:
        one = pyro.param("one", start, constraint=constraint)
        two = pyro.param("two", gradient_start, constraint=constraint)
        pyro.sample("y", dist.Normal(one, 1.0).to_event(1), obs=y)
        pyro.sample("z", dist.Normal(two, 1.0).to_event(1), obs=y)

    config = {"optimizers": [{"params": "*", "optimizer": optimizer}], "stop": {"max_iterations": 3}}
    result = hofit.fit(model, config, y=y)
    assert not torch.equal(result.values["one"], start)
    assert start.tolist() == [1.0, 2.0]
    assert gradient_start.tolist() == [1.0, 2.0] and gradient_start.grad is None
    assert y.tolist() == [3.0, 4.0] and not y.requires_grad


def test_a_fit_leaves_pyro_s_store_the_seed_and_the_flags_as_they_were() -> None:
    pyro.param("mine", torch.tensor(7.0))
    pyro.enable_validation(False)
    torch.set_default_dtype(torch.float32)
    threads, device = torch.get_num_threads(), torch.get_default_device()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)

    def model() -> None:
        pyro.sample("y", dist.Normal(pyro.param("mine", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))

    try:
        result = hofit.fit(model, {"optimizers": ADAM, "stop": {"max_iterations": 2}, "seed": 9})
        assert result.params["mine"].dtype == torch.float64
        assert list(pyro.get_param_store()) == ["mine"]
        assert pyro.param("mine").item() == 7.0
        assert not torch.distributions.Distribution._validate_args
        assert torch.get_default_dtype() == torch.float32
        assert (torch.get_num_threads(), torch.get_default_device()) == (threads, device)
        assert torch.equal(torch.rand(3), expected)
    finally:
        pyro.enable_validation(True)
