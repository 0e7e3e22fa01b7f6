"""Trust-region steps on every structure, against the eigendecomposition and a scalar root finder."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from hofit.linear.arrowhead import Arrowhead
from hofit.linear.block_diagonal import BlockDiagonal, Blocks
from hofit.linear.coupling import Coupling
from hofit.linear.dense import Dense
from hofit.linear.diagonal import Diagonal
from hofit.linear.operator import Operator
from hofit.optim.subproblem.exact import trust_region_step

KINDS = ("definite", "semidefinite", "indefinite", "negative", "zero", "huge", "tiny", "graded", "hard case", "saddle")
SEEDS = range(24)
ROUNDING = 1e-12
NEARLY_OPTIMAL = 0.9
"""Part of the best decrease that a step has to reach: the shift is found to 5 %."""


def symmetric(eigenvalues: Tensor, generator: torch.Generator) -> Tensor:
    d = len(eigenvalues)
    basis: Tensor = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    matrix = basis @ (eigenvalues[:, None] * basis.T)
    return (matrix + matrix.T) / 2


def case(kind: str, seed: int) -> tuple[Tensor, Tensor, float]:
    """(H, g, Δ) of one kind, of dimension 1 to 12."""
    generator = torch.Generator().manual_seed(1000 * KINDS.index(kind) + seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    d = 1 + seed % 12
    values, gradient, radius = normal(d), normal(d), float(normal(1).exp())
    if kind in ("definite", "huge", "tiny"):
        values = values.square() + 0.01
    elif kind == "semidefinite":
        values = torch.cat([values[: d // 2].square(), torch.zeros(d - d // 2, dtype=torch.float64)])
    elif kind == "negative":
        values = -values.square() - 0.01
    elif kind == "zero":
        values = torch.zeros(d, dtype=torch.float64)
    elif kind == "graded":
        values = values.sign() * 10 ** (6 * normal(d))
    matrix = symmetric(values, generator)
    if kind in ("hard case", "saddle"):
        values = torch.linspace(-1.0, 2.0, d, dtype=torch.float64) if d > 1 else -torch.ones(1, dtype=torch.float64)
        matrix = symmetric(values, generator)
        lowest = torch.linalg.eigh(matrix)[1][:, 0]
        gradient = gradient - (gradient @ lowest) * lowest if kind == "hard case" else torch.zeros_like(gradient)
        radius = 10.0 * (1.0 + float(gradient.norm()))
    if kind == "huge":
        matrix = 1e150 * matrix
        gradient = gradient * (1e150 if seed % 2 else 1.0)
    if kind == "tiny":
        matrix = 1e-150 * matrix
        gradient = gradient * (1e-150 if seed % 2 else 1.0)
    return matrix, gradient, radius


def best_decrease(matrix: Tensor, gradient: Tensor, radius: float) -> float:
    """The decrease at the minimum of the model inside the radius, in units of ``size``: see ``decrease``."""
    values, basis = np.linalg.eigh(matrix.numpy())
    g = basis.T @ gradient.numpy()
    lowest = values[0]

    def length(shift: float) -> float:
        return float(np.linalg.norm(g / (values + shift)))

    if lowest > 0 and length(0.0) <= radius:
        p = -g / values
    else:
        floor = max(0.0, -lowest)
        scale = max(np.abs(values).max(), np.abs(g).max() / radius, 1e-300)
        near, far = floor + 1e-14 * scale, floor + np.linalg.norm(g) / radius + 1e-13 * scale
        if length(near) > radius:
            shift = brentq(lambda s: math.log(length(s) / radius), near, far, xtol=1e-300, rtol=1e-14)
            p = -g / (values + shift)
        else:  # the hard case, or a valley without curvature
            p = np.where(values + floor > 1e-13 * scale, -g / np.maximum(values + floor, 1e-13 * scale), 0.0)
            along = math.sqrt(max(radius**2 - float(p @ p), 0.0))
            p[0] += along if lowest < 0 else 0.0
    return -float(g @ p) - 0.5 * float(p @ (values * p))


def decrease(matrix: Tensor, gradient: Tensor, step: Tensor) -> float:
    return -float(gradient @ step) - 0.5 * float(step @ (matrix @ step))


def unit(matrix: Tensor, gradient: Tensor, radius: float) -> tuple[Tensor, Tensor, float]:
    """The same problem for p / Δ, and its size: so that the reference neither overflows nor underflows."""
    h, g = matrix * radius * radius, gradient * radius
    size = max(float(h.abs().max()), float(g.abs().max()))
    return (h / size, g / size, size) if size > 0 else (h, g, 1.0)


def check(operator: Operator, matrix: Tensor, gradient: Tensor, radius: float) -> None:
    solution = trust_region_step(operator, gradient, radius)
    step = solution.step
    assert bool(torch.isfinite(step).all())
    assert float(step.norm()) <= radius * (1 + ROUNDING)
    assert math.isfinite(solution.predicted)
    h, g, size = unit(matrix, gradient, radius)
    found = decrease(h, g, step / radius)
    best = best_decrease(h, g, 1.0)
    assert found >= NEARLY_OPTIMAL * best - ROUNDING**1.5
    if best > ROUNDING**1.5:
        assert found > 0.0
        assert solution.predicted / size == pytest.approx(found, rel=1e-6, abs=ROUNDING)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_a_dense_hessian_is_inside_and_nearly_optimal(kind: str, seed: int) -> None:
    matrix, gradient, radius = case(kind, seed)
    check(Dense(matrix), matrix, gradient, radius)


# --- The same on structures -----------------------------------------------------------------------


def as_diagonal(matrix: Tensor) -> tuple[Operator, Tensor]:
    return Diagonal(matrix.diagonal().clone()), torch.diag(matrix.diagonal())


def as_blocks(matrix: Tensor) -> tuple[Operator, Tensor]:
    """Pairs of places, and a single one where the dimension is odd."""
    d = len(matrix)
    masked = torch.zeros_like(matrix)
    groups = []
    pairs = torch.arange(2 * (d // 2)).reshape(-1, 2)
    for index in (pairs, torch.arange(2 * (d // 2), d).reshape(-1, 1)):
        if index.numel():
            blocks = matrix[index[:, :, None], index[:, None, :]]
            masked[index[:, :, None], index[:, None, :]] = blocks
            groups.append(Blocks(index, blocks))
    return BlockDiagonal(groups), masked


def as_arrowhead(matrix: Tensor) -> tuple[Operator, Tensor]:
    """The last third is the border; the rows before it have one place each."""
    d = len(matrix)
    inner = d - max(1, d // 3)
    index, border = torch.arange(inner).reshape(-1, 1), torch.arange(inner, d)
    masked = matrix.clone()
    masked[:inner, :inner] = torch.diag(matrix.diagonal()[:inner])
    rows = [Blocks(index, matrix.diagonal()[:inner].reshape(-1, 1, 1).clone())] if inner else []
    couplings = [Coupling(matrix[:inner, inner:].reshape(inner, 1, -1).clone())] if inner else []
    return Arrowhead(rows, couplings, border, matrix[inner:, inner:].clone()), masked


@pytest.mark.parametrize("seed", SEEDS[::2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", [as_diagonal, as_blocks, as_arrowhead])
def test_a_step_on_a_structure_is_that_of_its_dense_matrix(
    structure: Callable[[Tensor], tuple[Operator, Tensor]], kind: str, seed: int
) -> None:
    matrix, gradient, radius = case(kind, seed + 1)
    operator, masked = structure(matrix)
    assert torch.equal(operator.matvec(torch.eye(len(matrix), dtype=matrix.dtype)), masked) or torch.allclose(
        operator.matvec(torch.eye(len(matrix), dtype=matrix.dtype)), masked, rtol=1e-14, atol=0.0
    )
    check(operator, masked, gradient, radius)


# --- Corners --------------------------------------------------------------------------------------


def test_nothing_to_gain_is_no_step() -> None:
    solution = trust_region_step(Dense(torch.zeros(3, 3)), torch.zeros(3), 1.0)
    assert (solution.step.tolist(), solution.predicted) == ([0.0, 0.0, 0.0], 0.0)


def test_a_minimum_is_no_step() -> None:
    assert float(trust_region_step(Dense(torch.eye(3)), torch.zeros(3), 1.0).step.norm()) == 0.0


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
def test_a_saddle_is_left_along_the_negative_curvature_to_the_boundary(size: float) -> None:
    solution = trust_region_step(Diagonal(size * torch.tensor([1.0, -1.0, 2.0])), torch.zeros(3), 2.0)
    assert solution.step.abs().tolist() == pytest.approx([0.0, 2.0, 0.0], abs=0.15)
    assert float(solution.step.norm()) == pytest.approx(2.0)


def test_a_linear_model_goes_straight_down() -> None:
    step = trust_region_step(Dense(torch.zeros(2, 2)), torch.tensor([3.0, -4.0]), 5.0).step
    assert (step / step.norm()).tolist() == pytest.approx([-0.6, 0.8])
    assert float(step.norm()) == pytest.approx(5.0, rel=0.05)


@pytest.mark.parametrize("radius", [1e-12, 1e12])
@pytest.mark.parametrize("kind", ["definite", "semidefinite", "indefinite", "negative", "zero"])
def test_a_radius_may_be_tiny_or_huge(kind: str, radius: float) -> None:
    for seed in SEEDS:
        matrix, gradient, _ = case(kind, seed)
        check(Dense(matrix), matrix, gradient, radius)


@pytest.mark.parametrize("curvature", [2.0, 0.0, -2.0])
@pytest.mark.parametrize("slope", [3.0, 0.0, -3.0])
def test_one_dimension(curvature: float, slope: float) -> None:
    matrix, gradient = torch.tensor([[curvature]]), torch.tensor([slope])
    check(Dense(matrix), matrix, gradient, 1.0)
    check(Diagonal(matrix.diagonal()), matrix, gradient, 1.0)


def test_a_definite_model_takes_its_full_newton_step_where_that_is_inside() -> None:
    matrix, gradient, _ = case("definite", 7)
    newton = -torch.linalg.solve(matrix, gradient)
    solution = trust_region_step(Dense(matrix), gradient, 2 * float(newton.norm()))
    assert solution.step.tolist() == pytest.approx(newton.tolist(), rel=1e-12)
    assert not solution.on_boundary
