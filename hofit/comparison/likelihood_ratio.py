"""The likelihood-ratio test of one model against a larger one, with the boundary's mixture of χ².

Where the smaller model has a variance at zero, the edge of its support, twice the difference of the log likelihoods is
not χ² with as many degrees of freedom as there are more parameters: with one variance at the edge and r others inside
it is ½ χ²_r + ½ χ²_{r+1}. So one variance alone is ½ χ²_0 + ½ χ²_1, and a random slope with its covariance
½ χ²_1 + ½ χ²_2.

Sources: Self & Liang (1987), J. Am. Statist. Assoc. 82, cases 5, 6 and 9; Stram & Lee (1994), Biometrics 50, 1171-1177;
McLachlan & Peel (2000), Finite Mixture Models, section 6.4, on the number of components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb, isqrt

from scipy.special import chdtrc

from .outcome import Outcome

AT_ZERO = 1e-4
"""A scale that is fixed at this part of its estimate, or less, is held at zero."""

UNIT_INTERVAL = "> 0 and < 1"
"""The support of a probability in words."""

LOWER = 1e-6
"""What the larger model's log likelihood may be lower by, for want of a last step."""


class NoTest(Exception):
    """There is no test of two models; the message says why."""


@dataclass(frozen=True)
class Test:
    """Of ``smaller`` inside ``larger``: 2 Δ log L, how many parameters more, its p, the distribution it is of, and what
    was assumed of it."""

    __test__ = False  # not pytest's

    larger: str
    smaller: str
    statistic: float
    df: int
    p_value: float | None
    reference: str
    assumed: str


@dataclass(frozen=True)
class Extra:
    """What the larger model has more: parameters inside their support (as far as is known), variances that the smaller
    one has at zero, covariances of these; positive numbers and probabilities of which it is not known, and what no χ²
    is of."""

    inside: int = 0
    variances: int = 0
    covariances: int = 0
    unknown: tuple[str, ...] = ()
    doubtful: int = 0
    """How many numbers ``unknown`` has."""
    components: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def tail(statistic: float, inside: int, variances: int) -> float:
    """P(mixture > statistic), of Σ_j C(q, j) 2^−q χ²_{r+j}, r ``inside`` and q ``variances``."""
    weights = [comb(variances, j) * 0.5**variances for j in range(variances + 1)]
    return float(sum(w * _chi2(inside + j, statistic) for j, w in enumerate(weights)))


def _chi2(df: int, statistic: float) -> float:
    if df == 0:  # all of it at zero
        return 1.0 if statistic <= 0.0 else 0.0
    return float(chdtrc(df, max(statistic, 0.0)))


def likelihood_ratio(larger: Outcome, smaller: Outcome, nested: bool = False) -> Test:
    """``nested`` says that the models are, whatever their parameters are called. Raises: NoTest."""
    for one in (larger, smaller):
        if one.log_likelihood is None:
            raise NoTest(f"{one.label} has no likelihood: something that it optimises has a prior")
        if one.parameters is None:
            raise NoTest(f"{one.label} has not converged ({one.status})")
    assert larger.log_likelihood is not None and smaller.log_likelihood is not None
    assert larger.parameters is not None and smaller.parameters is not None
    df = larger.parameters - smaller.parameters
    if df <= 0:
        raise NoTest(f"{larger.label} has no more parameters than {smaller.label}")
    if not nested:
        _refuse_others(larger, smaller)
    statistic = 2.0 * (larger.log_likelihood - smaller.log_likelihood)
    if statistic < -LOWER * max(1.0, abs(larger.log_likelihood)):
        raise NoTest(
            f"{larger.label} has the lower likelihood, though it has more parameters: it does not hold "
            f"{smaller.label}, or is at another mode (try more starts)"
        )
    statistic = max(statistic, 0.0)
    extra = extra_of(larger, smaller, df)
    p_value, reference, assumed = _judged(extra, statistic, df)
    return Test(larger.label, smaller.label, statistic, df, p_value, reference, assumed)


def _refuse_others(larger: Outcome, smaller: Outcome) -> None:
    """By names: all that the smaller one optimises or integrates is in the larger one, with as many numbers or more."""
    more = {**larger.integrated, **larger.free}
    for name, count in {**smaller.integrated, **smaller.free}.items():
        if more.get(name, 0) < count:
            has = f"has {more[name]} numbers of it" if name in more else "has no such parameter"
            raise NoTest(
                f"{smaller.label} does not look nested in {larger.label}: of its {name!r} ({count}) the larger {has}; "
                "where it is nested all the same, say --nested"
            )


def extra_of(larger: Outcome, smaller: Outcome, df: int) -> Extra:
    """What the larger model has more, by names and supports."""
    before = smaller.free
    more = {n: count - before.get(n, 0) for n, count in larger.free.items() if count > before.get(n, 0)}
    new_effects = any(count > smaller.integrated.get(name, 0) for name, count in larger.integrated.items())
    variances, covariances, unknown, components = 0, 0, [], []
    for name, count in more.items():
        support = larger.constraints.get(name, "")
        if support == "simplex":
            components.append(name)
        elif support in ("lower cholesky", "positive definite"):
            rows, fewer = isqrt(larger.free[name]), isqrt(before.get(name, 0))
            variances += rows - fewer
            covariances += (rows * (rows - 1) - fewer * (fewer - 1)) // 2
        elif support.startswith("corr") or "correlation" in support:
            covariances += _correlations(larger.free[name]) - _correlations(before.get(name, 0))
        elif support.endswith("positive"):
            zero = _is_zero(name, larger, smaller, new_effects)
            if zero is None:
                unknown.append(name)
            elif zero:
                variances += count
        elif support == UNIT_INTERVAL and name not in smaller.held:
            unknown.append(name)  # a part of zeros, or a weight, that the smaller model may have at an end
    inside = df - variances - covariances
    if not larger.constraints:
        unknown = list(more)
    doubtful = sum(more[name] for name in unknown)
    return Extra(max(inside, 0), variances, covariances, tuple(unknown), doubtful, tuple(components), tuple(more))


def _correlations(numbers: int) -> int:
    rows = isqrt(numbers)
    return rows * (rows - 1) // 2


def _is_zero(name: str, larger: Outcome, smaller: Outcome, new_effects: bool) -> bool | None:
    """Whether the smaller model has a scale at zero; None where that cannot be known."""
    if name in smaller.held:
        estimates = [abs(row.estimate) for row in larger.rows if row.name == name and row.estimate is not None]
        return max(map(abs, smaller.held[name])) <= AT_ZERO * max(estimates, default=0.0)
    return True if new_effects else None


def _judged(extra: Extra, statistic: float, df: int) -> tuple[float | None, str, str]:
    """p, the distribution it is of, and what was assumed."""
    r, q = extra.inside + extra.covariances, extra.variances
    if extra.components:
        named = ", ".join(extra.components)
        return None, "none", f"{named} has more components: 2 Δ log L is not χ² then; take bic, or simulate"
    if extra.unknown:
        named = ", ".join(extra.unknown)
        other = tail(statistic, df - extra.doubtful, extra.doubtful) if df >= extra.doubtful else None
        also = "" if other is None else f"; were it at an end of its support there, p would be {other:.3g}"
        return (
            tail(statistic, df, 0),
            _words(df, 0),
            f"that {named} is inside its support in the smaller model{also}",
        )
    if q == 0:
        return tail(statistic, df, 0), _words(df, 0), ""
    if q == 1:
        return tail(statistic, r, 1), _words(r, 1), f"one variance is zero in the smaller model ({_of(extra)})"
    if extra.covariances:
        text = f"{q} variances with covariances are zero in the smaller model ({_of(extra)}): p is too large, if wrong"
        return tail(statistic, df, 0), _words(df, 0), text
    text = f"{q} variances are zero in the smaller model ({_of(extra)}), and their estimates are not correlated"
    return tail(statistic, r, q), _words(r, q), text


def _of(extra: Extra) -> str:
    return ", ".join(extra.names)


FRACTIONS: Mapping[int, str] = {1: "½", 2: "¼", 3: "⅛"}


def _words(inside: int, variances: int) -> str:
    if variances == 0:
        return f"χ²({inside})"
    if variances in FRACTIONS:
        terms = []
        for j in range(variances + 1):
            times = comb(variances, j)
            terms.append(
                f"{times if times > 1 else ''}{'·' if times > 1 else ''}{FRACTIONS[variances]}χ²({inside + j})"
            )
        return " + ".join(terms)
    return f"Σ C({variances}, j) 2^-{variances} χ²({inside} + j)"
