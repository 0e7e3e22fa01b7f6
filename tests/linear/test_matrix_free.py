"""A matrix known by its products, against the matrix itself."""

from __future__ import annotations

import pytest
import torch

from hofit.linear.matrix_free import MatrixFree


@pytest.mark.parametrize("size", [1, 7])
def test_products_are_those_of_the_matrix_whatever_the_vectors_leading_dimensions(size: int) -> None:
    half = torch.randn(size, size, dtype=torch.float64)
    matrix = half + half.T
    operator = MatrixFree(lambda rows: rows @ matrix, size, matrix.new_empty(0))
    for shape in [(size,), (3, size), (2, 3, size)]:
        vectors = torch.randn(shape, dtype=torch.float64)
        assert torch.allclose(operator.matvec(vectors), vectors @ matrix)
        scale = 1 + torch.rand(size, dtype=torch.float64)
        assert torch.allclose(operator.scaled(scale).matvec(vectors), vectors @ (scale[:, None] * matrix * scale))
    assert operator.memory() == 0
