"""The examples' densities a second time, in plain numpy from the formulas, and their minima by scipy or linear algebra.

A function per model returns a `Mode`: the negative log density, every constant included, as a function of one flat
vector of the free quantities, and the vector at its minimum. Nothing here knows torch, Pyro or the models; only the
data are shared: files, or simulated arrays that the function is given.

The densities are analytic in their argument, so `gradient` is exact: Im f(u + ih) / h needs no difference
(Squire & Trapp 1998, SIAM Review 40, 110-112). It takes an evaluation an unknown; where these are hundreds, scipy is
given the gradient from the formula, and `gradient` still judges where it ends.
"""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize, root
from scipy.special import expit, gammaln

Array = NDArray[Any]
Density = Callable[[Array], Any]
Slope = Callable[[Array], Array]

DATA = Path(__file__).parents[2] / "models" / "data"
REFERENCE: dict[str, Any] = json.loads((DATA / "reference.json").read_text())
LOG_2PI = float(np.log(2 * np.pi))
COMPLEX_STEP = 1e-30  # far below rounding: the imaginary part is the derivative alone


@dataclass(frozen=True)
class Mode:
    """A minimum of a negative log density. `values` are the free quantities by the names the model gives them."""

    density: Density
    point: Array
    values: dict[str, Array]

    @property
    def loss(self) -> float:
        return float(self.density(self.point))


def gradient(density: Density, point: Array) -> Array:
    """The exact gradient of an analytic density. Shapes: point, result (d,)."""
    steps = 1j * COMPLEX_STEP * np.eye(len(point))
    return np.array([density(point + step).imag for step in steps]) / COMPLEX_STEP


def minimum(density: Density, start: Array, slope: Slope | None = None) -> Array:
    """BFGS from `start`, then `stationary`; by `gradient`, or by `slope`, the same from the formula."""
    slope = slope or partial(gradient, density)
    near = minimize(density, start, jac=slope, method="BFGS", options={"gtol": 1e-5, "maxiter": 10_000}).x
    return stationary(slope, near)


def stationary(slope: Slope, near: Array) -> Array:
    """The root of the gradient by Powell's hybrid method: exact to rounding, from a point nearby."""
    return np.asarray(root(slope, near, tol=1e-14).x)


def normal(residual: Any, scale: Any) -> Any:
    """−log density of independent Normal(0, scale) numbers, summed."""
    return (0.5 * (residual / scale) ** 2 + np.log(scale) + 0.5 * LOG_2PI).sum()


def bernoulli(logits: Any, y: Array) -> Any:
    """−log density of independent Bernoulli numbers y, summed."""
    return (np.log1p(np.exp(logits)) - y * logits).sum()


def bivariate_normal(b: Any, sd_first: float, sd_second: float, correlation: float) -> Any:
    """−log density of independent rows b ~ Normal(0, Σ), summed. Shapes: b (N, 2)."""
    u, v = b[:, 0] / sd_first, b[:, 1] / sd_second
    rest = 1 - correlation**2
    quadratic = (u**2 - 2 * correlation * u * v + v**2) / rest
    return (0.5 * quadratic + np.log(sd_first * sd_second * np.sqrt(rest)) + LOG_2PI).sum()


def table(name: str) -> dict[str, list[str]]:
    """A csv file by columns."""
    with (DATA / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {column: [row[column] for row in rows] for column in rows[0]}


def numbers(cells: list[str]) -> Array:
    return np.array([float(cell) for cell in cells])


def codes(cells: list[str]) -> Array:
    """0..K−1 in sorted order: by number if all cells are numbers."""
    try:
        return np.unique(numbers(cells), return_inverse=True)[1]
    except ValueError:
        return np.unique(cells, return_inverse=True)[1]


def incidence_matrix(index: Array) -> Array:
    """The 0/1 matrix Z with Z @ effects = effects[index]."""
    return np.eye(index.max() + 1)[index]


def standard_deviations(name: str) -> list[float]:
    """The `sd_or_cor` entries of a reference, in their order."""
    return [entry["sd_or_cor"] for entry in REFERENCE[name]["varcorr"]]


# --- Linear Gaussian models: the mode in closed form, by Henderson's mixed model equations --------


def henderson(y: Array, X: Array, Z: Array, covariance: Array, sigma: float) -> tuple[Array, Array]:
    """The joint mode (β, b) of y ~ Normal(Xβ + Zb, σ), b ~ Normal(0, covariance)."""
    design = np.hstack([X, Z])
    penalty = np.zeros((design.shape[1],) * 2)
    penalty[X.shape[1] :, X.shape[1] :] = sigma**2 * np.linalg.inv(covariance)
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ y)
    return solution[: X.shape[1]], solution[X.shape[1] :]


def intercept_and_slope(y: Array, X: Array, x: Array, group: Array, scales: tuple[float, float, float, float]) -> Mode:
    """y ~ X + (1 + x | group) with (sd_intercept, sd_slope, correlation, sigma) held."""
    sd_intercept, sd_slope, correlation, sigma = scales
    groups, fixed = group.max() + 1, X.shape[1]
    covariance = sd_intercept * sd_slope * correlation
    block = np.array([[sd_intercept**2, covariance], [covariance, sd_slope**2]])

    def density(point: Array) -> Any:
        beta, b = point[:fixed], point[fixed:].reshape(groups, 2)
        residual = y - X @ beta - b[group, 0] - b[group, 1] * x
        return normal(residual, sigma) + bivariate_normal(b, sd_intercept, sd_slope, correlation)

    members = incidence_matrix(group)
    # The columns go group by group, the intercept before the slope.
    Z = np.stack([members, members * x[:, None]], -1).reshape(len(y), 2 * groups)
    beta, b = henderson(y, X, Z, np.kron(np.eye(groups), block), sigma)
    return Mode(density, np.concatenate([beta, b]), {"beta": beta, "b": b.reshape(groups, 2)})


def sleepstudy() -> Mode:
    """Reaction ~ 1 + Days + (1 + Days | Subject)."""
    data, scales = table("sleepstudy.csv"), REFERENCE["sleepstudy"]
    days = numbers(data["Days"])
    return intercept_and_slope(
        y=numbers(data["Reaction"]),
        X=np.stack([np.ones_like(days), days], -1),
        x=days,
        group=codes(data["Subject"]),
        scales=(scales["sd_intercept"], scales["sd_days"], scales["correlation"], scales["sigma"]),
    )


def radon() -> Mode:
    """log_radon ~ 1 + floor + log_uranium + (1 + floor | county)."""
    data = table("radon.csv")
    floor = numbers(data["floor"])
    sd_intercept, sd_floor, correlation, sigma = standard_deviations("radon")
    return intercept_and_slope(
        y=numbers(data["log_radon"]),
        X=np.stack([np.ones_like(floor), floor, numbers(data["log_uranium"])], -1),
        x=floor,
        group=codes(data["county"]),
        scales=(sd_intercept, sd_floor, correlation, sigma),
    )


def penicillin() -> Mode:
    """diameter ~ 1 + (1 | plate) + (1 | sample)."""
    data = table("penicillin.csv")
    diameter, plate, sample = numbers(data["diameter"]), codes(data["plate"]), codes(data["sample"])
    sd_plate, sd_sample, sigma = standard_deviations("penicillin")
    plates, samples = plate.max() + 1, sample.max() + 1

    def density(point: Array) -> Any:
        intercept, p, s = point[0], point[1 : 1 + plates], point[1 + plates :]
        return normal(diameter - intercept - p[plate] - s[sample], sigma) + normal(p, sd_plate) + normal(s, sd_sample)

    Z = np.hstack([incidence_matrix(plate), incidence_matrix(sample)])
    covariance = np.diag([sd_plate**2] * plates + [sd_sample**2] * samples)
    intercept, effects = henderson(diameter, np.ones((len(diameter), 1)), Z, covariance, sigma)
    values = {"intercept": intercept[0], "plate_effect": effects[:plates], "sample_effect": effects[plates:]}
    return Mode(density, np.concatenate([intercept, effects]), values)


def eight_schools() -> Mode:
    """y ~ Normal(mu + tau eta, sigma), eta ~ Normal(0, 1), mu ~ Normal(0, 5), tau ~ HalfCauchy(5), tau held."""
    data = table("eight_schools.csv")
    y, sigma = numbers(data["y"]), numbers(data["sigma"])
    tau = REFERENCE["eight_schools"]["eta integrated out, with the Jacobian of log tau"]["tau"]
    half_cauchy = np.log(np.pi * 5 / 2) + np.log1p((tau / 5) ** 2)

    def density(point: Array) -> Any:
        mu, eta = point[0], point[1:]
        return normal(y - mu - tau * eta, sigma) + normal(eta, 1.0) + normal(mu, 5.0) + half_cauchy

    # Quadratic in (mu, eta): the normal equations of the weighted design, with the prior's precisions on the diagonal.
    design = np.hstack([np.ones((len(y), 1)), tau * np.eye(len(y))]) / sigma[:, None]
    prior_precision = np.diag([1 / 5**2] + [1.0] * len(y))
    point = np.linalg.solve(design.T @ design + prior_precision, design.T @ (y / sigma))
    return Mode(density, point, {"mu": point[0], "eta": point[1:]})


# --- The others: by scipy -------------------------------------------------------------------------


def eight_schools_elbo(noise: Array) -> Mode:
    """−ELBO of the same with tau free, by independent Gaussians of (mu, log tau, eta), over fixed noise (draws, 10)."""
    data = table("eight_schools.csv")
    y, sigma = numbers(data["y"]), numbers(data["sigma"])
    draws, size = noise.shape

    def density(point: Array) -> Any:
        loc, scale = point[:size], np.exp(point[size:])
        z = loc + scale * noise  # (draws, 10)
        mu, log_tau, eta = z[:, :1], z[:, 1:2], z[:, 2:]
        tau = np.exp(log_tau)
        half_cauchy = draws * np.log(np.pi * 5 / 2) + (np.log1p((tau / 5) ** 2) - log_tau).sum()
        joint = normal(y - mu - tau * eta, sigma + 0 * eta) + normal(eta, 1 + 0 * eta) + normal(mu, 5 + 0 * mu)
        return (joint + half_cauchy - normal(noise, 1 + 0 * noise)) / draws - np.log(scale).sum()

    point = minimum(density, np.concatenate([np.zeros(size), np.full(size, -0.5)]))
    values: dict[str, Array] = {}
    for kind, part in (("locs", point[:size]), ("scales", np.exp(point[size:]))):
        values |= {f"AutoNormal.{kind}.{n}": v for n, v in (("mu", part[0]), ("tau", part[1]), ("eta", part[2:]))}
    return Mode(density, point, values)


def cbpp() -> Mode:
    """incidence ~ Binomial(size, p), logit p ~ period + (1 | herd), sd_herd held."""
    data = table("cbpp.csv")
    incidence, size = numbers(data["incidence"]), numbers(data["size"])
    period, herd = codes(data["period"]), codes(data["herd"])
    sd_herd = np.exp(REFERENCE["cbpp_laplace"]["log_sd_herd"])
    periods, herds = period.max() + 1, herd.max() + 1
    log_coefficients = (gammaln(size + 1) - gammaln(incidence + 1) - gammaln(size - incidence + 1)).sum()

    def density(point: Array) -> Any:
        beta, b = point[:periods], point[periods:]
        logits = beta[0] + np.where(period > 0, beta[period], 0.0) + b[herd]
        log_likelihood = (incidence * logits - size * np.log1p(np.exp(logits))).sum() + log_coefficients
        return normal(b, sd_herd) - log_likelihood

    point = minimum(density, np.zeros(periods + herds))
    return Mode(density, point, {"beta": point[:periods], "b": point[periods:]})


def theophylline() -> Mode:
    """The one-compartment model with subject effects on lKa and lCl, scales held: a nonlinear least-squares problem."""
    data, reference = table("theoph.csv"), REFERENCE["theoph_laplace"]
    concentration, time, dose = numbers(data["conc"]), numbers(data["Time"]), numbers(data["Dose"])
    subject = codes(data["Subject"])
    sd, sigma = np.exp(reference["log_sd_lKa_lCl"]), np.exp(reference["log_sigma"])
    subjects = subject.max() + 1

    def standardised(point: Array) -> Any:
        b = point[3:].reshape(subjects, 2)
        lKe, lKa, lCl = point[0], point[1] + b[subject, 0], point[2] + b[subject, 1]
        ke, ka, cl = np.exp(lKe), np.exp(lKa), np.exp(lCl)
        mean = dose * ke * ka / cl * (np.exp(-ke * time) - np.exp(-ka * time)) / (ka - ke)
        return np.concatenate([(concentration - mean) / sigma, (b / sd).ravel()])

    constant = (
        len(subject) * np.log(sigma) + subjects * np.log(sd).sum() + 0.5 * (len(subject) + 2 * subjects) * LOG_2PI
    )

    def density(point: Array) -> Any:
        return 0.5 * (standardised(point) ** 2).sum() + constant

    start = np.concatenate([[-2.5, 0.5, -3.0], np.zeros(2 * subjects)])
    near = least_squares(standardised, start, jac="cs", xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    point = stationary(partial(gradient, density), near)
    values = {"lKe": point[0], "lKa": point[1], "lCl": point[2], "b": point[3:].reshape(subjects, 2)}
    return Mode(density, point, values)


def neural_network(start: Array) -> Mode:
    """log_radon ~ Normal(v tanh(W x + a) + c, sigma), weights ~ Normal(0, 0.5).

    `start` has W (4, 2), a (4,), v (4,), c and log sigma, one after the other. The density has many modes; this is the
    one that descent from `start` comes to.
    """
    data = table("radon.csv")
    log_radon = numbers(data["log_radon"])
    x = np.stack([numbers(data["floor"]), numbers(data["log_uranium"])])

    def density(point: Array) -> Any:
        weights, log_sigma = point[:-1], point[-1]
        W, a, v, c = weights[:8].reshape(4, 2), weights[8:12], weights[12:16], weights[16]
        residual = log_radon - v @ np.tanh(W @ x + a[:, None]) - c
        return normal(residual, np.exp(log_sigma)) + normal(weights, 0.5)

    point = minimum(density, start)
    return Mode(density, point, {"sigma": np.exp(point[-1])})


# --- Discrete latents summed out ------------------------------------------------------------------


def log_sum_exp(terms: Any, axis: int) -> Any:
    """log Σ exp, analytic: the shift is a constant."""
    shift = terms.real.max(axis, keepdims=True)
    return np.log(np.exp(terms - shift).sum(axis)) + shift.squeeze(axis)


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def gaussian_mixture() -> Mode:
    """(eruption, waiting) ~ w Normal(m₁, Σ₁) + (1 − w) Normal(m₀, Σ₀); free are logit w, m, log s and artanh ρ."""
    data = table("faithful.csv")
    y = np.stack([numbers(data["eruptions"]), numbers(data["waiting"])], -1)

    def density(point: Array) -> Any:
        mean, sd, correlation = point[1:5].reshape(2, 2), np.exp(point[5:9]).reshape(2, 2), np.tanh(point[9:])
        shares = np.array([logistic(-point[0]), logistic(point[0])])
        u = (y[:, None] - mean) / sd  # (eruptions, kinds, 2)
        rest = 1 - correlation**2
        quadratic = (u[..., 0] ** 2 - 2 * correlation * u[..., 0] * u[..., 1] + u[..., 1] ** 2) / rest
        log_densities = -0.5 * quadratic - np.log(sd.prod(-1) * np.sqrt(rest)) - LOG_2PI
        return -log_sum_exp(np.log(shares) + log_densities, 1).sum()

    start = np.concatenate([[0.0, 2.0, 55.0, 4.5, 80.0], np.log([0.5, 6.0, 0.5, 6.0]), [0.0, 0.0]])
    point = minimum(density, start)
    values = {
        "weight": logistic(point[0]),
        "mean": point[1:5].reshape(2, 2),
        "sd": np.exp(point[5:9]).reshape(2, 2),
        "correlation": np.tanh(point[9:]),
    }
    return Mode(density, point, values)


def hidden_markov() -> Mode:
    """The forward algorithm of two Poisson states from their stationary distribution; free are log λ and logit stay."""
    count = numbers(table("earthquakes.csv")["count"])

    def density(point: Array) -> Any:
        rate, stay = np.exp(point[:2]), logistic(point[2:])
        leave = 1 - stay
        transition = np.array([[stay[0], leave[0]], [leave[1], stay[1]]])
        log_densities = count[:, None] * np.log(rate) - rate - gammaln(count + 1)[:, None]
        log_forward = np.log(leave[::-1] / leave.sum()) + log_densities[0]
        for row in log_densities[1:]:
            log_forward = log_sum_exp(log_forward[:, None] + np.log(transition), 0) + row
        return -log_sum_exp(log_forward, 0)

    point = minimum(density, np.concatenate([np.log([10.0, 30.0]), [2.0, 2.0]]))
    return Mode(density, point, {"rate": np.exp(point[:2]), "stay": logistic(point[2:])})


# --- Simulated data: the arguments of the model, as arrays ----------------------------------------


def hierarchical_logistic(x: Array, y: Array) -> Mode:
    """logit p = β₀ + b₀ + (β₁ + b₁) x, (b₀, b₁) a group, its standard deviations held. Shapes: x, y (groups, rows)."""
    sd_beta, sd_b = 2.5, np.array([0.8, 0.5])
    groups = len(x)

    def parts(point: Array) -> tuple[Array, Array, Array]:
        beta, b = point[:2], point[2:].reshape(groups, 2)
        line = beta + b
        return beta, b, line[:, :1] + line[:, 1:] * x

    def density(point: Array) -> Any:
        beta, b, logits = parts(point)
        return bernoulli(logits, y) + normal(beta, sd_beta) + normal(b, sd_b)

    def slope(point: Array) -> Array:
        beta, b, logits = parts(point)
        excess = expit(logits) - y
        of_line = np.stack([excess.sum(1), (excess * x).sum(1)], -1)  # (groups, 2)
        of_beta = of_line.sum(0) + beta / sd_beta**2
        return np.concatenate([of_beta, (of_line + b / sd_b**2).ravel()])

    point = minimum(density, np.zeros(2 + 2 * groups), slope)
    return Mode(density, point, {"beta": point[:2], "b": point[2:].reshape(groups, 1, 2)})


def item_response(y: Array) -> Mode:
    """logit p = a (θ − b), θ a person, log a and b an item. Shapes: y (persons, items)."""
    persons, items = y.shape
    sd_log_a = 0.5

    def parts(point: Array) -> tuple[Array, Array, Array]:
        theta, log_a, b = np.split(point, [persons, persons + items])
        return theta[:, None], log_a, b

    def density(point: Array) -> Any:
        theta, log_a, b = parts(point)
        logits = np.exp(log_a) * (theta - b)
        return bernoulli(logits, y) + normal(theta, 1.0) + normal(log_a, sd_log_a) + normal(b, 1.0)

    def slope(point: Array) -> Array:
        theta, log_a, b = parts(point)
        a = np.exp(log_a)
        excess = expit(a * (theta - b)) - y
        of_theta = (excess * a).sum(1) + theta[:, 0]
        of_log_a = (excess * a * (theta - b)).sum(0) + log_a / sd_log_a**2
        of_b = -(excess * a).sum(0) + b
        return np.concatenate([of_theta, of_log_a, of_b])

    point = minimum(density, np.zeros(persons + 2 * items), slope)
    theta, log_a, b = parts(point)
    return Mode(density, point, {"theta": theta, "log_a": log_a, "b": b})


def gaussian_process(x: Array, y: Array) -> Mode:
    """y ~ Normal(0, α² exp(−(x − x')² / (2 ℓ²)) + σ² I); free are log ℓ, log α and log σ. Shapes: x, y (n,)."""
    squares, diagonal = (x[:, None] - x) ** 2, np.eye(len(x))

    def density(point: Array) -> Any:
        lengthscale, amplitude, noise = np.exp(point)
        covariance = amplitude**2 * np.exp(-0.5 * squares / lengthscale**2) + noise**2 * diagonal
        phase, log_size = np.linalg.slogdet(covariance)  # no Cholesky: it would conjugate the complex step
        quadratic = y @ np.linalg.solve(covariance, y)
        return 0.5 * (quadratic + log_size + np.log(phase) + len(x) * LOG_2PI)

    point = minimum(density, np.zeros(3))
    return Mode(density, point, dict(zip(("lengthscale", "amplitude", "noise"), np.exp(point), strict=True)))


def poisson_regression(x: Array, y: Array) -> Mode:
    """y ~ Poisson(exp(xβ)). Shapes: x (rows, covariates), y (rows,)."""
    log_factorials = gammaln(y + 1).sum()

    def density(point: Array) -> Any:
        log_rates = x @ point
        return (np.exp(log_rates) - y * log_rates).sum() + log_factorials + normal(point, 2.5)

    point = minimum(density, np.zeros(x.shape[1]))
    return Mode(density, point, {"beta": point})


# --- NIST -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NistProblem:
    """A file of the collection. Shapes: x (n,) or (n, 2); y (n,), for Nelson log y; starts (2, p); certified (p,)."""

    x: Array
    y: Array
    starts: Array
    certified: Array
    residual_sum_of_squares: float


def nist_problem(name: str) -> NistProblem:
    lines = (DATA / "nist" / f"{name}.dat").read_text().splitlines()
    parameters = []
    residual_sum_of_squares = np.nan
    for line in lines[40:60]:
        key, _, rest = line.replace(":", "=").partition("=")
        if key.strip()[:1] == "b":
            parameters.append([float(number) for number in rest.split()[:3]])
        elif key.strip() == "Residual Sum of Squares":
            residual_sum_of_squares = float(rest)
    data = np.loadtxt(lines[60:])
    return NistProblem(
        x=data[:, 1] if data.shape[1] == 2 else data[:, 1:],
        y=np.log(data[:, 0]) if name == "Nelson" else data[:, 0],
        starts=np.array(parameters)[:, :2].T,
        certified=np.array(parameters)[:, 2],
        residual_sum_of_squares=residual_sum_of_squares,
    )


def nist_mean(name: str, x: Array, b: Any) -> Any:
    """f(x; b) of one problem."""
    match name:
        case "Bennett5":
            return b[0] * (b[1] + x) ** (-1 / b[2])
        case "BoxBOD" | "Misra1a":
            return b[0] * (1 - np.exp(-b[1] * x))
        case "Chwirut1" | "Chwirut2":
            return np.exp(-b[0] * x) / (b[1] + b[2] * x)
        case "DanWood":
            return b[0] * x ** b[1]
        case "ENSO":
            mean = b[0] + b[1] * np.cos(2 * np.pi * x / 12) + b[2] * np.sin(2 * np.pi * x / 12)
            mean = mean + b[4] * np.cos(2 * np.pi * x / b[3]) + b[5] * np.sin(2 * np.pi * x / b[3])
            return mean + b[7] * np.cos(2 * np.pi * x / b[6]) + b[8] * np.sin(2 * np.pi * x / b[6])
        case "Eckerle4":
            return (b[0] / b[1]) * np.exp(-0.5 * ((x - b[2]) / b[1]) ** 2)
        case "Gauss1" | "Gauss2" | "Gauss3":
            first, second = ((x - b[3]) / b[4]) ** 2, ((x - b[6]) / b[7]) ** 2
            return b[0] * np.exp(-b[1] * x) + b[2] * np.exp(-first) + b[5] * np.exp(-second)
        case "Hahn1" | "Thurber":
            return np.polyval(b[3::-1], x) / (1 + x * np.polyval(b[:3:-1], x))
        case "Kirby2":
            return np.polyval(b[2::-1], x) / (1 + x * np.polyval(b[:2:-1], x))
        case "Lanczos1" | "Lanczos2" | "Lanczos3":
            return sum(b[k] * np.exp(-b[k + 1] * x) for k in (0, 2, 4))
        case "MGH09":
            return b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3])
        case "MGH10":
            return b[0] * np.exp(b[1] / (x + b[2]))
        case "MGH17":
            return b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4])
        case "Misra1b":
            return b[0] * (1 - 1 / (1 + b[1] * x / 2) ** 2)
        case "Misra1c":
            return b[0] * (1 - 1 / np.sqrt(1 + 2 * b[1] * x))
        case "Misra1d":
            return b[0] * b[1] * x / (1 + b[1] * x)
        case "Nelson":
            return b[0] - b[1] * x[:, 0] * np.exp(-b[2] * x[:, 1])
        case "Rat42":
            return b[0] / (1 + np.exp(b[1] - b[2] * x))
        case "Rat43":
            return b[0] / (1 + np.exp(b[1] - b[2] * x)) ** (1 / b[3])
        case "Roszman1":
            return b[0] - b[1] * x - np.arctan(b[2] / (x - b[3])) / np.pi
    raise ValueError(f"no NIST problem {name!r}")


def nist(name: str, start: int) -> Mode:
    """y ~ Normal(f(x; b), sigma), b and log sigma free: least squares, then sigma² = RSS / n."""
    problem = nist_problem(name)

    def residuals(b: Array) -> Any:
        return problem.y - nist_mean(name, problem.x, b)

    def density(point: Array) -> Any:
        return normal(residuals(point[:-1]), np.exp(point[-1]))

    start_b = problem.starts[start - 1]
    b = least_squares(residuals, start_b, jac="cs", x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15).x
    point = stationary(partial(gradient, density), np.append(b, 0.5 * np.log((residuals(b) ** 2).mean())))
    return Mode(density, point, {"b": point[:-1], "sigma": np.exp(point[-1])})
