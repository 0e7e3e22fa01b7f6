"""A start that is no place to begin is replaced, but for what was asked for."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import hofit


def saddle() -> None:
    """Flat at zero: minima at a = b = ±1."""
    a, b = (pyro.param(name, torch.tensor(0.0)) for name in "ab")
    pyro.factor("f", -((a * b - 1) ** 2) - 1e-3 * (a - b) ** 2)


def vague() -> None:
    tau = pyro.sample("tau", dist.Gamma(1e-3, 1e-3))
    pyro.sample(
        "y", dist.Normal(0.0, tau.rsqrt()).expand([5]).to_event(1), obs=torch.tensor([1.0, -2.0, 0.5, 1.5, 2.0])
    )


def fit(model: Any, **more: Any) -> hofit.FitResult:
    return hofit.fit(model, {"optimizers": [{"params": "*", "optimizer": "lbfgs"}], **more})


def test_a_flat_start_is_left_and_this_is_said() -> None:
    result = fit(saddle)
    assert result.status == "converged" and result.loss == pytest.approx(0.0, abs=1e-10)
    assert any(remark.startswith("start: ") and "flat" in remark for remark in result.remarks)


def test_a_start_that_was_asked_for_stays() -> None:
    result = fit(saddle, init={"values": {"a": 0.0, "b": 0.0}}, stop={"max_iterations": 0})
    assert result.values["a"] == result.values["b"] == 0.0 and not any("start: " in r for r in result.remarks)


def test_a_vague_prior_s_median_is_no_start() -> None:
    """On the unconstrained scale the posterior is Gamma(n/2 + 0.001, Σy²/2 + 0.001): its mode is shape over rate."""
    result = fit(vague, objective="map_unconstrained")
    assert result.status == "converged" and any(r.startswith("start: ") for r in result.remarks)
    assert float(result.values["tau"]) == pytest.approx((2.5 + 1e-3) / (11.5 / 2 + 1e-3), rel=1e-6)
