"""Every example as it stands: each config converges to the loss at its head, where plain numpy and scipy end too."""

import re
import types
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

import hofit
from hofit.fitting.result import FitResult
from tests.examples import references
from tests.tolerances import CONVERSION, FLAT_MODE, GRADIENT, MINIMUM, PUBLISHED, ROUNDING, decimals

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
NOT_MARGINAL = [
    name for name in CONFIGS if "type: marginal" not in (ROOT / "configs" / f"{name}.yaml").read_text("utf-8")
]
SIMULATED = ["gaussian_process", "hierarchical_logistic", "item_response", "poisson_regression"]
FROM_FILES = [
    *("cbpp", "eight_schools", "gaussian_mixture", "hidden_markov", "neural_network", "nist"),
    *("penicillin", "radon", "sleepstudy", "theophylline"),
]
MODES = sorted([*SIMULATED, *FROM_FILES])
ONLY_MARGINAL = [  # no joint mode to compare
    *("bank_calls", "body_weight", "correlated_logistic", "crossed_effects", "nile", "poisson_counts", "sids"),
    *("smoother", "van_drivers"),
]
NIST = sorted(path.stem for path in (references.DATA / "nist").glob("*.dat"))
FOUR_WAYS = ["cbpp", "eight_schools", "radon", "sleepstudy"]

STATIONARY = 1e-8
"""A reference's own gradient, in units of the entry where that is below one: Powell's method ends at rounding."""
CERTIFIED = 1e-9
"""Relative: NIST prints eleven digits, of which a residual sum of squares loses up to two."""
LANCZOS1 = 5e-3
"""Relative: the residuals of Lanczos1 are 1e-13, and its y hold three digits of them."""


class Head(NamedTuple):
    """What a config says of itself in its first comment lines."""

    title: str
    model: str
    config: str
    loss: float
    status: str


def read_head(name: str) -> Head:
    lines = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    command = re.fullmatch(r"# hofit fit (\S+) --config (\S+)", comments[1])
    end = re.fullmatch(r"# Ends at loss (-?\d+\.\d+) \((converged\w*)\)\.", comments[-1])
    assert command and end, f"{name}: a head is a title, the command and the loss"
    return Head(comments[0].removeprefix("# "), command[1], command[2], float(end[1]), end[2])


@cache
def fitted(name: str) -> FitResult:
    """The config's fit, once for all tests."""
    return hofit.fit(ROOT / read_head(name).model, ROOT / "configs" / f"{name}.yaml")


@cache
def mode(model: str) -> references.Mode:
    """The model's reference, from the start that the configs have."""
    if model == "neural_network":
        weights = [p.detach().double().numpy().ravel() for p in load("neural_network").build_network().parameters()]
        return references.neural_network(np.concatenate([*weights, [0.0]]))  # log sigma starts at 0
    if model == "nist":
        return references.nist("Misra1a", start=1)
    data = simulated(model) if model in SIMULATED else {}
    reference: references.Mode = getattr(references, model)(**{name: value.numpy() for name, value in data.items()})
    return reference


@cache
def reference_of(config: str) -> references.Mode:
    """That of its model, but for the config whose objective is another."""
    if config != "eight_schools_elbo":
        return mode(model_of(config))
    torch.manual_seed(0)  # the config's; a draw is made of mu, tau, eta in turn
    noise = [np.concatenate([torch.randn(shape).numpy().ravel() for shape in ((), (), (8,))]) for _ in range(40)]
    return references.eight_schools_elbo(np.stack(noise))


def simulated(model: str, **changed: Any) -> dict[str, Any]:
    """The data of the model's config."""
    config = yaml.safe_load((ROOT / "configs" / f"{model}_trust_region.yaml").read_text(encoding="utf-8"))
    data: dict[str, Any] = load(model).load_data(**config["data"]["options"] | changed)
    return data


def load(model: str) -> types.ModuleType:
    spec = spec_from_file_location(f"example_{model}", ROOT / "models" / f"{model}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_of(config: str) -> str:
    return Path(read_head(config).model.partition(":")[0]).stem


# --- Every config ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_opens_with_a_title_and_the_command_that_runs_it(name: str) -> None:
    head = read_head(name)
    assert head.title.endswith(".")
    assert head.config == f"configs/{name}.yaml"
    assert (ROOT / head.model.partition(":")[0]).is_file()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_converges_to_the_loss_at_its_head(name: str) -> None:
    result = fitted(name)
    assert (result.status, result.exit_code) == (read_head(name).status, 0), result.remarks
    assert result.converged
    assert result.gradient_norm <= GRADIENT
    assert result.loss == pytest.approx(read_head(name).loss, rel=MINIMUM, abs=decimals(8))


@pytest.mark.parametrize("name", NOT_MARGINAL)
def test_a_config_ends_where_scipy_ends_on_the_numpy_density(name: str) -> None:
    result, reference = fitted(name), reference_of(name)
    assert result.loss == pytest.approx(reference.loss, rel=MINIMUM)
    for parameter, value in reference.values.items():
        found = result.values[parameter].numpy()
        assert found == pytest.approx(value, rel=0.0, abs=FLAT_MODE * np.abs(value).max()), parameter


@pytest.mark.parametrize("name", NOT_MARGINAL)
def test_the_numpy_density_is_stationary_at_its_reference_mode(name: str) -> None:
    reference = reference_of(name)
    slope = references.gradient(reference.density, reference.point)
    assert np.abs(slope * np.minimum(1.0, np.abs(reference.point))).max() <= STATIONARY


def test_every_model_has_a_config_and_four_have_four() -> None:
    assert sorted({model_of(name) for name in NOT_MARGINAL}) == MODES
    assert sorted({model_of(name) for name in CONFIGS}) == sorted([*MODES, *ONLY_MARGINAL])
    assert sorted(path.stem for path in (ROOT / "models").glob("*.py")) == sorted([*MODES, *ONLY_MARGINAL])
    ways = ("adam", "mixed", "newton", "trust_region")
    assert {f"{model}_{way}" for model in FOUR_WAYS for way in ways} <= {*CONFIGS}


# --- Published values -----------------------------------------------------------------------------


def test_sleepstudy_has_the_fixed_effects_and_modes_of_lme4() -> None:
    published, values = references.REFERENCE["sleepstudy"], fitted("sleepstudy_newton").values
    assert values["beta"].tolist() == pytest.approx([*published["fixed"].values()], rel=PUBLISHED)
    for column, name in enumerate(("(Intercept)", "Days")):
        modes, b = published["modes_first5"][name], values["b"][:, column]
        assert b[:5].tolist() == pytest.approx([*modes["first5"].values()], rel=PUBLISHED)
        assert float(b.square().sum()) == pytest.approx(modes["sumsq"], rel=PUBLISHED)


def test_radon_has_the_fixed_effects_of_lme4() -> None:
    published = references.REFERENCE["radon"]["fixed"]
    assert fitted("radon_newton").values["beta"].tolist() == pytest.approx([*published.values()], rel=PUBLISHED)


def test_penicillin_has_the_intercept_of_lme4() -> None:
    published = references.REFERENCE["penicillin"]["fixed"]["(Intercept)"]
    assert float(fitted("penicillin_newton").values["intercept"]) == pytest.approx(published, rel=PUBLISHED)


def test_the_mixture_of_old_faithful_has_the_likelihood_of_mclust() -> None:
    published = references.REFERENCE["faithful"]["log_likelihood"]
    assert fitted("gaussian_mixture_trust_region").log_likelihood == pytest.approx(published, abs=decimals(3))


def test_the_earthquakes_have_the_estimates_of_zucchini_and_macdonald() -> None:
    published, result = references.REFERENCE["earthquakes"], fitted("hidden_markov_trust_region")
    stay = [published["transition"][0][0], published["transition"][1][1]]
    assert result.log_likelihood == pytest.approx(published["log_likelihood"], abs=decimals(4))
    assert result.values["rate"].tolist() == pytest.approx(published["rate"], abs=decimals(3))
    assert result.values["stay"].tolist() == pytest.approx(stay, abs=decimals(4))


# --- One density, written in two ways -------------------------------------------------------------


@pytest.mark.parametrize("model", ["hierarchical_logistic", "item_response"])
def test_a_row_an_observation_ends_where_the_nested_plates_end(model: str) -> None:
    config = {"optimizers": [{"params": "*", "optimizer": "trust_region"}]}
    result = hofit.fit(load(model).indexed, config, data=simulated(model, layout="indexed"))
    nested = fitted(f"{model}_trust_region")
    assert result.status == "converged", result.remarks
    assert result.loss == pytest.approx(nested.loss, rel=MINIMUM)
    for parameter, value in nested.values.items():
        found, expected = result.values[parameter].numpy().ravel(), value.numpy().ravel()
        assert found == pytest.approx(expected, rel=0.0, abs=FLAT_MODE * np.abs(expected).max()), parameter


@pytest.mark.parametrize("model", ["hierarchical_logistic", "item_response"])
def test_a_third_layout_is_refused(model: str) -> None:
    with pytest.raises(ValueError, match="layout 'flat': there are nested and indexed"):
        load(model).load_data(layout="flat")


# --- The neural network ---------------------------------------------------------------------------


def test_the_network_starts_at_the_same_weights_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = load("neural_network").network, load("neural_network").network
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_second_fit_of_the_network_starts_afresh() -> None:
    again = hofit.fit(ROOT / "models" / "neural_network.py", ROOT / "configs" / "neural_network_sgd.yaml")
    assert again.iterations == fitted("neural_network_sgd").iterations
    assert again.loss == fitted("neural_network_sgd").loss


# --- NIST -----------------------------------------------------------------------------------------


def gauss_newton_step(name: str, problem: references.NistProblem, b: references.Array) -> references.Array:
    """One step of exact linear least squares from b."""

    def mean(b: references.Array) -> references.Array:
        return np.asarray(references.nist_mean(name, problem.x, b))

    steps = 1j * references.COMPLEX_STEP * np.eye(len(b))
    jacobian = np.stack([mean(b + step).imag for step in steps], -1) / references.COMPLEX_STEP
    step: references.Array = np.linalg.lstsq(jacobian, problem.y - mean(b), rcond=None)[0]
    return b + step


def certified(name: str) -> tuple[references.NistProblem, references.Array, float]:
    """The problem, its certified values, and the relative error with which they reproduce the certified RSS.

    The residuals of Lanczos1 are 1e-13: the eleven digits printed of b leave residuals a hundred times that, and
    those of y hold three digits of them. So its b is refined by one step, and its RSS compared to those three digits.
    """
    problem = references.nist_problem(name)
    if name == "Lanczos1":
        return problem, gauss_newton_step(name, problem, problem.certified), LANCZOS1
    return problem, problem.certified, CERTIFIED


def test_there_are_27_nist_problems() -> None:
    assert len(NIST) == 27
    assert sorted(load("nist").MEANS) == NIST


@pytest.mark.parametrize("name", NIST)
def test_a_mean_function_reproduces_the_certified_residual_sum_of_squares(name: str) -> None:
    problem, b, accuracy = certified(name)
    nist = load("nist")
    ours = nist.read_problem(name)
    residuals = ours.y - nist.MEANS[name](ours.x, *torch.as_tensor(b))
    assert float(residuals.square().sum()) == pytest.approx(problem.residual_sum_of_squares, rel=accuracy)
    assert ours.residual_sum_of_squares == problem.residual_sum_of_squares


@pytest.mark.parametrize("name", NIST)
def test_the_numpy_mean_function_does_so_too(name: str) -> None:
    problem, b, accuracy = certified(name)
    residuals = problem.y - references.nist_mean(name, problem.x, b)
    assert float((residuals**2).sum()) == pytest.approx(problem.residual_sum_of_squares, rel=accuracy)


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("name", NIST)
def test_a_nist_problem_has_the_files_data_and_a_finite_density_at_its_start(name: str, start: int) -> None:
    problem, arguments = references.nist_problem(name), load("nist").load_data(name, start)
    assert arguments["b_start"].tolist() == problem.starts[start - 1].tolist()
    assert arguments["x"].tolist() == problem.x.tolist()
    assert arguments["y"].numpy() == pytest.approx(problem.y, rel=CONVERSION)
    residuals = problem.y - references.nist_mean(name, problem.x, problem.starts[start - 1])
    sigma = float(arguments["sigma_start"])
    assert sigma == pytest.approx(np.sqrt((residuals**2).mean()), rel=ROUNDING)
    assert np.isfinite(references.normal(residuals, sigma))


def test_the_nist_config_ends_at_the_certified_values() -> None:
    problem, values = references.nist_problem("Misra1a"), fitted("nist").values
    assert values["b"].tolist() == pytest.approx(problem.certified.tolist(), rel=CERTIFIED)
    rss = len(problem.y) * float(values["sigma"]) ** 2
    assert rss == pytest.approx(problem.residual_sum_of_squares, rel=CERTIFIED)


def test_an_unknown_nist_problem_is_named() -> None:
    with pytest.raises(ValueError, match="no NIST problem 'Misra1'"):
        load("nist").load_data("Misra1")


def test_a_third_start_is_refused() -> None:
    with pytest.raises(ValueError, match="start 3"):
        load("nist").load_data("Misra1a", 3)
