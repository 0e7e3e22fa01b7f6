"""Pareto smoothing: against known tails, scipy's maximum likelihood, and importance sampling in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Cauchy, Distribution, Normal

from hofit.uncertainty.psis import fit_generalized_pareto, smoothed
from tests.tolerances import ROUNDING

REPEATS = 400


def pareto(k: float, rows: int, size: int) -> Tensor:
    """Draws of the generalized Pareto distribution of scale 2, ascending, by its inverse."""
    uniform = torch.rand(rows, size)
    drawn = -uniform.log() if k == 0 else (uniform**-k - 1) / k
    return 2 * drawn.sort(1).values


@pytest.mark.parametrize("k", [-0.4, 0.0, 0.3, 0.7, 1.2])
def test_a_generalized_pareto_tail_has_its_shape_and_scale(k: float) -> None:
    shape, scale = fit_generalized_pareto(pareto(k, REPEATS, 1000))
    # The shape's standard error is about (1 + k) / √n (Zhang & Stephens 2009); the mean's a √REPEATS-th of it.
    own = max(1 + k, 0.7) / 1000**0.5
    assert float(shape.std()) == pytest.approx(own, rel=0.15)
    assert float(shape.mean()) == pytest.approx(k, abs=4 * own / REPEATS**0.5 + 2e-3)  # 2e-3: its bias, as published
    assert float(scale.mean()) == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.8])
def test_the_shape_is_near_the_likeliest_which_scipy_finds(k: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy has the reference")
    excesses = pareto(k, 3, 2000)
    shape, scale = fit_generalized_pareto(excesses)
    for row in range(3):
        likeliest, _, its_scale = stats.genpareto.fit(excesses[row].numpy(), floc=0)
        assert float(shape[row]) == pytest.approx(likeliest, abs=0.01)  # a posterior mean: a third of its error
        assert float(scale[row]) == pytest.approx(its_scale, rel=0.02)


def test_k_is_arviz_s() -> None:
    arviz = pytest.importorskip("arviz", reason="arviz has the reference")
    logs = Normal(0.0, 1.5).log_prob(z := torch.randn(2000)) - Normal(0.0, 1.0).log_prob(z)
    _, k = arviz.psislw(logs.numpy())
    assert float(smoothed(logs[:, None]).shape) == pytest.approx(float(k), abs=1e-6)


@pytest.mark.parametrize("sd", [0.8, 1.2, 1.4])
def test_a_wider_gaussian_over_a_standard_one_has_k_of_one_less_the_ratio_of_variances(sd: float) -> None:
    z = torch.randn(4000, REPEATS)
    found = smoothed(Normal(0.0, sd).log_prob(z) - Normal(0.0, 1.0).log_prob(z))
    if sd > 1:  # the ratio is exp(z² (1 − 1/sd²) / 2): a regularly varying tail with this k
        assert float(found.shape.mean()) == pytest.approx(1 - 1 / sd**2, abs=0.1)
    else:
        assert float(found.shape.max()) < 0.2
    assert float(found.log_mean.mean()) == pytest.approx(0.0, abs=0.003)
    assert float(found.error.mean()) == pytest.approx(float(found.log_mean.std()), rel=0.15)
    covered = (found.log_mean.abs() < 2 * found.error).double().mean()
    assert 0.88 < float(covered) <= 1.0  # of 400, with tails as heavy as may be: three standard errors below 0.93


def test_heavier_tails_have_a_larger_k_and_cauchy_s_is_not_trusted() -> None:
    z = torch.randn(4000, 100)
    targets: list[Distribution] = [Normal(0.0, 1.2), Normal(0.0, 1.5), Cauchy(0.0, 1.0)]
    median = [float(smoothed(target.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).shape.median()) for target in targets]
    assert median == sorted(median)
    assert median[-1] > 0.7


def test_smoothing_takes_less_of_a_heavy_tail_s_luck_than_the_plain_mean() -> None:
    z = torch.randn(1000, REPEATS)
    ratios = Normal(0.0, 2.0).log_prob(z) - Normal(0.0, 1.0).log_prob(z)  # k 0.75
    plain = (ratios.logsumexp(0) - math.log(1000)).exp()
    assert float(smoothed(ratios).log_mean.exp().std()) < float(plain.std())


def test_constant_ratios_have_no_tail_and_exactly_their_mean() -> None:
    found = smoothed(torch.full((1000, 2), 3.0) + 1e-12 * torch.randn(1000, 2))
    assert found.shape.tolist() == [-torch.inf, -torch.inf]
    torch.testing.assert_close(found.log_mean, torch.full((2,), 3.0), rtol=0, atol=1e-11)
    assert float(found.error.max()) < 1e-12


def test_rows_are_smoothed_as_if_alone_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    ratios = torch.randn(500, 7) * torch.linspace(0.1, 3.0, 7)
    whole = smoothed(ratios)
    alone = [smoothed(ratios[:, row : row + 1]) for row in range(7)]
    monkeypatch.setattr("hofit.uncertainty.psis.MEMORY_BUDGET", 1)
    chunked = smoothed(ratios)
    for name in ("shape", "log_mean", "error"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(whole, name), expected, rtol=ROUNDING, atol=ROUNDING)
        torch.testing.assert_close(getattr(chunked, name), expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(("good", "bad"), [(0, -torch.inf), (0, torch.inf), (1, -torch.inf)])
def test_ratios_that_nothing_fits_have_an_infinite_k_and_leave_the_others_alone(good: int, bad: float) -> None:
    ratios = torch.randn(400, 2)
    before = smoothed(ratios[:, 1:])
    ratios[good:, 0] = bad
    found = smoothed(ratios)
    assert float(found.shape[0]) == torch.inf
    assert float(found.error[0]) > 0.9
    torch.testing.assert_close(found.log_mean[1:], before.log_mean)


def test_zero_ratios_count_in_the_mean() -> None:
    ratios = torch.zeros(1000, 1)
    ratios[:250] = -torch.inf
    assert float(smoothed(ratios).log_mean) == pytest.approx(math.log(0.75), abs=ROUNDING)
