"""Pareto smoothed importance sampling, many integrals at once.

The largest ratios of each integral are replaced by quantiles of the generalized Pareto distribution that fits them. Its
shape k says how far the ratios are to be trusted: below 0.5 their variance is finite, above 0.7 no practical number of
draws is enough.

Source: Vehtari, Simpson, Gelman, Yao & Gabry (2024), "Pareto smoothed importance sampling", JMLR 25(72); Zhang &
Stephens (2009), "A new and efficient estimation method for the generalized Pareto distribution", Technometrics 51(3).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, sqrt

import torch
from torch import Tensor

from ..linear.operator import MEMORY_BUDGET

TRUSTED = 0.7
"""k above this is too large, whatever the draws (Vehtari et al. 2024, section 3.2.4)."""

FEWEST_DRAWS = 100
"""Draws at least: the tail has then 20."""

PRIOR_DRAWS, PRIOR_SHAPE = 10, 0.5
"""A weak prior for k, worth so many draws of the tail (Vehtari et al. 2024, appendix G)."""


@dataclass(frozen=True)
class Smoothed:
    """Of R integrals: ``shape`` k, the ``log_mean`` of the ratios, and its Monte Carlo standard error. Shapes: (R,).

    k is −inf where the largest ratios are the same up to rounding: there is no tail; it is inf where nothing fits them.
    """

    shape: Tensor
    log_mean: Tensor
    error: Tensor


def smoothed(log_ratios: Tensor) -> Smoothed:
    """Shapes: (S, R), S draws of each integral; −inf is a ratio of zero. In float64."""
    tail = _tail_size(len(log_ratios))
    chunk = max(1, MEMORY_BUDGET // (8 * 4 * max(_grid_size(tail) * tail, 4 * len(log_ratios))))
    rounding = torch.finfo(log_ratios.dtype).eps ** 0.5
    parts = [_smoothed(part.T.to(torch.float64), rounding) for part in log_ratios.split(chunk, dim=1)]
    return Smoothed(*(torch.cat(one) for one in zip(*parts, strict=True)))


def fit_generalized_pareto(excesses: Tensor) -> tuple[Tensor, Tensor]:
    """Shape k and scale of each row of excesses over a threshold, ascending. Shapes: (R, M) → (R,), (R,).

    The posterior mean of θ = −k / scale under Zhang and Stephens' prior, by quadrature; k > 0 is a heavy tail.
    nan where a quarter of the excesses is zero.
    """
    m = excesses.shape[1]
    points = _grid_size(m)
    quartile, largest = excesses[:, int(m / 4 + 0.5) - 1], excesses[:, -1]
    grid = 1 - (points / (torch.arange(1, points + 1).to(excesses) - 0.5)).sqrt()
    theta = grid / (3 * quartile[:, None]) + 1 / largest[:, None]  # (R, points)
    k = _shape_of(theta, excesses)
    profile = m * ((-theta / k).log() - k - 1)
    weights = torch.softmax(profile.nan_to_num(-torch.inf, -torch.inf, -torch.inf), 1)
    mean = (theta * weights).sum(1)
    shape = _shape_of(mean[:, None], excesses)[:, 0]
    return shape, -shape / mean


def _smoothed(logs: Tensor, rounding: float) -> tuple[Tensor, Tensor, Tensor]:
    """As ``smoothed``. Shapes: (R, S) → (R,) each."""
    draws, tail = logs.shape[1], _tail_size(logs.shape[1])
    top = logs.amax(1, keepdim=True)
    usable = top.isfinite()[:, 0]
    # The order of the draws does not matter for what is asked.
    ordered = torch.where(usable[:, None], logs - top, 0.0).sort(1).values
    cutoff = ordered[:, -tail - 1].clamp_min(log(torch.finfo(ordered.dtype).tiny)).exp()
    excesses = (ordered[:, -tail:].exp() - cutoff[:, None]).clamp_min(0.0)
    shape, scale = fit_generalized_pareto(excesses)
    shape = (tail * shape + PRIOR_DRAWS * PRIOR_SHAPE) / (tail + PRIOR_DRAWS)
    constant = ordered[:, -tail - 1] > -rounding
    fits = shape.isfinite() & scale.isfinite() & (scale > 0) & ~constant
    levels = (torch.arange(tail).to(ordered) + 0.5) / tail
    quantiles = scale[:, None] * torch.expm1(-shape[:, None] * torch.log1p(-levels)) / shape[:, None]
    smooth = (quantiles + cutoff[:, None]).log().clamp_max(0.0)
    ordered[:, -tail:] = torch.where(fits[:, None], smooth, ordered[:, -tail:])
    log_sum = ordered.logsumexp(1)
    spread = ((ordered - log_sum[:, None]).exp() - 1 / draws).square().sum(1)
    shape = torch.where(fits, shape, torch.where(constant, -torch.inf, torch.inf))
    return (
        torch.where(usable, shape, torch.inf),
        torch.where(usable, log_sum - log(draws) + top[:, 0], top[:, 0]),
        torch.where(usable, spread.sqrt(), torch.inf),
    )


def _shape_of(theta: Tensor, excesses: Tensor) -> Tensor:
    """The k that is likeliest for each θ. Shapes: (R, p), (R, M) → (R, p)."""
    return torch.log1p(-theta[:, :, None] * excesses[:, None, :]).mean(2)


def _tail_size(draws: int) -> int:
    return ceil(min(draws / 5, 3 * sqrt(draws)))


def _grid_size(tail: int) -> int:
    return 30 + int(tail**0.5)
