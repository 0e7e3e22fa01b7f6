"""The examples' evidences, −log ∫ p(data, latents; params) d(latents), in plain numpy from the formulas.

A function per model returns a `Marginal`: the negative log evidence, every constant included, as an analytic function
of the free quantities on the unconstrained scale, so that `references.gradient` differentiates it exactly and a Hessian
takes one difference. Generalised linear mixed models are all one sum: y | η with η = offset + D u and a Normal or flat
u; where the likelihood is Normal, Laplace's approximation is the exact integral (Woodbury's identity).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import least_squares
from scipy.sparse import csr_array
from scipy.special import gammaln

from tests.examples.references import (
    COMPLEX_STEP,
    LOG_2PI,
    Array,
    codes,
    gradient,
    incidence_matrix,
    normal,
    numbers,
    table,
)

Values = dict[str, Any]
Free = dict[str, tuple[Callable[[Array], Array], int]]
Likelihood = Callable[[Array], tuple[Any, Array, Array]]
"""η → −log likelihood, its first and its second derivative by η_i. Shapes: η and the derivatives (n,)."""

DIFFERENCE = 1e-6  # of exact gradients, so the Hessian has six digits


@dataclass(frozen=True)
class Evidence:
    """At one place: the loss, and of every integrated latent the conditional mode and standard deviation."""

    loss: Any
    modes: Values
    errors: Values


@dataclass(frozen=True)
class Marginal:
    """`free` has the free quantities in the order of the flat point: a transform and a number of entries each."""

    free: Free
    evidence: Callable[[Values], Evidence]

    def split(self, point: Array) -> Values:
        """The entries of a flat vector by name: arrays, or numbers where there is one entry."""
        ends = np.cumsum([size for _, size in self.free.values()])[:-1]
        parts = zip(self.free, np.split(point, ends), strict=True)
        return {name: part if len(part) > 1 else part[0] for name, part in parts}

    def values(self, point: Array) -> Values:
        """The constrained values by name."""
        return {name: self.free[name][0](entries) for name, entries in self.split(point).items()}

    def density(self, point: Array) -> Any:
        return self.evidence(self.values(point)).loss

    def gradient(self, point: Array) -> Array:
        return gradient(self.density, point)

    def hessian(self, point: Array) -> Array:
        """Differences of the exact gradient."""
        here = self.gradient(point)
        rows = [(self.gradient(point + step) - here) / DIFFERENCE for step in DIFFERENCE * np.eye(len(point))]
        hessian = np.array(rows)
        return np.asarray(hessian + hessian.T) / 2

    def slopes(self, point: Array) -> Array:
        """d value / d unconstrained, entry by entry: every transform is elementwise."""
        values = self.values(point + 1j * COMPLEX_STEP).values()
        slopes: Array = np.concatenate([np.atleast_1d(value.imag) for value in values]) / COMPLEX_STEP
        return slopes


def identity(u: Array) -> Array:
    return u


def correlation(u: Array) -> Array:
    """Onto (−1, 1) as torch has it: the affine of a sigmoid."""
    return np.tanh(u / 2)


# --- Generalised linear mixed models --------------------------------------------------------------


@dataclass(frozen=True)
class Prior:
    """u ~ Normal(0, precision⁻¹), flat where the precision is zero; −log density = ½ uᵀ precision u + constant."""

    precision: Array
    constant: Any


def independent(count: int, sd: Any) -> Prior:
    return Prior(np.eye(count) / sd**2, count * (np.log(sd) + 0.5 * LOG_2PI))


def pairs(count: int, sd_first: Any, sd_second: Any, correlation: Any) -> Prior:
    """Rows of two, one after the other."""
    covariance = correlation * sd_first * sd_second
    determinant = (sd_first * sd_second) ** 2 * (1 - correlation**2)
    block = np.array([[sd_second**2, -covariance], [-covariance, sd_first**2]]) / determinant
    return Prior(np.kron(np.eye(count), block), count * (0.5 * np.log(determinant) + LOG_2PI))


def flat(count: int) -> Prior:
    return Prior(np.zeros((count, count)), 0.0)


def both(first: Prior, second: Prior) -> Prior:
    return Prior(block_diag(first.precision, second.precision), first.constant + second.constant)


def gaussian(y: Array, sigma: Any) -> Likelihood:
    return lambda eta: (normal(y - eta, sigma), (eta - y) / sigma**2, np.ones_like(eta) / sigma**2)


def binomial(y: Array, size: Array) -> Likelihood:
    log_coefficients = (gammaln(size + 1) - gammaln(y + 1) - gammaln(size - y + 1)).sum()

    def likelihood(eta: Array) -> tuple[Any, Array, Array]:
        p = 1 / (1 + np.exp(-eta))
        loss = (size * np.log1p(np.exp(eta)) - y * eta).sum() - log_coefficients
        return loss, size * p - y, size * p * (1 - p)

    return likelihood


def poisson(y: Array) -> Likelihood:
    log_factorials = gammaln(y + 1).sum()

    def likelihood(eta: Array) -> tuple[Any, Array, Array]:
        rate = np.exp(eta)
        return (rate - y * eta).sum() + log_factorials, rate - y, rate

    return likelihood


def laplace(likelihood: Likelihood, offset: Any, design: Array, prior: Prior) -> tuple[Any, Array, Array]:
    """−log ∫ by Laplace's approximation at the joint mode, the mode and its Hessian. Shapes: design (n, q)."""
    rows = csr_array(design)

    def joint(u: Array) -> Any:
        return likelihood(offset + rows @ u)[0] + 0.5 * u @ prior.precision @ u

    def newton(u: Array) -> tuple[Array, Array]:
        _, first, second = likelihood(offset + rows @ u)
        slope = rows.T @ first + prior.precision @ u
        return slope, (rows.T @ (rows * second[:, None])).toarray() + prior.precision

    u, change = np.zeros(design.shape[1]), np.inf
    while change > 1e-9 * max(1.0, np.abs(u).max()):  # in real numbers to the mode, halving steps that go up
        slope, hessian = newton(u)
        step = np.linalg.solve(hessian.real, slope.real)
        change = np.abs(step).max()
        while np.abs(step).max() > 1e-9 and joint(u - step).real > joint(u).real + 1e-9:
            step = step / 2
        u = u - step
    for _ in range(2):  # then with what the parameters have of an imaginary part
        slope, hessian = newton(u)
        u = u - np.linalg.solve(hessian, slope)
    _, hessian = newton(u)
    return joint(u) + prior.constant + half_log_determinant(hessian) - 0.5 * len(u) * LOG_2PI, u, hessian


def half_log_determinant(matrix: Array) -> Any:
    """Analytic: the phase is that of the determinant, and small."""
    phase, log_size = np.linalg.slogdet(matrix)
    return 0.5 * (log_size + np.log(phase))


def mixed_model(likelihood: Likelihood, offset: Any, design: Array, prior: Prior, latents: Values) -> Evidence:
    """`latents`: name → shape, in the order of the design's columns."""
    loss, mode, hessian = laplace(likelihood, offset, design, prior)
    sizes = np.cumsum([int(np.prod(shape)) for shape in latents.values()])[:-1]
    errors = np.sqrt(np.diag(np.linalg.inv(hessian.real)))

    def named(entries: Array) -> Values:
        parts = zip(latents.items(), np.split(entries, sizes), strict=True)
        return {name: part.reshape(shape) for (name, shape), part in parts}

    return Evidence(loss, named(mode.real), named(errors))


def intercepts_and_slopes(x: Array, group: Array) -> Array:
    """The design of b (groups, 2), row by row: an intercept and a slope."""
    members = incidence_matrix(group)
    return np.stack([members, members * x[:, None]], -1).reshape(len(x), -1)


SLEEP_SCALES: Free = {
    "sd_intercept": (np.exp, 1),
    "sd_days": (np.exp, 1),
    "correlation": (correlation, 1),
    "sigma": (np.exp, 1),
}


def sleepstudy() -> Marginal:
    data = table("sleepstudy.csv")
    y, days, subject = numbers(data["Reaction"]), numbers(data["Days"]), codes(data["Subject"])

    def evidence(v: Values) -> Evidence:
        offset = v["beta"][0] + v["beta"][1] * days
        prior = pairs(18, v["sd_intercept"], v["sd_days"], v["correlation"])
        design = intercepts_and_slopes(days, subject)
        return mixed_model(gaussian(y, v["sigma"]), offset, design, prior, {"b": (18, 2)})

    return Marginal({"beta": (identity, 2), **SLEEP_SCALES}, evidence)


def sleepstudy_reml() -> Marginal:
    data = table("sleepstudy.csv")
    y, days, subject = numbers(data["Reaction"]), numbers(data["Days"]), codes(data["Subject"])
    design = np.hstack([np.stack([np.ones_like(days), days], -1), intercepts_and_slopes(days, subject)])

    def evidence(v: Values) -> Evidence:
        prior = both(flat(2), pairs(18, v["sd_intercept"], v["sd_days"], v["correlation"]))
        return mixed_model(gaussian(y, v["sigma"]), 0.0, design, prior, {"beta": (2,), "b": (18, 2)})

    return Marginal(SLEEP_SCALES, evidence)


def radon() -> Marginal:
    data = table("radon.csv")
    y, floor, county = numbers(data["log_radon"]), numbers(data["floor"]), codes(data["county"])
    X = np.stack([np.ones_like(floor), floor, numbers(data["log_uranium"])], -1)
    design = intercepts_and_slopes(floor, county)

    def evidence(v: Values) -> Evidence:
        prior = pairs(85, v["sd_intercept"], v["sd_floor"], v["correlation"])
        return mixed_model(gaussian(y, v["sigma"]), X @ v["beta"], design, prior, {"b": (85, 2)})

    scales = dict.fromkeys(("sd_intercept", "sd_floor"), (np.exp, 1))
    return Marginal({"beta": (identity, 3), **scales, "correlation": (correlation, 1), "sigma": (np.exp, 1)}, evidence)


def penicillin() -> Marginal:
    data = table("penicillin.csv")
    y = numbers(data["diameter"])
    design = np.hstack([incidence_matrix(codes(data[name])) for name in ("plate", "sample")])

    def evidence(v: Values) -> Evidence:
        prior = both(independent(24, v["sd_plate"]), independent(6, v["sd_sample"]))
        latents = {"plate_effect": (24,), "sample_effect": (6,)}
        return mixed_model(gaussian(y, v["sigma"]), v["intercept"], design, prior, latents)

    scales = dict.fromkeys(("sd_plate", "sd_sample", "sigma"), (np.exp, 1))
    return Marginal({"intercept": (identity, 1), **scales}, evidence)


def crossed_effects(data: Values) -> Marginal:
    """`data` as the model's `load_data` gives it, as arrays."""
    names = ("student", "instructor", "department")
    design = np.hstack([incidence_matrix(data[name]) for name in names])
    counts = {name: int(data[f"n_{name}s"]) for name in names}

    def evidence(v: Values) -> Evidence:
        student, instructor, department = (independent(counts[name], v[f"sd_{name}"]) for name in names)
        latents = {f"{name}_effect": (counts[name],) for name in names}
        prior = both(both(student, instructor), department)
        return mixed_model(gaussian(data["rating"], v["sigma"]), v["mu"], design, prior, latents)

    return Marginal({"mu": (identity, 1), **{f"sd_{n}": (np.exp, 1) for n in names}, "sigma": (np.exp, 1)}, evidence)


def eight_schools(jacobian: bool) -> Marginal:
    """mu ~ Normal(0, 5) and tau ~ HalfCauchy(5) are in the loss; with the Jacobian of log tau or without."""
    data = table("eight_schools.csv")
    y, sigma = numbers(data["y"]), numbers(data["sigma"])

    def evidence(v: Values) -> Evidence:
        mu, tau = v["mu"], v["tau"]
        schools = mixed_model(gaussian(y, sigma), mu, tau * np.eye(8), independent(8, 1.0), {"eta": (8,)})
        half_cauchy = np.log(np.pi * 5 / 2) + np.log1p((tau / 5) ** 2)
        loss = schools.loss + normal(np.atleast_1d(mu), 5.0) + half_cauchy - jacobian * np.log(tau)
        return Evidence(loss, schools.modes, schools.errors)

    return Marginal({"mu": (identity, 1), "tau": (np.exp, 1)}, evidence)


def cbpp_data() -> tuple[Array, Array, Array, Array]:
    """Incidence, size, the design of the periods and the herds."""
    data = table("cbpp.csv")
    X = incidence_matrix(codes(data["period"]))
    X[:, 0] = 1.0
    return numbers(data["incidence"]), numbers(data["size"]), X, codes(data["herd"])


CBPP: Free = {"beta": (identity, 4), "sd_herd": (np.exp, 1)}


def cbpp_laplace() -> Marginal:
    incidence, size, X, herd = cbpp_data()
    Z = incidence_matrix(herd)

    def evidence(v: Values) -> Evidence:
        prior = independent(15, v["sd_herd"])
        return mixed_model(binomial(incidence, size), X @ v["beta"], Z, prior, {"b": (15,)})

    return Marginal(CBPP, evidence)


def poisson_counts() -> Marginal:
    data = table("epilepsy.csv")
    y, log_base, log_age = numbers(data["seizures"]), np.log(numbers(data["base"]) / 4), np.log(numbers(data["age"]))
    log_base, log_age = log_base - log_base.mean(), log_age - log_age.mean()
    treated, last = (np.array(data[name]) == level for name, level in (("treatment", "progabide"), ("visit", "4")))
    X = np.stack([np.ones_like(y), log_base, treated, treated * log_base, log_age, last], -1)
    design = np.hstack([incidence_matrix(codes(data["patient"])), np.eye(len(y))])

    def evidence(v: Values) -> Evidence:
        prior = both(independent(59, v["sd_patient"]), independent(236, v["sd_visit"]))
        latents = {"patient_effect": (59,), "visit_effect": (236,)}
        return mixed_model(poisson(y), X @ v["beta"], design, prior, latents)

    return Marginal({"beta": (identity, 6), "sd_patient": (np.exp, 1), "sd_visit": (np.exp, 1)}, evidence)


def smoother() -> Marginal:
    y = numbers(table("coal.csv")["disasters"])
    years = len(y)
    differences = np.diff(np.eye(years), n=2, axis=0)

    def evidence(v: Values) -> Evidence:
        constant = (years - 2) * (np.log(v["sd"]) + 0.5 * LOG_2PI)
        prior = Prior(differences.T @ differences / v["sd"] ** 2, constant)
        return mixed_model(poisson(y), 0.0, np.eye(years), prior, {"log_rate": (years,)})

    return Marginal({"sd": (np.exp, 1)}, evidence)


def correlated_logistic(data: Values) -> Marginal:
    """`data` as the model's `load_data` gives it, as arrays."""
    x, y, group = data["x"], data["y"], data["group"]
    design, groups = intercepts_and_slopes(x, group), int(data["n_groups"])

    def evidence(v: Values) -> Evidence:
        offset = v["beta"][0] + v["beta"][1] * x
        prior = pairs(groups, v["sd_intercept"], v["sd_slope"], v["correlation"])
        return mixed_model(binomial(y, np.ones_like(y)), offset, design, prior, {"b": (groups, 2)})

    scales = dict.fromkeys(("sd_intercept", "sd_slope"), (np.exp, 1))
    return Marginal({"beta": (identity, 2), **scales, "correlation": (correlation, 1)}, evidence)


# --- By quadrature, and the nonlinear model -------------------------------------------------------


def cbpp_quadrature() -> Marginal:
    """60 nodes, placed by Laplace's approximation: enough for twelve digits wherever they are placed."""
    incidence, size, X, herd = cbpp_data()
    log_coefficients = (gammaln(size + 1) - gammaln(incidence + 1) - gammaln(size - incidence + 1)).sum()
    nodes, weights = np.polynomial.hermite.hermgauss(60)

    def evidence(v: Values) -> Evidence:
        placed = cbpp_laplace().evidence({name: value.real for name, value in v.items()})
        mode, error = placed.modes["b"], placed.errors["b"]
        b = mode + np.sqrt(2) * error * nodes[:, None]  # (nodes, herds)
        eta = X @ v["beta"] + b[:, herd]
        by_row = incidence * eta - size * np.log1p(np.exp(eta))
        log_joint = by_row @ incidence_matrix(herd) - 0.5 * (b / v["sd_herd"]) ** 2 - np.log(v["sd_herd"])
        integrand = np.exp(log_joint + nodes[:, None] ** 2 - 0.5 * LOG_2PI) * weights[:, None]
        log_integrals = np.log(np.sqrt(2) * error * integrand.sum(0))
        return Evidence(-log_integrals.sum() - log_coefficients, placed.modes, placed.errors)

    return Marginal(CBPP, evidence)


THEOPHYLLINE: Free = {
    **dict.fromkeys(("lKe", "lKa", "lCl"), (identity, 1)),
    **dict.fromkeys(("sd_lKa", "sd_lCl", "sigma"), (np.exp, 1)),
}


@dataclass(frozen=True)
class Theophylline:
    """The data, and the mean with its derivatives by bₛ₀ and bₛ₁."""

    concentration: Array
    time: Array
    dose: Array
    subject: Array

    def mean(self, v: Values, b: Array) -> tuple[Any, Any, Any]:
        """m, and with b₀ in lKa its first and second derivative by b₀; by b₁, in lCl, m is exponential: −m, m.

        With a = exp(lKa): m ∝ a g(a), g(a) (a − e) = exp(−e t) − exp(−a t), differentiated twice. Shape: b (…, n, 2).
        """
        e, a = np.exp(v["lKe"]), np.exp(v["lKa"] + b[..., 0])
        scale = self.dose * e * a / np.exp(v["lCl"] + b[..., 1])
        absorbed = np.exp(-a * self.time)
        g = (np.exp(-e * self.time) - absorbed) / (a - e)
        g_a = (self.time * absorbed - g) / (a - e)
        g_aa = (-(self.time**2) * absorbed - 2 * g_a) / (a - e)
        return scale * g, scale * (g + a * g_a), scale * (g + 3 * a * g_a + a**2 * g_aa)

    def newton(self, v: Values, b: Array) -> tuple[Array, Array]:
        """The gradient and the Hessian of the joint density, subject by subject. Shapes: b (12, 2); (12, 2, 2)."""
        m, m_a, m_aa = self.mean(v, b[self.subject])
        excess, first = m - self.concentration, np.stack([m_a, -m], -1)
        second = np.stack([np.stack([m_aa, -m_a], -1), np.stack([-m_a, m], -1)], -1)
        by_row = (first[:, :, None] * first[:, None, :] + excess[:, None, None] * second) / v["sigma"] ** 2
        sd = np.array([v["sd_lKa"], v["sd_lCl"]])
        members = incidence_matrix(self.subject).T  # (12, n)
        gradient = members @ (excess[:, None] * first / v["sigma"] ** 2) + b / sd**2
        return gradient, np.tensordot(members, by_row, 1) + np.diag(1 / sd**2)

    def mode(self, v: Values) -> Array:
        """b (12, 2), by least squares from the real part of `v`, then by Newton's steps."""
        real = {name: value.real for name, value in v.items()}
        sd = np.array([real["sd_lKa"], real["sd_lCl"]])

        def standardised(flat: Array) -> Array:
            b = flat.reshape(12, 2)
            excess = self.concentration - self.mean(real, b[self.subject])[0]
            return np.concatenate([excess / real["sigma"], (b / sd).ravel()])

        b = least_squares(standardised, np.zeros(24), jac="cs", xtol=1e-12, ftol=1e-12, gtol=1e-12).x.reshape(12, 2)
        for _ in range(4):
            slope, hessian = self.newton(v, b)
            b = b - np.linalg.solve(hessian, slope[..., None])[..., 0]
        return np.asarray(b)

    def joint(self, v: Values, b: Array) -> Any:
        """−log density, subject by subject. Shapes: b (…, 12, 2); result (…, 12)."""
        excess = (self.concentration - self.mean(v, b[..., self.subject, :])[0]) / v["sigma"]
        by_row = 0.5 * excess**2 + np.log(v["sigma"]) + 0.5 * LOG_2PI
        sd = np.array([v["sd_lKa"], v["sd_lCl"]])
        return by_row @ incidence_matrix(self.subject) + (0.5 * (b / sd) ** 2 + np.log(sd)).sum(-1) + LOG_2PI


def theophylline_data() -> Theophylline:
    data = table("theoph.csv")
    concentration, time, dose = (numbers(data[name]) for name in ("conc", "Time", "Dose"))
    return Theophylline(concentration, time, dose, codes(data["Subject"]))


def theophylline_laplace() -> Marginal:
    data = theophylline_data()

    def evidence(v: Values) -> Evidence:
        b = data.mode(v)
        _, hessian = data.newton(v, b)
        errors = np.sqrt(np.diagonal(np.linalg.inv(hessian.real), axis1=-2, axis2=-1))
        loss = (data.joint(v, b) + half_log_determinant(hessian) - LOG_2PI).sum()
        return Evidence(loss, {"b": b.real}, {"b": errors})

    return Marginal(THEOPHYLLINE, evidence)


def theophylline_quadrature() -> Marginal:
    """20 × 20 nodes, placed by Laplace's approximation at the real part."""
    data = theophylline_data()
    nodes, weights = np.polynomial.hermite.hermgauss(20)
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 1, 2)  # (400, 1, 2)
    log_weights = np.log(np.outer(weights, weights)).reshape(-1, 1)

    def evidence(v: Values) -> Evidence:
        real = {name: value.real for name, value in v.items()}
        mode = data.mode(real)
        covariance = np.linalg.inv(data.newton(real, mode)[1])
        factor = np.sqrt(2) * np.linalg.cholesky(covariance)  # (12, 2, 2)
        b = mode + (factor @ grid[..., None])[..., 0]  # (400, 12, 2)
        log_terms = log_weights + (grid**2).sum(-1) - data.joint(v, b)
        log_integrals = np.log(np.exp(log_terms).sum(0)) + np.log(np.linalg.det(factor))
        errors = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
        return Evidence(-log_integrals.sum(), {"b": mode}, {"b": errors})

    return Marginal(THEOPHYLLINE, evidence)
