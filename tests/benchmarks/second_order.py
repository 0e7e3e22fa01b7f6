"""Time to a mode: hofit's second-order optimizers, and what else there is, on one density each.

Every run is a process of its own, so that its peak of memory is its own; methods take turns, in another order each
repeat. All minimise minus the log density of the constrained values (hofit's `map`, AutoDelta's loss) in float64 from
zero on the unconstrained scale (a `pyro.param` from its own start), with distribution validation off. The clock starts
when the data are in memory, the method has fitted six numbers (for what libraries import at first use), and the loss
and its gradient have been evaluated once; the time that recording takes is left out. So everybody pays for the trace
that finds the parameters, hofit for its config and its checks of the start as well. `second_order_torch.py` has the
runs, `second_order_numpyro.py` those under NumPyro, where that trace and compiling come before the clock.

    python tests/benchmarks/second_order.py --problems hierarchical-nested --groups 1000 10000
    python tests/benchmarks/second_order.py --methods hofit:trust_region hofit:adam,lr=0.1 scipy:L-BFGS-B
    python tests/benchmarks/second_order.py --tune      # the rates of Adam, for ADAM_RATES

Besides what hofit needs, torchmin:… needs pytorch-minimize, scipy:… scipy, and numpyro:… an interpreter with NumPyro,
given by --numpyro. What cannot run says why.

Columns: seconds until the loss is within 1e-6 · max(1, |best|) of the lowest loss of any method; seconds until the
max-norm of the gradient is 1e-6; seconds in all, hofit's verdict included; how the run ended; the gradient and the
loss there, by one and the same closure; iterations and evaluations of the gradient (Hessian-vector products not
counted; NumPyro's Minimize tells no iterations, so its evaluations stand there too); the peak of resident memory, and
how much of it came after the warm-up. Several repeats: the median, and the range. The JSON has the CPU seconds and the
load of the machine as well: where others use it two threads fight over a core, and `--threads 1` scatters less.

Ends: hofit at its gradient of 1e-6, by its own verdict; the others when the gradient is 1e-6 too, or when they give up.
`scipy:L-BFGS-B` runs on to a gradient of 1e-8 or a relative change of 1e-14; `scipy:L-BFGS-B-default` has scipy's own
tolerances. `svi-adam` ends where 1000 steps have not lowered the loss by 1e-10 of itself.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

SUBOPTIMALITY = 1e-6
GRADIENT = 1e-6

ITEMS, COVARIATES = 40, 50
SEED = 0

RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
ADAM_RATES = {
    # By --tune --threads 1: the rate that is first within SUBOPTIMALITY of the best loss and stays there.
    "hierarchical_logistic": 0.1,  # 10,000 groups
    "item_response": 0.03,  # 0.1 passes there in two thirds of the time, and ends 9e-5 above
    "gaussian_process": 0.3,
    "poisson_regression": 0.1,
    "eight_schools": 0.3,
}

METHODS = (
    "hofit:trust_region",
    "hofit:newton_cg",
    "hofit:gauss_newton",
    "hofit:lbfgs",
    "torchmin:trust-ncg",
    "torchmin:l-bfgs",
    "scipy:L-BFGS-B",
    "scipy:L-BFGS-B-default",
    "svi-adam",
    "pyro-multi",
    "numpyro:BFGS",
    "numpyro:l-bfgs",
    "numpyro:adam",
)

PROBLEMS = (
    "hierarchical-nested",
    "hierarchical-indexed",
    "irt-nested",
    "irt-indexed",
    "gp",
    "poisson",
    "eight-schools",
)


@dataclass(frozen=True)
class Problem:
    """A model with its data. Problems with one ``density`` have one best loss; ``table`` is a CSV of the arguments."""

    name: str
    density: str
    family: str
    function: str = "model"
    options: dict[str, Any] = field(default_factory=dict)
    table: str | None = None
    fixed: dict[str, float] = field(default_factory=dict)


@dataclass
class Run:
    """What one process measured. ``trajectory`` has (seconds, loss, gradient max-norm) of every evaluation."""

    problem: Problem
    method: str
    repeat: int
    skipped: str | None = None
    failed: str | None = None
    trajectory: list[tuple[float, float, float]] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def seconds_to_loss(self, best: float) -> float | None:
        enough = best + SUBOPTIMALITY * max(1.0, abs(best))
        return next((seconds for seconds, loss, _ in self.trajectory if loss <= enough), None)

    def seconds_to_gradient(self) -> float | None:
        return next((seconds for seconds, _, gradient in self.trajectory if gradient <= GRADIENT), None)


def problems(arguments: argparse.Namespace) -> list[Problem]:
    found: list[Problem] = []
    for name in arguments.problems:
        kind, _, layout = name.partition("-")
        if kind == "hierarchical":
            for groups in arguments.groups:
                options = {"groups": groups, "seed": SEED, "layout": layout}
                density = f"hierarchical logistic, {groups:,} groups"
                found.append(Problem(f"{density}, {layout}", density, "hierarchical_logistic", layout, options))
        elif kind == "irt":
            for persons in arguments.persons:
                density = f"item response, {persons:,} × {ITEMS}"
                options = {"persons": persons, "items": ITEMS, "seed": SEED, "layout": layout}
                found.append(Problem(f"{density}, {layout}", density, "item_response", layout, options))
        elif kind == "gp":
            for n in arguments.gp:
                density = f"Gaussian process, {n:,}"
                found.append(Problem(density, density, "gaussian_process", options={"n": n, "seed": SEED}))
        elif kind == "poisson":
            for rows in arguments.rows:
                density = f"Poisson, {rows:,} × {COVARIATES}"
                options = {"rows": rows, "covariates": COVARIATES, "seed": SEED}
                found.append(Problem(density, density, "poisson_regression", options=options))
        else:
            table, tau = "models/data/eight_schools.csv", 3.6335800774629874  # τ as in the configs: see there
            found.append(Problem("eight schools", "eight schools", "eight_schools", table=table, fixed={"tau": tau}))
    return found


def run(problem: Problem, method: str, repeat: int, arguments: argparse.Namespace) -> Run:
    """One process. It is given the job as a file and leaves its measurements in another."""
    result = Run(problem, method, repeat)
    under_numpyro = method.startswith("numpyro:")
    if under_numpyro and arguments.numpyro is None:
        result.skipped = "no --numpyro PYTHON"
        return result
    with tempfile.TemporaryDirectory() as folder:
        job_path, out_path = Path(folder) / "job.json", Path(folder) / "out.json"
        job = {
            "problem": asdict(problem),
            "method": method,
            "adam_rate": ADAM_RATES[problem.family],
            "gradient": GRADIENT,
            "limit": arguments.limit,
            "threads": arguments.threads,
            "out": str(out_path),
        }
        if under_numpyro:
            job["data"] = str(Path(folder) / "data.npz")
            job_path.write_text(json.dumps(job | {"method": "export"}))
            fault = _process(sys.executable, "second_order_torch.py", job_path, arguments)
            if fault is not None:
                result.failed = fault
                return result
        job_path.write_text(json.dumps(job))
        script = "second_order_numpyro.py" if under_numpyro else "second_order_torch.py"
        result.failed = _process(arguments.numpyro if under_numpyro else sys.executable, script, job_path, arguments)
        if result.failed is None:
            measured = json.loads(out_path.read_text())
            result.skipped = measured.pop("skipped", None)
            result.trajectory = [(row[0], row[1], row[2]) for row in measured.pop("trajectory", [])]
            result.measured = measured | {"load_average": os.getloadavg()[0]}
    return result


def _process(python: str, script: str, job: Path, arguments: argparse.Namespace) -> str | None:
    """Run it; what went wrong, or None."""
    threads = str(arguments.threads)
    # One thread for numpy's BLAS: a second pool beside torch's only fights it, and made L-BFGS-B 20 times slower.
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [python, str(HERE / script), str(job)],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=3 * arguments.limit + 300,
        )
    except subprocess.TimeoutExpired:
        return "killed: it took three times the limit"
    if done.returncode == 0:
        return None
    last = [line for line in done.stderr.strip().splitlines() if line.strip()]
    if arguments.verbose:
        print(done.stderr, file=sys.stderr)
    return f"exit {done.returncode}: {last[-1] if last else ''}"


def best_losses(runs: Sequence[Run]) -> dict[str, float]:
    """The lowest finite loss that any method reached, by density."""
    best: dict[str, float] = {}
    for one in runs:
        losses = [loss for _, loss, _ in one.trajectory if abs(loss) < float("inf")]
        if losses:
            best[one.problem.density] = min([*losses, best.get(one.problem.density, float("inf"))])
    return best


COLUMNS = (
    "problem",
    "unknowns",
    "method",
    "s to 1e-6 of best",
    "s to gradient 1e-6",
    "s in all",
    "end",
    "final gradient",
    "above best",
    "iterations",
    "evaluations",
    "peak MB",
    "of it after warm-up",
)


def table(runs: Sequence[Run]) -> str:
    best = best_losses(runs)
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    notes = []
    for problem in dict.fromkeys(one.problem.name for one in runs):
        for method in dict.fromkeys(one.method for one in runs):
            same = [one for one in runs if one.problem.name == problem and one.method == method]
            done = [one for one in same if one.skipped is None and one.failed is None]
            for text in dict.fromkeys(one.skipped or one.failed for one in same if one.skipped or one.failed):
                notes.append(f"- {problem}, {method}: {text}")
            if done:
                lines.append(_row(problem, method, done, best[done[0].problem.density]))
    return "\n".join([*lines, "", *(["Not run:", *notes] if notes else [])])


def _row(problem: str, method: str, done: Sequence[Run], best: float) -> str:
    scale = max(1.0, abs(best))
    cells = [
        problem,
        f"{done[0].measured['unknowns']:,}",
        method,
        _seconds([one.seconds_to_loss(best) for one in done]),
        _seconds([one.seconds_to_gradient() for one in done]),
        _seconds([one.measured["total"] for one in done]),
        ", ".join(dict.fromkeys(str(one.measured["end"]) for one in done)),
        _number([one.measured["gradient_norm"] for one in done]),
        _number([(one.measured["loss"] - best) / scale for one in done]),
        f"{statistics.median(one.measured['iterations'] for one in done):.0f}",
        f"{statistics.median(len(one.trajectory) for one in done):.0f}",
        f"{statistics.median(one.measured['peak_mb'] for one in done):.0f}",
        f"{statistics.median(one.measured['peak_mb'] - one.measured['start_mb'] for one in done):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(values: Sequence[float | None]) -> str:
    """The median and, of several, the range; a dash where one of them never got there."""
    reached = sorted(value for value in values if value is not None)
    if len(reached) < len(values):
        return "–" if not reached else f"– ({len(reached)} of {len(values)} did)"
    middle = f"{statistics.median(reached):.3g}"
    return middle if len(reached) == 1 else f"{middle} ({reached[0]:.3g} – {reached[-1]:.3g})"


def _number(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1e}"


def write_json(path: Path, runs: Sequence[Run], arguments: argparse.Namespace) -> None:
    """Every run with its measurements, and at most 200 rows of its trajectory: the first, the last, and between."""
    best = best_losses(runs)
    rows = []
    for one in runs:
        thin = max(1, len(one.trajectory) // 200)
        lowest = best.get(one.problem.density)
        rows.append(
            asdict(one)
            | {
                "best": lowest,
                "seconds_to_loss": None if lowest is None else one.seconds_to_loss(lowest),
                "seconds_to_gradient": one.seconds_to_gradient(),
                "evaluations": len(one.trajectory),
                "trajectory": one.trajectory[::thin] + one.trajectory[-1:],
            }
        )
    settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "numpyro")}
    path.write_text(json.dumps({"settings": settings, "adam_rates": ADAM_RATES, "runs": rows}, indent=1, default=str))


def measure(arguments: argparse.Namespace, methods: Sequence[str]) -> list[Run]:
    """All runs, methods in turn: one problem after another, and within it one repeat after another."""
    runs: list[Run] = []
    for problem in problems(arguments):
        for repeat in range(arguments.repeats):
            first = repeat % len(methods)
            for method in [*methods[first:], *methods[:first]]:
                began = time.perf_counter()
                one = run(problem, method, repeat, arguments)
                runs.append(one)
                said = one.skipped or one.failed or f"{one.measured['total']:.3g} s, loss {one.measured['loss']:.10g}"
                took = time.perf_counter() - began
                print(f"{problem.name} · {method} · {repeat + 1}: {said} (process {took:.0f} s)", file=sys.stderr)
                if arguments.json is not None:
                    write_json(arguments.json, runs, arguments)
    return runs


def tune(arguments: argparse.Namespace) -> None:
    """Print, problem by problem, what each rate of Adam reaches; L-BFGS-B says what the best loss is."""
    runs = measure(arguments, [*(f"svi-adam,lr={rate}" for rate in RATES), "scipy:L-BFGS-B"])
    print(table(runs))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, metavar="PROBLEM")
    parser.add_argument("--methods", nargs="+", default=METHODS, help=f"of {', '.join(METHODS)}; options by commas")
    parser.add_argument("--groups", nargs="+", type=int, default=[1000], help="sizes of the hierarchical model")
    parser.add_argument("--persons", nargs="+", type=int, default=[5000], help="sizes of the item response model")
    parser.add_argument("--gp", nargs="+", type=int, default=[500], help="sizes of the Gaussian process")
    parser.add_argument("--rows", nargs="+", type=int, default=[200_000], help="sizes of the Poisson regression")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a run is ended")
    parser.add_argument("--json", type=Path, help="where every run goes, written anew after each")
    parser.add_argument("--numpyro", metavar="PYTHON", help="an interpreter that has NumPyro")
    parser.add_argument("--tune", action="store_true", help="try the rates of Adam, instead of the methods")
    parser.add_argument("--verbose", action="store_true", help="show what a failed process said")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.tune:
        tune(arguments)
    else:
        print(table(measure(arguments, arguments.methods)))


if __name__ == "__main__":
    main()
