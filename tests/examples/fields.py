"""The evidences of the examples in time and space, as `marginals` has the others, each in a way of its own."""

import numpy as np
from scipy.linalg import block_diag

from tests.examples.marginals import (
    Evidence,
    Marginal,
    Prior,
    Values,
    both,
    independent,
    laplace,
    mixed_model,
    poisson,
)
from tests.examples.references import LOG_2PI, Array, numbers, table

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
