"""The evidences of the examples in time and space, as `marginals` has the others, each in a way of its own.

The Nile by Kalman's filter and smoother, the rats by the covariance of what was weighed, the calls by a banded
factorisation of every day at once, van drivers and sudden infant deaths by `marginals.laplace`, dense.
"""

import csv
import gzip
from typing import Any

import numpy as np
from scipy.linalg import block_diag
from scipy.special import gammaln

from tests.examples.marginals import (
    Evidence,
    Free,
    Marginal,
    Prior,
    Values,
    both,
    correlation,
    half_log_determinant,
    identity,
    independent,
    laplace,
    mixed_model,
    poisson,
)
from tests.examples.references import DATA, LOG_2PI, Array, codes, numbers, table

# --- The Nile: Kalman (1960), Rauch, Tung & Striebel (1965) ------------------------------------------


def nile() -> Marginal:
    """The first year tells the level, with nothing known before it."""
    y = numbers(table("nile.csv")["volume"])

    def evidence(v: Values) -> Evidence:
        noise, step = v["sigma"] ** 2, v["sd_level"] ** 2
        mean, variance = [y[0] + 0 * noise], [noise]
        loss = 0.0
        for observed in y[1:]:
            ahead = variance[-1] + step
            spread, miss = ahead + noise, observed - mean[-1]
            loss += 0.5 * (LOG_2PI + np.log(spread) + miss**2 / spread)
            mean.append(mean[-1] + ahead / spread * miss)
            variance.append(ahead * noise / spread)
        smooth, spreads = [mean[-1]], [variance[-1]]
        for m, s in zip(mean[-2::-1], variance[-2::-1], strict=True):
            gain = s / (s + step)
            smooth.append(m + gain * (smooth[-1] - m))
            spreads.append(s + gain**2 * (spreads[-1] - s - step))
        return Evidence(loss, {"level": np.real(smooth[::-1])}, {"level": np.sqrt(np.real(spreads[::-1]))})

    return Marginal({"sigma": (np.exp, 1), "sd_level": (np.exp, 1)}, evidence)


# --- Counts, by a dense Laplace approximation --------------------------------------------------------


def van_drivers() -> Marginal:
    """The season by its eleven cosines and sines, 2π k month / 12, k = 1 … 6; sin of the sixth is zero."""
    data = table("van_drivers.csv")
    y, month, law = (numbers(data[name]) for name in ("killed", "month", "law"))
    months = len(y)
    angle = np.outer(month, np.arange(1, 7)) * np.pi / 6
    design = np.hstack([np.eye(months), np.cos(angle), np.sin(angle[:, :5]), law[:, None]])
    differences = np.diff(np.eye(months), axis=0)

    def evidence(v: Values) -> Evidence:
        precision = block_diag(differences.T @ differences / v["sd_level"] ** 2, np.zeros((12, 12)))
        prior = Prior(precision, (months - 1) * (np.log(v["sd_level"]) + 0.5 * LOG_2PI))
        return mixed_model(poisson(y), 0.0, design, prior, {"level": (months,), "season": (11,), "effect": ()})

    return Marginal({"sd_level": (np.exp, 1)}, evidence)


def sids_data() -> tuple[Array, Array, Array, Array]:
    """Deaths, births, the share of nonwhite births less that of the state, and the Laplacian of the neighbours."""
    data = table("sids.csv")
    deaths, births, nonwhite = (numbers(data[name]) for name in ("deaths", "births", "nonwhite"))
    beside = np.zeros((len(deaths), len(deaths)))
    for i, cell in enumerate(data["neighbours"]):
        beside[i, [int(j) for j in cell.split()]] = 1.0
    laplacian = np.diag(beside.sum(1)) - beside
    return deaths, births, nonwhite / births - nonwhite.sum() / births.sum(), laplacian


def sids() -> Marginal:
    deaths, births, _, laplacian = sids_data()
    counties = len(deaths)
    determinant = np.log(np.linalg.eigvalsh(laplacian)[1:]).sum()
    design = np.hstack([np.eye(counties), np.eye(counties)])
    latents = {"smooth": (counties,), "own": (counties,)}

    def evidence(v: Values) -> Evidence:
        constant = (counties - 1) * (np.log(v["sd_smooth"]) + 0.5 * LOG_2PI) - 0.5 * determinant
        prior = both(Prior(laplacian / v["sd_smooth"] ** 2, constant), independent(counties, v["sd_own"]))
        return mixed_model(poisson(deaths), np.log(births), design, prior, latents)

    return Marginal({"sd_smooth": (np.exp, 1), "sd_own": (np.exp, 1)}, evidence)


def sids_of_own_effects_alone(slope: float, sd_own: float) -> float:
    """−log evidence where what is smooth is one level for all, with a share of nonwhite births: sd_smooth → 0.

    The field's part along its null space, the level times √n, has density one.
    """
    deaths, births, share, _ = sids_data()
    counties = len(deaths)
    design = np.hstack([np.full((counties, 1), counties**-0.5), np.eye(counties)])
    prior = both(Prior(np.zeros((1, 1)), 0.0), independent(counties, sd_own))
    return float(laplace(poisson(deaths), np.log(births) + slope * share, design, prior)[0].real)


# --- Calls: every day a band of five, all days at once -----------------------------------------------


class Bands:
    """L D Lᵀ of symmetric matrices with two bands below the diagonal. Shapes: (n, days), by row."""

    def __init__(self, diagonal: Array, first: Array, second: Array) -> None:
        size = len(diagonal)
        self.pivot, self.one, self.two = (np.zeros_like(diagonal) for _ in range(3))
        for i in range(size):
            self.pivot[i] = diagonal[i]
            if i:
                self.pivot[i] -= self.one[i - 1] ** 2 * self.pivot[i - 1]
            if i > 1:
                self.pivot[i] -= self.two[i - 2] ** 2 * self.pivot[i - 2]
            if i < size - 1:
                below = self.two[i - 1] * self.one[i - 1] * self.pivot[i - 1] if i else 0.0
                self.one[i] = (first[i] - below) / self.pivot[i]
            if i < size - 2:
                self.two[i] = second[i] / self.pivot[i]

    def solve(self, right: Array) -> Array:
        x: Array = right.copy()
        for i in range(1, len(x)):
            x[i] -= self.one[i - 1] * x[i - 1] + (self.two[i - 2] * x[i - 2] if i > 1 else 0.0)
        x /= self.pivot
        for i in reversed(range(len(x) - 1)):
            x[i] -= self.one[i] * x[i + 1] + (self.two[i] * x[i + 2] if i < len(x) - 2 else 0.0)
        return x

    def inverse_diagonal(self) -> Array:
        """From the last row up (Takahashi, Fagan & Chin 1973)."""
        found = np.zeros_like(self.pivot)
        found[-1] = 1 / self.pivot[-1]
        beside = np.zeros_like(found[0])  # Z[i+1, i+2]
        for i in reversed(range(len(found) - 1)):
            after = found[i + 2] if i < len(found) - 2 else 0.0
            one = -self.one[i] * found[i + 1] - self.two[i] * beside
            two = -self.one[i] * beside - self.two[i] * after
            found[i] = 1 / self.pivot[i] - self.one[i] * one - self.two[i] * two
            beside = one
        return found


def bank_calls() -> Marginal:
    with gzip.open(DATA / "bank_calls.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    day = codes([row["date"] for row in rows])
    y = numbers([row["calls"] for row in rows]).reshape(day.max() + 1, -1).T  # (times, days)
    times, days = y.shape
    penalty = np.diff(np.eye(times), n=2, axis=0)
    bands = [np.diagonal(penalty.T @ penalty, k)[:, None] for k in (0, 1, 2)]
    log_factorials = gammaln(y + 1).sum()

    def evidence(v: Values) -> Evidence:
        precision = 1 / v["sd"] ** 2

        def newton(f: Array, precision: Any) -> tuple[Array, Bands]:
            roughness = np.zeros_like(f * precision)
            roughness[2:] += np.diff(f, n=2, axis=0)
            roughness[1:-1] -= 2 * np.diff(f, n=2, axis=0)
            roughness[:-2] += np.diff(f, n=2, axis=0)
            rate = np.exp(f)
            return rate - y + precision * roughness, Bands(
                precision * bands[0] + rate, *(precision * b for b in bands[1:])
            )

        f, step = np.log(y), np.ones_like(y)
        while np.abs(step).max() > 1e-6:
            slope, factor = newton(f, precision.real)
            step = factor.solve(slope)
            f = f - step
        for _ in range(2):
            slope, factor = newton(f, precision)
            f = f - factor.solve(slope)
        _, factor = newton(f, precision)
        squares = (np.diff(f, n=2, axis=0) ** 2).sum()
        loss = (np.exp(f) - y * f).sum() + log_factorials + 0.5 * precision * squares
        loss += (times - 2) * days * (np.log(v["sd"]) + 0.5 * LOG_2PI)
        loss += 0.5 * np.log(factor.pivot).sum() - 0.5 * times * days * LOG_2PI
        errors = np.sqrt(factor.inverse_diagonal().real)
        return Evidence(loss, {"log_rate": f.real.T.ravel()}, {"log_rate": errors.T.ravel()})

    return Marginal({"sd": (np.exp, 1)}, evidence)


# --- Rats: the covariance of the weights, and the best linear predictions -----------------------------


def body_weight() -> Marginal:
    """Every rat was weighed on the same days. Shapes: y (rats, times)."""
    data = table("body_weight.csv")
    rat, diet, day = (codes(data[name]) for name in ("rat", "diet", "day"))
    weeks = np.unique(numbers(data["day"])) / 7
    y, diet_of = np.zeros((16, len(weeks))), np.zeros(16, int)
    y[rat, day], diet_of[rat] = numbers(data["weight"]), diet
    lines = np.stack([np.ones_like(weeks), weeks], -1)
    design = np.hstack([lines, np.eye(len(weeks))])  # of a rat's b and ahead
    free: Free = {
        "intercept": (identity, 3),
        "growth": (identity, 3),
        **dict.fromkeys(("sd_intercept", "sd_growth"), (np.exp, 1)),
        "correlation": (correlation, 1),
        **dict.fromkeys(("sd_ahead", "range", "sigma"), (np.exp, 1)),
    }

    def evidence(v: Values) -> Evidence:
        covariance = v["correlation"] * v["sd_intercept"] * v["sd_growth"]
        lines_part = np.array([[v["sd_intercept"] ** 2, covariance], [covariance, v["sd_growth"] ** 2]])
        ahead_part = v["sd_ahead"] ** 2 * np.exp(-np.abs(weeks[:, None] - weeks) / v["range"])
        latent = block_diag(lines_part, ahead_part)
        whole = design @ latent @ design.T + v["sigma"] ** 2 * np.eye(len(weeks))
        miss = y - v["intercept"][diet_of][:, None] - np.outer(v["growth"][diet_of], weeks)
        weighed = np.linalg.solve(whole, miss.T).T
        loss = 0.5 * (miss * weighed).sum() + 16 * (half_log_determinant(whole) + 0.5 * len(weeks) * LOG_2PI)
        gain = latent @ design.T
        modes = (weighed @ gain.T).real
        errors = np.sqrt(np.diag(latent - gain @ np.linalg.solve(whole, gain.T)).real)
        errors = np.broadcast_to(errors, modes.shape)
        return Evidence(loss, split(modes), split(errors))

    def split(both: Array) -> Values:
        return {"b": both[:, :2], "ahead": both[:, 2:]}

    return Marginal(free, evidence)
