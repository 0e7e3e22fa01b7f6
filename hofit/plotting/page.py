"""One page about a run: HTML without network or script, into which the pictures are set.

Every word and number that comes from a run goes through the template's escaping, and what a reader cannot see is
written out. The policy in its head forbids the page to load or run anything, should that ever fail.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunDirectoryError
from ..record import Estimate, labelled
from ..report.reading import load_diagnosis
from ..report.rounding import rounded, rounded_interval
from ..report.summary import verdict_line
from ..version import __version__
from .canvas import HINT, Picture, darkened, is_available, render
from .citing import caution_of, commands_of, sentence_of, works_of
from .names import visible
from .pictures import pictures_of
from .run import Run, open_runs

MOST_ROWS = 200
"""Of a table."""

TITLES: Sequence[tuple[str, tuple[str, ...]]] = (
    ("Estimates", ("parameter", "latent", "fixed", "derived")),
    ("Integrated effects", ("integrated",)),
)

FACTS = (
    ("objective", "objective", 10),
    ("loss", "loss", 10),
    ("gradient (max-norm)", "gradient_norm", 3),
    ("log likelihood", "log_likelihood", 10),
    ("log evidence", "log_evidence", 10),
    ("AIC", "aic", 8),
    ("BIC", "bic", 8),
    ("observations", "observations", 10),
    ("numbers estimated", "parameters", 10),
    ("iterations", "iterations", 10),
    ("seconds", "seconds", 3),
    ("seconds of the command", "total_seconds", 3),
)
"""What a reader sees, its key in fit.json, and digits; one that is not there or null is left out."""


@dataclass(frozen=True)
class Check:
    name: str
    message: str
    mark: str
    tone: str


@dataclass(frozen=True)
class Row:
    name: str
    estimate: str
    error: str
    interval: str
    role: str
    optimizer: str


@dataclass(frozen=True)
class Table:
    title: str
    rows: Sequence[Row]
    left_out: str
    with_errors: bool
    with_optimizers: bool


@dataclass(frozen=True)
class Embedded:
    """A picture as two addresses that hold it, for a light and a dark page."""

    description: str
    light: str
    dark: str


def page_of(path: Path) -> str:
    """The page of the run in a directory. Without matplotlib it has no pictures, and says so.

    Raises: RunDirectoryError when there is no finished run, or a damaged one.
    """
    (run,) = open_runs([path])
    if run.fit is None:
        raise RunDirectoryError(
            f"{path} holds no finished run: it is going on or was killed; `hofit plot {path}` draws its progress, "
            f"`hofit resume {path}` goes on with it"
        )
    diagnosis = load_diagnosis(path)
    pictures = [_embedded(one) for one in pictures_of([run])] if is_available() else []
    try:
        return _filled(run, run.fit, diagnosis, pictures)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunDirectoryError(f"{path} holds a damaged fit.json: {error}") from error


def _filled(run: Run, fit: Mapping[str, Any], diagnosis: Mapping[str, Any] | None, pictures: Sequence[Embedded]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hofit.plotting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    status, remedy = str(fit["status"]), str(fit.get("remedy") or "")
    _, _, verdict = verdict_line(fit).partition(": ")
    rows = [*run.rows, *Estimate.told_of(fit)]
    page = {
        "label": run.label,
        "path": str(run.path),
        "version": __version__,
        "status": status.replace("_", " "),
        "tone": _tone(fit),
        "verdict": verdict,
        "remarks": [str(remark) for remark in fit["remarks"]],
        "remedy": remedy.replace("RUN_DIR", str(run.path)) if status != "converged" else "",
        "checks": [_check(one) for one in fit["checks"]],
        "diagnosis": diagnosis,
        "tables": [table for title, roles in TITLES if (table := _table(title, roles, rows)) is not None],
        "pictures": pictures,
        "without_pictures": "" if is_available() else f"There are none: {HINT}",
        "facts": _facts(fit),
        "config": run.config,
        "commands": commands_of(run),
        "reproducing": caution_of(run),
        "versions": list(dict(fit.get("versions") or {}).items()),
        "digests": [pair for key in ("model_sha256", "data_sha256") for pair in dict(fit.get(key) or {}).items()],
        "sentence": sentence_of(fit),
        "works": works_of(fit, run.config),
    }
    return environment.get_template("page.html").render(page=page)


def _tone(fit: Mapping[str, Any]) -> str:
    if fit["status"] == "converged":
        return "good"
    return "warn" if fit["converged"] or fit.get("complete_as_told") else "bad"


def _shown(value: Any) -> Any:
    """What the template puts in, before it is escaped."""
    return visible(value, keep="\n\t") if isinstance(value, str) else value


def _check(check: Mapping[str, Any]) -> Check:
    ok = check["ok"]
    mark, tone = ("not checked", "muted") if ok is None else ("✓", "yes") if ok else ("✗", "no")
    return Check(str(check["name"]), str(check["message"]), mark, tone)


def _table(title: str, roles: Sequence[str], rows: Sequence[Estimate]) -> Table | None:
    mine = [row for row in rows if row.role in roles]
    if not mine:
        return None
    shown = mine[:MOST_ROWS]
    left_out = f"{len(mine) - len(shown)} of {len(mine)} rows are left out; all are in estimates.csv."
    return Table(
        title,
        [_row(row) for row in shown],
        left_out if len(mine) > len(shown) else "",
        any(row.std_error is not None for row in shown),
        any(row.optimizer for row in shown),
    )


def _row(row: Estimate) -> Row:
    size, error = abs(row.estimate or 0.0), row.std_error
    known = row.lower is not None and row.upper is not None
    ends = rounded_interval(row.lower or 0.0, row.upper or 0.0, error, size) if known else ""
    return Row(
        labelled(row.name, row.index),
        rounded(row.estimate, error) or "–",
        rounded(error, error, size),
        ends,
        row.role,
        row.optimizer or "",
    )


def _facts(fit: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(words, _number(fit[key], digits)) for words, key, digits in FACTS if fit.get(key) is not None]
    evaluations = fit.get("evaluations") or {}
    counted = ", ".join(f"{count} {name}" for name, count in dict(evaluations).items() if count)
    return [*found, *([("evaluations", counted)] if counted else [])]


def _number(value: Any, digits: int) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _embedded(picture: Picture) -> Embedded:
    (svg,) = render(picture, "svg")
    return Embedded(picture.description, _address(svg), _address(darkened(svg)))


def _address(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
