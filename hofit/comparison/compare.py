"""Fits beside each other: a row each, which share a mode, tests between models, and what is to be said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import HofitError
from ..record import table
from .alike import other_columns, refuse_other_data
from .likelihood_ratio import NoTest, Test, likelihood_ratio
from .modes import Place, best_of, places_of, same_loss
from .outcome import Outcome

NEAR_BEST = 1e-6
"""Of the best loss's size, within which a fit counts as being there."""


@dataclass
class Row:
    """A fit in compare.csv; None where there is no such number.

    ``function`` numbers what is minimised: losses, ``above_best``, ``seconds_to_best`` (until within 1e-6 of the best
    loss of the function), ``mode`` and ``largest_difference`` (from the best fit, in standard errors, at
    ``differs_at``) are among fits of one. ``tested_against`` and what follows is the likelihood-ratio test of a smaller
    model in this.
    """

    run: str
    function: int
    status: str
    converged: bool
    objective: str
    loss: float | None
    above_best: float | None = None
    iterations: int | None = None
    seconds: float | None = None
    seconds_to_best: float | None = None
    mode: int | None = None
    relation: str = ""
    largest_difference: float | None = None
    differs_at: str = ""
    log_likelihood: float | None = None
    parameters: int | None = None
    observations: int | None = None
    aic: float | None = None
    aicc: float | None = None
    bic: float | None = None
    tested_against: str = ""
    statistic: float | None = None
    df: int | None = None
    p_value: float | None = None
    reference: str = ""
    run_dir: str = ""


@dataclass
class Comparison:
    """What ``compare`` finds. ``best`` is the label of the best fit; of models, that of the lowest aic."""

    rows: list[Row]
    tests: list[Test] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    best: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        tests = [asdict(test) for test in self.tests]
        return {"best": self.best, "rows": [asdict(row) for row in self.rows], "tests": tests, "remarks": self.remarks}

    def to_csv(self) -> str:
        """What compare.csv holds."""
        return table(Row, self.rows)


def compare(outcomes: Sequence[Outcome], nested: bool = False) -> Comparison:
    """Hold fits against each other. ``nested``: each model is nested in the next larger one, whatever the names say.

    Raises: HofitError where they are not of the same data, or two have one label.
    """
    doubled = [label for label, count in Counter(one.label for one in outcomes).items() if count > 1]
    if doubled:
        raise HofitError(f"{doubled[0]} is given twice")
    refuse_other_data(outcomes)
    functions: dict[str, list[int]] = {}
    for place, one in enumerate(outcomes):
        functions.setdefault(one.function if one.problem is None else "", []).append(place)
    failed = functions.pop("", [])
    rows: dict[int, Row] = {place: _row(outcomes[place], 0) for place in failed}
    for number, places in enumerate(functions.values(), 1):
        group = [outcomes[place] for place in places]
        for place, row in zip(places, _rows(group, number), strict=True):
            rows[place] = row
    found = Comparison([rows[place] for place in range(len(outcomes))])
    found.remarks += [f"{one.label}: {one.problem}" for one in outcomes if one.problem is not None]
    for places in functions.values():
        found.remarks += _remarks([outcomes[place] for place in places], [rows[place] for place in places])
    groups = [[outcomes[place] for place in places] for places in functions.values()]
    best = [group[place] for group in groups for place in [best_of(group)] if place is not None]
    if len(groups) == 1:
        found.best = best[0].label if best else None
    elif len(groups) > 1:
        _add_models(found, best, nested)
    return found


def _rows(group: Sequence[Outcome], number: int) -> Iterator[Row]:
    """The rows of fits of one function."""
    best = best_of(group)
    lowest = min((one.loss for one in group if one.loss is not None and one.converged), default=None)
    if lowest is None and best is not None:
        lowest = group[best].loss
    for one, place in zip(group, places_of(group), strict=True):
        row = _row(one, number)
        if lowest is not None and one.loss is not None:
            row.above_best = one.loss - lowest
            row.seconds_to_best = _seconds_to(one, lowest)
        _put(row, place)
        yield row


def _row(one: Outcome, number: int) -> Row:
    return Row(
        one.label,
        number,
        one.status,
        one.converged,
        one.objective,
        one.loss,
        iterations=one.fit.get("iterations"),
        seconds=one.fit.get("seconds"),
        log_likelihood=one.log_likelihood,
        parameters=one.parameters,
        observations=one.observations,
        aic=one.aic,
        aicc=one.aicc,
        bic=one.bic,
        run_dir="" if one.run_dir is None else str(one.run_dir),
    )


def _put(row: Row, place: Place) -> None:
    row.mode, row.relation = place.mode, place.relation
    if place.difference is not None:
        row.largest_difference, row.differs_at = place.difference.errors, place.difference.where


def _seconds_to(one: Outcome, best: float) -> float | None:
    """When the loss first came within NEAR_BEST of the best, and stayed there no shorter than an iteration."""
    limit = best + NEAR_BEST * max(one.unit, abs(best))
    return next((seconds for seconds, loss in one.progress if loss <= limit), None)


def _remarks(group: Sequence[Outcome], rows: Sequence[Row]) -> Iterator[str]:
    """What is to be said of fits of one function."""
    best = best_of(group)
    if best is None or len(group) < 2:
        return
    if not group[best].converged:
        yield f"none of {len(group)} fits of one function has converged: the lowest loss is no proven minimum"
        return
    lowest = group[best].loss
    assert lowest is not None
    for one in group:
        if not one.converged and one.loss is not None and one.loss < lowest and not same_loss(one, group[best]):
            yield f"{one.label} is lower (loss {one.loss:.10g}), but no minimum: {one.status}"
    odd = [row.run for row in rows if row.relation == "same loss, other estimates"]
    if odd:
        yield (
            f"{', '.join(odd)}: the loss of another fit with other estimates: a symmetry that is no change of labels "
            "(a sign), or a ridge"
        )
    labels = [row.run for row in rows if row.relation.startswith("labels")]
    if labels:
        yield f"{', '.join(labels)}: the same mode with the components in another order"


def _add_models(found: Comparison, models: Sequence[Outcome], nested: bool) -> None:
    """Tests between the best fits of each function, each against the largest one that is nested in it."""
    found.remarks.append(
        f"{len(models)} functions are minimised, so losses, modes and differences are compared within each alone"
    )
    doubtful = other_columns(models)
    found.remarks += [doubtful] if doubtful else []
    by_size = sorted(models, key=lambda one: (one.parameters if one.parameters is not None else -1, one.label))
    rows = {row.run: row for row in found.rows}
    for place, larger in enumerate(by_size[1:], 1):
        reasons = []
        for smaller in reversed(by_size[:place]):
            try:
                test = likelihood_ratio(larger, smaller, nested)
            except NoTest as why:
                reasons.append(str(why))
                continue
            found.tests.append(test)
            row = rows[larger.label]
            row.tested_against, row.statistic, row.df = smaller.label, test.statistic, test.df
            row.p_value, row.reference = test.p_value, test.reference
            break
        else:
            found.remarks.append(f"no test of {larger.label}: {reasons[0]}")
    judged = [one for one in models if one.aic is not None]
    if judged:
        found.best = min(judged, key=lambda one: one.aic or 0.0).label
