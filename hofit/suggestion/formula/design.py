"""A formula held against its data: every coefficient and every block of effects by name, with a place to start."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.linalg

from ...errors import ConfigError, DataError
from .families import Family, at_mean, outside
from .names import INTERCEPT, LOCALS, Names, identifier
from .parsing import Bar, Formula
from .table import Array, codes, matrix, where

if TYPE_CHECKING:
    import pandas as pd

SHARE = 0.7
"""Of what the fixed effects leave over, as a standard deviation, that each source of it starts with."""

DEPENDENT = 1e-9
"""A pivot, relative to the largest, below which a column of unit length is a combination of those before it."""

LEVELS_LIMIT = 50
"""Of an ordinal response: one of more is taken for a number."""


@dataclass(frozen=True)
class Parameter:
    """``label``: the library's name of its column, or a word for it."""

    name: str
    label: str
    start: float


@dataclass(frozen=True)
class Effects:
    """A bar's effects: a latent of one number or one vector a group.

    ``argument``: the design matrix, None where the one effect is an intercept; ``group`` and ``count``: the arguments
    of the group of each row and of how many there are; ``correlation``: of two, or of more by its Cholesky factor.
    """

    bar: Bar
    latent: str
    plate: str
    group: str
    count: str
    argument: str | None
    sds: list[Parameter]
    correlation: str | None


@dataclass
class Design:
    """All that the module is written from. ``levels``: of a response that is numbered, in order."""

    formula: Formula
    family: Family
    response: str
    rows: int
    columns: list[str]
    functions: list[str]
    fixed: list[Parameter]
    effects: list[Effects]
    reml: bool
    trials: str | None = None
    levels: list[str] = field(default_factory=list)
    cutpoints: list[float] = field(default_factory=list)
    spread: float = 1.0
    parameter: str | None = None
    zero: tuple[str, list[Parameter]] | None = None
    dispersion: tuple[str, list[Parameter]] | None = None
    names: dict[str, str] = field(default_factory=dict)
    reader: str = "read_csv"


@dataclass(frozen=True)
class Parts:
    """What there is beside the formula's own part; each a right side."""

    zero: str | None = None
    dispersion: str | None = None


class Designing:
    """Makes one design. ``table``: the complete rows of the columns that are named."""

    def __init__(self, formula: Formula, family: Family, table: pd.DataFrame, path: Path) -> None:
        self.formula, self.family, self.table, self.path = formula, family, table, path
        self.arguments, self.sites = Names(LOCALS), Names(("rows",))
        self.groups: dict[str, tuple[str, str]] = {}

    def design(self, parts: Parts, functions: list[str], reml: bool) -> Design:
        """Raises: ConfigError, DataError for what the data are not."""
        y, levels = self._response()
        trials = self._trials()
        self._check_support(y, trials)
        response = self.arguments.claim(identifier(self.formula.response.text))
        self.sites.claim(response)
        names = {"trials": self.arguments.claim(identifier(self.formula.response.trials or "trials"))}
        x, labels = matrix(self.formula.fixed, self.table)
        if self.family.name == "ordinal" and labels and labels[0] == INTERCEPT:
            x, labels = x[:, 1:], labels[1:]
        elif self.family.name == "ordinal" and labels:
            raise ConfigError("--formula: an ordinal model has no intercept but its cutpoints: leave out the 0 or - 1")
        starts, spread = self._starts(x, labels, y if trials is None else y / np.maximum(trials, 1))
        fixed = self._coefficients(x, labels, starts, "")
        sources = 1 + len(self.formula.bars)
        effects = [self._effects(bar, spread * SHARE * (2 / sources) ** 0.5) for bar in self.formula.bars]
        found = Design(
            self.formula,
            self.family,
            response,
            len(y),
            [str(one) for one in self.table],
            functions,
            fixed,
            effects,
            reml,
        )
        found.levels, found.spread, found.names = levels, rounded(spread * SHARE), names
        found.trials = self.formula.response.trials
        if self.family.name == "ordinal":
            found.cutpoints = _cutpoints(y)
        if parts.zero is not None:
            found.zero = parts.zero, self._part(parts.zero, -1.0, "zero_")
        if parts.dispersion is not None:
            start = float(np.log(found.spread)) if self.family.parameter == "sigma" else 0.0
            found.dispersion = parts.dispersion, self._part(parts.dispersion, start, f"log_{self.family.parameter}_")
        elif self.family.parameter is not None:
            found.parameter = self.sites.claim(self.family.parameter)
        return found

    def _response(self) -> tuple[Array, list[str]]:
        text = self.formula.response.text
        if text not in self.table.columns:
            if self.family.name == "ordinal":
                raise ConfigError(f"--formula: an ordinal response is a column, not {text!r}")
            return matrix(f"0 + {text}", self.table)[0][:, 0], []
        column = self.table[text]
        numeric = column.dtype.kind in "iufb"
        if self.family.name == "ordinal" or (self.family.name == "bernoulli" and not numeric):
            numbers, count = codes(self.table, [text])
            levels = [str(level) for level in sorted(column.unique().tolist())]
            if self.family.name == "bernoulli" and count != 2:
                raise DataError(f"--family bernoulli: {text!r} has {count} levels ({_some(levels)}), not two")
            if count < 2 or count > LEVELS_LIMIT:
                raise DataError(f"--family ordinal: {text!r} has {count} levels: it needs 2 to {LEVELS_LIMIT}")
            return numbers.astype(float), levels
        if not numeric:
            few = column.nunique() == 2
            hint = "--family bernoulli takes two levels of text" if few else "--family ordinal takes levels in order"
            raise DataError(
                f"{self.path}: {text!r} holds text, as {column.iloc[0]!r} in {where(self.path, self.table, 0)}, and "
                f"{self.family.name} needs numbers; {hint}"
            )
        return column.to_numpy(float), []

    def _trials(self) -> Array | None:
        trials = self.formula.response.trials
        if trials is None:
            return None
        if trials in self.table.columns:
            if self.table[trials].dtype.kind not in "iufb":
                raise DataError(f"{self.path}: the trials {trials!r} are text, not counts")
            counts: Array = self.table[trials].to_numpy(float)
            return counts
        try:
            return np.full(len(self.table), float(trials))
        except ValueError:
            raise ConfigError(f"--formula: the trials of p(k, n) are a column or a number, not {trials!r}") from None

    def _check_support(self, y: Array, trials: Array | None) -> None:
        bad, needed = outside(self.family, y, trials)
        if not bad.any():
            return
        place = int(np.flatnonzero(bad)[0])
        more = f", and {int(bad.sum()) - 1} more rows" if bad.sum() > 1 else ""
        of = "" if trials is None else f" of {trials[place]:g} {self.formula.response.trials}"
        raise DataError(
            f"--family {self.family.name}: {self.formula.response.text} must be {needed}, and is {y[place]:g}{of} in "
            f"{where(self.path, self.table, place)}{more}; {_instead(y, trials)}"
        )

    def _starts(self, x: Array, labels: list[str], y: Array) -> tuple[list[float], float]:
        """Of the coefficients, and the spread of what they leave over, on the scale of the linear predictor."""
        if self.family.link == "identity":
            found = np.linalg.lstsq(x, y, rcond=None)[0] if labels else np.zeros(0)
            left = float(np.std(y - x @ found)) or 1.0
            return [rounded(float(one)) for one in found], left
        start = rounded(at_mean(self.family, float(np.mean(y))))
        return [start if label == INTERCEPT else 0.0 for label in labels], 1.0

    def _coefficients(self, x: Array, labels: list[str], starts: list[float], prefix: str) -> list[Parameter]:
        _check_rank(x, labels)
        names = [self.sites.claim(prefix + identifier(label)) for label in labels]
        return [Parameter(*one) for one in zip(names, labels, starts, strict=True)]

    def _part(self, formula: str, start: float, prefix: str) -> list[Parameter]:
        x, labels = matrix(formula, self.table)
        if not labels:
            raise ConfigError(f"--formula: {formula!r} has no terms: write '~ 1' for a constant")
        starts = [rounded(start) if label == INTERCEPT else 0.0 for label in labels]
        return self._coefficients(x, labels, starts, prefix)

    def _effects(self, bar: Bar, spread: float) -> Effects:
        z, labels = matrix(bar.effects, self.table)
        if not labels:
            raise ConfigError(f"--formula: {bar} has no effect: write (1 | {':'.join(bar.factors)})")
        numbers, count = codes(self.table, bar.factors)
        if count < 2:
            raise DataError(f"{bar}: {':'.join(bar.factors)} has one level only, and a standard deviation needs more")
        if count == len(numbers) and self.family.name == "gaussian" and labels == [INTERCEPT]:
            raise DataError(
                f"{bar}: {':'.join(bar.factors)} has a level for every row, so its effects cannot be told from sigma"
            )
        word = "_".join(map(identifier, bar.factors))
        names = ["" if label == INTERCEPT else f"_{identifier(label)}" for label in labels]
        first = f"b_{word}" not in self.sites.taken
        which = "" if first else "_".join(names) or "_"
        group, count_name = self._group(word)
        size = np.sqrt((z**2).mean(0))
        sds = [
            Parameter(self.sites.claim(f"sd_{word}{name}"), label, rounded(spread / (float(unit) or 1.0)))
            for name, label, unit in zip(names, labels, size, strict=True)
        ]
        correlation = None
        if len(labels) > 1:
            kind = "correlation" if len(labels) == 2 else "corr_cholesky"
            correlation = self.sites.claim(f"{kind}_{word}{which}")
        return Effects(
            bar,
            latent=self.sites.claim(f"b_{word}{which}"),
            plate=self.sites.claim(f"{word}_levels"),
            group=group,
            count=count_name,
            argument=None if labels == [INTERCEPT] else self.arguments.claim(f"Z_{word}{which}"),
            sds=sds,
            correlation=correlation,
        )

    def _group(self, word: str) -> tuple[str, str]:
        """The arguments of these groups and of their count, which bars may share."""
        if word not in self.groups:
            self.groups[word] = self.arguments.claim(word), self.arguments.claim(f"n_{word}")
        return self.groups[word]


def rounded(number: float) -> float:
    """To two digits: a start that is read easily."""
    return float(f"{number:.2g}")


def _check_rank(x: Array, labels: list[str]) -> None:
    """Raises: ConfigError for a column that is a combination of others, which leaves its coefficient open."""
    if not labels:
        return
    length = np.linalg.norm(x, axis=0)
    if (length == 0).any():
        raise ConfigError(f"--formula: the column {labels[int(np.argmin(length))]} is zero in every row: leave it out")
    r = scipy.linalg.qr(x / length, mode="r")[0]
    pivots = np.abs(np.diagonal(r))
    bad = [label for label, pivot in zip(labels, pivots, strict=False) if pivot < DEPENDENT] or labels[len(pivots) :]
    if bad:
        raise ConfigError(
            f"--formula: {_some(bad)} {'is a combination' if len(bad) == 1 else 'are combinations'} of the columns "
            f"before, so that no data can tell their coefficients: leave out a term"
        )


def _cutpoints(y: Array) -> list[float]:
    """Those that give the levels' shares."""
    below = np.cumsum(np.bincount(y.astype(int)))[:-1] / len(y)
    exact = np.log(below / (1 - below))
    short = np.round(exact, 2)
    return [float(one) for one in (short if len(np.unique(short)) == len(short) else exact)]


def _instead(y: Array, trials: Array | None) -> str:
    """What such numbers may be meant as."""
    if trials is not None:
        return "p(k, n) has the successes first, then the trials"
    if not np.isfinite(y).all():
        return "leave such rows out"
    if (y == np.round(y)).all() and (y >= 0).all():
        return "--family poisson is for counts"
    return "--family gaussian takes any number"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
