"""Does a status depend on the model and its data alone? Fits of small models from many starts, by every optimizer.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.invariance [--quick] [--models NAME …] [--starts 20]

A status may not depend on the start, the seed, the optimizer, the units of the loss or of a parameter, or on the side
of zero that an eigenvalue's rounding falls on. Each model of `invariance_models.py` is fitted from random starts
(`init.strategy: uniform`) by five optimizers; from one start also with its loss multiplied by 1e-12 to 1e12, and with
all its parameters in units a million times as large and as small.

A *mode* is a loss: fits that say they have converged (on a boundary or with a flat direction, too) are of one mode
where their losses lie within 1e-6 of each other. A fit that ends otherwise counts against the mode below it, but for
`no_progress` and `max_iterations` of first-order methods, which may be slow. The bars:

- one status a mode, and `unbounded` where the loss has no floor, and only there;
- no *false* convergence: none at a loss that is more than 1e-6 above the model's known infimum, or from which a descent
  by other means (SciPy's BFGS) goes on; none whose parameters are more than 1e-6 standard errors from the minimum, in
  the metric of the model's own Hessian, taken here without hofit, where the loss is not scaled;
- no exception.

Prints a table, what missed a bar, and leaves with 1 if anything did.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import scipy.optimize
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to, constraints

import hofit
from tests.benchmarks.invariance_models import BOUNDARY, CASES, UNBOUNDED, Case, Model, Parameters

SAME_LOSS = 1e-6
"""Losses of one mode, in the unit of the loss before it is scaled, lie as near as this to each other."""

OFF = 1e-6
"""Standard errors that an estimate of a converged fit may be off."""

ITERATIONS = 500
STARTS, QUICK_STARTS = 20, 3
LOSS_SCALES = (1e-12, 1e-6, 1e6, 1e12)
UNITS = (1e-6, 1e6)

FIRST_ORDER = ("lbfgs", "adam")
SLOW = ("no_progress", "max_iterations")
SETTLED = ("converged", "converged_on_boundary", "flat_direction")

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "trust_region": {"optimizer": "trust_region"},
    "newton_cg": {"optimizer": "newton_cg"},
    "lbfgs": {"optimizer": "lbfgs"},
    "newton": {"optimizer": "newton", "adaptive": True},
    "gauss_newton": {"optimizer": "gauss_newton"},
    "adam": {"optimizer": "adam", "lr": 0.2, "schedule": {"name": "exponential", "gamma": 0.985}},
}

WITHOUT_UNIT = (constraints.simplex, constraints.corr_cholesky)

BARS = ("status", "false", "exception")
"""What a fit can miss: one status a mode, and the right one; no false convergence; no exception."""

MODES_SHOWN = 4

FLAT_CURVATURE = 1e-10
"""Of a Hessian scaled to unit diagonal, what counts as no curvature here."""

BENT = 10.0
"""… beside this multiple of a single number's Newton step, relative to it or to its standard error."""

FAR = 10.0
"""A number as large as this on the unconstrained scale is brought back to it before a descent, lest it stand still."""


# --- One fit --------------------------------------------------------------------------------------


@dataclass
class Fit:
    """One fit, its loss in the unit of the model's own."""

    optimizer: str
    seed: int
    variant: str
    scale: float = 1.0
    unit: float = 1.0
    status: str = "exception"
    loss: float = math.nan
    gradient: float = math.nan
    iterations: int = 0
    remarks: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Checks of the verdict."""
    params: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    std_errors: dict[str, Tensor] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Which bars it misses."""

    @property
    def settled(self) -> bool:
        return self.status in SETTLED

    @property
    def slow(self) -> bool:
        """Whether it is no more than a first-order method that has not arrived."""
        return self.optimizer in FIRST_ORDER and self.status in SLOW

    def __str__(self) -> str:
        where = f"{self.optimizer}, seed {self.seed}{', ' + self.variant if self.variant else ''}"
        said = f" [{'; '.join([*self.remarks, *self.failed])}]" if self.remarks or self.failed else ""
        ended = f"{self.status} at {self.loss:.12g}, gradient {self.gradient:.3g}, {self.iterations} iterations"
        return f"{where}: {ended}: {', '.join(self.wrong)}{said}"


def configuration(optimizer: str, seed: int, iterations: int) -> dict[str, Any]:
    return {
        "optimizers": [{"params": "*", **OPTIMIZERS[optimizer]}],
        "init": {"strategy": "uniform"},
        "stop": {"max_iterations": iterations},
        "seed": seed,
        "threads": 1,
    }


def fitted(model: Callable[[], None], fit: Fit, config: dict[str, Any]) -> Fit:
    """The same, with how it ended."""
    try:
        result = hofit.fit(model, config)
    except Exception:
        fit.remarks = [traceback.format_exc(limit=-3)]
        return fit
    fit.status, fit.loss, fit.gradient = result.status, result.loss / fit.scale, result.gradient_norm
    fit.iterations, fit.remarks = result.iterations, result.remarks
    fit.failed = [f"{check.name}: {check.message}" for check in result.checks if check.ok is False]
    fit.params, fit.values, fit.std_errors = result.params, result.values, result.std_errors
    return fit


def fits_of(case: Case, model: Model, starts: int) -> Iterator[Fit]:
    """All fits of a model; those with `marginal` are of the same loss."""
    for optimizer in ("trust_region", "newton_cg", "lbfgs", case.newton, "adam"):
        for seed in range(starts):
            config = configuration(optimizer, seed, ITERATIONS)
            yield fitted(bound(model), Fit(optimizer, seed, ""), config)
        for scale in LOSS_SCALES:
            config = configuration(optimizer, 0, ITERATIONS)
            yield fitted(poutine.scale(bound(model), scale), Fit(optimizer, 0, f"loss × {scale:g}", scale), config)
        start = hofit.fit(bound(model), configuration(optimizer, 0, 0)).values
        has_unit = {name: support not in WITHOUT_UNIT for name, support in supports(bound(model), start).items()}
        for unit in UNITS if optimizer != "adam" else ():  # its step is its lr, in the parameter's own unit
            values = {name: (value * (unit if has_unit[name] else 1.0)).tolist() for name, value in start.items()}
            config = configuration(optimizer, 0, ITERATIONS) | {"init": {"values": values}}
            yield fitted(bound(model, unit), Fit(optimizer, 0, f"units of {unit:g}", unit=unit), config)
        if case.marginal is not None:
            integrated = case.marginal()
            for seed in range(starts):
                config = configuration(optimizer, seed, ITERATIONS)
                config["objective"] = {"type": "marginal", "integrate": {"b": "laplace"}}
                yield fitted(bound(integrated), Fit(optimizer, seed, "laplace"), config)


def bound(model: Model, unit: float = 1.0) -> Callable[[], None]:
    """The model as hofit takes it, without arguments."""

    def in_unit() -> None:
        model(Parameters(unit))

    return in_unit


def supports(model: Callable[[], None], values: dict[str, Tensor]) -> dict[str, constraints.Constraint]:
    """The support of every latent, whose values must be given: a flat density cannot be drawn from."""
    nodes = poutine.trace(poutine.condition(model, data=values)).get_trace().nodes
    return {name: nodes[name]["fn"].support for name in values}


# --- What is known without hofit ------------------------------------------------------------------


class Reference:
    """The loss of a model at unconstrained numbers (d,), by Pyro and torch alone."""

    def __init__(self, model: Model, fit: Fit) -> None:
        self._model = bound(model, fit.unit)
        self._shapes = {name: value.shape for name, value in fit.params.items()}
        self._transforms = {name: biject_to(support) for name, support in supports(self._model, fit.values).items()}
        self.here = torch.cat([value.detach().reshape(-1) for value in fit.params.values()])

    def loss(self, where: Tensor) -> Tensor:
        parts = where.split([shape.numel() for shape in self._shapes.values()])
        values = {
            name: self._transforms[name](part.reshape(shape))
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        total: Tensor = -poutine.trace(poutine.condition(self._model, data=values)).get_trace().log_prob_sum()
        return total

    def descended(self, start: Tensor) -> float:
        """The lowest loss that a descent from a place finds."""
        lowest = math.inf

        def value_and_gradient(numbers: Any) -> tuple[float, Any]:
            nonlocal lowest
            where = torch.as_tensor(numbers).requires_grad_(True)
            try:
                loss = self.loss(where)
            except ValueError:
                return math.inf, torch.zeros_like(where).numpy()
            lowest = min(lowest, float(loss)) if math.isfinite(float(loss)) else lowest
            return float(loss), torch.autograd.grad(loss, where)[0].numpy()

        scipy.optimize.minimize(value_and_gradient, start.numpy(), jac=True, method="BFGS", options={"gtol": 1e-9})
        return lowest

    def distance(self, chosen: Tensor) -> float:
        """How far the minimum of the quadratic model is, in standard errors, along the numbers `chosen` (d,).

        √(gᵀ H⁺ g), which no number's own distance in its own standard errors exceeds; inf where H has a negative
        curvature. Directions of no curvature, or of what the gradient may make of none in a bent valley, are left out.
        """
        if not bool(chosen.any()):
            return 0.0
        where = self.here.clone().requires_grad_(True)
        gradient = torch.autograd.grad(self.loss(where), where)[0][chosen]
        hessian = torch.autograd.functional.hessian(self.loss, self.here)[chosen][:, chosen]
        diagonal = hessian.diagonal().abs()
        unit = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
        eigenvalues, basis = torch.linalg.eigh(unit[:, None] * hessian * unit)
        size = torch.maximum(self.here[chosen].abs(), unit)
        none = FLAT_CURVATURE + BENT * float((unit.square() * gradient / size).abs().max())
        if float(eigenvalues[0]) < -none:
            return math.inf
        seen = eigenvalues > none
        return float(((basis.T @ (unit * gradient))[seen].square() / eigenvalues[seen]).sum().sqrt())


def check_alone(case: Case, model: Model, fit: Fit) -> None:
    """Write down what of a converged fit is false, whatever the others found."""
    if not fit.settled:
        return
    if case.expected == UNBOUNDED:
        fit.wrong.append("false: the loss has no floor")
        return
    above = 0.0 if case.infimum is None else fit.loss - case.infimum()
    if abs(above) > SAME_LOSS + case.rounding:
        fit.wrong.append(f"false: {above:.3g} above the infimum")
    if fit.scale != 1.0 or fit.variant == "laplace":
        return
    reference = Reference(model, fit)
    loss = float(reference.loss(reference.here))
    if abs(loss - fit.loss) > 1e-9 * max(1.0, abs(loss)):
        fit.wrong.append(f"false: the loss at its parameters is {loss:.12g}")
    chosen = torch.ones_like(reference.here, dtype=torch.bool)
    if fit.status == BOUNDARY:  # what runs away has no standard error
        chosen = torch.cat(
            [
                fit.std_errors[name].isfinite().reshape(-1)
                if name in fit.std_errors and fit.std_errors[name].shape == value.shape
                else torch.zeros(value.numel(), dtype=torch.bool)
                for name, value in fit.params.items()
            ]
        )
    distance = reference.distance(chosen)
    if distance > OFF:
        fit.wrong.append(f"false: {distance:.3g} standard errors from the minimum")


# --- One model ------------------------------------------------------------------------------------


@dataclass
class Mode:
    """Fits that have converged to one loss, and those that ended otherwise above it."""

    fits: list[Fit]

    @property
    def loss(self) -> float:
        return min(fit.loss for fit in self.fits if fit.settled)

    @property
    def statuses(self) -> Counter[str]:
        return Counter(fit.status for fit in self.fits)

    @property
    def status(self) -> str:
        """What most of those say that have converged."""
        return Counter(fit.status for fit in self.fits if fit.settled).most_common(1)[0][0]

    def __str__(self) -> str:
        counts = ", ".join(f"{status} {count}" for status, count in self.statuses.most_common())
        return f"{self.loss:.7g}: {counts}"


@dataclass
class Study:
    """All fits of a model, held against each other."""

    case: Case
    fits: list[Fit]
    seconds: float

    @property
    def same(self) -> float:
        """How far the losses of one mode may be from each other."""
        return SAME_LOSS + self.case.rounding

    def __post_init__(self) -> None:
        self.modes: list[Mode] = []
        for fit in sorted((fit for fit in self.fits if fit.settled), key=lambda fit: fit.loss):
            if self.modes and fit.loss - self.modes[-1].loss <= self.same:
                self.modes[-1].fits.append(fit)
            else:
                self.modes.append(Mode([fit]))
        for fit in self.fits:
            if fit.settled or fit.slow:
                continue
            if fit.status == UNBOUNDED:
                fit.wrong += [] if self.case.expected == UNBOUNDED else ["status: the loss has a floor"]
                continue
            below = [mode for mode in self.modes if mode.loss <= fit.loss + self.same]
            (below[-1].fits if below else []).append(fit)
            fit.wrong.append("exception" if fit.status == "exception" else "status: not settled")
        for number, mode in enumerate(self.modes):
            if self.case.expected == UNBOUNDED:
                continue
            for fit in mode.fits:
                if fit.settled and fit.status != mode.status:
                    fit.wrong.append(f"status: most at this loss end {mode.status}")
                if number == 0 and fit.settled and fit.status == mode.status != self.case.expected:
                    fit.wrong.append(f"status: it is {self.case.expected} in truth")

    def check_descents(self, model: Model) -> None:
        """Whether a descent goes on from where fits have converged: the highest of each status in each mode first."""
        if self.case.expected == UNBOUNDED:
            return
        for mode in self.modes:
            for status in SETTLED:
                ended = [fit for fit in mode.fits if fit.status == status and fit.unit == 1.0]
                for fit in sorted((fit for fit in ended if fit.variant != "laplace"), key=lambda fit: -fit.loss):
                    reference = Reference(model, fit)
                    starts = (reference.here, reference.here.clamp(-FAR, FAR))
                    lowest = min(reference.descended(start) for start in starts)
                    if lowest >= fit.loss - self.same:
                        break
                    fit.wrong.append(f"false: a descent from there reaches {lowest:.12g}")

    def missed(self, bar: str) -> int:
        return sum(any(wrong.startswith(bar) for wrong in fit.wrong) for fit in self.fits)

    def row(self) -> str:
        modes = "; ".join(map(str, self.modes[:MODES_SHOWN]))
        modes += f"; {len(self.modes) - MODES_SHOWN} more" if len(self.modes) > MODES_SHOWN else ""
        others = Counter(fit.status for fit in self.fits if fit.slow or fit.status == UNBOUNDED)
        rest = ", ".join(f"{status} {count}" for status, count in others.most_common())
        counts = " | ".join(str(self.missed(bar)) for bar in BARS)
        name = self.case.name
        return f"| {name} | {self.case.kind} | {len(self.fits)} | {modes} | {rest} | {counts} | {self.seconds:.0f} |"


def studied(case: Case, starts: int) -> Study:
    began = time.perf_counter()
    model = case.build()
    fits = []
    for fit in fits_of(case, model, starts):
        check_alone(case, model, fit)
        fits.append(fit)
    study = Study(case, fits, 0.0)
    study.check_descents(model)
    study.seconds = time.perf_counter() - began
    return study


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STARTS} starts instead of {STARTS}")
    parser.add_argument("--starts", type=int, default=None)
    parser.add_argument("--models", nargs="+", choices=[case.name for case in CASES], metavar="NAME")
    arguments = parser.parse_args()
    starts = arguments.starts or (QUICK_STARTS if arguments.quick else STARTS)

    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(
        f"| model | kind | fits | modes: how fits ended | apart | {' | '.join(BARS)} | s |\n|{'---|' * (6 + len(BARS))}"
    )
    studies = []
    for case in CASES:
        if arguments.models and case.name not in arguments.models:
            continue
        studies.append(studied(case, starts))
        print(studies[-1].row(), flush=True)
    for study in studies:
        wrong = [fit for fit in study.fits if fit.wrong]
        print(f"\n{study.case.name}" if wrong else "", *(f"  {fit}" for fit in wrong), sep="\n", end="")
    missed = {bar: sum(study.missed(bar) for study in studies) for bar in BARS}
    said = ", ".join(f"{bar} {count}" for bar, count in missed.items())
    everything = [fit for study in studies for fit in study.fits]
    by_variant = Counter(fit.variant or "as it is" for fit in everything if fit.wrong)
    print("\n\nfits that miss a bar:", ", ".join(f"{variant} {count}" for variant, count in by_variant.most_common()))
    seconds = sum(study.seconds for study in studies)
    print(f"{len(studies)} models, {len(everything)} fits, {seconds:.0f} s; fits that miss: {said}")
    return 1 if any(missed.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
