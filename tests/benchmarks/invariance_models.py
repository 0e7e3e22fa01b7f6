"""Small models of which it is known how a fit must end: flat, on a boundary, at infinity, in several modes, ordinary.

Every parameter is a latent under a flat density unless it has a prior, so that `init.strategy: uniform` moves all of
them. A model takes them from `Parameters`, in whose unit the fit sees them: the model itself is the same in all units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

FLAT, BOUNDARY, CONVERGED, UNBOUNDED = "flat_direction", "converged_on_boundary", "converged", "unbounded"


@dataclass(frozen=True)
class Parameters:
    """The parameters of a model, each `unit` times as large for the fit as for the model."""

    unit: float = 1.0

    def real(self, name: str, *shape: int) -> Tensor:
        return self._flat(name, constraints.real, shape) / self.unit

    def positive(self, name: str, *shape: int) -> Tensor:
        return self._flat(name, constraints.positive, shape) / self.unit

    def interval(self, name: str, low: float, high: float) -> Tensor:
        return self._flat(name, constraints.interval(low * self.unit, high * self.unit), ()) / self.unit

    def ordered(self, name: str, size: int) -> Tensor:
        return self._whole(name, dist.constraints.ordered_vector, (size,)) / self.unit

    def simplex(self, name: str, size: int) -> Tensor:
        """Has no unit."""
        return self._whole(name, constraints.simplex, (size,))

    def correlation_cholesky(self, name: str, size: int) -> Tensor:
        """Has no unit."""
        return self._whole(name, constraints.corr_cholesky, (size, size))

    def prior(self, name: str, density: Any) -> Tensor:
        """A latent, positive where its density is, with a density in the model's unit."""
        if self.unit == 1.0:
            value: Tensor = pyro.sample(name, density)
            return value
        support = constraints.real if density.support is not constraints.positive else constraints.positive
        value = self._flat(name, support, (*density.batch_shape, *density.event_shape)) / self.unit
        pyro.factor(f"density of {name}", density.log_prob(value))
        return value

    @staticmethod
    def _flat(name: str, support: Any, shape: tuple[int, ...]) -> Tensor:
        value: Tensor = pyro.sample(name, dist.ImproperUniform(support, shape, ()).to_event(len(shape)))
        return value

    @staticmethod
    def _whole(name: str, support: Any, shape: tuple[int, ...]) -> Tensor:
        value: Tensor = pyro.sample(name, dist.ImproperUniform(support, (), shape))
        return value


Model = Callable[[Parameters], None]


@dataclass(frozen=True)
class Case:
    """A model and how its fits must end.

    `build` makes the data and the model. `expected` is the status at the lowest loss, `infimum` that loss where it is
    known without a fit, `rounding` what its own terms may be out by far out. `newton` is the optimizer that stands
    beside the four that every model has. `marginal` builds the same model with its latents `b`, for the objective of
    that name: `build` has them integrated out by hand.
    """

    kind: str
    build: Callable[[], Model]
    expected: str
    infimum: Callable[[], float] | None = None
    rounding: float = 0.0
    newton: str = "newton"
    marginal: Callable[[], Model] | None = None

    @property
    def name(self) -> str:
        return self.build.__name__


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


def observe(name: str, density: Any, values: Tensor) -> None:
    with pyro.plate(f"rows of {name}", len(values)):
        pyro.sample(name, density, obs=values)


# --- Flat: the loss does not change along a direction ---------------------------------------------


def sum_of_two() -> Model:
    y = 1.0 + normals(1, 12)
    return lambda p: observe("y", dist.Normal(p.real("a") + p.real("b"), 1.0), y)


def product_of_two() -> Model:
    y = 2.0 + normals(2, 12)
    return lambda p: observe("y", dist.Normal(p.real("a") * p.real("b"), 1.0), y)


GAMES = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [4, 0], [0, 2], [1, 3], [2, 4], [3, 0], [4, 1]])
FIRST_WON = torch.tensor([3.0, 2.0, 3.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 2.0])  # of 4


def unanchored_bradley_terry() -> Model:
    def model(p: Parameters) -> None:
        skill = p.real("skill", 5)
        observe("won", dist.Binomial(4, logits=skill[GAMES[:, 0]] - skill[GAMES[:, 1]]), FIRST_WON)

    return model


def factors_that_rotate() -> Model:
    truth = torch.tensor([[0.9, 0.0], [0.8, 0.3], [0.7, -0.4], [0.2, 0.8], [0.0, 0.9], [0.5, 0.6]])
    y = normals(3, 150, 2) @ truth.T + 0.6 * normals(4, 150, 6)

    def model(p: Parameters) -> None:
        loadings, noise = p.real("loadings", 6, 2), p.positive("noise", 6)
        covariance = loadings @ loadings.T + noise.square().diag()
        observe("y", dist.MultivariateNormal(torch.zeros(6), covariance), y)

    return model


def redundant_logit() -> Model:
    x = normals(5, 40)
    y = dist.Categorical(logits=torch.stack([0.0 * x, 0.5 + x, -0.3 - 0.5 * x], -1))
    with torch.random.fork_rng():
        torch.manual_seed(6)
        labels = y.sample()

    def model(p: Parameters) -> None:
        logits = p.real("intercept", 3) + x[:, None] * p.real("slope", 3)
        observe("y", dist.Categorical(logits=logits), labels)

    return model


def unused_parameter() -> Model:
    x, y = normals(7, 20), 0.5 + normals(8, 20)

    def model(p: Parameters) -> None:
        p.real("unused")
        beta = p.real("beta", 2)
        observe("y", dist.Normal(beta[0] + beta[1] * x, p.positive("sigma")), y)

    return model


def collinear_columns() -> Model:
    x = normals(9, 30)
    y = (torch.rand(30, generator=generator(10)) < torch.sigmoid(0.5 * x)).to(x)

    def model(p: Parameters) -> None:
        beta = p.real("beta", 3)
        observe("y", dist.Bernoulli(logits=beta[0] + beta[1] * x + beta[2] * (2.0 * x)), y)

    return model


# --- On a boundary: the infimum is at the edge of a support ---------------------------------------

GROUP = torch.arange(6).repeat_interleave(4)
EVEN = normals(11, 24) - normals(11, 24).reshape(6, 4).mean(1)[GROUP] + 0.1 * normals(12, 6)[GROUP]  # groups alike


def no_variance_between() -> Model:
    """The random intercepts are integrated out by hand."""

    def model(p: Parameters) -> None:
        mean, between, within = p.real("mean"), p.positive("between"), p.positive("within")
        covariance = within.square() * torch.eye(4) + between.square() * torch.ones(4, 4)
        observe("y", dist.MultivariateNormal(mean.expand(4), covariance), EVEN.reshape(6, 4))

    return model


def no_variance_between_marginal() -> Model:
    def model(p: Parameters) -> None:
        mean, between, within = p.real("mean"), p.positive("between"), p.positive("within")
        with pyro.plate("groups", 6):
            b = pyro.sample("b", dist.Normal(0.0, between))
        observe("y", dist.Normal(mean + b[GROUP], within), EVEN)

    return model


LINE = torch.tensor([-1.5, -0.5, 0.5, 1.5])


def correlation_at_one() -> Model:
    """Random intercepts and slopes whose correlation is estimated at one."""
    common = normals(13, 12, 1)
    y = common + common * LINE + 0.4 * normals(14, 12, 4)  # less noise than the model has

    def model(p: Parameters) -> None:
        scale, correlation = p.positive("scale"), p.interval("correlation", -1.0, 1.0)
        ones = torch.ones(4)
        cross = torch.outer(ones, LINE) + torch.outer(LINE, ones)
        spread = torch.outer(ones, ones) + torch.outer(LINE, LINE) + correlation * cross
        covariance = scale.square() * spread + 0.49 * torch.eye(4)
        observe("y", dist.MultivariateNormal(torch.zeros(4), covariance), y)

    return model


def correlation_matrix_at_one() -> Model:
    common = normals(15, 14, 1)
    y = common * torch.tensor([1.0, 1.0, -1.0]) + 0.5 * normals(16, 14, 3)

    def model(p: Parameters) -> None:
        factor, scale = p.correlation_cholesky("factor", 3), p.positive("scale")
        covariance = scale.square() * factor @ factor.T + 0.25 * torch.eye(3)
        observe("y", dist.MultivariateNormal(torch.zeros(3), covariance), y)

    return model


def zero_on_a_simplex() -> Model:
    def model(p: Parameters) -> None:
        pyro.sample("counts", dist.Multinomial(15, p.simplex("p", 4)), obs=torch.tensor([6.0, 0.0, 5.0, 4.0]))

    return model


def no_weight_of_a_component() -> Model:
    y = torch.cat([normals(17, 30), torch.tensor([0.3])])

    def model(p: Parameters) -> None:
        weight = p.interval("weight", 0.0, 1.0)
        components = dist.Normal(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 1.0]))
        mixing = dist.Categorical(probs=torch.stack([1.0 - weight, weight]))
        observe("y", dist.MixtureSameFamily(mixing, components), y)

    return model


def gap_that_closes() -> Model:
    y = torch.tensor([[0.0, 0.4, -0.2, 0.1], [1.5, 1.9, 1.2, 1.6], [0.9, 1.3, 1.0, 0.6], [3.0, 2.6, 3.3, 2.9]])

    def model(p: Parameters) -> None:
        levels = p.ordered("levels", 4)
        observe("y", dist.Normal(levels[:, None], 1.0).to_event(1), y)

    return model


def rate_at_zero() -> Model:
    counts = torch.tensor([[3.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    return lambda p: observe("counts", dist.Poisson(p.positive("rate", 3)[:, None]).to_event(1), counts)


# --- At infinity: the loss levels off as a parameter runs away ------------------------------------


def complete_separation() -> Model:
    x = torch.tensor([-2.0, -1.5, -1.1, -0.4, 0.3, 0.8, 1.4, 2.2])

    def model(p: Parameters) -> None:
        beta = p.real("beta", 2)
        observe("y", dist.Bernoulli(logits=beta[0] + beta[1] * x), (x > 0).to(x))

    return model


def quasi_separation() -> Model:
    x = torch.tensor([-2.0, -1.5, -1.0, 0.0, 0.0, 0.0, 1.0, 1.4, 2.2])
    y = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])

    def model(p: Parameters) -> None:
        beta = p.real("beta", 2)
        observe("y", dist.Bernoulli(logits=beta[0] + beta[1] * x), y)

    return model


def light_tails() -> Tensor:
    quantiles: Tensor = torch.special.ndtri((torch.arange(40.0) + 0.5) / 40.0)
    return quantiles.clamp(-1.9, 1.9)


def student_of_normal_data() -> Model:
    y = light_tails()
    return lambda p: observe("y", dist.StudentT(p.positive("df"), p.real("mean"), p.positive("scale")), y)


def loss_of_normal() -> float:
    y = light_tails()
    return -float(dist.Normal(y.mean(), y.std(correction=0)).log_prob(y).sum())


EVEN_COUNTS = [3.0, 4.0, 5.0, 4.0, 3.0, 5.0, 4.0, 4.0, 2.0, 6.0, 4.0, 3.0]  # under-dispersed


def negative_binomial_of_even_counts() -> Model:
    counts = torch.tensor(EVEN_COUNTS)

    def model(p: Parameters) -> None:
        size, mean = p.positive("size"), p.positive("mean")
        observe("counts", dist.GammaPoisson(size, size / mean), counts)

    return model


def loss_of_poisson() -> float:
    counts = torch.tensor(EVEN_COUNTS)
    return -float(dist.Poisson(counts.mean()).log_prob(counts).sum())


def undefeated_player() -> Model:
    """Player 1 has won all of her games; player 0 is the anchor."""
    won = torch.where(GAMES[:, 0] == 1, 4.0, torch.where(GAMES[:, 1] == 1, 0.0, FIRST_WON))

    def model(p: Parameters) -> None:
        skill = torch.cat([torch.zeros(1), p.real("skill", 4)])
        observe("won", dist.Binomial(4, logits=skill[GAMES[:, 0]] - skill[GAMES[:, 1]]), won)

    return model


def class_never_seen() -> Model:
    x = normals(18, 30)
    labels = (torch.rand(30, generator=generator(19)) < torch.sigmoid(0.5 + x)).long()

    def model(p: Parameters) -> None:
        logits = p.real("intercept", 2) + x[:, None] * p.real("slope", 2)
        observe("y", dist.Categorical(logits=torch.cat([torch.zeros(30, 1), logits], -1)), labels)

    return model


def log_rate_of_zeros() -> Model:
    counts = torch.tensor([[3.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    return lambda p: observe("counts", dist.Poisson(p.real("log_rate", 3).exp()[:, None]).to_event(1), counts)


# --- Several modes --------------------------------------------------------------------------------


def two_means() -> Model:
    """Which component is which is not said."""
    y = torch.cat([normals(20, 12) - 2.0, normals(21, 8) + 2.0])

    def model(p: Parameters) -> None:
        mixing = dist.Categorical(probs=torch.tensor([0.5, 0.5]))
        observe("y", dist.MixtureSameFamily(mixing, dist.Normal(p.real("means", 2), 1.0)), y)

    return model


def bimodal_prior() -> Model:
    y = torch.tensor([0.3, 0.9])

    def model(p: Parameters) -> None:
        mixing = dist.Categorical(probs=torch.tensor([0.4, 0.6]))
        mean = p.real("mean")  # no transform reaches the support that torch gives a mixture
        pyro.factor("prior", dist.MixtureSameFamily(mixing, dist.Normal(torch.tensor([-2.0, 2.0]), 0.5)).log_prob(mean))
        observe("y", dist.Normal(mean, 2.0), y)

    return model


def sine() -> Model:
    x = torch.linspace(0.0, 5.0, 25)
    y = torch.sin(2.1 * x) + 0.2 * normals(22, 25)
    return lambda p: observe("y", dist.Normal(p.real("size") * torch.sin(p.real("frequency") * x), 0.2), y)


def tiny_network() -> Model:
    x = torch.linspace(-2.0, 2.0, 20)
    y = torch.tanh(2.0 * x - 1.0) - 0.5 * torch.tanh(x + 1.0) + 0.1 * normals(23, 20)

    def model(p: Parameters) -> None:
        hidden_weight, hidden_bias, weight = (
            p.prior(name, dist.Normal(torch.zeros(2), 1.0).to_event(1))
            for name in ("hidden_weight", "hidden_bias", "weight")
        )
        hidden = torch.tanh(x[:, None] * hidden_weight + hidden_bias)
        observe("y", dist.Normal(hidden @ weight, 0.3), y)

    return model


def cauchy_location() -> Model:
    y = torch.tensor([-1.7, 0.1, 1.6, 1.9])
    return lambda p: observe("y", dist.Cauchy(p.real("location"), 0.3), y)


def double_well() -> Model:
    def model(p: Parameters) -> None:
        a, b = p.real("a"), p.real("b")
        pyro.factor("wells", -3.0 * (a.square() - 1.0).square() - 0.3 * a - 0.5 * (b - a).square())

    return model


# --- Ordinary -------------------------------------------------------------------------------------


def linear_regression() -> Model:
    x = normals(24, 30, 3)
    y = x @ torch.tensor([1.0, -0.5, 0.2]) + 0.3 + 0.8 * normals(25, 30)

    def model(p: Parameters) -> None:
        observe("y", dist.Normal(p.real("intercept") + x @ p.real("beta", 3), p.positive("sigma")), y)

    return model


def logistic_regression() -> Model:
    x = normals(26, 60, 3)
    y = (torch.rand(60, generator=generator(27)) < torch.sigmoid(x @ torch.tensor([1.0, -0.5, 0.2]))).to(x)
    return lambda p: observe("y", dist.Bernoulli(logits=p.real("intercept") + x @ p.real("beta", 3)), y)


def poisson_regression() -> Model:
    x = normals(28, 40, 2)
    y = torch.poisson((0.5 + x @ torch.tensor([0.4, -0.3])).exp(), generator=generator(29))
    return lambda p: observe("y", dist.Poisson((p.real("intercept") + x @ p.real("beta", 2)).exp()), y)


SCATTERED = 1.2 * normals(30, 6)[GROUP] + 0.6 * normals(31, 24)


def hierarchical_normal() -> Model:
    def model(p: Parameters) -> None:
        mean, between, within = p.real("mean"), p.positive("between"), p.positive("within")
        covariance = within.square() * torch.eye(4) + between.square() * torch.ones(4, 4)
        observe("y", dist.MultivariateNormal(mean.expand(4), covariance), SCATTERED.reshape(6, 4))

    return model


def hierarchical_normal_marginal() -> Model:
    def model(p: Parameters) -> None:
        mean, between, within = p.real("mean"), p.positive("between"), p.positive("within")
        with pyro.plate("groups", 6):
            b = pyro.sample("b", dist.Normal(0.0, between))
        observe("y", dist.Normal(mean + b[GROUP], within), SCATTERED)

    return model


def gaussian_process() -> Model:
    x = torch.linspace(0.0, 4.0, 20)
    y = torch.sin(2.0 * x) + 0.2 * normals(32, 20)
    distance = (x[:, None] - x).square()

    def model(p: Parameters) -> None:
        length, scale, noise = (p.prior(name, dist.LogNormal(0.0, 1.0)) for name in ("length", "scale", "noise"))
        covariance = scale.square() * (-0.5 * distance / length.square()).exp() + noise.square() * torch.eye(20)
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(20), covariance), obs=y)

    return model


def log_normal_priors() -> Model:
    y = 2.0 + 1.5 * normals(33, 25)

    def model(p: Parameters) -> None:
        mean, sigma = p.prior("mean", dist.Normal(0.0, 5.0)), p.prior("sigma", dist.LogNormal(0.0, 1.0))
        observe("y", dist.StudentT(p.prior("df", dist.LogNormal(2.0, 0.5)), mean, sigma), y)

    return model


def gamma_regression() -> Model:
    x = normals(34, 40)
    mean = (0.5 + 0.4 * x).exp()
    y = mean * torch.tensor([0.2, 0.6, 1.0, 1.4, 2.3]).repeat(8)

    def model(p: Parameters) -> None:
        shape, beta = p.positive("shape"), p.real("beta", 2)
        observe("y", dist.Gamma(shape, shape / (beta[0] + beta[1] * x).exp()), y)

    return model


# --- Without a floor ------------------------------------------------------------------------------


def joint_mode_of_a_free_scale() -> Model:
    """As the scale goes to zero and the effects with it the density goes to infinity."""
    y = torch.tensor([0.4, -0.3, 0.2, 0.6, -0.5, -0.1])

    def model(p: Parameters) -> None:
        tau = p.positive("tau")
        observe("y", dist.Normal(p.prior("b", dist.Normal(torch.zeros(6), tau).to_event(1)), 1.0), y)

    return model


def saturated_regression() -> Model:
    """As many coefficients as rows: the scale goes to zero."""
    x, y = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.3, 1.1, -0.4])
    design = torch.stack([torch.ones(3), x, x.square()], -1)
    return lambda p: observe("y", dist.Normal(design @ p.real("beta", 3), p.positive("sigma")), y)


def component_on_one_point() -> Model:
    """A component of the mixture narrows on a single observation."""
    y = torch.tensor([0.4])

    def model(p: Parameters) -> None:
        mixing = dist.Categorical(probs=torch.tensor([0.5, 0.5]))
        means, scales = (
            torch.stack([torch.zeros(()), p.real("mean")]),
            torch.stack([torch.ones(()), p.positive("scale")]),
        )
        observe("y", dist.MixtureSameFamily(mixing, dist.Normal(means, scales)), y)

    return model


LGAMMA = 1e-4
"""What is left of a loss whose terms are differences of lgamma(10⁸)."""

CASES = [
    Case("flat", sum_of_two, FLAT),
    Case("flat", product_of_two, FLAT),
    Case("flat", unanchored_bradley_terry, FLAT, newton="gauss_newton"),
    Case("flat", factors_that_rotate, FLAT),
    Case("flat", redundant_logit, FLAT, newton="gauss_newton"),
    Case("flat", unused_parameter, FLAT),
    Case("flat", collinear_columns, FLAT, newton="gauss_newton"),
    Case("boundary", no_variance_between, BOUNDARY, marginal=no_variance_between_marginal),
    Case("boundary", correlation_at_one, BOUNDARY),
    Case("boundary", correlation_matrix_at_one, BOUNDARY),
    Case("boundary", zero_on_a_simplex, BOUNDARY),
    Case("boundary", no_weight_of_a_component, BOUNDARY),
    Case("boundary", gap_that_closes, BOUNDARY),
    Case("boundary", rate_at_zero, BOUNDARY),
    Case("infinite", complete_separation, BOUNDARY, infimum=lambda: 0.0),
    Case("infinite", quasi_separation, BOUNDARY),
    Case("infinite", student_of_normal_data, BOUNDARY, infimum=loss_of_normal, rounding=LGAMMA),
    Case("infinite", negative_binomial_of_even_counts, BOUNDARY, infimum=loss_of_poisson, rounding=LGAMMA),
    Case("infinite", undefeated_player, BOUNDARY),
    Case("infinite", class_never_seen, BOUNDARY, newton="gauss_newton"),
    Case("infinite", log_rate_of_zeros, BOUNDARY),
    Case("several modes", two_means, CONVERGED),
    Case("several modes", bimodal_prior, CONVERGED),
    Case("several modes", sine, CONVERGED, newton="gauss_newton"),
    Case("several modes", tiny_network, CONVERGED, newton="gauss_newton"),
    Case("several modes", cauchy_location, CONVERGED),
    Case("several modes", double_well, CONVERGED),
    Case("ordinary", linear_regression, CONVERGED),
    Case("ordinary", logistic_regression, CONVERGED, newton="gauss_newton"),
    Case("ordinary", poisson_regression, CONVERGED, newton="gauss_newton"),
    Case("ordinary", hierarchical_normal, CONVERGED, marginal=hierarchical_normal_marginal),
    Case("ordinary", gaussian_process, CONVERGED),
    Case("ordinary", log_normal_priors, CONVERGED),
    Case("ordinary", gamma_regression, CONVERGED),
    Case("no floor", joint_mode_of_a_free_scale, UNBOUNDED),
    Case("no floor", saturated_regression, UNBOUNDED),
    Case("no floor", component_on_one_point, UNBOUNDED),
]
