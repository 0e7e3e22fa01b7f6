"""Lanczos and conjugate gradients against numpy's decompositions and solutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hofit.linear.krylov import conjugate_gradients, extreme_ritz_values
from tests.tolerances import ROUNDING

Array = NDArray[np.float64]


class Matrix:
    """With given eigenvalues in a random basis; counts its products."""

    def __init__(self, values: Array) -> None:
        basis = np.linalg.qr(np.random.default_rng(5).normal(size=(len(values), len(values))))[0]
        self.array: Array = (basis * values) @ basis.T
        self.tensor, self.products = torch.tensor(self.array), 0

    def __call__(self, vector: Tensor) -> Tensor:
        self.products += 1
        return self.tensor @ vector


def start(size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_as_many_steps_as_unknowns_see_the_whole_spectrum(size: int) -> None:
    values = np.linspace(-3.0, 2.0, size)
    lowest, largest = extreme_ritz_values(Matrix(values), start(size), 8)
    assert np.allclose([lowest, largest], [values.min(), np.abs(values).max()])


def test_ritz_values_lie_inside_the_spectrum_and_cost_a_product_each() -> None:
    matrix = Matrix(np.concatenate([[-2.0], np.linspace(0.1, 5.0, 60)]))
    lowest, largest = extreme_ritz_values(matrix, start(61), 8)
    assert matrix.products == 8
    assert -2.0 <= lowest < -1.0 and 4.5 < largest <= 5.0


def test_a_space_that_is_used_up_ends_it() -> None:
    matrix = Matrix(np.full(6, 2.0))
    assert np.allclose(extreme_ritz_values(matrix, start(6), 8), (2.0, 2.0))
    assert matrix.products <= 2


@pytest.mark.parametrize("size", [1, 5, 8])
def test_as_many_steps_as_unknowns_solve(size: int) -> None:
    matrix, right = Matrix(np.linspace(0.5, 4.0, size)), start(size)
    found = conjugate_gradients(matrix, right, 4.0, size)
    assert not found.indefinite
    assert np.allclose(found.solution.numpy(), np.linalg.solve(matrix.array, right.numpy()))
    assert np.allclose(found.residual.numpy(), 0.0, atol=ROUNDING)


def test_fewer_steps_leave_the_residual_of_where_they_ended() -> None:
    matrix, right = Matrix(np.linspace(0.5, 400.0, 30)), start(30)
    found = conjugate_gradients(matrix, right, 400.0, 5)
    assert matrix.products == 5
    assert np.allclose(found.residual.numpy(), right.numpy() - matrix.array @ found.solution.numpy())


def test_negative_curvature_is_said_and_no_curvature_ends_it() -> None:
    right = start(3)
    assert conjugate_gradients(Matrix(np.array([-1.0, -2.0, -3.0])), right, 3.0, 8).indefinite
    flat = conjugate_gradients(Matrix(np.zeros(3)), right, 0.0, 8)
    assert not flat.indefinite and not bool(flat.solution.any())
    assert not conjugate_gradients(Matrix(np.ones(3)), torch.zeros_like(right), 1.0, 8).indefinite
