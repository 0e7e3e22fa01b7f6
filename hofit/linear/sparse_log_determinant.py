"""The log determinant of a sparse matrix as a function to be differentiated twice.

d log det H = ⟨H⁻¹, dH⟩ needs the inverse on the pattern of H alone. Its derivative, −H⁻¹ V H⁻¹ on the pattern, does
not follow from that part of the inverse: the sweeps that give it are differentiated. Where a root of thousands makes
that dear, it can be estimated instead: tr(H⁻¹ V H⁻¹ W) is the mean of (L⁻¹ V L⁻ᵀ z)ᵀ (L⁻¹ W L⁻ᵀ z) over random signs z,
an estimate that is symmetric in V and W.

Source: Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix", Commun. Statist. Simula. 19.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .low_rank import LowRankFactor
from .multifrontal import second_traces, selected_derivative
from .operator import MEMORY_BUDGET, Factor
from .sparse import PROBES, SAME, Sparse, SparseFactor
from .sparsity import Sparsity

SECOND = 5.0
"""Factorisations that take as long as an exact second derivative in one direction."""

PROBE_SECONDS = 1.5e-9
"""What a probe takes for a number of the factor, each time that it is gone through; compare ``supernodes``."""

PANELS = 2**30
"""Bytes of panels, one a direction, up to which all pairs of directions are taken together."""

TOGETHER = 4
"""Directions whose probes go through the factor at once, in little more than half the time of one by one."""

CLEARLY = 1.5
"""How many times less an estimate must cost."""

ROUNDS = 3
"""Solutions of normal equations, each of what the one before has left: one alone is as good as √eps, or less."""

MOST = 0.5
"""The part of H from which H may stand for a direction: rounding grows by no more than its inverse square."""


def sparse_log_determinant(
    sparsity: Sparsity, values: Tensor, factor: SparseFactor | None = None, estimate: bool = False
) -> Tensor:
    """log det H, to be differentiated twice in its values; shape (). nan where H is not positive definite.

    A ``factor`` of the same values, without a shift, saves a factorisation. ``estimate``: where the second derivative
    is dear, an estimate of it will do; value and gradient are exact. Shape of values: (S,).
    """
    found = SparseFactor(sparsity, values) if factor is None else factor
    if not found.positive:
        return values.sum() * torch.nan
    estimates = estimate and estimate_costs_less(sparsity)
    result: Tensor = _LogDeterminant.apply(values, found, estimates)  # type: ignore[no-untyped-call]
    return result


class Bends:
    """Inside ``with``, derivatives of the gradient of log det H leave out how H⁻¹ changes; ``take`` after each of them
    keeps the direction, and ``matrix`` is what was left out of all second derivatives: −w tr(H⁻¹ V H⁻¹ W), with w what
    the determinant counts for.

    One sweep for each direction, where autograd's way takes two and the product of all at a root once more. ``factor``
    may be of any kind: of others nothing is left out.
    """

    def __init__(self, factor: Factor) -> None:
        base = factor.base if isinstance(factor, LowRankFactor) else factor
        self._factor = base if isinstance(base, SparseFactor) else None
        self._found: list[tuple[Tensor, float] | None] = []

    @property
    def any(self) -> bool:
        """Whether anything is left out."""
        return self._factor is not None

    def __enter__(self) -> Bends:
        if self._factor is not None:
            self._factor.bends = []
        return self

    def __exit__(self, *_: object) -> None:
        if self._factor is not None:
            self._factor.bends = None

    def take(self) -> None:
        """Hear that a direction is done."""
        kept = self._factor.bends if self._factor is not None else None
        self._found.append(kept.pop() if kept else None)

    def matrix(self, estimate: bool) -> Tensor | float:
        """For the directions in their order; shape (k, k), or 0 where nothing was left out."""
        found = {k: one for k, one in enumerate(self._found) if one is not None and one[1] and bool(one[0].any())}
        if self._factor is None or not found:
            return 0.0
        directions, weight = torch.stack([one for one, _ in found.values()]), next(iter(found.values()))[1]
        if estimate and estimate_costs_less(self._factor.sparsity):
            traces = _estimated_traces(self._factor, directions)
        else:
            traces = _traces(self._factor, directions)
        places = torch.tensor(list(found), device=traces.device)
        whole = traces.new_zeros(len(self._found), len(self._found))
        whole[places[:, None], places] = traces / -weight
        return whole


def estimate_costs_less(sparsity: Sparsity) -> bool:
    """Whether probes clearly take less than an exact second derivative."""
    through = 3 * sparsity.fill + 4 * len(sparsity.rows)
    return CLEARLY * PROBES * through * PROBE_SECONDS < SECOND * sparsity.seconds


class _LogDeterminant(torch.autograd.Function):
    """By a factor of the values; its derivative is the inverse on the pattern."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: SparseFactor, estimates: bool) -> Tensor:
        ctx.save_for_backward(values)
        ctx.factor, ctx.estimates = factor, estimates
        return factor.log_determinant()

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor, None, None]:
        (values,), weight = ctx.saved_tensors, float(adjoint.detach())
        inverse: Tensor = _Inverse.apply(values, ctx.factor, ctx.estimates, weight)  # type: ignore[no-untyped-call]
        return adjoint * inverse, None, None


class _Inverse(torch.autograd.Function):
    """On the pattern, an entry off the diagonal counted for both triangles. Its derivative is symmetric."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: SparseFactor, estimates: bool, weight: float) -> Tensor:
        ctx.factor, ctx.estimates, ctx.weight = factor, estimates, weight
        return twice_off_the_diagonal(factor.sparsity, factor.inverse())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Tensor | None, None, None, None]:
        factor: SparseFactor = ctx.factor
        elimination = factor.sparsity.elimination
        if factor.bends is not None:
            factor.bends.append((adjoint, ctx.weight))
            return None, None, None, None
        if not bool(adjoint.any()):
            change = adjoint
        elif ctx.estimates:
            change = _estimated(factor, adjoint)
        else:
            panel = selected_derivative(elimination, factor.panel, factor.inverse_panel, adjoint)
            change = panel.index_select(0, elimination.address)
        return twice_off_the_diagonal(factor.sparsity, change), None, None, None


def _estimated(factor: SparseFactor, values: Tensor) -> Tensor:
    """−H⁻¹ V H⁻¹ on the pattern, as its products with matrices of the same pattern see it. Shapes: (S,) → (S,)."""
    sparsity = factor.sparsity
    drawn = factor.probes
    return on_pattern(sparsity, drawn, factor.solve(Sparse(sparsity, values).matvec(drawn)))


def _estimated_traces(factor: SparseFactor, values: Tensor) -> Tensor:
    """tr(H⁻¹ V H⁻¹ W) of every two matrices. Shapes: (k, S) → (k, k)."""
    halves = []
    for some in values.split(TOGETHER):
        moved = torch.stack([Sparse(factor.sparsity, one).matvec(factor.probes) for one in some])
        halves.append(factor.half_solve(moved).flatten(1))
    seen = torch.cat(halves)
    return seen @ seen.T / len(factor.probes)


def _traces(factor: SparseFactor, values: Tensor) -> Tensor:
    """tr(H⁻¹ V H⁻¹ W) of every two matrices, exactly. Shapes: (k, S) → (k, k).

    Where H is a sum of multiples of them, as that of a Gaussian response is of its scales' derivatives, H takes the
    place of one that makes up most of it: tr(H⁻¹ H H⁻¹ W) = tr(H⁻¹ W) needs no sweep.
    """
    coefficients = _multiples(factor.values, values)
    if coefficients is None:
        return _exact_traces(factor, values)
    known = twice_off_the_diagonal(factor.sparsity, factor.inverse())
    share = coefficients * (values @ known) / factor.sparsity.size
    if not float(share.max()) >= MOST:
        return _exact_traces(factor, values)
    one = int(share.argmax())
    rest = torch.arange(len(values), device=values.device) != one
    found = values.new_full((len(values), len(values)), float(factor.sparsity.size))
    found[rest, one] = found[one, rest] = values[rest] @ known
    places = rest.nonzero()[:, 0]
    if len(places):
        found[places[:, None], places] = _exact_traces(factor, values[rest])
    back = torch.eye(len(values)).to(values)  # from H and the others to all
    back[one] = torch.where(rest, -coefficients, 1.0) / coefficients[one]
    return back @ found @ back.T


def _multiples(matrix: Tensor, others: Tensor) -> Tensor | None:
    """By which multiples of the others a matrix is their sum, to rounding. Shapes: (S,), (k, S) → (k,)."""
    scaled = others / others.norm(dim=1, keepdim=True)
    meeting, found = scaled @ scaled.T, matrix.new_zeros(len(others))
    for _ in range(ROUNDS):
        found += torch.linalg.lstsq(meeting, (scaled @ (matrix - found @ scaled))[:, None]).solution[:, 0]
    size = found.abs() @ scaled.abs() + matrix.abs()
    same = bool(((found @ scaled - matrix).abs() <= SAME * torch.finfo(matrix.dtype).eps * size).all())
    return found / others.norm(dim=1) if same else None


def _exact_traces(factor: SparseFactor, values: Tensor) -> Tensor:
    """The same exactly; where the panels of all directions would take too much memory, one by one."""
    elimination = factor.sparsity.elimination
    panels = factor.panel, factor.inverse_panel
    if len(values) * elimination.length * values.element_size() <= PANELS:
        return second_traces(elimination, *panels, values)
    changes = [selected_derivative(elimination, *panels, one)[elimination.address] for one in values]
    return -values @ twice_off_the_diagonal(factor.sparsity, torch.stack(changes)).T


def on_pattern(sparsity: Sparsity, drawn: Tensor, answers: Tensor) -> Tensor:
    """−H⁻¹ V H⁻¹ on the pattern, of draws x with covariance H⁻¹ and H⁻¹ V x: the mean of their products, made
    symmetric. Shapes: (n, d), (n, d) → (S,)."""
    one, other = drawn.T.contiguous(), answers.T.contiguous()
    rows, columns = sparsity.rows, sparsity.columns
    each = max(1, MEMORY_BUDGET // (4 * len(drawn) * drawn.element_size()))
    parts = [
        (one[i] * other[j]).sum(1) + (one[j] * other[i]).sum(1)
        for i, j in zip(rows.split(each), columns.split(each), strict=True)
    ]
    return torch.cat(parts) / (-2 * len(drawn))


def twice_off_the_diagonal(sparsity: Sparsity, values: Tensor) -> Tensor:
    """An entry off the diagonal stands for both triangles. Shapes: (S,) → (S,)."""
    return torch.where(sparsity.rows == sparsity.columns, values, 2.0 * values)
