"""The evidences of the examples in time and space, as `marginals` has the others, each in a way of its own."""

import numpy as np
from scipy.linalg import block_diag

from tests.examples.marginals import (
    Evidence,
    Marginal,
    Prior,
    Values,
    mixed_model,
    poisson,
)
from tests.examples.references import LOG_2PI, numbers, table

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
