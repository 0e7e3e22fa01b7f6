"""Certification on NIST StRD nonlinear regression: all 27 problems from both starts, through the command line.

Run as ``python -m tests.certification.nist``; prints a table and leaves with 1 when a bar is missed. Each run is
``hofit fit models/nist.py --config configs/nist.yaml`` in this process; what it found is read from its files.

Reference: NIST/ITL, Statistical Reference Datasets, https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from hofit.cli.app import main
from tests.examples import references
from tests.examples.references import Array

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (references.DATA / "nist").glob("*.dat"))

DIGITS = 6.0
"""Digits of the worst parameter from which a run has found the certified values."""
SUCCESSES, SUCCESSES_OF_START_2 = 51, 27
FULL = 11.0
"""Digits that NIST prints; more cannot be compared."""

TERMS = {
    "Lanczos1": ((0, 1), (2, 3), (4, 5)),
    "Lanczos2": ((0, 1), (2, 3), (4, 5)),
    "Lanczos3": ((0, 1), (2, 3), (4, 5)),
    "Gauss1": ((2, 3, 4), (5, 6, 7)),
    "Gauss2": ((2, 3, 4), (5, 6, 7)),
    "Gauss3": ((2, 3, 4), (5, 6, 7)),
    "ENSO": ((3, 4, 5), (6, 7, 8)),
    "MGH17": ((1, 3), (2, 4)),
}
"""Places in b of terms that are alike: exchanging them leaves the mean as it is."""

SIGNS = {"Gauss1": ((4,), (7,)), "Gauss2": ((4,), (7,)), "Gauss3": ((4,), (7,)), "Eckerle4": ((0, 1),)}
"""Places in b that may change their signs together: widths that enter as squares."""


@dataclass(frozen=True)
class Run:
    """How one fit ended. Digits are −log₁₀ of the relative error, at most FULL."""

    problem: str
    start: int
    status: str
    exit_code: int
    parameter_digits: float
    residual_digits: float
    iterations: int

    @property
    def found(self) -> bool:
        return self.parameter_digits >= DIGITS

    @property
    def falsely_converged(self) -> bool:
        """Whether it says that it ended well, and is elsewhere."""
        return self.exit_code == 0 and not self.found


def certify(problem: str, start: int, folder: Path) -> Run:
    """Fit from one start, writing into ``folder``."""
    run_dir = folder / f"{problem}-{start}"
    arguments = f"fit {ROOT}/models/nist.py -c {ROOT}/configs/nist.yaml --run-dir {run_dir} --quiet"
    options = f"-s data.options.name={problem} -s data.options.start={start}"
    before, sys.argv = sys.argv, ["hofit", *arguments.split(), *options.split()]
    try:
        main()
    except SystemExit:
        pass  # the exit code is in the file too
    finally:
        sys.argv = before
    fit = json.loads((run_dir / "fit.json").read_text(encoding="utf-8"))
    with (run_dir / "estimates.csv").open(encoding="utf-8", newline="") as file:
        b = np.array([float(row["estimate"]) for row in csv.DictReader(file) if row["name"] == "b"])
    certified = references.nist_problem(problem)
    residuals = certified.y - references.nist_mean(problem, certified.x, b)
    parameter_digits = max(min(digits(x, y) for x, y in zip(b, c, strict=True)) for c in alike(problem, certified))
    residual_digits = digits(float(residuals @ residuals), certified.residual_sum_of_squares)
    return Run(
        problem, start, fit["status"], fit["exit_code"], parameter_digits, residual_digits, int(fit["iterations"])
    )


def alike(problem: str, certified: references.NistProblem) -> Iterator[Array]:
    """The certified values, with identical terms exchanged and signs that do not matter changed."""
    terms = TERMS.get(problem, ())
    for order in permutations(terms):
        exchanged = certified.certified.copy()
        for to, source in zip(terms, order, strict=True):
            exchanged[list(to)] = certified.certified[list(source)]
        signs = SIGNS.get(problem, ())
        for flips in np.ndindex(*(2,) * len(signs)):
            signed = exchanged.copy()
            for places, flip in zip(signs, flips, strict=True):
                signed[list(places)] *= 1 - 2 * flip
            yield signed


def digits(found: float, certified: float) -> float:
    error = abs(found - certified) / abs(certified)
    return FULL if error <= 10.0**-FULL else float(-np.log10(error))


def shortfalls(runs: list[Run]) -> list[str]:
    """The bars that are missed, in words."""
    found = sum(run.found for run in runs)
    second = sum(run.found for run in runs if run.start == 2)
    false = [f"{run.problem} from start {run.start}" for run in runs if run.falsely_converged]
    missed = []
    if found < SUCCESSES:
        missed.append(f"{found} runs have {DIGITS:.0f} digits, {SUCCESSES} must")
    if second < SUCCESSES_OF_START_2:
        missed.append(f"{second} runs from start 2 have {DIGITS:.0f} digits, {SUCCESSES_OF_START_2} must")
    if false:
        missed.append(f"ended well elsewhere: {', '.join(false)}")
    return missed


def run_all(folder: Path) -> Iterator[Run]:
    for start in (1, 2):
        for problem in NAMES:
            yield certify(problem, start, folder)


def report() -> int:
    """Print the table as it grows; the exit code."""
    print("| problem | start | status | digits of b | digits of RSS | iterations |")
    print("|---|---|---|---|---|---|")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run in run_all(Path(folder)):
            runs.append(run)
            cells = [run.problem, run.start, run.status, f"{run.parameter_digits:.1f}", f"{run.residual_digits:.1f}"]
            print("|", " | ".join(map(str, [*cells, run.iterations])), "|", flush=True)
    missed = shortfalls(runs)
    print(
        f"\n{sum(run.found for run in runs)} of {len(runs)} runs have {DIGITS:.0f} digits or more.", *missed, sep="\n"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(report())
