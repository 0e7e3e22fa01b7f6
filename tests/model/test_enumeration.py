"""Discrete latents summed out: the density against sums written in numpy, its derivatives, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import config_enumerate
from pyro.ops.indexing import Vindex
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor

import hofit
from hofit.curvature.structure import Curvature
from hofit.errors import HofitError
from hofit.model import program as trace
from hofit.model.program import Program
from hofit.objective.density import DensityObjective

Model = Callable[..., Any]

EXACT = 1e-12
"""Two float64 computations of one density, relative."""

DIFFERENCES = 1e-7
"""Central differences of a density of order one, with steps of 1e-5."""

Y = np.array([-1.3, 0.2, 2.9, -0.4, 3.5])
ALL = {"*": "enumerate"}


@contextmanager
def program(model: Model, arguments: Mapping[str, Any] | None = None, **integrate: str) -> Iterator[Program]:
    """The model ready to be evaluated at its own starts, with all its discrete latents summed out."""
    made = Program(model, arguments or {}, integrate or ALL)
    with made.scope():
        made.discover("zero")
        made.rehearse()
        yield made


def density(model: Model, **arguments: Any) -> float:
    with program(model, arguments) as made, torch.no_grad():
        return float(made.log_density())


def mixture(weights: Any, means: Any, scales: Any, y: Any = Y) -> Any:
    """log Σ_k w_k Normal(y; m_k, s_k), an entry of y each."""
    return logsumexp(np.log(weights) + stats.norm.logpdf(np.asarray(y)[:, None], means, scales), axis=1)


def two_normals(y: Any = Y) -> None:
    y = torch.as_tensor(y)
    weight = pyro.param("weight", torch.tensor(0.3), constraint=constraints.unit_interval)
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    scale = pyro.param("scale", torch.tensor([1.0, 0.5]), constraint=constraints.positive)
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(torch.stack([weight, 1 - weight])))
        pyro.sample("y", dist.Normal(mean[z], scale[z]), obs=y)


TWO_NORMALS = mixture([0.3, 0.7], [0.0, 2.0], [1.0, 0.5])


# the density ------------------------------------------------------------------------------------------------------


def test_a_mixture_has_the_log_of_the_sum_in_closed_form() -> None:
    assert density(two_normals) == pytest.approx(TWO_NORMALS.sum(), rel=EXACT)


def test_a_mixture_has_the_density_of_pyro_s_own_mixture_distribution() -> None:
    def marginal() -> None:
        components = dist.Normal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.5]))
        pyro.param("unused", torch.tensor(0.0))
        with pyro.plate("rows", 5):
            mixing = dist.Categorical(torch.tensor([0.3, 0.7]))
            pyro.sample("y", dist.MixtureSameFamily(mixing, components), obs=torch.as_tensor(Y))

    assert density(two_normals) == pytest.approx(density(marginal), rel=EXACT)


@pytest.mark.parametrize(
    "infer",
    [{"enumerate": "parallel"}, {"enumerate": "sequential"}, {"enumerate": "parallel", "num_samples": 7}, {}],
    ids=["parallel", "sequential", "sampled", "none"],
)
def test_what_the_model_says_of_enumeration_changes_nothing(infer: Any) -> None:
    def model() -> None:
        mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
        with pyro.plate("rows", 5):
            z = pyro.sample("z", dist.Bernoulli(0.7), infer=infer).long()
            pyro.sample("y", dist.Normal(mean[z], 1.0), obs=torch.as_tensor(Y))

    expected = mixture([0.3, 0.7], [0.0, 2.0], 1.0).sum()
    assert density(model) == pytest.approx(expected, rel=EXACT)
    assert density(config_enumerate(model, default="sequential")) == pytest.approx(expected, rel=EXACT)


def test_a_continuous_latent_that_the_model_marks_for_enumeration_stays_one_number() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Normal(0.0, 1.0), infer={"enumerate": "parallel", "num_samples": 5})
        z = pyro.sample("z", dist.Bernoulli(0.7))
        pyro.sample("y", dist.Normal(x + z, 1.0), obs=torch.tensor(0.5))

    expected = stats.norm.logpdf(0.0) + np.log(0.3 * stats.norm.pdf(0.5) + 0.7 * stats.norm.pdf(-0.5))
    assert density(model) == pytest.approx(expected, rel=EXACT)


def test_several_observed_sites_share_one_discrete_latent() -> None:
    counts = np.array([0, 2, 1, 4, 3])

    def model() -> None:
        rate = pyro.param("rate", torch.tensor([0.5, 3.0]), constraint=constraints.positive)
        mean = torch.tensor([0.0, 2.0])
        with pyro.plate("rows", 5):
            z = pyro.sample("z", dist.OneHotCategorical(torch.tensor([0.4, 0.6])))
            pyro.sample("count", dist.Poisson(z @ rate), obs=torch.as_tensor(counts))
            pyro.sample("y", dist.Normal(z @ mean, 1.0), obs=torch.as_tensor(Y))
            pyro.factor("bonus", z @ torch.tensor([0.1, -0.2]))

    terms = np.log([0.4, 0.6]) + stats.poisson.logpmf(counts[:, None], [0.5, 3.0]) + np.array([0.1, -0.2])
    expected = logsumexp(terms + stats.norm.logpdf(Y[:, None], [0.0, 2.0]), axis=1).sum()
    assert density(model) == pytest.approx(expected, rel=EXACT)


def test_dependent_latents_in_nested_plates_are_summed_over_every_configuration() -> None:
    """Against brute force: 2 values of a, 3² of b in a plate, 2⁶ of c in a plate inside."""
    y = np.random.default_rng(0).normal(size=(2, 3))
    of_a, of_b = np.array([0.3, 0.7]), np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    of_c, means = np.array([[0.9, 0.2], [0.5, 0.4], [0.3, 0.8]]), np.array([-1.0, 0.5, 2.0])

    def model() -> None:
        shift = pyro.param("shift", torch.tensor(0.4))
        a = pyro.sample("a", dist.Categorical(torch.as_tensor(of_a)))
        with pyro.plate("groups", 2, dim=-2):
            b = pyro.sample("b", dist.Categorical(torch.as_tensor(of_b)[a]))
            pyro.sample("x", dist.Normal(torch.as_tensor(means)[b], 2.0), obs=torch.tensor([[0.5], [-0.5]]))
            with pyro.plate("rows", 3, dim=-1):
                c = pyro.sample("c", dist.Bernoulli(Vindex(torch.as_tensor(of_c))[b, a]))
                pyro.sample("y", dist.Normal(shift * c + a, 1.0), obs=torch.as_tensor(y))

    total = []
    for a in range(2):
        for b in product(range(3), repeat=2):
            for c in product(range(2), repeat=6):
                state = np.array(c).reshape(2, 3)
                p = of_c[list(b), a][:, None]
                term = np.log(of_a[a]) + np.log(of_b[a, list(b)]).sum()
                term += np.log(np.where(state, p, 1 - p)).sum()
                term += stats.norm.logpdf([0.5, -0.5], means[list(b)], 2.0).sum()
                total.append(term + stats.norm.logpdf(y, 0.4 * state + a, 1.0).sum())
    assert density(model) == pytest.approx(logsumexp(total), rel=EXACT)


def test_a_latent_below_a_discrete_one_keeps_its_shape_and_has_the_mixture_as_its_prior() -> None:
    def model() -> None:
        with pyro.plate("rows", 5):
            z = pyro.sample("z", dist.Bernoulli(0.7)).long()
            x = pyro.sample("x", dist.Normal(torch.tensor([0.0, 2.0])[z], 1.0))
            pyro.sample("y", dist.Normal(x, 0.5), obs=torch.as_tensor(Y))

    config = {"objective": {"type": "map", "integrate": {"z": "enumerate"}}, "stop": {"max_iterations": 0}}
    start = np.array([0.1, 0.3, 2.0, -1.0, 3.0])
    result = hofit.fit(
        model, {**config, "optimizers": [{"params": "*", "optimizer": "adam"}], "init": {"values": {"x": list(start)}}}
    )
    assert [*result.sites] == ["x"] and tuple(result.sites["x"].shape) == (5,)
    expected = mixture([0.3, 0.7], [0.0, 2.0], 1.0, start).sum() + stats.norm.logpdf(Y, start, 0.5).sum()
    assert -result.loss == pytest.approx(expected, rel=EXACT)


def test_a_site_that_no_discrete_latent_touches_needs_no_plate() -> None:
    def model() -> None:
        mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
        z = pyro.sample("z", dist.Bernoulli(0.7)).long()
        pyro.sample("shared", dist.Normal(mean[z], 1.0), obs=torch.as_tensor(Y))
        pyro.sample("other", dist.Normal(mean[0], torch.ones(3)), obs=torch.zeros(3))

    whole = np.log([0.3, 0.7]) + stats.norm.logpdf(Y[:, None], [0.0, 2.0]).sum(0)
    assert density(model) == pytest.approx(logsumexp(whole) + 3 * stats.norm.logpdf(0.0), rel=EXACT)


def test_factors_that_are_one_tensor_all_count() -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor([0.5, -0.5]))
        z = pyro.sample("z", dist.Bernoulli(0.7)).long()
        same = x[z]
        pyro.factor("f", same)
        pyro.factor("g", same)

    assert density(model) == pytest.approx(np.log(0.3 * np.exp(1.0) + 0.7 * np.exp(-1.0)), rel=EXACT)


# hidden Markov models ---------------------------------------------------------------------------------------------

INITIAL, TRANSITION = np.array([0.6, 0.3, 0.1]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])
RATES = np.array([1.0, 4.0, 9.0])


def forward(log_likelihoods: Any) -> float:
    """log p of one sequence by the forward algorithm (Rabiner 1989). Shapes: log_likelihoods (T, K)."""
    alpha = np.log(INITIAL) + log_likelihoods[0]
    for row in log_likelihoods[1:]:
        alpha = logsumexp(alpha[:, None] + np.log(TRANSITION), axis=0) + row
    return float(logsumexp(alpha))


def hidden_markov(counts: Tensor, lengths: Tensor | None = None) -> None:
    """Shapes: counts (sequences, T)."""
    rates = pyro.param("rates", torch.as_tensor(RATES), constraint=constraints.positive)
    initial, transition = torch.as_tensor(INITIAL), torch.as_tensor(TRANSITION)
    sequences, steps = counts.shape
    with pyro.plate("sequences", sequences):
        z: Any = None
        for t in pyro.markov(range(steps)):
            mask = torch.ones(sequences, dtype=torch.bool) if lengths is None else t < lengths
            with pyro.poutine.mask(mask=mask):
                z = pyro.sample(f"z_{t}", dist.Categorical(initial if z is None else transition[z]))
                pyro.sample(f"count_{t}", dist.Poisson(rates[z]), obs=counts[:, t])


@pytest.mark.parametrize(("sequences", "steps"), [(1, 1), (1, 200), (4, 30)])
def test_a_hidden_markov_model_has_the_density_of_the_forward_algorithm(sequences: int, steps: int) -> None:
    counts = np.random.default_rng(1).poisson(4.0, (sequences, steps))
    expected = sum(forward(stats.poisson.logpmf(row[:, None], RATES)) for row in counts)
    assert density(hidden_markov, counts=torch.as_tensor(counts)) == pytest.approx(expected, rel=EXACT)


def test_masked_steps_of_a_shorter_sequence_count_for_nothing() -> None:
    counts, lengths = np.random.default_rng(2).poisson(4.0, (3, 12)), [12, 5, 1]
    rows = zip(counts, lengths, strict=True)
    expected = sum(forward(stats.poisson.logpmf(row[:length, None], RATES)) for row, length in rows)
    given = {"counts": torch.as_tensor(counts), "lengths": torch.tensor(lengths)}
    assert density(hidden_markov, **given) == pytest.approx(expected, rel=EXACT)


def test_a_second_order_chain_is_summed_over_every_path() -> None:
    y = [0.3, -1.0, 2.0, 0.7]
    table = np.random.default_rng(3).dirichlet([1.0, 1.0], (2, 2))

    def model() -> None:
        mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
        before: Any = torch.tensor(0)
        last: Any = torch.tensor(0)
        for t in pyro.markov(range(4), history=2):
            z = pyro.sample(f"z_{t}", dist.Categorical(Vindex(torch.as_tensor(table))[before, last]))
            pyro.sample(f"y_{t}", dist.Normal(mean[z], 1.0), obs=torch.tensor(y[t]))
            before, last = last, z

    total = []
    for path in product(range(2), repeat=4):
        steps = zip((0, 0, *path), (0, *path), path, strict=False)
        total.append(
            sum(np.log(table[i, j, k]) for i, j, k in steps) + stats.norm.logpdf(y, 2.0 * np.array(path)).sum()
        )
    assert density(model) == pytest.approx(logsumexp(total), rel=EXACT)


# scales, masks, subsamples ----------------------------------------------------------------------------------------


def test_a_scale_weighs_the_logarithm_of_the_sum() -> None:
    assert density(pyro.poutine.scale(two_normals, scale=2.5)) == pytest.approx(2.5 * TWO_NORMALS.sum(), rel=EXACT)


def test_weights_of_rows_weigh_the_rows_sums() -> None:
    weights = np.array([1.0, 2.0, 0.5, 0.25, 3.0])

    def model() -> None:
        mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
        with pyro.plate("rows", 5), pyro.poutine.scale(scale=torch.as_tensor(weights)):
            z = pyro.sample("z", dist.Bernoulli(0.7)).long()
            pyro.sample("y", dist.Normal(mean[z], 1.0), obs=torch.as_tensor(Y))

    expected = (weights * mixture([0.3, 0.7], [0.0, 2.0], 1.0)).sum()
    assert density(model) == pytest.approx(expected, rel=EXACT)


def test_a_masked_row_counts_for_nothing() -> None:
    keep = np.array([True, False, True, True, False])
    masked = pyro.poutine.mask(two_normals, mask=torch.as_tensor(keep))
    assert density(masked) == pytest.approx(TWO_NORMALS[keep].sum(), rel=EXACT)


def test_a_subsampled_plate_scales_the_rows_it_has_drawn() -> None:
    def model() -> None:
        mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
        with pyro.plate("rows", 5, subsample=torch.tensor([0, 3])) as rows:
            z = pyro.sample("z", dist.Bernoulli(0.7)).long()
            pyro.sample("y", dist.Normal(mean[z], 1.0), obs=torch.as_tensor(Y)[rows])

    of_rows = mixture([0.3, 0.7], [0.0, 2.0], 1.0)
    with program(model) as made:
        assert float(made.log_density().detach()) == pytest.approx(2.5 * of_rows[[0, 3]].sum(), rel=EXACT)
        assert float(made.log_density(full=True).detach()) == pytest.approx(of_rows.sum(), rel=EXACT)


# derivatives ------------------------------------------------------------------------------------------------------


def flat(objective: DensityObjective) -> Tensor:
    return torch.cat([value.reshape(-1) for value in objective.start().values()])


def at(objective: DensityObjective, x: Tensor) -> Any:
    start = objective.start()
    sizes = [value.numel() for value in start.values()]
    pieces = x.split(sizes)
    return objective.at({name: p.reshape(v.shape) for (name, v), p in zip(start.items(), pieces, strict=True)})


def gradient(objective: DensityObjective, x: Tensor) -> Tensor:
    return torch.cat([g.reshape(-1) for g in at(objective, x).gradient().values()])


SERIES = torch.tensor([[1, 3, 9, 8, 2, 0, 5], [4, 4, 0, 1, 12, 7, 3]])


@pytest.mark.parametrize(
    ("model", "arguments"), [(two_normals, {}), (hidden_markov, {"counts": SERIES})], ids=["mixture", "chain"]
)
def test_gradients_and_hessians_are_those_of_central_differences(model: Model, arguments: Any) -> None:
    with program(model, arguments) as made:
        objective = DensityObjective(made)
        x = flat(objective)
        steps = 1e-5 * torch.eye(len(x))
        slopes = torch.stack([(at(objective, x + h).loss - at(objective, x - h).loss).detach() / 2e-5 for h in steps])
        assert gradient(objective, x).numpy() == pytest.approx(slopes.numpy(), abs=DIFFERENCES)
        columns = torch.stack([(gradient(objective, x + h) - gradient(objective, x - h)) / 2e-5 for h in steps])
        point = at(objective, x)
        hessian = Curvature().at(point, list(point.params))
        found = hessian.matvec(torch.eye(len(x)))
        assert found.numpy() == pytest.approx(columns.numpy(), abs=DIFFERENCES)


def test_derivatives_stay_right_where_the_likelihood_favours_what_the_prior_all_but_rules_out() -> None:
    """Posterior odds of 1: a weight of e⁻⁸⁰ against a likelihood of e⁸⁰. Pyro's own contraction is wrong there."""

    def model() -> None:
        x = pyro.param("x", torch.tensor(0.0))
        z = pyro.sample("z", dist.Categorical(logits=torch.stack([torch.zeros(()), x - 80.0])))
        pyro.factor("f", torch.tensor([-80.0, 0.0])[z])

    with program(model) as made:
        objective = DensityObjective(made)
        point = objective.at(objective.start())
        assert point.value == pytest.approx(80.0 - np.log(2.0), rel=EXACT)
        assert float(point.gradient(differentiable=True)["x"]) == pytest.approx(-0.5, rel=EXACT)
        assert float(point.hvp({"x": torch.ones(1)})["x"]) == pytest.approx(-0.25, rel=EXACT)


def test_a_value_that_is_impossible_for_some_rows_leaves_finite_derivatives() -> None:
    def model() -> None:
        width = pyro.param("width", torch.tensor([1.0, 5.0]), constraint=constraints.positive)
        with pyro.plate("rows", 3):
            z = pyro.sample("z", dist.Bernoulli(0.5)).long()
            pyro.sample("y", dist.Uniform(0.0, width[z], validate_args=False), obs=torch.tensor([0.5, 3.0, 4.0]))

    with program(model) as made:
        objective = DensityObjective(made)
        point = objective.at(objective.start())
        # rows 2 and 3 are under the wide one alone; row 1 has odds of 1 to 1/5; d log(1/w) / d log w = −1
        assert point.value == pytest.approx(-np.log(0.5 * 1.2 * 0.1**2), rel=EXACT)
        expected = [5 / 6, 1 / 6 + 2]
        assert point.gradient(differentiable=True)["width"].tolist() == pytest.approx(expected, rel=EXACT)
        assert bool(torch.isfinite(point.hvp({"width": torch.ones(1, 2)})["width"]).all())


# what else is asked of a program ----------------------------------------------------------------------------------


def test_the_density_is_told_apart_by_the_rows_of_the_discrete_latent_s_plate() -> None:
    with program(two_normals) as made:
        rows = made.log_densities_by_row(["rows"])
        assert rows is not None
        assert rows.numpy() == pytest.approx(TWO_NORMALS, rel=EXACT)


def test_a_row_has_its_transform_s_determinant_and_its_sum() -> None:
    def model() -> None:
        with pyro.plate("rows", 2):
            x = pyro.sample("x", dist.Gamma(2.0, 1.0))
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Normal(x * z, 1.0), obs=torch.zeros(2))

    with program(model) as made:
        plain, whole = made.log_densities_by_row(["rows"]), made.log_densities_by_row(["rows"], jacobian=["x"])
        assert plain is not None and whole is not None
        assert (whole - plain).numpy() == pytest.approx(made.leaves["x"].detach().numpy(), rel=EXACT)
        assert float(whole.sum()) == pytest.approx(float(made.log_density(jacobian=["x"]).detach()), rel=EXACT)


def test_only_sites_that_no_discrete_latent_touches_have_an_expected_information() -> None:
    def model() -> None:
        mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
        z = pyro.sample("z", dist.Bernoulli(0.7)).long()
        pyro.sample("touched", dist.Normal(mean[z], 1.0), obs=torch.tensor(0.5))
        pyro.sample("free", dist.Normal(mean.sum(), 1.0), obs=torch.tensor(0.5))

    with program(model) as made:
        reference = made.observed_distributions()
        assert [*reference] == ["free"]
        expected = made.log_density().detach() - stats.norm.logpdf(0.5, 2.0)
        assert float(made.expected_log_density(reference).detach()) == pytest.approx(float(expected), rel=EXACT)


def test_a_diagnosis_names_the_site_that_is_impossible_whatever_the_discrete_latent_is() -> None:
    def model() -> None:
        x = pyro.param("x", torch.tensor([1.0, 2.0]))
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
        pyro.sample("fine", dist.Uniform(0.0, x[z], validate_args=False), obs=torch.tensor(1.5))
        pyro.sample("wrong", dist.Uniform(0.0, x[z], validate_args=False), obs=torch.tensor(3.0))

    with program(model) as made:
        sites = made.site_log_densities()
        assert np.isfinite([sites["z"], sites["fine"]]).all()
        assert sites["wrong"] == -np.inf


# what is refused --------------------------------------------------------------------------------------------------


def refusal(model: Model, integrate: Mapping[str, str], **objective: Any) -> str:
    config = {
        "objective": {"type": "map", "integrate": dict(integrate), **objective},
        "optimizers": [{"params": "*", "optimizer": "adam"}],
    }
    with pytest.raises(HofitError) as caught:
        hofit.fit(model, config)
    assert caught.value.exit_code == 2
    return str(caught.value)


def observe(x: Any, name: str = "y") -> None:
    pyro.sample(name, dist.Normal(x, 1.0), obs=torch.tensor(0.5))


def one_discrete() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    z = pyro.sample("state", dist.Bernoulli(0.5)).long()
    observe(mean[z] + pyro.sample("x", dist.Normal(0.0, 1.0)))


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("sate", ["integrate.sate: no discrete latent matches 'sate'", '"state"']),
        ("y", ["integrate.y: 'y' is observed"]),
        ("mean", ["integrate.mean: 'mean' is a parameter"]),
        ("x", ["integrate.x: 'x' is continuous"]),
        ("*", ["integrate.*: 'x' is continuous", "'mean' is a parameter"]),
    ],
)
def test_a_pattern_that_matches_no_discrete_latent_is_named(pattern: str, says: list[str]) -> None:
    message = refusal(one_discrete, {"state": "enumerate", pattern: "enumerate"})
    for part in says:
        assert part in message


def test_a_discrete_latent_that_is_not_integrated_out_is_told_how_to_be() -> None:
    remedy = '`objective.integrate: {"state": enumerate}`'
    assert remedy in refusal(one_discrete, {})
    assert remedy in refusal(one_discrete, {"sate": "enumerate"})


def test_a_discrete_latent_has_no_laplace_approximation() -> None:
    message = refusal(one_discrete, {"state": "laplace"}, type="marginal")
    assert "integrate.state: 'state' is discrete (Bernoulli): give it `enumerate`" in message


def unbounded() -> None:
    observe(pyro.sample("z", dist.Poisson(3.0)) + pyro.param("x", torch.tensor(0.0)))


def of_several_sizes() -> None:
    with pyro.plate("rows", 2):
        z = pyro.sample("z", dist.Binomial(torch.tensor([1.0, 2.0]), 0.5))
        pyro.sample("y", dist.Normal(z + pyro.param("x", torch.tensor(0.0)), 1.0), obs=torch.zeros(2))


def in_no_plate() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    z = pyro.sample("z", dist.Bernoulli(torch.full((3,), 0.5))).long()
    pyro.sample("y", dist.Normal(mean[z], 1.0), obs=torch.zeros(3))


def read_from_outside() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
    with pyro.plate("others", 3):
        pyro.sample("y", dist.Normal(mean[z], 1.0), obs=torch.zeros(3))


def reduced_over_the_plate() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
    observe(mean[z].mean(-1))


def reduced_to_a_number() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    with pyro.plate("rows", 3):
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
    observe(mean[z].mean())


def read_as_an_integer() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    observe(mean[int(pyro.sample("z", dist.Bernoulli(0.5)).max())])


def branched() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    observe(mean[0] if pyro.sample("z", dist.Bernoulli(0.5)) else mean[1])


def too_many() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    for t in range(70):
        observe(mean[pyro.sample(f"z_{t}", dist.Bernoulli(0.5)).long()], f"y_{t}")


def scaled_in_part() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    z = pyro.sample("z", dist.Bernoulli(0.5)).long()
    with pyro.poutine.scale(scale=3.0):
        observe(mean[z])


def weighed_inside() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    with pyro.poutine.scale(scale=torch.tensor([1.0, 2.0])):
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
        with pyro.plate("rows", 2):
            pyro.sample("y", dist.Normal(mean[z], 1.0), obs=torch.zeros(2))


def of_crossed_plates() -> None:
    mean = pyro.param("mean", torch.tensor([0.0, 2.0]))
    rows, columns = pyro.plate("rows", 2, dim=-2), pyro.plate("columns", 2, dim=-1)
    with rows:
        z = pyro.sample("z", dist.Bernoulli(0.5)).long()
    with columns:
        w = pyro.sample("w", dist.Bernoulli(0.5)).long()
    with rows, columns:
        pyro.sample("y", dist.Normal(mean[z] * mean[w], 1.0), obs=torch.zeros(2, 2))


def a_support_of_its_own() -> None:
    z = pyro.sample("z", dist.Bernoulli(0.5))
    observe(pyro.sample("x", dist.Uniform(0.0, 1.0 + z)))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (unbounded, ["'z' (Poisson) has no finite list of values"]),
        (of_several_sizes, ["'z'", "Inhomogeneous total count"]),
        (in_no_plate, ["'z' has batch shape (3,)", "pyro.plate"]),
        (read_from_outside, ["'y' depends on the discrete 'z'", "outside its plate 'rows'"]),
        (reduced_over_the_plate, ["'y' has batch shape (2,)", "broadcast"]),
        (reduced_to_a_number, ["'y' has another log density", "broadcast"]),
        (read_as_an_integer, ["'y' has another log density", "broadcast"]),
        (branched, ["'z'", "RuntimeError", "in branched", "broadcast"]),
        (too_many, ["70 discrete latents", "pyro.markov"]),
        (scaled_in_part, ["'z' and 'y'", "scaled differently (by 1 and 3"]),
        (weighed_inside, ["poutine.scale of shape (2,)"]),
        (of_crossed_plates, ["'columns', 'rows'", "cross"]),
        (a_support_of_its_own, ["'x'", "support that depends on a discrete latent"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_summed_out_is_refused_at_its_pattern(model: Model, says: list[str]) -> None:
    message = refusal(model, {"re:^[zw]": "enumerate"})
    assert message.startswith("config: objective.integrate.re:^[zw]: ")
    for part in says:
        assert part in message


@pytest.mark.parametrize("where", ["in the model", "in the contraction"])
def test_a_sum_that_memory_would_not_hold_is_stopped_before_it_is_begun(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model() -> None:
        mean = pyro.param("mean", torch.tensor(1.0))
        z = [pyro.sample(f"z_{k}", dist.Categorical(torch.ones(50))) for k in range(4)]
        if where == "in the model":
            observe(mean * sum(z))
        else:  # a ring: whichever goes first, three meet
            for k in range(4):
                observe(mean * z[k] * z[(k + 1) % 4], f"y_{k}")

    monkeypatch.setattr(trace, "MEMORY_LIMIT", 2**19)  # 50³ numbers are 1 MB
    message = refusal(model, {"z*": "enumerate"})
    assert "too large to sum out: a tensor of shape (50, 50, 50)" in message
    assert "GiB" in message
