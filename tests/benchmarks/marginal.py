"""Time and memory of empirical Bayes: the whole command `hofit fit`, a process a run, beside bars of other programs.

    python tests/benchmarks/marginal.py                         # all cases, on two threads
    python tests/benchmarks/marginal.py --cases logistic-1e4 --threads 1 --repeats 3

Cases: correlated intercepts and slopes of a logistic regression with 10,000 and 100,000 groups of ten rows
(`models/correlated_logistic.py`), and three crossed Gaussian effects in the shape of lme4's InstEval, 73,421 rows
(`models/crossed_effects.py`); data simulated by `load_data`, inside the command.

Columns: how the fit ended; outer iterations; the gradient's max-norm; seconds from the first trace to the verdict
(`seconds` of fit.json), standard errors excluded; seconds of the whole command, Python's start, the simulation and the
standard errors included; the peak of resident memory. Several repeats: the median, and the range. A bar follows its
number in brackets, and what misses it is named below the table; the script then leaves with 1.

Bars: of the logistic cases, TMB's 12 s and 149 s + 40 s for the errors (glmmTMB 25 s, glmer 78 s at 10,000 groups); of
the crossed one, lme4's 44 s; all on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GIBIBYTE = 2**20
"""In the units of ru_maxrss on Linux: KiB."""

GRADIENT = 1e-6
ITERATIONS = 10


@dataclass(frozen=True)
class Case:
    """A model with the options of its `load_data`. Bars are seconds and GiB; None where there is none."""

    title: str
    model: str
    options: dict[str, int]
    seconds: float | None = None
    command_seconds: float | None = None
    peak: float | None = None
    iterations: int | None = None


CASES = {
    "logistic-1e4": Case(
        "correlated logistic, 10,000 groups",
        "correlated_logistic",
        {"groups": 10_000},
        seconds=3.6,
        iterations=ITERATIONS,
    ),
    "logistic-1e5": Case(
        "correlated logistic, 100,000 groups",
        "correlated_logistic",
        {"groups": 100_000},
        command_seconds=25.0,
        peak=3.0,
        iterations=ITERATIONS,
    ),
    "crossed": Case(
        "crossed effects, 73,421 rows, 2972 + 1128 + 14 levels",
        "crossed_effects",
        {"rows": 73_421, "students": 2972, "instructors": 1128, "departments": 14},
        seconds=11.0,
    ),
}


@dataclass(frozen=True)
class Run:
    """What one process measured; `fit` is its fit.json, or None with what it last said in `failure`."""

    command_seconds: float
    peak: float
    fit: dict[str, Any] | None
    failure: str = ""


def run(case: Case, threads: int) -> Run:
    """Fit once, through the command line."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir, said = Path(folder) / "run", Path(folder) / "said"
        settings = [f"data.options.{name}={value}" for name, value in case.options.items()] + [f"threads={threads}"]
        command = [sys.executable, "-c", "from hofit.cli.app import main; main()", "fit"]
        command += [f"models/{case.model}.py", "--config", f"configs/{case.model}_marginal.yaml"]
        command += ["--run-dir", str(run_dir), "--quiet", *(part for one in settings for part in ("--set", one))]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with said.open("w") as output:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
            _, _, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
        peak = usage.ru_maxrss / GIBIBYTE
        written = run_dir / "fit.json"
        if written.is_file():
            return Run(seconds, peak, json.loads(written.read_text(encoding="utf-8")))
        return Run(seconds, peak, None, said.read_text(encoding="utf-8").strip()[-300:])


COLUMNS = ("case", "end", "iterations", "gradient", "fit, s", "command, s", "peak, GiB")


def row(case: Case, runs: Sequence[Run]) -> tuple[str, list[str]]:
    """The case's line of the table, and the bars it missed."""
    fits = [one.fit for one in runs if one.fit is not None]
    if len(fits) < len(runs):
        failure = next(one.failure for one in runs if one.fit is None)
        return f"| {case.title} | failed |{' |' * (len(COLUMNS) - 2)}", [f"{case.title}: {failure}"]
    ends = ", ".join(dict.fromkeys(str(fit["status"]) for fit in fits))
    measured = [
        ("iterations", [fit["iterations"] for fit in fits], case.iterations, ".0f"),
        ("gradient", [fit["gradient_norm"] for fit in fits], GRADIENT, ".1e"),
        ("seconds of the fit", [fit["seconds"] for fit in fits], case.seconds, ".3g"),
        ("seconds of the command", [one.command_seconds for one in runs], case.command_seconds, ".3g"),
        ("GiB", [one.peak for one in runs], case.peak, ".2f"),
    ]
    cells = [cell(values, bar, form) for _, values, bar, form in measured]
    missed = [
        f"{case.title}: {statistics.median(values):{form}} {what}, the bar is {bar:g}"
        for what, values, bar, form in measured
        if bar is not None and not statistics.median(values) <= bar
    ]
    if ends != "converged":
        missed.append(f"{case.title}: {ends}")
    return f"| {' | '.join([case.title, ends, *cells])} |", missed


def cell(values: Sequence[float], bar: float | None, form: str) -> str:
    """The median and, of several, the range; in brackets the bar."""
    text = f"{statistics.median(values):{form}}"
    if len(values) > 1:
        text += f" ({min(values):{form}} – {max(values):{form}})"
    return text if bar is None else f"{text} [{bar:g}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()

    print(f"{arguments.threads} threads, {arguments.repeats} runs a case\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    missed = []
    for name in arguments.cases:
        line, short = row(CASES[name], [run(CASES[name], arguments.threads) for _ in range(arguments.repeats)])
        print(line, flush=True)
        missed += short
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}", *missed, sep="\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
