"""A parametric bootstrap: data drawn from a fit, the model refitted to each, and what the refits' spread says.

Draw k is seeded by (seed, k) alone, and refitted in the same company however often the run was interrupted: draws are
taken in blocks of fixed places, whose data sets are computed as one batch where that is possible.

Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, sections 2.1 (bias and error) and 5.2 (basic
and percentile intervals).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import numpy as np

from ..config.source import Source, from_mapping
from ..coordinates import Coordinates
from ..errors import ConfigError, HofitError, refusals_told
from ..fitting.result import FitResult
from ..optim.registry import registry
from ..prediction.fitted import Fitted, fitted
from ..prediction.simulate import Simulator
from ..record import BOOTSTRAP, BOOTSTRAP_INTERVALS, Bootstrapped, Derived, Estimate, indices, labelled, table
from ..run.directory import check_is_directory
from ..run.files import write_whole
from ..run.fit import FitOptions, run_fit
from ..run.many import WORTH, fitted_together
from ..run.resume import ResumeRequest
from ..run.session import Request
from ..run.signals import interruption_noted
from ..status import SIGNALLED
from ..verdict.edges import edge_numbers
from .draws import Draw, DrawsFile
from .level import LEVEL, check_level

BLOCK = 25
"""Draws that are made and refitted together: what an interruption may lose."""

DRAWS = 200
FEWEST = 10
"""Refits that converged, at least, for an interval."""

ENOUGH = 20.0
"""Draws beyond each end of an interval from which on its place is not mostly chance."""


@dataclass(frozen=True)
class BootstrapRequest:
    """Which run, how many draws, by which seed. ``watch`` is told how many are done, of how many."""

    run: ResumeRequest
    draws: int = DRAWS
    seed: int = 0
    level: float = LEVEL
    overwrite: bool = False
    watch: Callable[[int, int, str], None] = field(default=lambda done, count, label: None)


@dataclass(frozen=True)
class BootstrapResult:
    """``rows`` as in bootstrap_intervals.csv; ``statuses`` counts how the refits ended; ``failed`` lists those that did
    not converge, by status. ``done`` is below ``draws`` where a ``signal`` came: the same command goes on."""

    draws: int
    done: int
    seed: int
    level: float
    rows: list[Bootstrapped]
    statuses: dict[str, int]
    failed: dict[str, list[int]]
    remarks: list[str]
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        return 0 if self.signal is None else SIGNALLED + self.signal

    def to_plain(self) -> dict[str, Any]:
        return {
            "draws": self.draws,
            "done": self.done,
            "seed": self.seed,
            "level": self.level,
            "intervals": [vars(row) for row in self.rows],
            "statuses": self.statuses,
            "failed": self.failed,
            "remarks": self.remarks,
            "exit_code": self.exit_code,
        }


def run_bootstrap(request: BootstrapRequest) -> BootstrapResult:
    """Everything from the newest checkpoint to bootstrap.csv and bootstrap_intervals.csv. Raises: HofitError."""
    _check(request)
    with ExitStack() as stack:
        interruption = stack.enter_context(interruption_noted())
        with interruption.at_once():  # nothing is written yet
            fit = stack.enter_context(fitted(request.run))
            study = _Study(request, fit)
        file = DrawsFile(request.run.path / BOOTSTRAP, list(study.labels), request.seed, study.fit, request.overwrite)
        stack.enter_context(closing(file))
        signal = None
        try:
            for block in range(ceil(request.draws / BLOCK)):
                numbers = range(1 + block * BLOCK, 1 + min(request.draws, (block + 1) * BLOCK))
                if all(number in file.draws for number in numbers):
                    continue
                for draw in study.refitted(numbers):
                    if draw is None or interruption():
                        raise KeyboardInterrupt
                    if draw.number not in file.draws:
                        file.add(draw)
                    request.watch(sum(number in file.draws for number in study.numbers), request.draws, "")
        except KeyboardInterrupt:
            signal = interruption.received or study.signal
            if signal is None:
                raise
        kept = [file.draws[number] for number in study.numbers if number in file.draws]
        found = study.result(kept, signal)
    if signal is None:
        path = request.run.path / BOOTSTRAP_INTERVALS
        with refusals_told(path):
            write_whole(path, table(Bootstrapped, found.rows).encode())
    return found


def _check(request: BootstrapRequest) -> None:
    if request.draws < FEWEST:
        raise ConfigError(f"--draws {request.draws}: an interval needs at least {FEWEST}")
    if not 0 <= request.seed < 2**32:
        raise ConfigError(f"--seed {request.seed}: from 0 to {2**32 - 1}")
    check_level(request.level)
    check_is_directory(request.run.path)


class _Study:
    """What a bootstrap of one fit is made of."""

    def __init__(self, request: BootstrapRequest, fit: Fitted) -> None:
        self.request, self._fitted = request, fit
        self.numbers = range(1, request.draws + 1)
        self.signal: int | None = None
        objective, status = fit.session.objective, fit.verdict.status
        if objective.without_mode:
            raise HofitError(f"{objective.without_mode}: there is no estimate to be refitted")
        if status is None or not status.converged:
            raise HofitError("no bootstrap: the fit has not converged; `hofit report` says why, `hofit resume` goes on")
        self._simulator = Simulator(fit)
        unread = set(self._simulator.given) - set(self._simulator.responses.values())
        if unread:
            raise HofitError(
                f"the observed site {min(unread)!r} is no argument of the model as it stands, so drawn data cannot be "
                "given to it: hand the model what it observes, ready-made, as one argument"
            )
        self._estimate = {**fit.point.params, **fit.point.inner}
        values = objective.values(fit.point.params)
        fit.write(self._estimate)
        self.labels: dict[str, tuple[str, str]] = {}
        estimates: dict[str, float] = {}
        wanted = {name: values[name] for name in fit.point.params} | {
            name: value for name, value in fit.program.read().deterministic.items() if value.is_floating_point()
        }
        for name, value in wanted.items():
            for index, number in zip(indices(value.shape), value.detach().reshape(-1).tolist(), strict=True):
                label = labelled(name, index)
                self.labels[label], estimates[label] = (name, index), float(number)
        self.fit = Draw(0, "fit", True, fit.point.value, estimates)
        self._source = self._source_of({name: values[name].tolist() for name in fit.point.params})
        self._model = fit.program.model

    def refitted(self, numbers: Sequence[int]) -> Iterator[Draw | None]:
        """The draws of a block, in any order; None where a signal came."""
        given = []
        for number in numbers:
            self._fitted.write(self._estimate)  # a refit writes to a module's own weights
            seed = int(np.random.SeedSequence((self.request.seed, number)).generate_state(1)[0])
            given.append(self._simulator.arguments(self._simulator.draw(seed)))
        found: dict[int, FitResult] = {}
        if len(given) >= WORTH:
            try:
                found = fitted_together(self._source, self._model, given, range(len(given)))
            except HofitError:
                found = {}  # one by one it shows whose fault it is
        for place, number in enumerate(numbers):
            if place not in found:
                continue
            yield self._draw(number, found[place])
        for place, number in enumerate(numbers):
            if place in found:
                continue
            try:
                result = run_fit(Request(self._source, self._model, given[place]), FitOptions())
            except HofitError:
                yield Draw(number, "error", False, None, {})
                continue
            yield self._draw(number, result)

    def result(self, draws: Sequence[Draw], signal: int | None) -> BootstrapResult:
        """What the draws say. A refit that has not converged has no part in any interval, and is counted."""
        good = [draw for draw in draws if draw.converged]
        failed: dict[str, list[int]] = {}
        for draw in draws:
            if not draw.converged:
                failed.setdefault(draw.status, []).append(draw.number)
        rows = [self._row(label, good) for label in self.labels]
        remarks = []
        if failed:
            count = sum(map(len, failed.values()))
            remarks.append(
                f"{count} of {len(draws)} refits did not converge and have no part in the intervals: "
                + "; ".join(f"{status}: draws {_listed(numbers)}" for status, numbers in failed.items())
            )
        if signal is None and 0 < len(good) * (1 - self.request.level) / 2 < ENOUGH / 4:
            remarks.append(
                f"{len(good)} refits are few for ends at {100 * self.request.level:g} %: --draws "
                f"{ceil(ENOUGH / (1 - self.request.level))} or more goes on from here"
            )
        if len(good) < FEWEST and signal is None:
            remarks.append(f"no intervals: {len(good)} refits converged, and {FEWEST} are needed")
        counts = dict(Counter(draw.status for draw in draws))
        seed, level = self.request.seed, self.request.level
        return BootstrapResult(self.request.draws, len(draws), seed, level, rows, counts, failed, remarks, signal)

    def _row(self, label: str, good: Sequence[Draw]) -> Bootstrapped:
        estimate, (name, index) = self.fit.values[label], self.labels[label]
        numbers = np.array([draw.values[label] for draw in good if label in draw.values])
        row = Bootstrapped(name, index, self.request.level, len(numbers), estimate, *[None] * 6)
        if len(numbers) < FEWEST:
            return row
        tail = (1 - self.request.level) / 2
        lower, upper = (float(end) for end in np.quantile(numbers, (tail, 1 - tail)))
        row.bias, row.std_error = float(numbers.mean()) - estimate, float(numbers.std(ddof=1))
        row.lower, row.upper, row.basic_lower, row.basic_upper = (
            lower,
            upper,
            2 * estimate - upper,
            2 * estimate - lower,
        )
        return row

    def _draw(self, number: int, result: FitResult) -> Draw | None:
        if result.signal is not None:
            self.signal = result.signal
            return None
        rows: list[Estimate | Derived] = [*result.estimate_rows(), *result.derived_rows()]
        found = {labelled(row.name, row.index): row.estimate for row in rows}
        values = {label: value for label in self.labels if (value := found.get(label)) is not None}
        return Draw(number, result.status, result.converged, result.loss, values)

    def _source_of(self, values: Mapping[str, Any]) -> Source:
        """The run's config for data that are given, begun at its estimates; but not where a number stands at an edge:
        from there no slope leads back."""
        session = self._fitted.session
        params = self._fitted.point.params
        at_edge = edge_numbers(session.objective, params)
        if self._fitted.verdict.held is not None:
            at_edge = at_edge | self._fitted.verdict.held
        edges = {n for n, mask in Coordinates.of(params).unflatten(at_edge).items() if bool(mask.any())}
        config = dict(session.provenance.config)
        config.pop("model", None)
        config.pop("starts", None)
        config["data"] = {key: value for key, value in config.get("data", {}).items() if key == "observations"}
        init = dict(config.get("init", {}))
        own = {name: value for name, value in values.items() if name not in edges}
        config["init"] = {**init, "values": {**init.get("values", {}), **own}}
        if any(entry["optimizer"] not in registry({}) for entry in config["optimizers"]):
            config["optimizers"] = [{"params": "*", "optimizer": "trust_region"}]
        return from_mapping(config, "the run's config")


def _listed(numbers: Sequence[int], most: int = 10) -> str:
    return ", ".join(map(str, numbers[:most])) + (f", … ({len(numbers)})" if len(numbers) > most else "")
