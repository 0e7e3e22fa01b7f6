"""What ArviZ makes of a fit: its summary, its leave-one-out against the closed form, names, dims and the file."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hofit.errors import HofitError
from hofit.export import arviz as ours
from hofit.export.groups import Variable
from tests.export.models import SIGMA, fitted_groups, fitted_regression, regression_data

DRAWS = 2000


@pytest.fixture
def az() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return pytest.importorskip("arviz")


def test_summary_has_the_estimates_and_their_errors(az: Any, caplog: pytest.LogCaptureFixture) -> None:
    result = fitted_regression()
    with caplog.at_level(logging.ERROR, "arviz"):  # one chain has no r_hat, which is logged
        summary = az.summary(result.to_arviz(DRAWS, predictive=False), round_to="none")
    error = result.std_errors["beta"].numpy()
    assert list(summary.index) == ["beta[0]", "beta[1]"]
    assert np.all(np.abs(summary["mean"] - result.values["beta"].numpy()) < 5 * error / math.sqrt(DRAWS))
    assert np.all(np.abs(summary["sd"] - error) < 5 * error / math.sqrt(2 * DRAWS))


def test_leave_one_out_is_that_of_the_normal_linear_model(az: Any) -> None:
    """Left out, yᵢ ~ N(xᵢᵀ b₋ᵢ, σ² / (1 − hᵢ)), and its residual is eᵢ / (1 − hᵢ)."""
    x, y = regression_data()
    loo = az.loo(fitted_regression().to_arviz(DRAWS), pointwise=True)
    hat = (x @ torch.linalg.inv(x.T @ x) * x).sum(1)
    residual = (y - x @ torch.linalg.lstsq(x, y[:, None]).solution[:, 0]) / (1 - hat)
    variance = SIGMA**2 / (1 - hat)
    exact = -0.5 * (residual**2 / variance + variance.log() + math.log(2 * math.pi))
    # The weights' spread at two thousand draws: a row is off by a few hundredths at most, the sum by half a tenth.
    assert np.allclose(loo.loo_i.values, exact.numpy(), atol=0.03)
    assert loo.elpd_loo == pytest.approx(float(exact.sum()), abs=0.05)
    assert float(loo.pareto_k.max()) < 0.5


def test_names_dims_and_coordinates_survive_the_file(az: Any, tmp_path: Path) -> None:
    data = fitted_groups().to_arviz(3, seed=2)
    ours.write_netcdf(tmp_path / "run.nc", data)
    read = az.from_netcdf(str(tmp_path / "run.nc"))
    assert set(read.groups()) == set(data.groups())
    assert dict(read.posterior["mean"].sizes) == {"chain": 1, "draw": 3, "group": 4, "cells": 3}
    assert read.posterior["weights"].dims == ("chain", "draw", "weights_dim_0")
    assert read.observed_data["y"].dims == ("group", "cells")
    assert float(read.constant_data["sd.all"]) == 0.8
    assert read.posterior["mean"].coords["group"].values.tolist() == [0, 1, 2, 3]
    assert (read.posterior.attrs["inference_library"], read.posterior.attrs["seed"]) == ("hofit", 2)
    assert np.array_equal(read.posterior["mean"].values, data.posterior["mean"].values)


def arrays(groups: dict[str, dict[str, Variable]], labels: Any = None) -> Any:
    return ours.inference_data(groups, {}, labels)


def test_a_plate_called_as_a_variable_or_of_two_sizes_gets_another_name(az: Any) -> None:
    data = arrays(
        {
            "posterior": {
                "b": Variable(torch.zeros(2, 3), ("b",)),
                "c": Variable(torch.zeros(2, 4), ("rows",)),
                "d": Variable(torch.zeros(2, 5), ("rows",)),
                "e": Variable(torch.zeros(2, 6), ("draw",)),
            }
        }
    ).posterior
    dims = {name: data[name].dims[2:] for name in data.data_vars}
    assert dims == {"b": ("b_plate",), "c": ("rows",), "d": ("d_dim_0",), "e": ("draw_plate",)}


def test_two_names_that_differ_by_a_slash_alone_stay_two(az: Any) -> None:
    data = arrays({"posterior": {"a/b": Variable(torch.zeros(2), ()), "a.b": Variable(torch.ones(2), ())}}).posterior
    assert {name: float(data[name].mean()) for name in data.data_vars} == {"a.b": 0.0, "a.b_": 1.0}


def test_labels_are_the_coordinates_of_plates_of_their_size(az: Any) -> None:
    variables = {"b": Variable(torch.zeros(2, 3), ("herds",)), "c": Variable(torch.zeros(2, 2), ("cows",))}
    data = arrays({"posterior": variables}, {"herds": ["x", "y", "z"], "cows": [1, 2, 3]}).posterior
    assert data["herds"].values.tolist() == ["x", "y", "z"] and data["cows"].values.tolist() == [0, 1]


def test_where_arviz_has_no_inference_data_there_is_a_tree(az: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(az, "InferenceData")
    data = fitted_regression().to_arviz(4)
    assert type(data).__name__ == "DataTree"
    assert set(data.children) == {"posterior", "posterior_predictive", "log_likelihood", "observed_data"}
    assert data["log_likelihood"]["y"].sizes == {"chain": 1, "draw": 4, "rows": 40}


def test_without_arviz_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5netcdf", None)
    with pytest.raises(HofitError, match=r"pip install 'hofit\[arviz\]'"):
        fitted_regression().to_arviz(2, predictive=False)
