"""One run of `second_order.py` under torch: the job is a JSON file, named on the command line."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.distributions import transforms
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.infer.autoguide.initialization import init_to_value
from pyro.optim.multi import MixedMultiOptimizer, Newton
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

ROOT = Path(__file__).resolve().parents[2]
MANY = 1_000_000
"""Iterations: more than any method takes within its time."""

PLATEAU_STEPS, PLATEAU_CHANGE = 1000, 1e-10
"""A first-order method with a fixed rate has ended where so many steps have not lowered the loss by so much of it."""

STALLED_STEPS = 20
"""A method with a line search or a trust region has ended where so many iterations have not lowered the loss at all."""


class Skipped(Exception):
    """The method does not apply to the problem, and why."""


class Stop(Exception):
    """The run has ended, and how."""


class Objective:
    """Minus the log density of a Pyro model as a function of one vector of unconstrained numbers.

    The vector holds the latents and the `pyro.param` sites in the order of the trace; ``fixed`` latents are held at
    their values and keep their prior. ``start`` is zero at the latents, and the model's own start at the parameters.
    """

    def __init__(self, model: Callable[..., None], arguments: dict[str, Any], fixed: dict[str, float]) -> None:
        held = {name: torch.tensor(value) for name, value in fixed.items()}
        self.model: Callable[..., None] = poutine.condition(model, data=held) if held else model
        self.arguments = arguments
        self.transforms: dict[str, Any] = {}
        self.shapes: dict[str, torch.Size] = {}
        self.latents: list[str] = []
        self.parameters: list[str] = []
        starts = []
        for name, site in poutine.trace(self.model).get_trace(**arguments).nodes.items():
            if site["type"] == "sample" and not site["is_observed"] and hasattr(site["fn"], "support"):
                transform = biject_to(site["fn"].support)
                start = torch.zeros(transform.inverse_shape(site["value"].shape))
                self.latents.append(name)
            elif site["type"] == "param":
                transform = transform_to(site["kwargs"]["constraint"])
                start = transform.inv(site["value"].detach())
                self.parameters.append(name)
            else:
                continue
            self.transforms[name], self.shapes[name] = _or_none(transform), start.shape
            starts.append(start.flatten())
        pyro.clear_param_store()
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.start = torch.cat(starts)

    def leaves(self, x: Tensor) -> dict[str, Tensor]:
        """The vector by site, unconstrained."""
        pieces = x.split(self.sizes)
        return {name: piece.view(shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def constrained(self, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: leaf if self.transforms[name] is None else self.transforms[name](leaf)
            for name, leaf in leaves.items()
        }

    def loss_at(self, leaves: dict[str, Tensor]) -> Tensor:
        values = self.constrained(leaves)
        model = poutine.condition(self.model, data={name: values[name] for name in self.latents})
        if self.parameters:
            model = poutine.substitute(model, data={name: values[name] for name in self.parameters})
        log_density: Tensor = poutine.trace(model).get_trace(**self.arguments).log_prob_sum()
        return -log_density

    def __call__(self, x: Tensor) -> Tensor:
        try:
            return self.loss_at(self.leaves(x))
        except LinAlgError:  # a trial point where a factorisation fails
            return x.sum() * 0.0 + math.inf

    def loss_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        leaf = x.detach().requires_grad_(True)
        loss = self(leaf)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def _or_none(transform: Any) -> Any:
    """None for the identity, also over event dimensions."""
    base = transform
    while isinstance(base, transforms.IndependentTransform):
        base = base.base_transform
    return None if base is transforms.identity_transform else transform


class Recorder:
    """Seconds, loss and gradient of every evaluation, the last point and the lowest; its own time is left out."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.rows: list[tuple[float, float, float]] = []
        self.lowest, self.lowest_row = math.inf, 0
        self.lowest_point = self.last_point = torch.zeros(0)
        self._aside = 0.0
        self._origin = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._origin - self._aside

    def record(self, loss: float | Tensor, gradient: float | Sequence[Tensor], x: Tensor | None = None) -> None:
        """``gradient`` is its max-norm, or its parts."""
        now = time.perf_counter()
        value = float(loss)
        norm = gradient if isinstance(gradient, float) else max(float(part.abs().max()) for part in gradient)
        self.rows.append((now - self._origin - self._aside, value, norm))
        if x is not None:
            self.last_point = x.detach().clone()
        if value < self.lowest:
            self.lowest, self.lowest_row, self.lowest_point = value, len(self.rows), self.last_point
        self._aside += time.perf_counter() - now

    def leave_out(self, seconds: float) -> None:
        """Take what was spent for the record's sake off the clock."""
        self._aside += seconds

    def check_time(self) -> None:
        if self.seconds() > self.limit:
            raise Stop("time")

    def watched(self, objective: Objective) -> Callable[[Tensor], Tensor]:
        """The objective, recorded whenever someone takes its first derivative."""

        def loss_of(x: Tensor) -> Tensor:
            self.check_time()
            loss = objective(x)
            recorded = False

            def on_gradient(gradient: Tensor) -> None:
                nonlocal recorded
                if not recorded:  # what comes after the gradient are Hessian-vector products
                    recorded = True
                    self.record(loss.detach(), [gradient.detach()], x)

            x.register_hook(on_gradient)
            return loss

        return loss_of


class Plateau:
    """Whether the loss has stopped to fall."""

    def __init__(self) -> None:
        self._lowest, self._steps = math.inf, 0

    def reached(self, loss: float) -> bool:
        self._steps += 1
        if loss < self._lowest - PLATEAU_CHANGE * max(1.0, abs(loss)):
            self._lowest, self._steps = loss, 0
        return self._steps >= PLATEAU_STEPS


def stop_first_order(job: Job, recorder: Recorder, plateau: Plateau) -> None:
    """End a loop that has no rule of its own. Raises: Stop."""
    recorder.check_time()
    _, loss, gradient = recorder.rows[-1]
    if not math.isfinite(loss):
        raise Stop("not finite")
    if gradient <= job.gradient:
        raise Stop("gradient")
    if plateau.reached(loss):
        raise Stop("plateau")


@dataclass
class Ended:
    """Where a run ended (unconstrained), how, after how many iterations, and what else there is to say."""

    x: Tensor
    end: str
    iterations: int
    more: dict[str, Any] = field(default_factory=dict)


# the methods ------------------------------------------------------------------------------------------------------


def run_hofit(job: Job, objective: Objective, recorder: Recorder) -> Ended:
    """hofit without files; the recorder is one of its observers."""
    from hofit.config.load import load_source
    from hofit.run.fit import FitOptions, run_fit
    from hofit.run.session import Request

    class Watcher:
        keeps_every = None

        def on_iteration(self, record: Any, snapshot: Any) -> None:
            recorder.record(record.loss, record.gradient_norm)

        def on_pause(self, snapshot: Any) -> None:
            pass

    config = {
        "optimizers": [{"params": "*", "optimizer": job.variant, **job.options}],
        "init": {"strategy": "zero"},
        "fixed": job.fixed,
        "stop": {"max_iterations": MANY, "max_seconds": job.limit, "gradient": job.gradient},
        "threads": job.threads,
    }
    request = Request(load_source(config), job.model, job.arguments)
    result = run_fit(request, FitOptions(watch=lambda session: [Watcher()]))
    more = {
        "seconds_after_last_iteration": recorder.seconds() - recorder.rows[-1][0],
        "remarks": result.remarks,
        "counted": result.evaluations,
        "own_gradient_norm": result.gradient_norm,
    }
    x = torch.cat([result.params[name].flatten() for name in objective.shapes])
    return Ended(x, result.status, result.iterations, more)


def run_torchmin(job: Job, objective: Objective, recorder: Recorder) -> Ended:
    """pytorch-minimize, its own tolerances out of the way: the gradient ends it, or that the loss falls no more."""
    import torchmin

    steps = 0

    def stop_where_done(x: Tensor) -> None:
        nonlocal steps
        steps += 1
        if recorder.rows[-1][2] <= job.gradient:
            raise Stop("gradient")
        if len(recorder.rows) - recorder.lowest_row >= STALLED_STEPS:
            raise Stop("stalled")

    options: dict[str, Any] = {"gtol": 0.0, "max_iter": MANY}
    if job.variant == "l-bfgs":
        options |= {"xtol": -1.0, "gtd_tol": 0.0}
    try:
        result = torchmin.minimize(
            recorder.watched(objective),
            objective.start.clone(),
            job.variant,
            options=options | job.options,
            callback=stop_where_done,
        )
    except Stop as stop:
        return Ended(recorder.last_point if str(stop) == "gradient" else recorder.lowest_point, str(stop), steps)
    return Ended(result.x, TORCHMIN_ENDS.get(result.message, result.message), steps)


TORCHMIN_ENDS = {
    "A bad approximation caused failure to predict improvement.": "no gain predicted",
    "A non-descent direction was encountered.": "no descent",
}


def run_scipy(job: Job, objective: Objective, recorder: Recorder) -> Ended:
    """scipy's L-BFGS-B: with tolerances below what is asked, or with its own."""
    from scipy.optimize import minimize

    def loss_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        recorder.check_time()
        point = torch.from_numpy(x)
        loss, gradient = objective.loss_and_gradient(point)
        recorder.record(loss, [gradient], point)
        return loss.item(), gradient.numpy()

    steps = 0

    def count(x: np.ndarray) -> None:
        nonlocal steps
        steps += 1

    options = {} if job.variant.endswith("-default") else {"maxiter": MANY, "maxfun": MANY, "ftol": 1e-14, "gtol": 1e-8}
    try:
        result = minimize(
            loss_and_gradient,
            objective.start.numpy().copy(),
            jac=True,
            method="L-BFGS-B",
            options=options | job.options,
            callback=count,
        )
    except Stop as stop:
        return Ended(recorder.lowest_point, str(stop), steps)
    return Ended(torch.from_numpy(result.x), SCIPY_ENDS.get(result.message, result.message), steps)


SCIPY_ENDS = {
    "CONVERGENCE: NORM OF PROJECTED GRADIENT <= PGTOL": "pgtol",
    "CONVERGENCE: RELATIVE REDUCTION OF F <= FACTR*EPSMCH": "ftol",
}


def run_svi(job: Job, objective: Objective, recorder: Recorder) -> Ended:
    """Pyro's SVI with AutoDelta and Adam at one rate, as a user of Pyro runs it."""
    pyro.clear_param_store()
    start = objective.constrained(objective.leaves(objective.start))
    guide = AutoDelta(objective.model, init_loc_fn=init_to_value(values=start)) if objective.latents else no_latents
    svi = SVI(objective.model, guide, pyro.optim.Adam({"lr": job.adam_rate}), Trace_ELBO())
    loss_and_grads = svi.loss_and_grads
    leaves: list[Tensor] = []
    plateau = Plateau()

    def recorded(*arguments: Any, **named: Any) -> Any:
        loss = loss_and_grads(*arguments, **named)
        if not leaves:
            store = dict(pyro.get_param_store().named_parameters())
            leaves.extend(store[name if name in store else f"AutoDelta.{name}"] for name in objective.shapes)
        recorder.record(loss, [leaf.grad for leaf in leaves if leaf.grad is not None])
        stop_first_order(job, recorder, plateau)
        return loss

    svi.loss_and_grads = recorded
    steps = 0
    try:
        while True:
            svi.step(**job.arguments)
            steps += 1
    except Stop as stop:
        return Ended(torch.cat([leaf.detach().flatten() for leaf in leaves]), str(stop), steps)


def no_latents(**arguments: Any) -> None:
    """The guide of a model that has parameters only."""


def run_multi(job: Job, objective: Objective, recorder: Recorder) -> Ended:
    """Pyro's own Newton on what it can take, rows of at most three numbers, and Adam on the rest."""
    small = [name for name, shape in objective.shapes.items() if shape and shape[-1] <= 3]
    rest = [name for name in objective.shapes if name not in small]
    if not small:
        shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in objective.shapes.items())
        raise Skipped(f"Pyro's Newton needs a last dimension of 1 to 3: {shapes}")
    parts: list[tuple[list[str], Any]] = [(small, Newton())]
    if rest:
        parts.append((rest, pyro.optim.Adam({"lr": job.adam_rate})))
    optimizer = MixedMultiOptimizer(parts)
    leaves = {
        name: leaf.clone().requires_grad_(True) for name, leaf in objective.leaves(objective.start.clone()).items()
    }
    plateau, steps = Plateau(), 0
    try:
        while True:
            loss = objective.loss_at(leaves)
            before = time.perf_counter()
            gradient = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
            recorder.leave_out(time.perf_counter() - before)
            recorder.record(loss.detach(), gradient)
            stop_first_order(job, recorder, plateau)
            optimizer.step(loss, leaves)
            steps += 1
    except Stop as stop:
        x = torch.cat([leaf.detach().flatten() for leaf in leaves.values()])
        return Ended(x, str(stop), steps, {"newton_on": small, "adam_on": rest})


METHODS: dict[str, tuple[Callable[[Job, Objective, Recorder], Ended], str]] = {
    # name: the run, and the package it needs
    "hofit": (run_hofit, "hofit"),
    "torchmin": (run_torchmin, "torchmin"),
    "scipy": (run_scipy, "scipy"),
    "svi-adam": (run_svi, "pyro"),
    "pyro-multi": (run_multi, "pyro"),
}


# the job ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What the parent asks for: `kind[:variant][,option=value…]` is the method; ``fixed`` holds latents."""

    kind: str
    variant: str
    options: dict[str, Any]
    model: Callable[..., None]
    arguments: dict[str, Any]
    fixed: dict[str, float]
    adam_rate: float
    gradient: float
    limit: float
    threads: int


def read_job(asked: dict[str, Any]) -> Job:
    problem = asked["problem"]
    name, *assignments = asked["method"].split(",")
    kind, _, variant = name.partition(":")
    options = {key: _value(value) for key, _, value in (assignment.partition("=") for assignment in assignments)}
    rate = asked["adam_rate"] if kind == "hofit" else options.pop("lr", asked["adam_rate"])
    module = load(problem["family"])
    arguments = read_columns(problem["table"]) if problem["table"] else module.load_data(**problem["options"])
    return Job(
        kind=kind,
        variant=variant,
        options=options,
        model=getattr(module, problem["function"]),
        arguments=arguments,
        fixed=problem["fixed"],
        adam_rate=rate,
        gradient=asked["gradient"],
        limit=asked["limit"],
        threads=asked["threads"],
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def load(family: str) -> Any:
    spec = importlib.util.spec_from_file_location(family, ROOT / "models" / f"{family}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_columns(path: str) -> dict[str, Tensor]:
    """The columns `y` and `sigma` of a CSV."""
    with (ROOT / path).open() as file:
        rows = list(csv.DictReader(file))
    return {name: torch.tensor([float(row[name]) for row in rows]) for name in ("y", "sigma")}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(asked: dict[str, Any]) -> dict[str, Any]:
    job = read_job(asked)
    run, module = METHODS[job.kind]
    try:
        importlib.import_module(module)
    except ImportError:
        return {"skipped": f"{module} is not installed"}
    rehearse(job, run)
    objective = Objective(job.model, job.arguments, job.fixed)
    start_loss, _ = objective.loss_and_gradient(objective.start)
    start_mb = peak_mb()
    recorder, cpu_before = Recorder(job.limit), time.process_time()
    if job.kind != "hofit":  # which traces the model to find its parameters too
        objective = Objective(job.model, job.arguments, job.fixed)
    try:
        ended = run(job, objective, recorder)
    except Skipped as skipped:
        return {"skipped": str(skipped)}
    total, cpu, peak = recorder.seconds(), time.process_time() - cpu_before, peak_mb()
    loss, gradient = objective.loss_and_gradient(ended.x)
    return {
        "trajectory": recorder.rows,
        "total": total,
        "cpu": cpu,
        "end": ended.end,
        "iterations": ended.iterations,
        "loss": loss.item(),
        "gradient_norm": gradient.abs().max().item(),
        "start_loss": start_loss.item(),
        "unknowns": len(objective.start),
        "peak_mb": peak,
        "start_mb": start_mb,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "pyro-ppl", "scipy", "numpy")},
        },
        **ended.more,
    }


def rehearse(job: Job, run: Callable[[Job, Objective, Recorder], Ended]) -> None:
    """Fit six numbers by the same method: what libraries import and build at first use is not what is measured."""

    def six_numbers(y: Tensor) -> None:
        shared = pyro.sample("shared", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", 2, dim=-2):
            own = pyro.sample("own", dist.Normal(torch.zeros(2), 1.0).to_event(1))  # (2, 1, 2)
            line = (shared + own).exp()
            pyro.sample("y", dist.Normal(line[..., 0] + line[..., 1], 1.0), obs=y)

    small = replace(job, model=six_numbers, arguments={"y": torch.ones(2, 1)}, fixed={}, limit=60.0)
    run(small, Objective(small.model, small.arguments, {}), Recorder(small.limit))


def export(asked: dict[str, Any]) -> None:
    """The data as numpy arrays, for another interpreter."""
    arguments = read_job(asked).arguments
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in arguments.items()}
    np.savez(asked["data"], **arrays)


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(asked["threads"])
    with pyro.validation_enabled(False):
        if asked["method"] == "export":
            export(asked)
        else:
            Path(asked["out"]).write_text(json.dumps(measure(asked)))


if __name__ == "__main__":
    main()
