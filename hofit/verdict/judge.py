"""What may be said of a point: is it a minimum? Every claim rests on derivatives computed anew at the point itself.

Where the structure makes the Hessian affordable, `converged` also needs positive curvature and a confirming step: a
full Newton step divides the decrement by at least 100, or is itself ≤ 1e-8 · max(1, |u|) in every coordinate. A plateau
or an escape to infinity has a small gradient and fails it. Where only products with the Hessian can be had, a few of
them look for a way down: they can refute a minimum, not prove one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..curvature.probed import product as products
from ..curvature.structure import Curvature
from ..errors import ModelError
from ..linear.dense import flatten, unflatten
from ..linear.matrix_free import MatrixFree
from ..linear.operator import Operator, inertia
from ..objective.base import Objective
from ..point import Params, Point, max_norm
from ..status import Status

DENSE_LIMIT = 500
"""Unknowns up to which the whole spectrum is computed; beyond, the lowest eigenvalues, by the structure."""

NEAR = 100.0
"""Where the curvature is not known, a fit is nearly there within this factor of the gradient's tolerance."""

HOPELESS = 1e4
"""Beyond this factor of the gradient's tolerance no curvature is computed: it could not make a minimum of the point."""

PROBES = 8
"""Hessian-vector products, from a random start and from the gradient each, that look at a model without a Hessian."""

CONFIRM_FACTOR = 100.0
CONFIRM_STEP = 1e-8

LINEAR_FALL = 0.3
"""A linear fall loses half as much on an eighth of the way as on the quarter before; an exponential one, a tenth."""

BEFORE_CLAMPS = 30.0
"""Unconstrained distance before which no distribution clamps its arguments: eps of double precision is at 36."""

FAR = 1e-6
"""A minimum is not further below than this part of max(1, |loss|), by the quadratic model."""

QUADRATIC = 0.1
"""How far the loss after the confirming step may lie from the quadratic model's, relative to the decrement. Where the
decrement falls a hundredfold the error is below 0.07; on the way to infinity along 1/x or e⁻ˣ, and at a minimum of
fourth order, it is 0.2 to 0.33."""

LOSS_ROUNDING = 64.0
"""Units of eps · |loss| within which a difference of two losses is rounding."""

NOISE = 64.0
"""Eigenvalues within NOISE · min(d, DENSE_LIMIT) · eps of the largest, after scaling, count as zero: rounding."""

EDGE = 1e-4
"""A value is near the edge of its support when a unit of the unconstrained scale moves it by less than this, relative
to max(1, |value|)."""

UNBOUNDED_EDGE = 1e-8
"""As EDGE, for a value that is still falling towards the edge with a gradient above the tolerance."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. ``ok`` None: it could not be checked, and ``message`` says why."""

    name: str
    ok: bool | None
    value: float | None
    message: str

    def to_plain(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "value": self.value, "message": self.message}


@dataclass
class Verdict:
    """``status`` is set when the point settles how the fit ends; None when the fit should go on.

    ``nearly`` says that a minimum is there, within the decrement's tolerance, and only the gradient is still too large.
    """

    status: Status | None
    gradient_norm: float
    loss: float
    nearly: bool = False
    checks: list[Check] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    point: Point | None = None
    """What was judged."""
    hessian: Operator | None = None
    """The Hessian over all parameters there, where it was looked at."""


def judge(
    objective: Objective,
    params: Params,
    curvature: Curvature,
    gradient_tolerance: float,
    decrement_tolerance: float | None,
    stalled: bool = False,
    rounding: bool = False,
    final: bool = False,
) -> Verdict:
    """Look at ``params`` on the full plates, with a trace and a gradient of its own.

    ``curvature`` is the verdict's own, over all parameters, and keeps what it learned from one verdict to the next.

    ``stalled`` says that the optimizer lowers the loss no further to speak of: only then does a boundary decide, and,
    where it is ``rounding`` that holds it up, the decrement; before, the fit can still go on. ``final`` says that the
    fit ends here whatever is found.
    """
    point = objective.at_full(params)
    if point.failure is not None or not isfinite(point.value):
        explained = point.failure or objective.explain_non_finite(params)
        return Verdict(
            Status.NON_FINITE, float("nan"), point.value, checks=[Check("loss", False, point.value, explained)]
        )
    gradient = point.gradient()
    norm = max_norm(gradient)
    small_gradient = norm <= gradient_tolerance
    verdict = Verdict(None, norm, point.value, point=point)
    if not isfinite(norm):
        bad = [name for name, g in gradient.items() if not bool(torch.isfinite(g).all())]
        verdict.checks.append(Check("gradient", False, norm, f"the gradient is not finite in {', '.join(bad)}"))
        verdict.status = Status.NON_FINITE
        return verdict
    verdict.checks.append(
        Check("gradient", small_gradient, norm, f"max-norm {norm:.3g}, tolerance {gradient_tolerance:.3g}")
    )
    at_edge = _edge_names(objective, params, gradient)
    unused = [
        name
        for name, g in gradient.items()
        if g.numel() and name not in at_edge and not bool(g.any()) and not _matters(objective, point, name)
    ]
    for name in unused:
        verdict.checks.append(Check("used", False, 0.0, f"the loss does not depend on {name!r}"))
        verdict.remarks.append(f"unused: the loss does not depend on {name!r}")
    if not small_gradient and not stalled and norm > HOPELESS * gradient_tolerance:
        verdict.checks.append(Check("curvature", None, None, "not checked: the gradient is far from small"))
        return verdict
    try:
        hessian = curvature.at(point, list(point.params))
    except ModelError as error:
        verdict.checks.append(Check("curvature", None, None, f"not checked: {error}"))
        if small_gradient and not at_edge:
            verdict.status = Status.FLAT_DIRECTION if unused else Status.CONVERGED
            verdict.remarks.append(f"curvature was not checked ({error}): the verdict rests on the gradient alone")
        return verdict
    verdict.hessian = hessian
    if isinstance(hessian, MatrixFree):
        _judge_by_products(verdict, objective, point, gradient_tolerance, stalled, rounding, final)
        if verdict.status is Status.CONVERGED and unused:
            verdict.status = Status.FLAT_DIRECTION
        return verdict
    tolerance = decrement_tolerance if decrement_tolerance is not None else 1e-12 * max(1.0, abs(point.value))
    _judge_curvature(
        verdict, objective, point, hessian, curvature, at_edge, tolerance, small_gradient, stalled, rounding, final
    )
    return verdict


def unbounded_parameters(objective: Objective, params: Params, gradient_tolerance: float) -> list[str]:
    """Names whose value has come to the edge of its support while the loss still falls towards it."""
    point = objective.at_full(params)
    if point.failure is not None or not isfinite(point.value):
        return []
    gradient = point.gradient()
    return [
        name
        for name, sensitivity in _sensitivities(objective, params).items()
        if bool(
            (
                (sensitivity < UNBOUNDED_EDGE)
                & (gradient[name] * torch.sign(params[name]) < -gradient_tolerance)  # falls outwards
            ).any()
        )
    ]


def _judge_curvature(
    verdict: Verdict,
    objective: Objective,
    point: Point,
    hessian: Operator,
    curvature: Curvature,
    at_edge: list[str],
    decrement_tolerance: float,
    small_gradient: bool,
    stalled: bool,
    rounding: bool,
    final: bool,
) -> None:
    params, names = point.params, list(point.params)
    gradient = flatten(point.gradient(), names)
    if not isfinite(hessian.largest()):
        verdict.checks.append(Check("curvature", None, None, "not checked: the Hessian is not finite"))
        return
    spectrum = Signs(hessian)
    label = labeller(params, names)
    saddle, flat = spectrum.negative.shape[1] > 0, spectrum.zero.shape[1] > 0
    verdict.checks.append(Check("curvature", not saddle and not flat, spectrum.lowest, spectrum.message))
    step = spectrum.newton_step(gradient)
    decrement = float(-0.5 * gradient @ step)
    decrement_ok = 0 <= decrement <= decrement_tolerance
    verdict.checks.append(
        Check("decrement", decrement_ok, decrement, f"a Newton step lowers the loss by {decrement:.3g}")
    )
    confirmed, message = _confirm(objective, point, hessian, curvature, names, step, decrement)
    verdict.checks.append(Check("confirming step", confirmed, float(step.abs().max()), message))
    if not small_gradient and not (stalled and decrement_ok):
        return
    if decrement > FAR * max(1.0, abs(point.value)):
        return  # however small the gradient: the parameter's unit is
    if saddle:
        if stalled or final:  # before that, the optimizer may still leave it
            verdict.status = Status.SADDLE
            directions = label(spectrum.negative)
            verdict.remarks.append(f"saddle: the curvature is negative along {directions}")
        return
    if at_edge and not confirmed:
        if stalled and decrement <= max(decrement_tolerance, 1e-10 * max(1.0, abs(point.value))):
            _settle_on_boundary(verdict, objective, point, at_edge)
        return
    if not confirmed:
        return
    if not small_gradient and not rounding:
        verdict.nearly = True
        return
    if flat:
        directions = label(spectrum.zero)
        if {direction.partition("[")[0] for direction in directions.split(", ")} <= {*at_edge, "…"}:
            # Saturated: the transform itself no longer moves with the parameter.
            _settle_on_boundary(verdict, objective, point, at_edge)
            return
        slope = float((spectrum.zero / spectrum.zero.abs().amax(dim=0)).T.matmul(gradient).abs().max())
        if not small_gradient and slope > decrement_tolerance**0.5:
            verdict.checks.append(Check("flat", False, slope, f"the loss slopes by {slope:.3g} along {directions}"))
            return
        way_down = _way_down(objective, point, names, spectrum.zero)
        if way_down is not None:
            verdict.checks.append(Check("flat", False, None, f"{way_down} along {directions}"))
            if stalled or final:
                verdict.status = Status.NO_PROGRESS
            return
        verdict.status = Status.FLAT_DIRECTION
        verdict.remarks.append(f"flat direction (singular): the loss has no curvature along {directions}")
        return
    faint = spectrum.faint(flatten(params, names), LOSS_ROUNDING * torch.finfo(gradient.dtype).eps, point.value)
    if faint.shape[1]:
        way_down = _way_down(objective, point, names, faint)
        if way_down is not None:
            verdict.checks.append(Check("flat", False, None, f"{way_down} along {label(faint)}"))
            if stalled or final:
                verdict.status = Status.NO_PROGRESS
            return
    verdict.status = Status.CONVERGED
    if not small_gradient:
        verdict.remarks.append(
            f"precision: rounding limits the gradient to {verdict.gradient_norm:.3g}; "
            f"a Newton step could lower the loss by {decrement:.3g} only"
        )


class Signs:
    """The signs of the Hessian scaled to unit diagonal, so that units of the parameters do not matter.

    S H S with S = diag(|h_ii|^-1/2); a zero of one is a zero of the other, and signs agree (Sylvester).
    Shapes: negative, zero (d, k), directions in the parameters' own units.
    """

    def __init__(self, hessian: Operator) -> None:
        diagonal = hessian.diagonal().abs()
        self.scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()
        self._scaled = hessian.scaled(self.scale)
        eps = torch.finfo(diagonal.dtype).eps
        self._noise = NOISE * min(hessian.size, DENSE_LIMIT) * eps
        self._spectrum: tuple[Tensor, Tensor] | None = None
        if hessian.size <= DENSE_LIMIT:
            dense = self._scaled.matvec(torch.eye(hessian.size, dtype=diagonal.dtype, device=diagonal.device))
            eigenvalues, basis = torch.linalg.eigh((dense + dense.T) / 2)
            self._noise *= max(float(eigenvalues.abs().max()), 1e-300)
            self._spectrum = eigenvalues, basis
            self.lowest = float(eigenvalues[0])
            negative, self._null = basis[:, eigenvalues < -self._noise], basis[:, eigenvalues.abs() <= self._noise]
            self.message = f"lowest eigenvalue {self.lowest:.3g} of the scaled Hessian"
        else:
            self._noise *= max(self._scaled.norm_bound(), 1e-300)
            signs = inertia(self._scaled, self._noise)
            self.lowest, negative, self._null = signs.lowest, signs.negative, signs.zero
            above = "above" if signs.positive_definite else "at"
            self.message = f"lowest eigenvalue {above} {self.lowest:.3g} of the scaled Hessian ({hessian.structure})"
        self.negative, self.zero = self.scale[:, None] * negative, self.scale[:, None] * self._null

    def faint(self, here: Tensor, rounding: float, loss: float) -> Tensor:
        """Directions whose curvature could not be seen in the loss at the parameters' own distance; shape (d, k)."""
        if self._spectrum is None:
            nothing: Tensor = self.zero[:, :0]
            return nothing
        eigenvalues, basis = self._spectrum
        directions = self.scale[:, None] * basis
        length = (directions.abs() / torch.clamp(here.abs(), min=1.0)[:, None]).amax(dim=0)
        unseen = 0.5 * eigenvalues / length.square() <= rounding * max(1.0, abs(loss))
        chosen: Tensor = directions[:, unseen]
        return chosen

    def newton_step(self, gradient: Tensor) -> Tensor:
        """−H⁺ g: along directions of no curvature the step is zero."""
        scaled = self.scale * gradient
        if self._spectrum is not None:
            eigenvalues, basis = self._spectrum
            zero = eigenvalues.abs() <= self._noise
            along = torch.where(zero, 0.0, -(basis.T @ scaled) / torch.where(zero, 1.0, eigenvalues))
            step: Tensor = self.scale * (basis @ along)
            return step
        # Without the directions of no curvature; a negative one has no step that could be told of.
        scaled = scaled - self._null @ (self._null.T @ scaled)
        factor = self._scaled.factor(2 * self._noise if self._null.shape[1] else 0.0)
        if not factor.positive:
            return torch.full_like(gradient, torch.nan)
        along = -factor.solve(scaled)
        deflated: Tensor = self.scale * (along - self._null @ (self._null.T @ along))
        return deflated


def _confirm(
    objective: Objective,
    point: Point,
    here_hessian: Operator,
    curvature: Curvature,
    names: list[str],
    step: Tensor,
    decrement: float,
) -> tuple[bool, str]:
    here = flatten(point.params, names)
    relative = float((step.abs() / torch.clamp(here.abs(), min=1.0)).max())
    if relative <= max(CONFIRM_STEP, 8 * torch.finfo(step.dtype).eps):
        return True, f"the Newton step is {relative:.3g} of max(1, |u|)"
    if not bool(torch.isfinite(step).all()) or decrement <= 0:
        return False, f"the Newton step is {relative:.3g} of max(1, |u|), and does not lower the model"
    there = objective.at_full({**point.params, **unflatten(here + step, point.params, names)})
    if there.failure is not None or not isfinite(there.value):
        return False, "the loss is not finite after the confirming step"
    gradient = flatten(there.gradient(), names)
    hessian = curvature.at(there, names)
    if not isfinite(hessian.largest()) or not bool(torch.isfinite(gradient).all()):
        return False, "the curvature is not finite after the confirming step"
    actual = point.value - there.value
    rounding = LOSS_ROUNDING * torch.finfo(step.dtype).eps * max(abs(point.value), abs(there.value))
    if abs(actual - decrement) > QUADRATIC * decrement + rounding:
        return False, f"a Newton step lowers the loss by {actual:.3g}, not by the {decrement:.3g} of a quadratic"
    signs = Signs(hessian)
    if signs.negative.shape[1]:
        return False, "the curvature is negative after the confirming step"
    second = signs.newton_step(gradient)
    # On the way to infinity the decrement falls because the curvature does: the next step is no shorter. So its length
    # is measured in the curvature of both points.
    lengths = torch.stack([-0.5 * gradient @ second, 0.5 * second @ here_hessian.matvec(second)]).abs()
    remaining = float(lengths.max())
    ratio = decrement / remaining if remaining > 0 else float("inf")
    confirmed = ratio >= CONFIRM_FACTOR
    return confirmed, f"a Newton step divides the decrement by {ratio:.3g} ({CONFIRM_FACTOR:.0f} are needed)"


def _settle_on_boundary(verdict: Verdict, objective: Objective, point: Point, names: list[str]) -> None:
    """The status of values at the edge of their support: the loss levels off there, or falls for ever.

    Towards a finite loss it falls as the value nears the edge, exponentially in the unconstrained u; towards −inf as
    the logarithm of that, linearly in u, until a distribution's own clamp stops it.
    """
    losses = []
    for part in (0.5, 0.75, 0.875):
        moved = {name: part * point.params[name].clamp(-BEFORE_CLAMPS, BEFORE_CLAMPS) for name in names}
        there = objective.at_full({**point.params, **moved})
        losses.append(there.value if there.failure is None else float("nan"))
    first, second = losses[0] - losses[1], losses[1] - losses[2]
    if first > 1e-6 * max(1.0, abs(point.value)) and second > LINEAR_FALL * first:
        verdict.status = Status.UNBOUNDED
        verdict.remarks.append(
            f"unbounded (diverges): the loss falls without end as {', '.join(names)} "
            f"{'nears' if len(names) == 1 else 'near'} the edge of the support"
        )
        return
    verdict.status = Status.CONVERGED_ON_BOUNDARY
    verdict.remarks.append(_boundary(names))


def _boundary(names: list[str]) -> str:
    return f"boundary: {', '.join(names)} {'runs' if len(names) == 1 else 'run'} to the edge of the support"


def _edge_names(objective: Objective, params: Params, gradient: Params, edge: float = EDGE) -> list[str]:
    """Names that have an entry near the edge of its support, with the loss not rising towards it."""
    return [name for name, near in edge_entries(objective, params, gradient, edge).items() if bool(near.any())]


def edge_entries(objective: Objective, params: Params, gradient: Params, edge: float = EDGE) -> Params:
    """Which entries are near the edge of their support, with the loss not rising towards it: booleans by name."""
    found: Params = {}
    for name, sensitivity in _sensitivities(objective, params).items():
        falls = gradient[name] * torch.sign(params[name]) <= 0
        found[name] = (sensitivity < edge) & falls & (params[name].abs() > 1.0)
    return found


def _sensitivities(objective: Objective, params: Params) -> Params:
    """|d value / d unconstrained| / max(1, |value|) for sites whose transform is elementwise and bounded."""
    result: Params = {}
    for name, site in objective.sites.items():
        if name not in params or site.shape != site.value_shape or site.constraint.startswith("real"):
            continue
        value, slope = objective.program.value_and_slope(name, params[name])
        if slope is not None:
            result[name] = slope.abs() / torch.clamp(value.abs(), min=1.0)
    return result


def _way_down(objective: Objective, point: Point, names: list[str], flat: Tensor) -> str | None:
    """What a walk along directions of no curvature found that a flat minimum does not have; None if nothing.

    No curvature may also be a plateau, an inflection, a maximum of fourth order, or the far end of an escape: there
    the loss falls somewhere, or changes on one side only. Walks are along each direction and random mixtures of all.
    """
    here = flatten(point.params, names)
    noise = 1e-13 * max(1.0, abs(point.value))
    generator = torch.Generator().manual_seed(1)
    mixtures = flat @ (2.0 * torch.randint(0, 2, (flat.shape[1], 8), generator=generator) - 1).to(flat)
    directions = torch.cat([flat[:, :8], mixtures], dim=1)
    for direction in (directions / directions.abs().amax(dim=0)).unbind(1):
        to_origin = float((here @ direction).abs() / direction.square().sum())
        for distance in (0.003, 0.03, 0.1, 1.0, 10.0, to_origin, 2 * to_origin):
            changes = []
            for sign in (1.0, -1.0):
                there = objective.at_full(
                    {**point.params, **unflatten(here + sign * distance * direction, point.params, names)}
                )
                finite = there.failure is None and isfinite(there.value)
                changes.append(there.value - point.value if finite else float("inf"))
            if min(changes) < -noise:
                return "the loss has no curvature but falls"
            if min(changes) <= noise < max(changes):
                return "the loss has no curvature but changes on one side only (a plateau or an escape to infinity)"
    return None


def _judge_by_products(
    verdict: Verdict,
    objective: Objective,
    point: Point,
    gradient_tolerance: float,
    stalled: bool,
    rounding: bool,
    final: bool,
) -> None:
    """Where no structure makes the Hessian affordable."""
    gradient = point.gradient()
    small_gradient = verdict.gradient_norm <= gradient_tolerance
    size = sum(p.numel() for p in point.params.values())
    message = f"not checked: {size} unknowns, and no structure that would make their Hessian affordable"
    verdict.checks.append(Check("curvature", None, None, message))
    gone = _edge_names(objective, point.params, gradient, UNBOUNDED_EDGE)
    if small_gradient and gone and stalled:
        _settle_on_boundary(verdict, objective, point, gone)
    elif small_gradient and not gone:
        refuted = _refuted_by_probes(point, gradient)
        verdict.checks.append(Check("probes", refuted is None, None, refuted or "no probe found a way down"))
        if refuted is None:
            verdict.status = Status.CONVERGED
            verdict.remarks.append(
                f"curvature was {message}; the verdict rests on the gradient and {2 * PROBES} probes"
            )
        elif final or stalled:
            verdict.status = Status.NO_PROGRESS
    elif stalled and not rounding:
        verdict.nearly = verdict.gradient_norm <= NEAR * gradient_tolerance


def _refuted_by_probes(point: Point, gradient: Params) -> str | None:
    """What a few Hessian-vector products say against a minimum, for a model without a Hessian; None if nothing.

    Lanczos from a random start finds a clearly negative curvature; conjugate gradients from the gradient give a step
    after which the quadratic model's gradient must be the true one, which an escape to infinity or a plateau refutes.
    """
    names = list(gradient)

    def product(vector: Tensor) -> Tensor:
        return products(point, names, vector[None])[0]

    g = flatten(gradient, names)
    eps = torch.finfo(g.dtype).eps
    signs = torch.randint(0, 2, g.shape, generator=torch.Generator().manual_seed(2))
    lowest, largest = _lanczos(product, (2.0 * signs - 1).to(g))
    if lowest < -1e3 * eps * largest:
        return f"the curvature is negative along a direction ({lowest:.3g}): a saddle or a maximum"
    step, residual, direction = torch.zeros_like(g), -g, -g
    for _ in range(PROBES):
        curved = product(direction)
        curvature = float(direction @ curved)
        square = float(residual @ residual)
        if square == 0.0 or curvature <= eps * float(direction @ direction) * max(largest, 1e-300):
            if square > 0.0 and curvature < 0.0:
                return "the curvature is negative along the gradient"
            break
        step = step + (square / curvature) * direction
        residual = residual - (square / curvature) * curved
        direction = residual + (float(residual @ residual) / square) * direction
    here = flatten(point.params, names)
    if float((step.abs() / torch.clamp(here.abs(), min=1.0)).max()) <= max(CONFIRM_STEP, 8 * eps):
        return None
    there = point.at({**point.params, **unflatten(here + step, point.params, names)})
    if there.failure is not None or not isfinite(there.value):
        return "the loss is not finite after the confirming step"
    true = flatten(there.gradient(), names)
    if float((true + residual).norm()) > CONFIRM_FACTOR**-0.5 * float(g.norm()):
        return "a Newton step does not divide the gradient as a minimum's would (a plateau or an escape to infinity)"
    return None


def _lanczos(product: Callable[[Tensor], Tensor], start: Tensor) -> tuple[float, float]:
    """The lowest and the largest |.| of the Ritz values after PROBES products (fully reorthogonalised)."""
    basis = [start / start.norm()]
    diagonal, off = [], []
    for _ in range(PROBES):
        vector = product(basis[-1])
        diagonal.append(float(basis[-1] @ vector))
        for other in basis:
            vector = vector - (other @ vector) * other
        size = float(vector.norm())
        if not size > 1e-12 * max(1e-300, abs(diagonal[0])) or len(basis) == start.numel():
            break
        off.append(size)
        basis.append(vector / size)
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for i, value in enumerate(off[: len(diagonal) - 1]):
        matrix[i, i + 1] = matrix[i + 1, i] = value
    ritz = torch.linalg.eigvalsh(matrix)
    return float(ritz[0]), float(ritz.abs().max())


def _matters(objective: Objective, point: Point, name: str) -> bool:
    """Whether moving one parameter changes the loss at all: from here, to its origin, and with all others moved too."""
    generator = torch.Generator().manual_seed(3)
    others = {n: p + 0.5 + torch.rand(p.shape, generator=generator).to(p) for n, p in point.params.items()}
    for base in (point.params, others):
        values = []
        for value in (base[name], base[name] + 0.5, 0.1 + torch.zeros_like(base[name])):
            there = objective.at_full({**base, name: value})
            if there.failure is not None or not isfinite(there.value):
                return True
            values.append(there.value)
        if len(set(values)) > 1:
            return True
    return False


def labeller(params: Params, names: list[str]) -> Callable[[Tensor], str]:
    """Directions (d, k) → the names, with indices where they are few, that carry them."""
    starts = [0]
    for name in names:
        starts.append(starts[-1] + params[name].numel())

    def entry(place: int) -> str:
        k = max(i for i in range(len(names)) if starts[i] <= place and params[names[i]].numel())
        shape = params[names[k]].shape
        if not shape:
            return names[k]
        where = torch.unravel_index(torch.tensor(place - starts[k]), shape)
        return f"{names[k]}[{','.join(str(int(i)) for i in where)}]"

    def label(directions: Tensor) -> str:
        weight = (directions / directions.norm(dim=0)).abs().amax(dim=1)
        heavy = (weight > 0.1).nonzero()[:, 0]
        chosen = heavy[weight[heavy].argsort(descending=True)]
        return ", ".join(entry(int(i)) for i in chosen[:8]) + (", …" if len(chosen) > 8 else "")

    return label
