"""Small models of kinds that once failed: crashes, edges of supports, statuses that hung on rounding.

Losses and estimates were computed without hofit: closed forms, numpy and SciPy, lme4, glmmTMB; Laplace by numpy where
the objective is marginal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import hofit
from hofit.config.load import load_source
from hofit.errors import HofitError
from hofit.run.fit import FitOptions, run_fit
from hofit.run.session import Request

HERE = Path(__file__).parent


def fit(config: str, *settings: str) -> hofit.FitResult:
    return run_fit(Request(load_source(HERE / f"{config}.yaml", settings)), FitOptions())


def remarks(result: hofit.FitResult) -> str:
    return " ".join(result.remarks)


def near(found: Any, expected: Any, within: float) -> bool:
    return bool((torch.as_tensor(found) - torch.as_tensor(expected, dtype=torch.float64)).abs().max() <= within)


@pytest.mark.parametrize(
    ("config", "loss", "within", "values"),
    [
        ("zip", 13.121021181, 1e-8, {"rate": 2.17733308, "gate": 0.35552438}),
        ("nmin", 4.262917542, 1e-8, {"p": 0.50724528}),
        ("beta_rows", 7566.18713, 1e-4, {"m": 0.27069402, "kappa": 12.254668}),
        ("cached_transform", 1.461312724, 1e-8, {"x": 0.63174042}),
        ("vague", 20.475736974, 1e-8, {"tau": 2.52503145, "mu": 4.94999966}),
    ],
)
def test_converges_to_the_known_minimum(config: str, loss: float, within: float, values: dict[str, Any]) -> None:
    result = fit(config)
    assert result.status == "converged" and result.loss == pytest.approx(loss, abs=within)
    for name, value in values.items():
        assert near(result.values[name], value, 1e-6 * max(1.0, abs(value)))
        assert bool(torch.isfinite(result.std_errors[name]).all())


@pytest.mark.parametrize("config", ["loop", "loop_vector"])
def test_a_loop_over_sites_is_fitted_as_the_same_density_of_one_vector(config: str) -> None:
    result = fit(config, "data.options={days: 200}")
    assert result.status == "converged" and result.loss == pytest.approx(236.4494853, abs=1e-6)
    for name, value in {"mu": -0.5275626, "phi": 0.9309912, "sigma": 0.2465999}.items():
        assert near(result.values[name], value, 1e-6)


def test_a_padded_matrix_takes_products_where_they_cost_less() -> None:
    result = fit("padded")
    assert result.status == "converged" and result.loss == pytest.approx(375.0018281, abs=1e-6)


@pytest.mark.parametrize("structure", ["rows", "dense"])
def test_the_structure_of_what_is_integrated_can_be_claimed(structure: str) -> None:
    result = fit("padded", f"objective.integrate.b={{method: laplace, structure: {structure}}}")
    assert result.status == "converged" and result.loss == pytest.approx(375.0018281, abs=1e-6)


def test_the_pattern_of_what_is_integrated_can_be_claimed() -> None:
    """The Nile's level: the likelihood is exact whatever factorises its Hessian."""
    root = HERE.parents[1]
    claim = "objective.integrate.level={method: laplace, structure: sparse}"
    source = load_source(root / "configs/nile_marginal.yaml", [claim])
    result = run_fit(Request(source, str(root / "models/nile.py")), FitOptions())
    assert result.status == "converged" and result.loss == pytest.approx(632.5456251030, abs=1e-8)


def test_a_structure_of_what_is_integrated_that_does_not_hold_is_refused() -> None:
    with pytest.raises(HofitError, match=r"rows of b interact: the Hessian is not `structure: diagonal`"):
        fit("padded", "objective.integrate.b={method: laplace, structure: diagonal}")


def test_transitions_that_are_impossible_have_no_slope() -> None:
    result = fit("enumerated_zero")
    assert result.status == "flat_direction" and result.loss == pytest.approx(10.817328715, abs=1e-8)
    assert near(result.values["stay"][:2], [0.70479, 0.53912], 1e-5) and "stay[2]" in remarks(result)
    assert near(result.values["mean"], [-1.99933, 0.09250, 1.65572], 1e-5)
    assert result.std_errors["stay"].isfinite().tolist() == [True, True, False]


def test_a_third_derivative_that_torch_lacks_is_taken_by_differences_and_named() -> None:
    result, plain = fit("cox"), fit("cox", f"model={HERE}/cox.py:by_cumsum")
    assert result.status == plain.status == "converged"
    assert result.loss == pytest.approx(350.44567003, abs=1e-7) == plain.loss
    assert near(result.values["beta"], 0.72240814, 1e-6) and near(result.values["sd"], 0.46584721, 1e-6)
    for name, error in plain.std_errors.items():
        assert near(result.std_errors[name], error, 1e-5)
    assert "no third derivative of 'partial' (logcumsumexp)" in remarks(result)


def test_two_columns_of_one_kind_are_warned_of_and_can_share_their_levels() -> None:
    alone = fit("games/prior_codes")
    assert "'winner' and 'loser'" in remarks(alone) and "codes: NAME" in remarks(alone)
    shared = fit(
        "games/prior_codes",
        "data.columns.winner={column: winner, codes: player}",
        "data.columns.loser={column: loser, codes: player}",
    )
    assert "in common" not in remarks(shared) and shared.loss == pytest.approx(45.62489163, abs=1e-7)


def test_an_index_that_became_floating_is_named_with_the_edit() -> None:
    columns = "data.columns={winner: winner, loser: loser}"
    with pytest.raises(HofitError, match=r"'winner', 'loser' became floating.*dtype: long"):
        fit("games/prior_codes", columns)


def test_numbers_that_a_transform_never_reads_are_no_unknowns() -> None:
    result = fit("chol")
    assert result.status == "converged" and result.loss == pytest.approx(10.707557752, abs=1e-8)
    root, errors = result.values["root"], result.std_errors["root"]
    assert near(root, [[0.73484692, 0.0], [0.29666042, 0.67822754]], 1e-7)
    assert bool((errors[torch.tril(torch.ones(2, 2)) > 0] > 0.2).all())


def test_a_category_that_was_never_seen_lies_on_the_edge_of_the_simplex() -> None:
    """The errors of the others are the multinomial's: √(p (1 − p) / 8)."""
    result = fit("dir")
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(0.574007034, abs=1e-8)
    assert near(result.values["p"], [0.625, 0.375, 0.0], 1e-8) and "p[2] → 0" in remarks(result)
    assert near(result.std_errors["p"][:2], [0.17116, 0.17116], 1e-4) and result.std_errors["p"][2].isnan()


@pytest.mark.parametrize(("config", "going"), [("config", "rho → −1"), ("cholesky", "corr[1,0] → −1")])
def test_a_correlation_of_minus_one_is_a_boundary_however_it_is_written(config: str, going: str) -> None:
    result = fit(f"germination/{config}")
    assert result.status == "converged_on_boundary" and going in remarks(result)
    assert result.loss == pytest.approx(577.18717, abs=1e-6)
    assert near(result.values["beta"], [33.8757, -1.1879], 1e-4) and near(result.values["sd"], [2.4972, 0.41911], 1e-4)
    assert near(result.std_errors["beta"], [0.9297, 0.7264], 1e-3) and near(result.values["sigma"], 4.83007, 1e-4)


def test_separation_is_named_and_the_others_have_errors() -> None:
    """lme4's loss and effects; scale and errors by numpy, Laplace with beta[3] at −20 and a Hessian by differences."""
    result = fit("nests/config")
    assert result.status == "converged_on_boundary" and result.exit_code == 0
    assert "beta[3] → −∞" in remarks(result) and "the loss tends to 98.34046" in remarks(result)
    assert result.loss == pytest.approx(98.3404619, abs=1e-6)
    others, errors = result.values["beta"][[0, 1, 2, 4]], result.std_errors["beta"]
    assert near(others, [-2.33177, 0.43104, -0.45234, 0.41133], 1e-4) and near(result.values["sd"], 1.5340316, 1e-6)
    assert errors[3].isnan() and near(errors[[0, 1, 2, 4]], [0.53070, 0.48430, 0.54399, 0.23051], 1e-4)


@pytest.mark.parametrize("optimizer", ["trust_region", "lbfgs", "newton_cg"])
@pytest.mark.parametrize("seed", [1, 4])
def test_a_circle_of_minima_is_a_flat_direction_from_every_start(optimizer: str, seed: int) -> None:
    entry = f"optimizers=[{{params: '*', optimizer: {optimizer}}}]"
    result = fit("ring", "init.strategy=uniform", f"seed={seed}", entry)
    assert result.status == "flat_direction" and result.loss == pytest.approx(46.413527, abs=1e-6)
    assert "flat direction (singular)" in remarks(result) and "w[" in remarks(result)


def test_a_parameter_that_nothing_depends_on_but_rounding_is_not_followed() -> None:
    result = fit("drift")
    assert result.status == "flat_direction" and result.loss == pytest.approx(19.4242892, abs=1e-7)
    assert "alpha" in remarks(result) and abs(float(result.values["alpha"])) < 1e3
    assert near(result.values["sd"], 0.5687, 1e-4) and bool(result.std_errors["sd"] > 0)


SMALL = {"rows": 3000, "groups": 1500, "stores": 50}


@pytest.mark.parametrize(
    ("options", "edge", "loss", "other", "value"),
    [
        ({"seed": 3}, "sd_store", 28485.892343, "sd_group", 0.07461),
        ({"seed": 2, **SMALL}, "sd_store", 4199.787735, "sd_group", 0.21014),
        ({"seed": 6, **SMALL}, "sd_group", 4251.790006, "sd_store", 0.02930),
    ],
)
def test_effects_that_are_not_there_have_a_scale_of_zero(
    options: dict[str, int], edge: str, loss: float, other: str, value: float
) -> None:
    """By lme4: lmer(y ~ x + (1 | group) + (1 | store), REML = FALSE), xtol_abs 1e-10, ftol_abs 1e-12."""
    result = fit("no_signal", f"data.options={options}")
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(loss, abs=1e-5)
    assert f"{edge} → 0" in remarks(result) and result.std_errors[edge].isnan()
    assert near(result.values[other], value, 1e-5) and bool(result.std_errors[other] > 0)


def test_raw_scales_end_at_the_boundary_and_not_to_and_fro() -> None:
    result = fit("firms/config")
    assert result.status == "converged_on_boundary" and result.loss == pytest.approx(839.12342, abs=1e-5)
    assert "rho → −1" in remarks(result) and result.iterations < 100
