"""Is Laplace good enough? Against exact evidences: quadrature, conjugate closed forms, and a grid."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.errors import CheckpointError, HofitError, RunDirectoryError
from hofit.uncertainty import diagnosis
from tests.tolerances import CONDITIONED

ROOT = Path(__file__).parents[2]
TRUST_REGION = [{"params": "*", "optimizer": "trust_region"}]

ERRORS = 3.0  # Monte Carlo standard errors that an estimate may lie from what it estimates


@pytest.fixture
def example(tmp_path: Path) -> Callable[[str], Path]:
    def fit_example(config: str) -> Path:
        model = config.rpartition("_")[0]
        result = hofit.fit(ROOT / "models" / f"{model}.py", ROOT / "configs" / f"{config}.yaml", run_dir=tmp_path / "r")
        assert result.converged
        return tmp_path / "r"

    return fit_example


@pytest.fixture
def diagnosed(tmp_path: Path) -> Callable[..., hofit.Diagnosis]:
    """Fit a model from Python and diagnose it."""

    def both(
        model: Any,
        objective: Any,
        arguments: Mapping[str, Any] | None = None,
        draws: int = 2000,
        seed: int = 0,
        **config: Any,
    ) -> hofit.Diagnosis:
        whole = {"objective": objective, "optimizers": TRUST_REGION, **config}
        run = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        hofit.fit(model, whole, run_dir=run, data=arguments)
        return hofit.diagnose(run, draws=draws, seed=seed, model=model, data=arguments)

    return both


def integrate(names: str, method: str = "laplace", **more: Any) -> dict[str, Any]:
    return {"type": "marginal", "integrate": dict.fromkeys(names.split(), method), **more}


def fit(model: Any, objective: Any, arguments: Mapping[str, Any]) -> hofit.FitResult:
    return hofit.fit(model, {"objective": objective, "optimizers": TRUST_REGION}, data=arguments)


def log_integral(log_density: Callable[[Tensor], Tensor], reach: float = 60.0) -> Tensor:
    """Of functions of one number, (points, 1) → (points, rows), by the trapezoid rule; shape (rows,)."""
    grid = torch.linspace(-reach, reach, 40001)
    return torch.logsumexp(log_density(grid[:, None]), 0) + math.log(2 * reach / 40000)


# exact values -------------------------------------------------------------------------------------------


def test_cbpp_is_corrected_to_the_exact_evidence(example: Any) -> None:
    found = hofit.diagnose(example("cbpp_laplace"), draws=4000)
    assert found.laplace == pytest.approx(-92.02628186, abs=1e-6)
    assert found.error < 0.01
    assert abs(found.corrected - -91.98337) < ERRORS * found.error
    (group,) = found.groups
    assert (group.names, group.rows, group.site, group.above) == (("b",), 15, "b", 0.0)
    assert found.by_row and found.is_evidence and found.fitted is None
    assert "all 15 rows of b" in found.reading and "is good" in found.reading


def test_theophylline_is_corrected_to_the_quadrature_s_evidence(example: Any) -> None:
    found = hofit.diagnose(example("theophylline_laplace"), draws=4000)
    assert found.laplace == pytest.approx(-177.87020587, abs=1e-6)
    assert abs(found.corrected - -177.7399) < ERRORS * found.error
    assert found.error < 0.03
    assert found.groups[0].which == ("8",) and not found.is_trusted
    assert '`integrate: {"b": aghq}`' in " ".join(found.remarks)


def test_after_a_quadrature_its_own_value_stands_beside(example: Any) -> None:
    found = hofit.diagnose(example("cbpp_quadrature"), draws=4000)
    assert found.fitted is not None and found.fitted == pytest.approx(-91.98336904, abs=1e-6)
    assert abs(found.corrected - found.fitted) < ERRORS * found.error
    assert found.laplace < found.fitted - 0.04
    assert "quadrature" in found.reading


@pytest.mark.parametrize("config", ["sleepstudy_marginal", "penicillin_marginal", "eight_schools_marginal"])
def test_a_gaussian_needs_no_correction(example: Any, config: str) -> None:
    found = hofit.diagnose(example(config))
    assert abs(found.correction) < CONDITIONED and found.error < CONDITIONED
    assert found.by_row == (config != "penicillin_marginal")
    assert all(group.worst == -torch.inf for group in found.groups)
    assert "the ratios are constant" in found.reading


def test_a_gaussian_in_single_precision_needs_none_either(diagnosed: Any) -> None:
    def model() -> None:
        tau = pyro.param("tau", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("rows", 4):
            b = pyro.sample("b", dist.Normal(0.0, tau))
            pyro.sample("y", dist.Normal(b, 1.0), obs=torch.tensor([1.0, -3.0, 4.0, 2.0]))

    found = diagnosed(model, integrate("b"), dtype="float32", stop={"gradient": 1e-3})
    assert found.groups[0].worst == -torch.inf
    assert abs(found.correction) < 1e-4


def bernoulli(y: Tensor, sd: float) -> None:
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("groups", len(y)):
        b = pyro.sample("b", dist.Normal(0.0, sd))
        pyro.sample("y", dist.Bernoulli(logits=mean + b), obs=y)


ONE_A_GROUP = torch.tensor([1.0] * 14 + [0.0] * 6)


@pytest.mark.parametrize(("sd", "doubt"), [(2.0, False), (4.0, False), (6.0, True)])
def test_where_laplace_is_bad_k_is_large_or_the_correction_is_the_quadrature_s(
    diagnosed: Any, sd: float, doubt: bool
) -> None:
    """One observation a group: the wider the effects, the more their density is a Gaussian cut off on one side.

    The evidence does not depend on sd: the mean makes the share of ones what it is.
    """
    found = diagnosed(bernoulli, integrate("b", "aghq", nodes=99), {"y": ONE_A_GROUP, "sd": sd}, draws=4000)
    exact = 14 * math.log(0.7) + 6 * math.log(0.3)
    assert found.fitted == pytest.approx(exact, abs=1e-4)  # 99 nodes reach as far as Laplace's Gaussian
    assert abs(found.laplace - exact) > 0.15
    assert abs(found.corrected - exact) < ERRORS * found.error
    assert (found.groups[0].above > 0) == (found.groups[0].worst > 0.7) == ("in doubt" in found.reading) == doubt
    assert ("±" in found.reading) == found.is_trusted == (found.to_plain()["error"] is not None) == (not doubt)
    assert any("try it with more `nodes`" in remark for remark in found.remarks) == doubt


def test_where_k_is_large_the_worst_rows_are_named_and_a_quadrature_is_offered(diagnosed: Any) -> None:
    found = diagnosed(bernoulli, integrate("b"), {"y": ONE_A_GROUP, "sd": 6.0}, draws=2000)
    (group,) = found.groups
    assert 1 < group.count_above == round(group.above * 20) and len(group.which) == min(
        group.count_above, diagnosis.WORST
    )
    assert group.which[0] == group.index and set(group.which) <= {str(row) for row in range(20)}
    assert f"at row {group.index}, then {group.which[1]}" in found.reading and "±" not in found.reading
    assert any('fit again with `integrate: {"b": aghq}`' in remark for remark in found.remarks)
    assert found.to_plain()["groups"][0]["rows_above"] == list(group.which)


def test_a_large_correction_is_called_one_though_it_can_be_trusted(diagnosed: Any) -> None:
    data = {"y": ONE_A_GROUP.repeat(10), "sd": 2.0}
    found = diagnosed(bernoulli, integrate("b"), data, draws=8000)
    assert found.groups[0].above == 0.0 and found.correction > 1
    assert "too low" in found.reading and "can be trusted for all 200 rows of b" in found.reading


# map ------------------------------------------------------------------------------------------------------------------


def coin(heads: Tensor, flips: int) -> None:
    p = pyro.sample("p", dist.Beta(2.0, 2.0))
    with pyro.plate("coins", len(heads)):
        pyro.sample("heads", dist.Binomial(flips, p), obs=heads)


@pytest.mark.parametrize("objective", ["map_unconstrained", "map"])
def test_a_beta_binomial_s_evidence_is_its_closed_form(diagnosed: Any, objective: str) -> None:
    heads = [7, 4, 8]
    data = {"heads": torch.tensor(heads).double(), "flips": 10}
    found = diagnosed(coin, objective, data, draws=4000)
    n, s = 30, 19
    chosen = sum(math.log(math.comb(10, k)) for k in heads)
    exact = chosen + math.lgamma(s + 2) + math.lgamma(n - s + 2) - math.lgamma(n + 4) + math.log(6.0)
    assert found.is_evidence
    assert abs(found.corrected - exact) < ERRORS * found.error
    assert found.error < 0.01 and abs(found.laplace - exact) > 1e-3


def test_with_parameters_drawn_it_is_the_integral_over_the_unconstrained_scale(diagnosed: Any) -> None:
    y = torch.tensor([0.5, 2.0, 1.0, 4.0])

    def model() -> None:
        rate = pyro.param("rate", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Exponential(rate), obs=y)

    found = diagnosed(model, "map", draws=4000)
    exact = math.lgamma(4.0) - 4 * math.log(float(y.sum()))  # ∫ e^{4 log r − r Σy} d log r
    assert not found.is_evidence and not found.by_row
    assert abs(found.corrected - exact) < ERRORS * found.error
    assert "parameters flat" in found.reading


def test_an_interacting_model_is_drawn_jointly(diagnosed: Any) -> None:
    counts = torch.tensor([[1.0, 0.0, 3.0], [4.0, 2.0, 7.0]])

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("groups", 2):
            b = pyro.sample("b", dist.Normal(mu, 0.8))
            with pyro.plate("rows", 3):
                pyro.sample("y", dist.Poisson(b.exp()), obs=counts.T)

    found = diagnosed(model, "map_unconstrained", draws=8000)
    mus = torch.linspace(-6, 6, 601)
    given = []
    for mu in mus:
        conditional = log_integral(
            lambda b, mu=mu: (
                dist.Normal(mu, 0.8).log_prob(b)  # type: ignore[misc]
                + dist.Poisson(b.exp()[..., None]).log_prob(counts).sum(-1)
            ),
            12.0,
        )
        given.append(dist.Normal(0.0, 1.0).log_prob(mu) + conditional.sum())
    exact = float(torch.logsumexp(torch.stack(given), 0)) + math.log(12 / 600)
    assert not found.by_row and found.size == 3
    assert found.groups[0].names == ("mu", "b") and found.groups[0].rows == 1
    assert abs(found.corrected - exact) < ERRORS * found.error
    assert "all 3 numbers of mu and b, drawn jointly" in found.reading and not found.remarks


def test_joint_draws_in_many_numbers_are_said_to_be_rough_where_k_is_large(diagnosed: Any) -> None:
    def model() -> None:
        scale = pyro.sample("scale", dist.HalfNormal(3.0))
        with pyro.plate("rows", 60):
            pyro.sample("b", dist.StudentT(2.0, 0.0, 1.0 + scale))

    found = diagnosed(model, {"type": "map_unconstrained"}, draws=500)
    assert not found.by_row and found.groups[0].worst > 0.7
    assert "cannot be shown to be good" in found.reading and "±" not in found.reading
    assert any("only a sampler tells" in remark for remark in found.remarks)


# rows -----------------------------------------------------------------------------------------------------------------


def poisson_rows(y: Tensor, z: Tensor) -> None:
    """Two plates that have nothing to do with each other."""
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("first", len(y)):
        a = pyro.sample("a", dist.Normal(mean, 0.5))
        pyro.sample("y", dist.Poisson(a.exp()), obs=y)
    with pyro.plate("second", len(z)):
        c = pyro.sample("c", dist.Normal(0.0, 2.0))
        pyro.sample("z", dist.Bernoulli(logits=c), obs=z)


def test_groups_of_rows_have_a_shape_each_and_one_evidence(diagnosed: Any) -> None:
    data = {"y": torch.arange(50.0) % 4, "z": (torch.arange(30) % 3 == 0).double()}
    found = diagnosed(poisson_rows, integrate("a c"), data, draws=4000)
    mean = float(fit(poisson_rows, integrate("a c"), data).values["mean"])
    first = log_integral(
        lambda a: dist.Normal(mean, 0.5).log_prob(a) + data["y"] * a - a.exp() - (data["y"] + 1).lgamma()
    )
    second = log_integral(lambda c: dist.Normal(0.0, 2.0).log_prob(c) + dist.Bernoulli(logits=c).log_prob(data["z"]))
    assert [(group.names, group.rows) for group in found.groups] == [(("a",), 50), (("c",), 30)]
    assert abs(found.corrected - float(first.sum() + second.sum())) < ERRORS * found.error
    assert "50 rows of a" in found.reading and "30 rows of c" in found.reading


def odd_one(y: Tensor) -> None:
    """All rows are Gaussian but the one in place (1, 2) of the plates."""
    mean = pyro.param("mean", torch.tensor(0.0))
    heavy = torch.zeros(2, 4, dtype=torch.bool)
    heavy[1, 2] = True
    with pyro.plate("across", 4, dim=-1), pyro.plate("down", 2, dim=-2):
        b = pyro.sample("b", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y)
        pyro.factor("tail", torch.where(heavy, -0.5 * b.square() + (1 + b.square()).log(), torch.zeros(())))


def test_the_worst_row_is_named_by_its_place_in_the_plates(diagnosed: Any) -> None:
    data = {"y": torch.zeros(2, 4)}
    found = diagnosed(odd_one, integrate("b"), data)
    (group,) = found.groups
    plates = fit(odd_one, integrate("b"), data).sites["b"].plates
    place = dict(zip([plate.name for plate in plates], group.index.split(", "), strict=True))
    assert place == {"down": "1", "across": "2"}
    assert group.median == -torch.inf < group.worst


def test_an_observation_of_several_rows_makes_the_draws_joint(diagnosed: Any) -> None:
    counts = torch.tensor([1.0, 0.0, 3.0])

    def model() -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        with pyro.plate("rows", 3):
            b = pyro.sample("b", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Poisson(b.exp()).to_event(1), obs=counts)

    def apart() -> None:
        mean = pyro.param("mean", torch.tensor(0.0))
        with pyro.plate("rows", 3):
            b = pyro.sample("b", dist.Normal(mean, 1.0))
            pyro.sample("y", dist.Poisson(b.exp()), obs=counts)

    joint, by_row = (diagnosed(one, integrate("b"), draws=4000) for one in (model, apart))
    assert not joint.by_row and by_row.by_row
    assert "several rows of 'b'" in joint.remarks[0]
    assert abs(joint.corrected - by_row.corrected) < ERRORS * (joint.error**2 + by_row.error**2) ** 0.5
    assert joint.laplace == pytest.approx(by_row.laplace, abs=CONDITIONED)


# how it is computed ---------------------------------------------------------------------------------------------------


def stubborn(y: Tensor, sd: float) -> None:
    """As ``bernoulli``, with a question that no batch of draws can answer."""
    mean = pyro.param("mean", torch.tensor(0.0))
    with pyro.plate("groups", len(y)):
        b = pyro.sample("b", dist.Normal(0.0, sd))
        if bool(b.detach().sum() > 1e9):
            raise RuntimeError("far away")
        pyro.sample("y", dist.Bernoulli(logits=mean + b), obs=y)


def test_a_model_that_cannot_be_batched_gives_the_same_numbers(diagnosed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"y": torch.tensor([1.0, 0.0, 1.0, 1.0]), "sd": 2.0}
    batched, alone = (diagnosed(one, integrate("b"), data, draws=200) for one in (bernoulli, stubborn))
    assert alone.correction == pytest.approx(batched.correction, abs=1e-8)
    assert alone.groups[0].worst == pytest.approx(batched.groups[0].worst, abs=1e-6)


def test_draws_in_small_chunks_say_the_same(diagnosed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"y": torch.tensor([1.0, 0.0, 1.0, 1.0]), "sd": 2.0}
    whole = diagnosed(bernoulli, integrate("b"), data)
    monkeypatch.setattr(diagnosis, "MEMORY_BUDGET", 8 * 8 * 8 * 100)
    chunked = diagnosed(bernoulli, integrate("b"), data)
    assert abs(whole.correction - chunked.correction) < ERRORS * (whole.error**2 + chunked.error**2) ** 0.5


def test_the_same_seed_gives_the_same_and_another_another(diagnosed: Any) -> None:
    data = {"y": torch.tensor([1.0, 0.0, 1.0, 1.0]), "sd": 2.0}
    one, again, other = (diagnosed(bernoulli, integrate("b"), data, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.correction != other.correction


def test_a_subsampled_model_is_looked_at_on_its_full_plates(diagnosed: Any) -> None:
    y = torch.arange(12.0)

    def model() -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", 12, subsample_size=4) as chosen:
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y[chosen])

    config = {"optimizers": [{"params": "*", "optimizer": "adam", "lr": 0.1}], "init": {"values": {"mu": 5.4954}}}
    found = diagnosed(
        model, "map_unconstrained", stop={"max_iterations": 0, "gradient": 0.1, "decrement": 1.0}, **config
    )
    covariance = torch.eye(12) + 100.0
    exact = float(dist.MultivariateNormal(torch.zeros(12), covariance).log_prob(y))
    assert found.corrected == pytest.approx(exact, abs=1e-3)


def test_draws_without_a_density_count_as_zero_and_are_counted(diagnosed: Any) -> None:
    def model() -> None:
        pyro.param("unit", torch.tensor(0.0))
        pyro.sample("shift", dist.Normal(pyro.param("unit"), 1.0), obs=torch.tensor(0.0))
        u = pyro.sample("u", dist.Normal(0.0, 0.5))
        torch.linalg.cholesky(torch.stack([torch.stack([torch.ones(()), u]), torch.stack([u, torch.ones(())])]))

    found = diagnosed(model, integrate("u"), draws=1000)
    outside = 2 * float(dist.Normal(0.0, 0.5).cdf(torch.tensor(-1.0)))
    assert math.exp(found.correction) == pytest.approx(1 - outside, abs=ERRORS * found.error)
    (remark,) = found.remarks
    assert "could not be computed" in remark


# what cannot be done --------------------------------------------------------------------------------------------------


def refused(run: Path, kind: type[HofitError], says: str, **options: Any) -> None:
    with pytest.raises(kind, match=says) as caught:
        hofit.diagnose(run, **options)
    assert type(caught.value) is kind
    assert not (run / "diagnose.json").exists()


def fitted(model: Any, run: Path, **config: Any) -> Path:
    hofit.fit(model, {"optimizers": TRUST_REGION, **config}, run_dir=run)
    return run


def flat() -> None:
    a, b = (pyro.param(name, torch.tensor(0.3)) for name in ("a", "b"))
    pyro.sample("y", dist.Normal(a + b, 1.0), obs=torch.tensor(1.0))


def test_a_flat_direction_has_no_gaussian(tmp_path: Path) -> None:
    refused(fitted(flat, tmp_path / "r"), HofitError, "no curvature along a, b", model=flat)


def test_a_fit_that_has_not_converged_has_no_mode(tmp_path: Path) -> None:
    def model() -> None:
        pyro.sample("b", dist.StudentT(3.0, 10.0, 1.0))

    adam = [{"params": "*", "optimizer": "adam", "lr": 0.01}]
    run = fitted(model, tmp_path / "r", optimizers=adam, stop={"max_iterations": 3}, init={"values": {"b": 2.0}})
    refused(run, HofitError, "has not converged", model=model)


def test_an_elbo_has_a_guide_instead(tmp_path: Path) -> None:
    def model() -> None:
        pyro.sample("b", dist.Normal(0.0, 1.0))

    run = fitted(
        model, tmp_path / "r", objective={"type": "elbo", "autoguide": "normal", "fixed_draws": True, "particles": 8}
    )
    refused(run, HofitError, "guide", model=model)


def test_too_few_draws_and_too_many_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "r"
    data = {"y": torch.tensor([1.0, 0.0, 1.0, 0.0]), "sd": 1.0}
    hofit.fit(bernoulli, {"objective": integrate("b"), "optimizers": TRUST_REGION}, run_dir=run, data=data)
    refused(run, HofitError, "100 at least", draws=99, model=bernoulli, data=data)
    monkeypatch.setattr(diagnosis, "RATIOS_LIMIT", 1000)
    refused(run, HofitError, "--draws 250 at most", draws=1000, model=bernoulli, data=data)


def test_a_run_from_python_needs_its_model_and_the_same_data(tmp_path: Path) -> None:
    run = tmp_path / "r"
    y = torch.tensor([1.0, 0.0, 1.0, 0.0])
    data = {"y": y, "sd": 1.0}
    hofit.fit(bernoulli, {"objective": integrate("b"), "optimizers": TRUST_REGION}, run_dir=run, data=data)
    refused(run, CheckpointError, "given from Python")
    refused(run, CheckpointError, "give y again", model=bernoulli, sd=1.0)
    refused(run, CheckpointError, "data .* has changed", model=bernoulli, y=1 - y, sd=1.0)
    refused(tmp_path / "nowhere", RunDirectoryError, "no run directory")
    found = hofit.diagnose(run, model=bernoulli, data=data)
    written = json.loads((run / "diagnose.json").read_text())
    assert written["corrected"] == found.corrected and written["draws"] == 1000 and written["seed"] == 0
    assert {"torch", "hofit"} <= set(written["versions"])
    np.testing.assert_equal(written["groups"][0]["rows"], 4)
