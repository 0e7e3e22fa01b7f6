"""Every distribution that Pyro exports, found by looking: observed, with its parameters fitted, and as a latent.

A class that needs no more than its parameters is made from its own `arg_constraints`, so one that a later Pyro adds is
tried by itself; the others are made by MAKERS. What is held is the loss, against the distribution's own `log_prob`; the
gradient, against differences of the loss; a verdict with standard errors; and for latents whose mode is a proper one
the Laplace evidence, against autograd's dense Hessian.

EXCEPTIONS have no density or no parameter; the last tests hold each to its reason, and their number to ten.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import pyro.distributions.constraints as constraints
import pytest
import torch
from torch import Tensor
from torch.distributions import biject_to, transform_to

import hofit
from hofit.coordinates import Coordinates
from hofit.model.program import Program
from hofit.objective.density import DensityObjective
from tests.tolerances import ROUNDING, SLOPE

Maker = Callable[..., dist.TorchDistribution]

NAMES = sorted(
    name
    for name, found in vars(dist).items()
    if inspect.isclass(found) and issubclass(found, torch.distributions.Distribution)
)

EXCEPTIONS = {
    "ExponentialFamily": "abstract",
    "TorchDistribution": "abstract",
    "LinearHMM": "no density",
    "GaussianScaleMixture": "no gradient",  # Pyro's own log_prob overwrites what its backward needs
    "ImproperUniform": "no parameter",
    "TruncatedPolyaGamma": "no parameter",
}


@dataclass
class Example:
    """A distribution: how it is made of its parameters, where these start, their constraints, and a value of it."""

    make: Maker
    start: dict[str, Tensor]
    constraint: dict[str, constraints.Constraint]
    value: Tensor

    def at_start(self) -> dist.TorchDistribution:
        return self.make(**self.start)


def value_under(constraint: constraints.Constraint, name: str) -> Tensor | None:
    """An ordinary value of an argument; None for one that is no real number."""
    base = constraint
    depth = 0
    while isinstance(base, constraints.independent):
        depth += base.reinterpreted_batch_ndims
        base = base.base_constraint
    if base is constraints.simplex:
        return torch.tensor([0.2, 0.5, 0.3])
    if base in (constraints.lower_cholesky, constraints.lower_triangular):
        return torch.tensor([[1.2, 0.0], [0.4, 0.8]])
    if base is constraints.positive_definite:
        return torch.tensor([[1.5, 0.4], [0.4, 0.9]])
    if base is constraints.ordered_vector:
        return torch.tensor([-0.7, 0.9])
    if getattr(base, "is_discrete", False):
        return None
    first = float(transform_to(base)(torch.tensor(0.3)))
    if depth == 0:
        return torch.tensor(first)
    if depth == 1:
        return first + 0.1 * torch.arange(2.0)
    return first + 0.1 * torch.arange(2.0)[:, None]


def generic(name: str) -> Example:
    """From the class's own `arg_constraints`: the arguments it needs, then one of each of the alternatives."""
    kind = getattr(dist, name)
    known = kind.arg_constraints
    signature = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name in known]
    start = {p.name: value_under(known[p.name], p.name) for p in signature}
    whole = {name: torch.tensor(5.0) for name, value in start.items() if value is None}
    real = {name: value for name, value in start.items() if value is not None}
    needed = [p.name for p in signature if p.default is p.empty and p.name in real]
    optional = [p.name for p in signature if p.default is not p.empty and p.name in real]

    def make(**given: Tensor) -> dist.TorchDistribution:
        made: dist.TorchDistribution = kind(**whole, **given)
        return made

    chosen = {name: real[name] for name in needed}
    problem: Exception | None = None
    for extra in [*([name] for name in optional), []]:
        trial = chosen | {name: real[name] for name in extra}
        try:
            value = make(**trial).sample()
        except (ValueError, RuntimeError, NotImplementedError, AssertionError) as error:
            problem = error
            continue
        return Example(make, trial, {name: known[name] for name in trial}, value)
    raise AssertionError(f"{name} cannot be made of its arg_constraints ({problem}): give it a maker of its own")


POSITIVE, REAL = constraints.positive, constraints.real


def made(make: Maker, value: Tensor | None = None, **start: tuple[object, constraints.Constraint]) -> Example:
    tensors = {name: torch.as_tensor(number, dtype=torch.float64) for name, (number, _) in start.items()}
    if value is None:
        value = make(**tensors).sample()
    return Example(make, tensors, {name: constraint for name, (_, constraint) in start.items()}, value)


def gaussian(loc: Tensor, scale: Tensor) -> dist.MultivariateNormal:
    return dist.MultivariateNormal(loc * torch.ones(2), scale_tril=scale * torch.eye(2))


def filtered(kind: str) -> Maker:
    """A hidden Markov model of Gaussian noise over two dimensions, three steps of one."""
    rotation = torch.tensor([[0.8, 0.2], [-0.1, 0.9]])

    def make(loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
        noise = gaussian(loc, scale)
        parts = (noise, rotation, noise, torch.eye(2), gaussian(torch.zeros(()), torch.ones(())))
        if kind == "GammaGaussianHMM":
            return dist.GammaGaussianHMM(dist.Gamma(3.0, 3.0), *parts, duration=3)
        if kind == "LinearHMM":
            steps = [dist.Independent(dist.Normal(one.loc, 1.0), 1) for one in (noise, noise, parts[-1])]
            return dist.LinearHMM(steps[0], rotation, steps[1], torch.eye(2), steps[2], duration=3)
        return dist.GaussianHMM(*parts, duration=3)

    return make


def markov_random_field(loc: Tensor, scale: Tensor) -> dist.TorchDistribution:
    pair = dist.MultivariateNormal(loc * torch.ones(4), scale_tril=scale * torch.eye(4)).expand([3])
    return dist.GaussianMRF(gaussian(loc, scale), pair, pair)


LOC, SCALE = (0.3, REAL), (1.2, POSITIVE)
GATE = (0.35, constraints.unit_interval)
LOCS, COORDINATES = ([[0.3, -0.2], [1.0, 0.8]], REAL), ([0.9, 1.2], POSITIVE)
LOGITS = ([0.2, -0.3], REAL)

MAKERS: dict[str, Callable[[], Example]] = {
    "AffineBeta": lambda: made(
        lambda one, zero: dist.AffineBeta(one, zero, torch.tensor(0.5), torch.tensor(2.0)),
        torch.tensor(1.4),
        one=(1.5, POSITIVE),
        zero=(1.2, POSITIVE),
    ),
    "AVFMultivariateNormal": lambda: made(
        lambda loc: dist.AVFMultivariateNormal(loc, torch.eye(2), torch.zeros(2, 1, 2)), loc=([0.3, -0.1], REAL)
    ),
    "CoalescentTimes": lambda: made(
        lambda rate: dist.CoalescentTimes(torch.tensor([0.0, 0.0, 1.0]), rate), rate=(0.7, POSITIVE)
    ),
    "CoalescentTimesWithRate": lambda: made(
        lambda rate: dist.CoalescentTimesWithRate(torch.tensor([0.0, 0.0, 1.0]), rate),
        torch.tensor([-2.0, -0.5]),
        rate=([0.7, 0.9], POSITIVE),
    ),
    "Delta": lambda: made(lambda weight: dist.Delta(torch.tensor(1.5), weight), weight=(0.3, REAL)),
    "DirichletMultinomial": lambda: made(
        lambda concentration: dist.DirichletMultinomial(concentration, 5), concentration=([1.5, 0.8, 2.0], POSITIVE)
    ),
    "DiscreteHMM": lambda: made(
        lambda logits, loc: dist.DiscreteHMM(logits, logits.expand(2, 2), dist.Normal(loc, 1.0), duration=4),
        logits=LOGITS,
        loc=([-0.5, 1.0], REAL),
    ),
    "Empirical": lambda: made(
        lambda weights: dist.Empirical(torch.tensor([0.0, 1.0, 2.0]), weights),
        torch.tensor(1.0),
        weights=([0.1, 0.2, -0.3], REAL),
    ),
    "ExpandedDistribution": lambda: made(
        lambda loc, scale: dist.ExpandedDistribution(dist.Normal(loc, scale), torch.Size([3])), loc=LOC, scale=SCALE
    ),
    "FoldedDistribution": lambda: made(
        lambda loc, scale: dist.FoldedDistribution(dist.Normal(loc, scale)), loc=LOC, scale=SCALE
    ),
    "GammaGaussianHMM": lambda: made(filtered("GammaGaussianHMM"), torch.ones(3, 2), loc=LOC, scale=SCALE),
    "GaussianHMM": lambda: made(filtered("GaussianHMM"), loc=LOC, scale=SCALE),
    "LinearHMM": lambda: made(filtered("LinearHMM"), torch.ones(3, 2), loc=LOC, scale=SCALE),
    "GaussianMRF": lambda: made(markov_random_field, torch.ones(3, 2), loc=LOC, scale=SCALE),
    "GaussianScaleMixture": lambda: made(
        dist.GaussianScaleMixture,
        coord_scale=COORDINATES,
        component_logits=LOGITS,
        component_scale=([0.5, 1.5], POSITIVE),
    ),
    "GroupedNormalNormal": lambda: made(
        lambda loc, scale: dist.GroupedNormalNormal(loc, scale, torch.ones(3), torch.tensor([0, 1, 0])),
        torch.tensor([0.3, -0.2, 1.0]),
        loc=([0.1, 0.2], REAL),
        scale=([1.0, 1.5], POSITIVE),
    ),
    "Independent": lambda: made(lambda loc: dist.Independent(dist.Normal(loc, 1.0), 1), loc=([0.3, -0.2], REAL)),
    "IndependentHMM": lambda: made(
        lambda loc: dist.IndependentHMM(
            dist.GaussianHMM(
                dist.MultivariateNormal(loc * torch.ones(2, 1), torch.eye(1)),
                torch.eye(1),
                dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
                torch.eye(1),
                dist.MultivariateNormal(torch.zeros(1), torch.eye(1)).expand([2, 1]),
                duration=3,
            )
        ),
        loc=LOC,
    ),
    "LKJ": lambda: made(lambda concentration: dist.LKJ(3, concentration), concentration=(1.4, POSITIVE)),
    "LKJCholesky": lambda: made(
        lambda concentration: dist.LKJCholesky(3, concentration), concentration=(1.4, POSITIVE)
    ),
    "LKJCorrCholesky": lambda: made(lambda eta: dist.LKJCorrCholesky(3, eta), eta=(1.4, POSITIVE)),
    "LogNormalNegativeBinomial": lambda: made(
        lambda logits, noise: dist.LogNormalNegativeBinomial(torch.tensor(3.0), logits, noise),
        torch.tensor(2.0),
        logits=LOC,
        noise=(0.6, POSITIVE),
    ),
    "LowRankMultivariateNormal": lambda: made(
        dist.LowRankMultivariateNormal,
        loc=([0.3, -0.2], REAL),
        cov_factor=([[0.5], [0.7]], REAL),
        cov_diag=([0.6, 0.8], POSITIVE),
    ),
    "MaskedDistribution": lambda: made(
        lambda loc, scale: dist.MaskedDistribution(dist.Normal(loc, scale).expand([2]), torch.tensor([True, False])),
        loc=LOC,
        scale=SCALE,
    ),
    "MaskedMixture": lambda: made(
        lambda loc, scale: dist.MaskedMixture(
            torch.tensor([True, False]), dist.Normal(loc, scale).expand([2]), dist.StudentT(4.0, loc, scale).expand([2])
        ),
        loc=LOC,
        scale=SCALE,
    ),
    "MixtureOfDiagNormals": lambda: made(
        dist.MixtureOfDiagNormals,
        locs=LOCS,
        coord_scale=([[0.9, 1.2], [0.7, 1.0]], POSITIVE),
        component_logits=LOGITS,
    ),
    "MixtureOfDiagNormalsSharedCovariance": lambda: made(
        dist.MixtureOfDiagNormalsSharedCovariance, locs=LOCS, coord_scale=COORDINATES, component_logits=LOGITS
    ),
    "MixtureSameFamily": lambda: made(
        lambda logits, loc: dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, 1.0)),
        logits=LOGITS,
        loc=([-0.5, 1.0], REAL),
    ),
    "OMTMultivariateNormal": lambda: made(
        lambda loc: dist.OMTMultivariateNormal(loc, torch.tensor([[1.2, 0.0], [0.4, 0.8]])), loc=([0.3, -0.1], REAL)
    ),
    "OneOneMatching": lambda: made(dist.OneOneMatching, torch.tensor([1, 0]), logits=([[0.2, -0.1], [0.4, 0.3]], REAL)),
    "OneTwoMatching": lambda: made(
        dist.OneTwoMatching,
        torch.tensor([1, 0, 0, 1]),
        logits=([[0.2, -0.1], [0.4, 0.3], [0.0, 0.1], [0.2, 0.5]], REAL),
    ),
    "ProjectedNormal": lambda: made(dist.ProjectedNormal, concentration=([0.4, 0.7], REAL)),
    "Rejector": lambda: made(
        lambda scale: dist.Rejector(
            dist.Exponential(scale), lambda x: -0.5 * x, torch.log(scale / (scale + 0.5)), batch_shape=torch.Size()
        ),
        torch.tensor(0.8),
        scale=(1.3, POSITIVE),
    ),
    "RelaxedBernoulli": lambda: made(
        lambda logits: dist.RelaxedBernoulli(torch.tensor(0.8), logits=logits), logits=LOC
    ),
    "RelaxedBernoulliStraightThrough": lambda: made(
        lambda logits: dist.RelaxedBernoulliStraightThrough(torch.tensor(0.8), logits=logits),
        torch.tensor(0.4),
        logits=LOC,
    ),
    "RelaxedOneHotCategorical": lambda: made(
        lambda logits: dist.RelaxedOneHotCategorical(torch.tensor(0.8), logits=logits), logits=([0.2, -0.3, 0.1], REAL)
    ),
    "RelaxedOneHotCategoricalStraightThrough": lambda: made(
        lambda logits: dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(0.8), logits=logits),
        torch.tensor([0.2, 0.5, 0.3]),
        logits=([0.2, -0.3, 0.1], REAL),
    ),
    "SineBivariateVonMises": lambda: made(
        lambda loc, concentration, correlation: dist.SineBivariateVonMises(
            loc, loc, concentration, concentration, correlation=correlation
        ),
        loc=LOC,
        concentration=(3.0, POSITIVE),
        correlation=(0.5, REAL),
    ),
    "SineSkewed": lambda: made(
        lambda loc, skewness: dist.SineSkewed(dist.VonMises(loc, 2.0).expand([1]).to_event(1), skewness),
        loc=LOC,
        skewness=([0.3], constraints.interval(-1.0, 1.0)),
    ),
    "SpanningTree": lambda: made(
        dist.SpanningTree, torch.tensor([[0, 1], [1, 2]]), edge_logits=([0.2, -0.1, 0.3], REAL)
    ),
    "StableWithLogProb": lambda: made(
        lambda scale, loc: dist.StableWithLogProb(torch.tensor(1.7), torch.tensor(0.1), scale, loc),
        torch.tensor(0.6),
        scale=SCALE,
        loc=LOC,
    ),
    "TransformedDistribution": lambda: made(
        lambda loc, scale: dist.TransformedDistribution(dist.Normal(loc, scale), dist.transforms.ExpTransform()),
        loc=LOC,
        scale=SCALE,
    ),
    "Uniform": lambda: made(
        lambda low, width: dist.Uniform(low, low + width), torch.tensor(1.0), low=(0.2, REAL), width=(2.0, POSITIVE)
    ),
    "Unit": lambda: made(dist.Unit, torch.zeros(0), log_factor=(-0.3, REAL)),
    "VonMises3D": lambda: made(dist.VonMises3D, torch.tensor([0.6, 0.0, 0.8]), concentration=([0.4, 0.7, -0.2], REAL)),
    "Wishart": lambda: made(
        lambda df, scale: dist.Wishart(df, scale_tril=scale * torch.eye(2)),
        df=(4.0, constraints.greater_than(1.0)),
        scale=SCALE,
    ),
    "ZeroInflatedDistribution": lambda: made(
        lambda rate, gate: dist.ZeroInflatedDistribution(dist.Poisson(rate), gate=gate), rate=(2.0, POSITIVE), gate=GATE
    ),
    "ZeroInflatedNegativeBinomial": lambda: made(
        lambda total_count, probs, gate: dist.ZeroInflatedNegativeBinomial(total_count, probs=probs, gate=gate),
        total_count=(4.0, POSITIVE),
        probs=GATE,
        gate=GATE,
    ),
    "ZeroInflatedPoisson": lambda: made(
        lambda rate, gate: dist.ZeroInflatedPoisson(rate, gate=gate), rate=(2.0, POSITIVE), gate=GATE
    ),
}


@contextmanager
def in_double() -> Iterator[None]:
    """Also before a test's fixtures: double precision, the same draws, nothing said of Pyro's own classes."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def example(name: str) -> Example:
    with in_double():
        return MAKERS[name]() if name in MAKERS else generic(name)


CONFIG = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}
PULL = 0.5
"""Standard deviation of the penalty that makes every problem a proper one."""

pytestmark = [  # what Pyro and torch say of their own classes
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Singular sample detected:UserWarning"),
]

OBSERVED = [name for name in NAMES if name not in EXCEPTIONS]


def pull(values: dict[str, Tensor], given: Example) -> Tensor:
    """A Gaussian penalty about the start, on the unconstrained scale; shape ()."""
    parts = []
    for name, start in given.start.items():
        transform = transform_to(given.constraint[name])
        parts.append(-0.5 * ((transform.inv(values[name]) - transform.inv(start)) / PULL).square().sum())
    return torch.stack(parts).sum()


def observed(example: Example) -> Callable[[], None]:
    def model() -> None:
        values = {
            name: pyro.param(name, start.clone(), constraint=example.constraint[name])
            for name, start in example.start.items()
        }
        pyro.sample("y", example.make(**values), obs=example.value)
        pyro.factor("pull", pull(values, example))

    return model


@pytest.mark.parametrize("name", OBSERVED)
def test_parameters_of_an_observed_site_are_fitted(name: str) -> None:
    given = example(name)
    result = hofit.fit(observed(given), CONFIG)
    own = given.make(**result.values).log_prob(given.value).sum() + pull(result.values, given)
    assert result.loss == pytest.approx(-float(own), rel=ROUNDING, abs=ROUNDING)
    assert result.converged, result
    for parameter in given.start:
        assert bool(torch.isfinite(result.std_errors[parameter]).all()), (parameter, result.std_errors, result.remarks)


@pytest.mark.parametrize("name", OBSERVED)
def test_the_gradient_of_an_observed_site_is_that_of_central_differences(name: str) -> None:
    program = Program(observed(example(name)), {})
    with program.scope():
        program.discover()
        objective = DensityObjective(program, "map")
        coordinates = Coordinates.of(objective.start())
        here = coordinates.flatten(objective.start()) + 0.1
        along = torch.randn(coordinates.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        slope = coordinates.flatten(objective.at(coordinates.unflatten(here)).gradient()) @ along
        ahead, behind = (objective.at(coordinates.unflatten(here + h * along)).value for h in (1e-5, -1e-5))
    assert float(slope) == pytest.approx((ahead - behind) / 2e-5, rel=SLOPE, abs=SLOPE)


def bijection(support: constraints.Constraint) -> torch.distributions.transforms.Transform:
    """torch's own; for an interval without an upper end, which it takes for one with, that of a lower bound."""
    if getattr(support, "upper_bound", None) is not None and bool(torch.as_tensor(support.upper_bound).isinf().all()):
        support = constraints.greater_than(support.lower_bound)
    found: torch.distributions.transforms.Transform = biject_to(support)
    return found


def has_leaf(name: str) -> bool:
    """Whether a latent of this kind is a number that can be moved: its support is continuous and has a bijection."""
    if name in EXCEPTIONS or issubclass(getattr(dist, name), (dist.Delta, dist.Unit, dist.Empirical)):
        return False
    given = example(name)
    try:
        with in_double():
            made = given.at_start()
        bijection(made.support)
    except NotImplementedError:
        return False
    return not made.support.is_discrete and made.shape() == given.value.shape


LATENT = [name for name in NAMES if has_leaf(name)]


class Hidden:
    """One latent of a distribution with its parameters at their start, pulled to a value that a parameter shifts."""

    def __init__(self, given: Example) -> None:
        self.distribution = given.at_start()
        self.transform = bijection(self.distribution.support)
        self.towards = self.transform.inv(given.value).detach()

    def model(self) -> None:
        shift = pyro.param("shift", torch.tensor(0.1))
        x = pyro.sample("x", self.distribution)
        pyro.factor("pull", self.pull(self.transform.inv(x), shift))

    def pull(self, u: Tensor, shift: Tensor) -> Tensor:
        pulled: Tensor = -0.5 * ((u - self.towards - shift) / PULL).square().sum() - 0.5 * shift.square()
        return pulled

    def loss(self, u: Tensor, shift: Tensor, jacobian: bool) -> Tensor:
        x = self.transform(u)
        density: Tensor = self.distribution.log_prob(x).sum() + self.pull(u, shift)
        return -(density + self.transform.log_abs_det_jacobian(u, x).sum() if jacobian else density)


@pytest.mark.parametrize("objective", ["map", "map_unconstrained"])
@pytest.mark.parametrize("name", LATENT)
def test_a_latent_is_fitted(name: str, objective: str) -> None:
    hidden = Hidden(example(name))
    result = hofit.fit(hidden.model, {**CONFIG, "objective": objective})
    own = hidden.loss(hidden.transform.inv(result.values["x"]), result.values["shift"], objective != "map")
    assert result.loss == pytest.approx(float(own), rel=1e-10, abs=1e-10)
    assert result.converged, result
    assert bool(torch.isfinite(result.std_errors["x"]).all()), result.remarks


@pytest.mark.parametrize("name", LATENT)
def test_a_latent_is_integrated_by_laplace(name: str) -> None:
    hidden = Hidden(example(name))
    result = hofit.fit(hidden.model, {**CONFIG, "objective": {"type": "marginal", "integrate": {"x": "laplace"}}})
    shift, mode = result.values["shift"], hidden.transform.inv(result.values["x"])

    def loss(flat: Tensor) -> Tensor:
        return hidden.loss(flat.reshape(mode.shape), shift, True)

    hessian = torch.autograd.functional.hessian(loss, mode.reshape(-1))
    own = loss(mode.reshape(-1)) + 0.5 * torch.logdet(hessian) - 0.5 * mode.numel() * math.log(2 * math.pi)
    assert result.loss == pytest.approx(float(own), rel=1e-7, abs=1e-7)
    assert result.converged, result
    assert bool(torch.isfinite(result.std_errors["shift"]).all())


def test_exceptions_are_few() -> None:
    assert len(EXCEPTIONS) <= 10
    assert set(EXCEPTIONS) <= set(NAMES)


@pytest.mark.parametrize("name", [name for name, reason in EXCEPTIONS.items() if reason == "abstract"])
def test_an_abstract_class_has_no_density(name: str) -> None:
    assert "log_prob" not in vars(getattr(dist, name))
    with in_double(), pytest.raises(NotImplementedError):
        getattr(dist, name)().log_prob(torch.tensor(0.0))


@pytest.mark.parametrize("name", [name for name, reason in EXCEPTIONS.items() if reason == "no density"])
def test_a_distribution_without_density_says_so(name: str) -> None:
    with pytest.raises(NotImplementedError):
        example(name).at_start().log_prob(torch.ones(3, 2))


@pytest.mark.parametrize("name", [name for name, reason in EXCEPTIONS.items() if reason == "no gradient"])
def test_the_gradient_of_pyro_itself_fails(name: str) -> None:
    given = example(name)
    start = {parameter: value.requires_grad_() for parameter, value in given.start.items()}
    with pytest.raises(RuntimeError, match="inplace"):
        given.make(**start).log_prob(given.value).sum().backward()


@pytest.mark.parametrize("name", [name for name, reason in EXCEPTIONS.items() if reason == "no parameter"])
def test_a_distribution_without_parameter_takes_no_real_number(name: str) -> None:
    assert not getattr(dist, name).arg_constraints
