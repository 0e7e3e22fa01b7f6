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
