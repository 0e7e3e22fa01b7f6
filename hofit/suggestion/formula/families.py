"""The distributions of a response: how each is written in Pyro, where it starts, and what it can be of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError
from .table import Array


@dataclass(frozen=True)
class Family:
    """``likelihood``: code, of ``eta`` (the linear predictor), the parameter below, and ``{trials}``.

    ``law``: the same as mathematics. ``link``: of the mean, by which an intercept starts. ``parameter``: the
    positive one that ``--dispersion`` models by its logarithm. ``inflatable``: may have more zeros than it gives.
    """

    name: str
    likelihood: str
    law: str
    link: str
    parameter: str | None = None
    meaning: str = ""
    inflatable: bool = False


FAMILIES = {
    family.name: family
    for family in (
        Family("gaussian", "dist.Normal(eta, sigma)", "Normal(eta_i, sigma)", "identity", "sigma", "residual sd"),
        Family("bernoulli", "dist.Bernoulli(logits=eta)", "Bernoulli(p_i),   logit p_i = eta_i", "logit"),
        Family(
            "binomial",
            "dist.Binomial({trials}, logits=eta)",
            "Binomial({trials}_i, p_i),   logit p_i = eta_i",
            "logit",
            inflatable=True,
        ),
        Family("poisson", "dist.Poisson(eta.exp())", "Poisson(exp(eta_i))", "log", inflatable=True),
        Family(
            "negative_binomial",
            "dist.NegativeBinomial(phi, logits=eta - phi.log())",
            "NegativeBinomial,   mean μ_i = exp(eta_i), variance μ_i + μ_i²/phi",
            "log",
            "phi",
            "the smaller, the more overdispersed (MASS's theta)",
            inflatable=True,
        ),
        Family(
            "gamma",
            "dist.Gamma(shape, shape * (-eta).exp())",
            "Gamma,   mean μ_i = exp(eta_i), variance μ_i²/shape",
            "log",
            "shape",
            "one over the squared coefficient of variation",
        ),
        Family(
            "beta",
            "dist.Beta(phi * eta.sigmoid(), phi * (-eta).sigmoid())",
            "Beta,   logit of the mean μ_i = eta_i, variance μ_i (1 - μ_i)/(1 + phi)",
            "logit",
            "phi",
            "the precision",
        ),
        Family("ordinal", "dist.OrderedLogistic(eta, cutpoints)", "logit P(y_i ≤ k) = cutpoint_k - eta_i", "none"),
        Family(
            "student_t",
            "dist.StudentT(df, eta, sigma)",
            "StudentT(df, eta_i, sigma)",
            "identity",
            "sigma",
            "the scale",
        ),
    )
}


def check_options(family: Family, trials: str | None, inflated: bool, dispersed: bool) -> None:
    """Raises: ConfigError for what this family has not."""
    if family.name == "binomial" and trials is None:
        raise ConfigError(
            "--family binomial needs counts out of trials, written p(k, n): 'p(successes, trials) ~ x'; "
            "for a column of zeros and ones take --family bernoulli"
        )
    if family.name != "binomial" and trials is not None:
        raise ConfigError(f"p(k, n) is of --family binomial, not of {family.name}: add --family binomial")
    if inflated and not family.inflatable:
        names = ", ".join(one.name for one in FAMILIES.values() if one.inflatable)
        raise ConfigError(f"--zero-inflated is of families of counts ({names}), not of {family.name}")
    if dispersed and family.parameter is None:
        names = ", ".join(one.name for one in FAMILIES.values() if one.parameter)
        raise ConfigError(f"--dispersion: {family.name} has no dispersion of its own; {names} have")


def outside(family: Family, y: Array, trials: Array | None) -> tuple[Array, str]:
    """Where the response cannot be of this family, and what it ought to be. Shape (rows,)."""
    whole = y == np.round(y)
    if family.name == "bernoulli":
        return ~np.isin(y, (0, 1)), "0 or 1 (or a column of text with two levels)"
    if family.name == "binomial":
        assert trials is not None
        return ~whole | (y < 0) | (y > trials), "a count from 0 to the trials"
    if family.name in ("poisson", "negative_binomial"):
        return ~whole | (y < 0), "a count: 0, 1, 2, …"
    if family.name == "gamma":
        return ~(y > 0), "above zero"
    if family.name == "beta":
        return ~((y > 0) & (y < 1)), "between 0 and 1, and neither"
    return ~np.isfinite(y), "a finite number"


def at_mean(family: Family, mean: float) -> float:
    """The linear predictor of a mean."""
    if family.link == "log":
        return float(np.log(max(mean, 1e-3)))
    if family.link == "logit":
        inner = min(max(mean, 1e-3), 1 - 1e-3)
        return float(np.log(inner / (1 - inner)))
    return mean if family.link == "identity" else 0.0
