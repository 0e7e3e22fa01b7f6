"""What is compared of one fit, read from its run directory or from what it returned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config.source import parse_source
from ..record import CONFIG, Estimate
from ..report.reading import load_config_text, load_progress, load_run

OPTIMISED = ("parameter", "latent")
"""Roles of what the loss is a function of."""

APART = ("uncertainty",)
"""Keys of an objective that change nothing in what is minimised."""

NOT_THE_DATA = ("arguments",)
"""Key of the digest of a model's arguments, which differ between models that read the same files."""


@dataclass(frozen=True)
class Outcome:
    """How one fit ended: ``fit`` is what fit.json holds, ``rows`` those of estimates.csv, ``config`` as it ran.

    ``progress`` holds (seconds, loss) an iteration, empty where it was not kept; ``problem`` is why there was no fit.
    """

    label: str
    fit: Mapping[str, Any]
    rows: Sequence[Estimate] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    progress: Sequence[tuple[float, float]] = ()
    run_dir: Path | None = None
    problem: str | None = None

    @property
    def status(self) -> str:
        return str(self.fit.get("status", "error"))

    @property
    def converged(self) -> bool:
        return bool(self.fit.get("converged", False))

    @property
    def loss(self) -> float | None:
        return _number(self.fit.get("loss"))

    @property
    def unit(self) -> float:
        """What one observation weighs in the loss. Older runs do not say; it is one unless a model is scaled."""
        return _number(self.fit.get("unit")) or 1.0

    @property
    def objective(self) -> str:
        return str(self.fit.get("objective", ""))

    @property
    def log_likelihood(self) -> float | None:
        return _number(self.fit.get("log_likelihood"))

    @property
    def observations(self) -> int | None:
        found = self.fit.get("observations")
        return found if isinstance(found, int) and found > 0 else None  # an elbo fit counts none: its guide has no data

    @property
    def sums(self) -> list[float]:
        """The sum and the sum of squares of what is observed; empty where the run does not say."""
        found = self.fit.get("observed_sums")
        numbers = [number for one in found if (number := _number(one)) is not None] if isinstance(found, list) else []
        return numbers if len(numbers) == 2 else []

    @property
    def aic(self) -> float | None:
        return _number(self.fit.get("aic"))

    @property
    def bic(self) -> float | None:
        return _number(self.fit.get("bic"))

    @property
    def parameters(self) -> int | None:
        """k, as the result counts it: aic is 2 k − 2 log L."""
        if self.aic is None or self.log_likelihood is None:
            return None
        return round(0.5 * self.aic + self.log_likelihood)

    @property
    def aicc(self) -> float | None:
        """aic + 2 k (k + 1) / (n − k − 1). Source: Hurvich & Tsai (1989), Biometrika 76(2), eq. 3."""
        k, n = self.parameters, self.observations
        if self.aic is None or k is None or n is None or n <= k + 1:
            return None
        return self.aic + 2.0 * k * (k + 1) / (n - k - 1)

    @property
    def restricted(self) -> dict[str, int]:
        """Site → numbers, of what is integrated out under a flat prior, as the fixed effects of REML."""
        names = self.fit.get("restricted") or ()
        return {name: self.numbers[name] for name in names if name in self.numbers}

    @property
    def constraints(self) -> Mapping[str, str]:
        """Site → its support in words; empty for runs of versions that did not write it."""
        found = self.fit.get("constraints")
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def roles(self) -> dict[str, str]:
        return {row.name: row.role for row in self.rows if row.role != "derived"}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Site → how many numbers its value has."""
        found: dict[str, int] = {}
        for row in self.rows:
            found[row.name] = found.get(row.name, 0) + 1
        return found

    @property
    def free(self) -> dict[str, int]:
        """Site → numbers, of what is optimised."""
        return {name: self.numbers[name] for name, role in self.roles.items() if role in OPTIMISED}

    @property
    def integrated(self) -> dict[str, int]:
        """Site → numbers, of what is integrated out and has a mode."""
        return {name: self.numbers[name] for name, role in self.roles.items() if role == "integrated"}

    @cached_property
    def held(self) -> dict[str, list[float]]:
        """Site → its numbers, where it is fixed."""
        found: dict[str, list[float]] = {}
        for row in self.rows:
            if row.role == "fixed" and row.estimate is not None:
                found.setdefault(row.name, []).append(row.estimate)
        return found

    @property
    def data_files(self) -> dict[str, str]:
        """Path → SHA-256 of the files that were read."""
        found = self.fit.get("data_sha256") or {}
        return {path: digest for path, digest in found.items() if path not in NOT_THE_DATA}

    @property
    def arguments_digest(self) -> str | None:
        found = self.fit.get("data_sha256") or {}
        return found.get("arguments")

    @property
    def data_section(self) -> Mapping[str, Any]:
        found = self.config.get("data")
        return found if isinstance(found, Mapping) else {}

    @property
    def function(self) -> str:
        """What is minimised, as a text that is the same where it is the same: losses can be compared there."""
        objective = self.config.get("objective")
        parts = {
            "objective": self.objective,
            "how": {k: v for k, v in objective.items() if k not in APART} if isinstance(objective, Mapping) else None,
            "model": sorted((self.fit.get("model_sha256") or {}).values()),
            "called": str(self.config.get("model") or "").rpartition(":")[2],
            "data": [sorted(self.data_files.values()), self.arguments_digest],
            "roles": {name: [role, self.numbers[name]] for name, role in sorted(self.roles.items())},
            "held": dict(sorted(self.held.items())),
        }
        return json.dumps(parts, sort_keys=True, default=str)


def read_outcome(path: Path, label: str | None = None) -> Outcome:
    """The outcome of a run directory. Raises: RunDirectoryError where it holds no finished run."""
    fit, rows = load_run(path)
    progress = load_progress(path)
    pairs = list(zip(progress.get("seconds", ()), progress.get("loss", ()), strict=True))
    text = load_config_text(path)
    config = parse_source(text, str(path / CONFIG)).data if text is not None else {}
    return Outcome(label or str(path), fit, _of_sites(rows), config, pairs, path)


def _of_sites(rows: Sequence[Estimate]) -> list[Estimate]:
    """Without the rows of deterministic sites, which follow from the others."""
    return [row for row in rows if row.role != "derived"]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
