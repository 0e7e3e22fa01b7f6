"""A sparse matrix beside a few sums, held against the same matrix written out in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hofit.linear.low_rank import LowRank
from hofit.linear.sparse import Sparse
from hofit.linear.sparse_solve import sparse_solve
from hofit.linear.sparsity import Sparsity
from tests.tolerances import CONDITIONED

Array = NDArray[np.float64]
SIZES = (5, 300)


def chain(size: int, level: float) -> Sparse:
    """Squared differences of neighbours, and so much on the diagonal: 0 knows nothing of the level."""
    matrix = np.diag(np.full(size, 2.0)) - np.diag(np.ones(size - 1), 1) - np.diag(np.ones(size - 1), -1)
    matrix[0, 0] = matrix[-1, -1] = 1.0
    matrix += level * np.eye(size)
    row, column = (torch.tensor(place) for place in np.nonzero(matrix))
    sparsity = Sparsity.of(size, row, column)
    return Sparse(sparsity, torch.tensor(matrix)[sparsity.rows, sparsity.columns])


def constrained(size: int, level: float) -> LowRank:
    """A soft constraint on the sum, and a sum by which something else is multiplied."""
    generator = torch.Generator().manual_seed(size)
    beside = torch.randn(2, size, generator=generator, dtype=torch.float64) / size
    sums = torch.stack([torch.ones(size), torch.linspace(-1, 1, size)]).double()
    zero, unit = torch.zeros(2, 2).double(), torch.eye(2).double()
    middle = torch.cat(
        [torch.cat([zero, unit], 1), torch.cat([unit, torch.diag(torch.tensor([9.0, 0.5])).double()], 1)]
    )
    return LowRank(chain(size, level), torch.cat([beside.T, sums.T], 1), middle)


def written_out(operator: LowRank) -> Array:
    found: Array = operator.matvec(torch.eye(operator.size, dtype=torch.float64)).numpy()
    return found


def same(found: Tensor, expected: NDArray[np.floating[Any]], tolerance: float = CONDITIONED) -> bool:
    """Relative to the largest."""
    other = torch.tensor(np.asarray(expected))
    return float((found - other).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("level", [1.0, 0.0], ids=["regular", "without a level"])
@pytest.mark.parametrize("size", SIZES)
class TestLowRank:
    def test_it_is_what_it_says(self, size: int, level: float) -> None:
        operator = constrained(size, level)
        columns, middle = operator.columns.numpy(), operator.middle.numpy()
        base = operator.base.matvec(torch.eye(size, dtype=torch.float64)).numpy()
        matrix = base + columns @ middle @ columns.T
        assert same(torch.tensor(written_out(operator)), matrix)
        assert same(operator.diagonal(), np.diagonal(matrix))
        assert operator.largest() >= np.abs(matrix).max()
        assert operator.norm_bound() >= np.linalg.norm(matrix, 2)
        scale, places = np.linspace(0.5, 2.0, size), np.arange(size) % 3 == 0
        assert same(torch.tensor(written_out(operator.scaled(torch.tensor(scale)))), scale[:, None] * matrix * scale)
        held = np.where(places[:, None] | places, 0.0, matrix) + np.diag(places.astype(float))
        assert same(torch.tensor(written_out(operator.held(torch.tensor(places)))), held)

    @pytest.mark.parametrize("shift", [0.0, 0.7])
    def test_its_factor(self, size: int, level: float, shift: float) -> None:
        operator = constrained(size, level)
        matrix = written_out(operator) + shift * np.eye(size)
        factor, inverse = operator.factor(shift), np.linalg.inv(matrix)
        assert np.linalg.eigvalsh(matrix)[0] > 0 and factor.positive
        right = np.random.default_rng(1).normal(size=(2, 3, size))
        assert same(factor.solve(torch.tensor(right)), right @ inverse)
        assert np.isclose(float(factor.log_determinant()), np.linalg.slogdet(matrix)[1])
        assert same(factor.inverse_diagonal(), np.diagonal(inverse))
        drawn = factor.draw(torch.eye(size, dtype=torch.float64)).numpy()  # rows L⁻ᵀ e
        # The root of the small matrix: where the level is the sum's alone its eigenvalues span eight digits.
        assert same(torch.tensor(drawn.T @ drawn), inverse, 1e3 * CONDITIONED)

    def test_negative_curvature_has_a_direction(self, size: int, level: float) -> None:
        operator = constrained(size, level)
        falling = LowRank(operator.base, operator.columns, -operator.middle)
        matrix = written_out(falling)
        factor = falling.factor()
        assert np.linalg.eigvalsh(matrix)[0] < 0 and not factor.positive
        assert factor.direction is not None
        direction = factor.direction.numpy()
        assert np.isclose(np.linalg.norm(direction), 1.0) and direction @ matrix @ direction <= 1e-9

    def test_its_lowest_eigenvalues(self, size: int, level: float) -> None:
        operator = constrained(size, level)
        found = operator.lowest(2)
        assert np.allclose(found.values.numpy(), np.linalg.eigvalsh(written_out(operator))[:2], atol=1e-6)


def test_what_is_not_finite_is_not_positive() -> None:
    operator = constrained(5, 1.0)
    broken = LowRank(
        Sparse(operator.base.sparsity, operator.base.values * torch.nan), operator.columns, operator.middle
    )
    assert not broken.factor().positive and broken.factor().direction is None


def test_a_solution_is_differentiated_twice_by_both_sides() -> None:
    operator = chain(4, 1.0)
    values, right = operator.values.clone().requires_grad_(), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)

    def solved(values: Tensor, right: Tensor) -> Tensor:
        return sparse_solve(values, right, Sparse(operator.sparsity, values.detach()).factor())

    assert torch.autograd.gradcheck(solved, (values, right))
    assert torch.autograd.gradgradcheck(solved, (values, right))
