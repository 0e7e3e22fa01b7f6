"""Inverse iteration against numpy's decomposition of the same matrix."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hofit.linear import spectrum
from hofit.linear.dense import Dense
from tests.tolerances import CONDITIONED

Array = NDArray[np.float64]


def with_spectrum(values: Array) -> tuple[Dense, Array]:
    """A matrix with these eigenvalues, in a random basis."""
    basis = np.linalg.qr(np.random.default_rng(len(values)).normal(size=(len(values), len(values))))[0]
    matrix: Array = (basis * values) @ basis.T
    return Dense(torch.tensor(matrix)), matrix


@pytest.fixture(autouse=True)
def _always_iterate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrum, "DENSE_SPECTRUM", 0)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-3])
def test_clusters_are_found(gap: float) -> None:
    """Eight eigenvalues next to each other and next to zero, with one far below them."""
    values = np.concatenate([[-3.0], gap * np.arange(5), np.linspace(0.02, 5.0, 294)])
    found = spectrum.lowest_by_inverse_iteration(with_spectrum(values)[0], 8)
    assert np.allclose(found.values.numpy(), np.sort(values)[:8], rtol=0, atol=CONDITIONED)


@pytest.mark.parametrize(("size", "lowest"), list(product((1, 2, 3, 5), (-1.0, 0.0, 0.2))))
def test_iterating_agrees_with_a_decomposition_on_tiny_matrices(size: int, lowest: float) -> None:
    operator, matrix = with_spectrum(np.concatenate([[lowest], np.linspace(0.7, 6.0, size - 1)]))
    found = spectrum.lowest_by_inverse_iteration(operator, min(2, size))
    values, vectors = found.values.numpy(), found.vectors.numpy()
    assert np.allclose(values, np.linalg.eigvalsh(matrix)[:2], atol=CONDITIONED)
    assert np.allclose(matrix @ vectors, vectors * values, atol=1e-6)
