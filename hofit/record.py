"""What a run directory holds: the names of its files, and the columns of its tables as rows, for writer and reader.

Nothing but the standard library is imported here: the report of a run needs neither torch nor the model.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LOCK = ".lock"
CONFIG, PROGRESS, FIT, ESTIMATES = "config.yaml", "progress.csv", "fit.json", "estimates.csv"
DERIVED, DIAGNOSIS = "derived.csv", "diagnose.json"
EVENTS = "events.out.tfevents"
"""What the files of TensorBoard's events begin with."""
PROFILE, PROFILE_POINTS = "profile.csv", "profile_points.csv"
BOOTSTRAP, BOOTSTRAP_INTERVALS = "bootstrap.csv", "bootstrap_intervals.csv"
RESIDUALS = "residuals.csv"
OF_AN_END = (DIAGNOSIS, PROFILE, PROFILE_POINTS, BOOTSTRAP, BOOTSTRAP_INTERVALS, RESIDUALS)
"""What was made of a fit that had ended: another end of the run has no part in it."""
STARTS = "starts.json"
OWN_FILES = (CONFIG, PROGRESS, FIT, ESTIMATES, DERIVED, STARTS, *OF_AN_END)
COMPARISON = "compare.csv"
CHECKPOINT, CHECKPOINTS = "checkpoint.safetensors", "checkpoint*.safetensors"
"""The newest checkpoint, and a glob for all that are kept."""
PIECES = "piece-*.safetensors"
"""What checkpoints of a fit in pieces keep beside themselves: `piece-ITERATION-NUMBER.safetensors`."""

WORDS = ("name", "index", "role", "remark")
"""Columns of a table that hold a word in every row; in the others an empty cell is None."""
NEEDED = (*WORDS, "estimate", "std_error", "level", "value", "zeta", "observed", "fitted", "residual")
"""Columns that every version has written."""

# Rows of tables are not frozen: a run can have hundreds of thousands, and frozen ones take five times as long to make.


@dataclass
class Derived:
    """A row of derived.csv: a scalar of a deterministic site, on the scale the model gives it.

    ``index`` is like ``3`` or ``3,0``, and empty where the site is one number; ``lower`` and ``upper`` are the ends of
    the 95 % interval.
    """

    name: str
    index: str
    estimate: float | None
    std_error: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass
class Quantity:
    """A number that is no parameter's: a standard deviation or correlation of a matrix, an intraclass correlation.

    ``name`` is whole: ``b: corr[0,1]``. None where there is no such number; ``lower`` and ``upper`` as for estimates.
    """

    name: str
    estimate: float | None
    std_error: float | None
    lower: float | None
    upper: float | None


@dataclass
class Estimate:
    """A row of estimates.csv: a scalar of a parameter or latent, constrained; None where there is no such number.

    ``lower`` and ``upper`` are the ends of the 95 % interval, ``optimizer`` the entry that moved it.
    """

    name: str
    index: str
    role: str
    estimate: float | None
    std_error: float | None
    unconstrained: float | None = None
    optimizer: str | None = None
    lower: float | None = None
    upper: float | None = None

    @classmethod
    def of(cls, derived: Derived) -> Estimate:
        """A deterministic site's row as one of the same table."""
        found = cls(derived.name, derived.index, "derived", derived.estimate, derived.std_error)
        found.lower, found.upper = derived.lower, derived.upper
        return found

    @classmethod
    def told_of(cls, fit: Mapping[str, Any]) -> list[Estimate]:
        """The quantities of fit.json as rows of the same table, shown beside those of estimates.csv."""
        told = [Quantity(**quantity) for quantity in fit.get("quantities") or ()]
        return [
            cls(one.name, "", "derived", one.estimate, one.std_error, lower=one.lower, upper=one.upper) for one in told
        ]


@dataclass
class Profiled:
    """A row of profile.csv: the interval of a level by the likelihood's own shape; an end that is not known is None."""

    name: str
    index: str
    level: float
    estimate: float
    lower: float | None
    upper: float | None
    remark: str


@dataclass
class ProfilePoint:
    """A row of profile_points.csv: with the quantity at ``value``, the lowest loss and its signed root ``zeta``."""

    name: str
    index: str
    value: float
    zeta: float
    loss: float


@dataclass
class Bootstrapped:
    """A row of bootstrap_intervals.csv: of a scalar, from the refits that converged.

    ``bias`` is the mean of the draws less the estimate, ``std_error`` their standard deviation; ``lower`` and ``upper``
    are their quantiles, ``basic_lower`` and ``basic_upper`` twice the estimate less those.
    """

    name: str
    index: str
    level: float
    draws: float
    estimate: float
    bias: float | None
    std_error: float | None
    lower: float | None
    upper: float | None
    basic_lower: float | None
    basic_upper: float | None


@dataclass
class Residual:
    """A row of residuals.csv: ``residual``, uniform on (0, 1) where the model holds, is the place of an observation
    among data drawn for it; ``fitted`` is the mean of those."""

    name: str
    index: str
    observed: float
    fitted: float
    residual: float


@dataclass(frozen=True)
class PartReport:
    """What an optimizer did in its last step, for the progress table; None where it has no such thing.

    ``judges`` says before the first step, too, whether it may refuse one.
    """

    name: str
    trust_radius: float | None = None
    accepted: bool | None = None
    judges: bool = False


@dataclass(frozen=True)
class Progress:
    """A row of progress.csv. Norms are max-norms on the unconstrained scale; None where there is none."""

    iteration: int
    loss: float
    change: float | None
    gradient_norm: float
    step_norm: float | None
    seconds: float
    parts: Sequence[PartReport]

    def columns(self) -> list[str]:
        """The heads of the columns, two for each part of the mix."""
        own = [field.name for field in fields(self) if field.name != "parts"]
        parts = [f"{i}.{part.name}" for i, part in enumerate(self.parts)]
        return own + [f"{part}.{column}" for part in parts for column in ("trust_radius", "accepted")]

    def cells(self) -> list[float | None]:
        """The numbers below them, seconds to the microsecond, accepted as 1 or 0."""
        own = (self.iteration, self.loss, self.change, self.gradient_norm, self.step_norm, round(self.seconds, 6))
        parts = ((part.trust_radius, None if part.accepted is None else int(part.accepted)) for part in self.parts)
        return [*own, *chain.from_iterable(parts)]


Row = TypeVar("Row", bound="DataclassInstance")


def labelled(name: str, index: str) -> str:
    """A scalar in the user's terms: ``tau``, or ``b[3,0]`` where there is an index."""
    return f"{name}[{index}]" if index else name


def indices(shape: Iterable[int]) -> list[str]:
    """The index of each number of a shape, row by row, as tables have it; one, empty, of a single number."""
    return [",".join(map(str, place)) for place in product(*map(range, shape))]


def as_csv(lines: Iterable[Iterable[object]]) -> str:
    """Lines of cells as text: empty for None, quoted where a cell holds a comma, a quote or a line's end."""
    text = io.StringIO()
    plain, quoted = csv.writer(text, lineterminator="\n"), csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for line in lines:
        cells = list(line)
        # A carriage return ends a line to who reads, and not to this writer.
        (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else plain).writerow(cells)
    return text.getvalue()


def table(kind: type[Row], rows: Iterable[Row]) -> str:
    """Rows below the names of their columns, numbers to 17 digits, booleans in lower case."""
    return as_csv(chain([_columns(kind)], (map(_cell, vars(row).values()) for row in rows)))


def _columns(kind: type[Row]) -> list[str]:
    return [field.name for field in fields(kind)]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, ".17g") if isinstance(value, float) else value


def read_table(kind: type[Row], path: Path) -> list[Row]:
    """The rows of a table that ``table`` wrote, perhaps of an older hofit with fewer columns.

    Raises: ValueError for a torn row or what is no number, KeyError for a column that must be there.
    """
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(kind, line) for line in csv.DictReader(file)]


def _row(kind: type[Row], line: dict[str, str]) -> Row:
    if None in line.values() or None in line:
        raise ValueError("a row is torn")
    columns = [column for column in _columns(kind) if column in line or column in NEEDED]
    return kind(**{column: _value(column, line[column]) for column in columns})


def _value(column: str, cell: str) -> Any:
    if column in WORDS or not cell:
        return cell if column in WORDS else None
    return cell if column == "optimizer" else float(cell)


def by_site(rows: Iterable[Estimate]) -> dict[str, list[Estimate]]:
    """The rows of each site, in their order."""
    found: dict[str, list[Estimate]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    return found


def json_text(content: Mapping[str, Any]) -> str:
    """A JSON object as a run's files and ``--json`` have it; what is not finite becomes null."""
    return json.dumps(_json_safe(content), indent=1) + "\n"


def _json_safe(value: Any) -> Any:
    """JSON has no nan and no inf: they become null."""
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_safe(item) for item in value]
    return value
