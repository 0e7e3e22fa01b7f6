"""Minus the evidence lower bound: against closed forms, Pyro's Trace_ELBO, central differences; what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal
from torch import Tensor
from torch.distributions import constraints

import hofit
from hofit.errors import HofitError
from hofit.model.elbo import AUTOGUIDES, ElboProgram
from hofit.objective.elbo import ElboObjective
from tests.command_line import Hofit, Write

TRUST_REGION = [{"params": "*", "optimizer": "trust_region"}]
ADAM = [{"params": "*", "optimizer": "adam", "lr": 0.02}]
Y = torch.tensor([1.0, 2.5, 0.3, 4.0], dtype=torch.float64)

PRECISION = torch.tensor([[2.0, 0.8, 0.3], [0.8, 1.5, -0.4], [0.3, -0.4, 1.0]], dtype=torch.float64)
CENTRE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
LOG_SCALE = 1.7

EXACT = 1e-9  # a minimum is where the gradient is below 1e-6, and the curvature here is about one
NEAR = 1e-6


def fixed(autoguide: str, particles: int) -> dict[str, Any]:
    return {"type": "elbo", "autoguide": autoguide, "particles": particles, "fixed_draws": True}


def fit(model: Any, objective: Any, optimizers: Any = TRUST_REGION, **more: Any) -> hofit.FitResult:
    arguments = more.pop("arguments", {})
    return hofit.fit(model, {"objective": objective, "optimizers": optimizers, **more}, **arguments)


def gaussian() -> None:
    """An unnormalised Gaussian whose integral is exp(LOG_SCALE)."""
    x = pyro.sample("x", dist.MultivariateNormal(CENTRE, precision_matrix=PRECISION))
    pyro.factor("scale", LOG_SCALE + 0.0 * x.sum())


def conjugate(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def hierarchy(y: Tensor) -> None:
    mu = pyro.param("mu", torch.tensor(0.5))
    tau = pyro.sample("tau", dist.LogNormal(0.0, 1.0))
    with pyro.plate("rows", len(y)):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * b, 1.0), obs=y)


def log_evidence(y: Tensor) -> float:
    covariance = torch.eye(len(y)) + 4.0
    return float(dist.MultivariateNormal(torch.zeros(len(y)), covariance).log_prob(y))


def evaluated(program: ElboProgram, full: bool = False) -> Tensor:
    """The program's loss at its start, inside its scope."""
    program.discover()
    return -program.log_density(full=full)


# closed forms -----------------------------------------------------------------------------------------------------


def test_at_the_exact_posterior_the_loss_is_minus_the_log_evidence_whatever_the_draws() -> None:
    variance = 1 / (1 / 4 + len(Y))
    # softplus(u) is the standard deviation
    values = {"*.loc": [variance * float(Y.sum())], "*.scale": [variance**0.5]}
    for particles, seed in ((2, 0), (5, 3)):
        result = fit(
            conjugate,
            fixed("multivariate_normal", particles),
            arguments={"y": Y},
            init={"values": values},
            stop={"max_iterations": 0},
            seed=seed,
        )
        assert result.loss == pytest.approx(-log_evidence(Y), rel=1e-12)


def noise(particles: int, size: int, seed: int) -> Tensor:
    """What fixed draws of a vector are made of: shape (particles, size)."""
    pyro.set_rng_seed(seed)
    return torch.stack([torch.randn(size) for _ in range(particles)])


def test_full_covariance_matches_the_moments_of_the_draws_to_the_posterior() -> None:
    # With m and S the mean and covariance of the noise, the loss ½⟨(μ + Lε − c)ᵀP(μ + Lε − c)⟩ − log|L| is least where
    # μ + Lm = c and L S Lᵀ = P⁻¹.
    result = fit(gaussian, fixed("multivariate_normal", 20), seed=4)
    assert result.status == "converged", result.remarks
    eps = noise(20, 3, 4)
    mean, covariance = eps.mean(0), (eps - eps.mean(0)).T @ (eps - eps.mean(0)) / 20
    scale_tril = (
        result.values["AutoMultivariateNormal.scale"][:, None] * result.values["AutoMultivariateNormal.scale_tril"]
    )
    loc = result.values["AutoMultivariateNormal.loc"]
    assert torch.allclose(loc + scale_tril @ mean, CENTRE, rtol=0, atol=NEAR)
    assert torch.allclose(scale_tril @ covariance @ scale_tril.T, torch.linalg.inv(PRECISION), rtol=0, atol=NEAR)
    # There −loss is log Z + ½ log|S| + ½ (mean of |ε|² − D): the noise's own part of the estimate.
    expected = LOG_SCALE - 0.5 * covariance.logdet() + 0.5 * (eps.square().sum(1).mean() - 3)
    assert -result.loss == pytest.approx(float(expected), rel=EXACT)


def test_mean_field_has_the_variances_of_the_precisions_diagonal() -> None:
    # Of fixed draws, with A = P ∘ C and C the covariance of the noise: s_i (A s)_i = 1 and μ = c − s ∘ m, m its mean.
    # For many draws, C = I, that is s_i = P_ii^(−½).
    result = fit(gaussian, fixed("normal", 100), seed=1)
    assert result.status == "converged", result.remarks
    eps = noise(100, 3, 1)
    centred = eps - eps.mean(0)
    weighted = PRECISION * (centred.T @ centred / 100)
    loc, scale = result.values["AutoNormal.locs.x"], result.values["AutoNormal.scales.x"]
    assert torch.allclose(scale * (weighted @ scale), torch.ones(3), rtol=0, atol=NEAR)
    assert torch.allclose(loc + scale * eps.mean(0), CENTRE, rtol=0, atol=NEAR)


def test_draws_that_change_lead_to_the_mean_field_optimum() -> None:
    adam = [{"params": "*", "optimizer": "adam", "lr": 0.05, "schedule": {"name": "exponential", "gamma": 0.995}}]
    result = fit(gaussian, {"type": "elbo", "autoguide": "normal", "particles": 4}, adam, stop={"max_iterations": 1000})
    assert result.status == "max_iterations"
    assert torch.allclose(result.values["AutoNormal.locs.x"], CENTRE, rtol=0, atol=0.1)
    assert torch.allclose(result.values["AutoNormal.scales.x"], PRECISION.diagonal().rsqrt(), rtol=0.1)
    exact = LOG_SCALE + 0.5 * (PRECISION.logdet() - PRECISION.diagonal().log().sum())
    assert -result.loss == pytest.approx(float(exact), abs=0.4)  # of 100 draws: a standard error of 0.1


# Pyro's own ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("autoguide", AUTOGUIDES)
def test_the_loss_and_its_gradient_are_those_of_trace_elbo_with_the_same_draws(autoguide: str, particles: int) -> None:
    program = ElboProgram(hierarchy, autoguide, {"y": Y}, particles)
    with program.scope():
        program.discover()
        leaves = program.leaves
        pyro.set_rng_seed(7)
        loss = -program.log_density()
        ours = torch.autograd.grad(loss, list(leaves.values()))
        pyro.set_rng_seed(7)
        theirs = Trace_ELBO(num_particles=particles).differentiable_loss(hierarchy, program.guide, Y)
        gradients = torch.autograd.grad(theirs, list(leaves.values()))
    assert float(loss.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)
    for name, one, other in zip(leaves, ours, gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12), name


@pytest.mark.parametrize("autoguide", AUTOGUIDES)
def test_with_fixed_draws_the_gradient_is_that_of_central_differences(autoguide: str) -> None:
    program = ElboProgram(hierarchy, autoguide, {"y": Y}, 8, fixed_seed=2)
    with program.scope():
        program.discover()
        objective = ElboObjective(program)
        start = objective.start()
        gradient = objective.at(start).gradient()
        h = 1e-5
        for name, value in start.items():
            for k in range(value.numel()):
                step = torch.zeros(value.numel()).index_fill(0, torch.tensor(k), h).reshape(value.shape)
                up, down = (objective.at({**start, name: value + sign * step}).value for sign in (1, -1))
                assert (up - down) / (2 * h) == pytest.approx(float(gradient[name].reshape(-1)[k]), rel=1e-6, abs=1e-7)


# parameters, starts, plates -------------------------------------------------------------------------------------------


def test_the_parameters_are_the_guides_and_the_models_and_no_latent() -> None:
    result = fit(hierarchy, fixed("normal", 8), arguments={"y": Y})
    assert result.status == "converged" and result.objective == "elbo" and result.log_likelihood is None
    assert set(result.values) == {
        f"AutoNormal.{kind}.{name}" for kind in ("locs", "scales") for name in ("tau", "b")
    } | {"mu"}
    assert {row["role"] for row in result.estimates()} == {"parameter"}
    assert result.fit_json()["elbo"] == -result.loss
    assert "elbo" not in fit(conjugate, "map", arguments={"y": Y}).fit_json()


@pytest.mark.parametrize("strategy", ["zero", "median", "sample", "uniform"])
def test_an_autoguide_starts_where_the_latents_would(strategy: str) -> None:
    init = {"strategy": strategy, "values": {"*.scales.*": 0.3, "mu": 2.0}}
    at_start = {"init": init, "stop": {"max_iterations": 0}, "arguments": {"y": Y}}
    result = fit(hierarchy, fixed("normal", 2), **at_start)
    assert result.values["mu"] == 2.0 and result.values["AutoNormal.scales.b"].tolist() == pytest.approx([0.3] * 4)
    if strategy == "zero":
        assert result.params["AutoNormal.locs.b"].tolist() == [0.0] * 4
    if strategy == "median":
        assert float(result.params["AutoNormal.locs.tau"].abs()) < 2.0  # the median of 15 draws
    if strategy == "uniform":
        assert 0.0 < float(result.params["AutoNormal.locs.b"].abs().max()) <= 2.0
    other = fit(hierarchy, fixed("normal", 2), **at_start, seed=1)
    assert torch.equal(result.params["AutoNormal.locs.b"], other.params["AutoNormal.locs.b"]) == (strategy == "zero")


def test_a_latent_of_one_number_has_no_correlations() -> None:
    result = fit(conjugate, fixed("multivariate_normal", 50), arguments={"y": Y})
    assert result.status == "converged", result.remarks
    assert result.params["AutoMultivariateNormal.scale_tril"].shape == (0,)
    assert not any(remark.startswith("unused") for remark in result.remarks)


@pytest.mark.parametrize("autoguide", ["normal", "multivariate_normal"])
def test_a_delta_is_no_latent(autoguide: str) -> None:
    def model(y: Tensor) -> None:
        mu = pyro.sample("twice", dist.Delta(2.0 * pyro.sample("z", dist.Normal(0.0, 1.0))))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    result = fit(model, fixed(autoguide, 10), arguments={"y": Y})
    assert result.status == "converged", result.remarks
    assert sum(value.numel() for name, value in result.values.items() if "loc" in name) == 1


def test_modules_serve_as_model_and_guide() -> None:
    from pyro.nn import PyroModule, PyroParam, PyroSample

    class Regression(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.w = PyroSample(dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            self.sd = PyroParam(torch.tensor(1.0), constraints.positive)

        def forward(self, x: Tensor, y: Tensor) -> None:
            mean = x @ self.w
            with pyro.plate("rows", len(y)):
                pyro.sample("y", dist.Normal(mean, self.sd), obs=y)

    model, x = Regression(), torch.randn(20, 2)
    y = x @ torch.tensor([1.0, -1.0]) + 0.3 * torch.randn(20)
    result = fit(model, fixed("multivariate_normal", 10), arguments={"x": x, "y": y})
    assert result.status == "converged", result.remarks
    assert result.values["AutoMultivariateNormal.loc"].tolist() == pytest.approx([1.0, -1.0], abs=0.5)
    program = ElboProgram(model, AutoDiagonalNormal(model), {"x": x, "y": y}, 4, fixed_seed=0)
    with program.scope():
        program.discover()
        assert set(program.leaves) == {"AutoDiagonalNormal.loc", "AutoDiagonalNormal.scale", "sd"}


def test_rows_of_a_plate_are_rows_of_the_guide() -> None:
    program = ElboProgram(hierarchy, "normal", {"y": Y}, 2)
    with program.scope():
        program.discover()
        assert program.sites["AutoNormal.scales.b"].rows == 4
        assert program.sites["AutoNormal.scales.tau"].rows == 1


def test_a_guide_may_be_a_function_of_ones_own() -> None:
    def guide(y: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("mu", dist.Normal(loc, pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)))

    with ElboProgram(conjugate, guide, {"y": Y}, 40, fixed_seed=0).scope():
        program = ElboProgram(conjugate, guide, {"y": Y}, 40, fixed_seed=0)
        program.discover()
        assert list(program.leaves) == ["loc", "sd"]
        assert float(-program.log_density().detach()) > -log_evidence(Y)


def subsampled(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y), subsample_size=2) as chosen:
        b = pyro.sample("b", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=y[chosen])


def test_a_subsampled_plate_draws_rows_of_guide_and_model_and_is_whole_at_the_end() -> None:
    def whole(y: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
        with pyro.plate("rows", len(y)):
            b = pyro.sample("b", dist.Normal(mu, 1.0))
            pyro.sample("y", dist.Normal(b, 1.0), obs=y)

    at_start = {"stop": {"max_iterations": 0}, "init": {"strategy": "zero"}, "arguments": {"y": Y}}
    objective = {"type": "elbo", "autoguide": "normal"}
    part, full = (fit(model, objective, ADAM, **at_start) for model in (subsampled, whole))
    assert part.values["AutoNormal.locs.b"].shape == (4,)
    assert part.loss == pytest.approx(full.loss, rel=1e-12)
    assert any("2 of 4" in remark for remark in part.remarks)
    program = ElboProgram(subsampled, "normal", {"y": Y}, 1)
    with program.scope():
        program.discover("zero")
        losses = torch.stack([-program.log_density() for _ in range(400)]).detach()
        assert float(losses.mean()) == pytest.approx(full.loss, abs=5 * float(losses.std()) / 20)
        moved = torch.autograd.grad(-program.log_density(), program.leaves["AutoNormal.locs.b"])[0]
        assert int((moved != 0).sum()) == 2


# draws that change ----------------------------------------------------------------------------------------------------


def test_draws_that_change_never_converge_and_say_so() -> None:
    # A guide that is the posterior, so that the gradient by its noise alone can be small.
    loose = {"max_iterations": 12, "gradient": 1e6}
    result = fit(conjugate, {"type": "elbo", "autoguide": "normal"}, ADAM, arguments={"y": Y}, stop=loose)
    assert (result.status, result.converged, result.exit_code, result.iterations) == ("max_iterations", False, 3, 12)
    assert any(remark.startswith("stochastic") for remark in result.remarks)
    assert [(check.name, check.ok) for check in result.checks] == [("verdict", None)]


def test_the_remark_of_fixed_draws_holds_the_loss_by_others() -> None:
    result = fit(conjugate, fixed("normal", 2), arguments={"y": Y})
    assert result.status == "converged"
    said = next(remark for remark in result.remarks if remark.startswith("fixed draws: the loss is over 2 draws"))
    assert float(said.split("it is ")[1].split(" ")[0]) > result.loss


@pytest.mark.parametrize("optimizer", ["trust_region", "newton", "newton_cg", "lbfgs", "gauss_newton"])
def test_draws_that_change_are_refused_to_a_part_that_judges_or_reads_curvature(optimizer: str) -> None:
    with pytest.raises(HofitError, match=r"(?s)objective.*draws change.*fixed_draws: true"):
        fit(
            conjugate,
            {"type": "elbo", "autoguide": "normal"},
            [{"params": "*", "optimizer": optimizer}],
            arguments={"y": Y},
        )


# refusals -------------------------------------------------------------------------------------------------------------


def refusal(model: Any, objective: Any, **more: Any) -> str:
    with pytest.raises(HofitError) as caught:
        fit(model, objective, **more)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_missing_guide_is_an_error_at_the_objective() -> None:
    said = refusal(conjugate, "elbo", arguments={"y": Y})
    assert "objective: elbo needs a guide" in said and "multivariate_normal" in said


@pytest.mark.parametrize("autoguide", AUTOGUIDES)
def test_a_model_without_latents_has_nothing_for_a_guide(autoguide: str) -> None:
    def model() -> None:
        pyro.sample("y", dist.Normal(pyro.param("mu", torch.tensor(0.0)), 1.0), obs=torch.tensor(1.0))

    assert "no latent" in refusal(model, {"type": "elbo", "autoguide": autoguide}, optimizers=ADAM)


@pytest.mark.parametrize("autoguide", AUTOGUIDES)
def test_a_discrete_latent_is_named(autoguide: str) -> None:
    def model() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))
        pyro.sample("z", dist.Bernoulli(0.5))

    assert "'z' is discrete" in refusal(model, {"type": "elbo", "autoguide": autoguide}, optimizers=ADAM)


@pytest.mark.parametrize(("autoguide", "needed"), [("normal", 2), ("multivariate_normal", 4), ("low_rank", 4)])
def test_fewer_fixed_draws_than_bound_the_scale_are_refused(autoguide: str, needed: int) -> None:
    assert f"particles: {needed} at least" in refusal(gaussian, fixed(autoguide, needed - 1))
    if autoguide != "low_rank":  # which has as many numbers as the draws have: bounded, but hard to fit
        assert fit(gaussian, fixed(autoguide, needed)).status == "converged"


def test_the_same_rows_at_every_iteration_are_refused() -> None:
    said = refusal(subsampled, fixed("normal", 2), optimizers=ADAM, arguments={"y": Y})
    assert "the same rows of the plate 'rows'" in said


def test_a_pattern_for_a_latent_matches_nothing() -> None:
    said = refusal(conjugate, fixed("normal", 2), arguments={"y": Y}, init={"values": {"mu": 1.0}})
    assert "no parameter or latent matches 'mu'" in said


def normal(name: str = "mu") -> None:
    pyro.sample(name, dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def score(y: Tensor) -> None:
    pyro.sample("mu", dist.Poisson(pyro.param("rate", torch.tensor(1.0), constraint=constraints.positive)))


def rejection(y: Tensor) -> None:
    pyro.sample("mu", dist.Gamma(pyro.param("shape", torch.tensor(2.0), constraint=constraints.positive), 1.0))


def another(y: Tensor) -> None:
    normal()
    normal("nu")


def nothing(y: Tensor) -> None:
    pyro.param("loc", torch.tensor(0.0))


GUIDES = {
    score: "'mu' (Poisson) is not reparameterised",
    rejection: "'mu' (Gamma) is drawn by rejection",
    another: "samples 'nu', which the model does not",
    nothing: "does not sample 'mu'",
}


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_that_gives_no_bound_is_refused_by_the_sites_name(guide: Callable[..., Any]) -> None:
    program = ElboProgram(conjugate, guide, {"y": Y}, 2, fixed_seed=0)
    with program.scope(), pytest.raises(HofitError) as caught:
        program.discover()
    assert GUIDES[guide] in str(caught.value)


def test_a_gamma_guide_serves_where_draws_change() -> None:
    program = ElboProgram(conjugate, rejection, {"y": Y}, 2)
    with program.scope():
        program.discover()
        assert math.isfinite(float(program.log_density().detach()))


# the command line -----------------------------------------------------------------------------------------------------

MODULE = """
import pyro, pyro.distributions as dist, torch
from torch.distributions import constraints

def model(y):
    mu = pyro.sample("mu", dist.Normal(0.0, 2.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

def guide(y):
    sd = pyro.param("sd", torch.tensor(1.0), constraint=constraints.positive)
    pyro.sample("mu", dist.Normal(pyro.param("loc", torch.tensor(0.0)), sd))

def short(y):
    pass
"""
CONFIG = """
data: {{arguments: {{y: [1.0, 2.5, 0.3, 4.0]}}}}
objective: {objective}
optimizers: [{{params: "*", optimizer: {optimizer}}}]
stop: {{max_iterations: {iterations}}}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    write("model.py", MODULE)

    def make(objective: str, optimizer: str, iterations: int) -> None:
        (tmp_path / "a.yaml").write_text(
            CONFIG.format(objective=objective, optimizer=optimizer, iterations=iterations), encoding="utf-8"
        )

    return make


def test_the_modules_own_guide_is_fitted_from_the_command_line(run: Any, hofit: Hofit) -> None:
    run("{type: elbo, particles: 30, fixed_draws: true}", "trust_region", 100)
    outcome = hofit("fit", "model.py", "-c", "a.yaml", "--run-dir", "run")
    assert outcome.code == 0, outcome.text
    assert "fixed draws: the loss is over 30 draws" in outcome.text
    found = json.loads(Path("run/fit.json").read_text())
    assert found["objective"] == "elbo" and found["elbo"] == -found["loss"] and found["log_likelihood"] is None
    assert found["parameters"] == 2
    assert found["elbo"] == pytest.approx(log_evidence(Y), abs=0.3)
    rows = Path("run/estimates.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:3] for row in rows] == [["sd", "", "parameter"], ["loc", "", "parameter"]]


def test_a_guide_that_does_not_take_the_models_arguments_is_refused(run: Any, hofit: Hofit) -> None:
    run("elbo", "adam", 5)
    Path("model.py").write_text(MODULE.replace("def guide(y)", "def guide(x)"), encoding="utf-8")
    outcome = hofit("fit", "model.py", "-c", "a.yaml")
    assert outcome.code == 2 and "guide does not take it" in outcome.text and "a.yaml:3" in outcome.text


@pytest.mark.parametrize(
    "objective",
    [
        "elbo",
        "{type: elbo, autoguide: normal, particles: 3}",
        "{type: elbo, autoguide: low_rank, fixed_draws: true, particles: 4}",
    ],
    ids=["draws that change", "three of them", "fixed draws"],
)
def test_a_resumed_fit_equals_the_uninterrupted_one_bit_for_bit(run: Any, hofit: Hofit, objective: str) -> None:
    run(objective, "adam", 17)
    assert hofit("fit", "model.py", "-c", "a.yaml", "--run-dir", "whole").code == 3
    hofit("fit", "model.py", "-c", "a.yaml", "--run-dir", "parts", "-s", "stop.max_iterations=6")
    for iterations in (11, 17):
        assert hofit("resume", "parts", "-s", f"stop.max_iterations={iterations}").code == 3

    def outcome(name: str) -> Any:
        fit = json.loads(Path(name, "fit.json").read_text())
        kept = {key: fit[key] for key in ("status", "loss", "gradient_norm", "iterations", "remarks")}
        progress = Path(name, "progress.csv").read_text().splitlines()
        column = progress[0].split(",").index("loss")
        return kept, Path(name, "estimates.csv").read_text(), [row.split(",")[column] for row in progress]

    assert outcome("parts") == outcome("whole")
