"""The coupling of rows and border, held against the same entries written out in numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hofit.linear import coupling as coupling_module
from hofit.linear.block_cholesky import BlockCholesky
from hofit.linear.coupling import Coupling
from hofit.linear.dense import Dense
from hofit.linear.log_determinant import log_determinant

Array = NDArray[np.float64]
SHAPES = [(6, 1, 4), (5, 3, 7), (4, 7, 3), (1, 2, 1)]
"""Rows, their length, and the border's; blocks beyond WRITTEN_OUT are LAPACK's."""


def dense(entries: Array) -> Coupling:
    return Coupling(torch.tensor(entries))


def dense_with_rows_last(entries: Array) -> Coupling:
    return Coupling(torch.tensor(entries.transpose(1, 2, 0).copy()).permute(2, 0, 1))


KINDS = [dense, dense_with_rows_last]


@pytest.fixture(params=SHAPES, ids=str)
def entries(request: pytest.FixtureRequest) -> Array:
    """Each row touches some places of the border, one of them none."""
    rng = np.random.default_rng(2)
    rows, length, border = request.param
    touched = rng.random((rows, 1, border)) < 0.6
    touched[0] = rows == 1
    return np.where(touched, rng.normal(size=(rows, length, border)), 0.0)


@pytest.fixture
def blocks(entries: Array) -> Array:
    roots = np.random.default_rng(3).normal(size=(len(entries), entries.shape[1], entries.shape[1]))
    found: Array = roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(entries.shape[1])
    return found


def numbers(tensor: Tensor) -> Array:
    found: Array = tensor.detach().numpy()
    return found


def written_out(coupling: Coupling, shape: tuple[int, ...]) -> Array:
    return numbers(coupling.outward(torch.eye(shape[2], dtype=torch.float64)))


def block_diagonal(blocks: Array) -> Array:
    rows, length, _ = blocks.shape
    whole = np.zeros((rows * length, rows * length))
    for r, block in enumerate(blocks):
        whole[r * length : (r + 1) * length, r * length : (r + 1) * length] = block
    return whole


@pytest.mark.parametrize("kind", KINDS)
class TestEveryCoupling:
    def test_it_multiplies_from_both_sides(self, kind: Callable[[Array], Coupling], entries: Array) -> None:
        rows, length, border = entries.shape
        inner, outer = torch.randn(rows, length, 3, dtype=torch.float64), torch.randn(3, border, dtype=torch.float64)
        coupling = kind(entries)
        assert np.allclose(numbers(coupling.inward(inner)), np.einsum("rlk,rlm->km", numbers(inner), entries))
        assert np.allclose(numbers(coupling.outward(outer)), np.einsum("rlm,km->rlk", entries, numbers(outer)))

    def test_it_is_scaled_and_held_as_its_entries_are(self, kind: Callable[[Array], Coupling], entries: Array) -> None:
        rng = np.random.default_rng(4)
        inner, outer = rng.random(entries.shape[:2]), rng.random(entries.shape[2])
        scaled = kind(entries).scaled(torch.tensor(inner), torch.tensor(outer))
        assert np.allclose(written_out(scaled, entries.shape), inner[:, :, None] * entries * outer)
        held = kind(entries).held(torch.tensor(inner < 0.4), torch.tensor(outer < 0.4))
        free = (inner >= 0.4)[:, :, None] & (outer >= 0.4)
        assert np.array_equal(written_out(held, entries.shape), entries * free)

    def test_its_entries_and_their_sums(self, kind: Callable[[Array], Coupling], entries: Array) -> None:
        rng = np.random.default_rng(5)
        inner, outer = rng.random(entries.shape[:2]), rng.random(entries.shape[2])
        by_row, by_place = kind(entries).row_sums(torch.tensor(inner), torch.tensor(outer))
        assert np.allclose(numbers(by_row), inner + np.abs(entries).sum(2))
        assert np.allclose(numbers(by_place), outer + np.abs(entries).sum((0, 1)))
        assert float(kind(entries).entries().abs().max()) == np.abs(entries).max()

    @pytest.mark.parametrize("budget", [None, 1, 700])
    def test_eliminating_the_rows_leaves_the_schur_complement(
        self,
        kind: Callable[[Array], Coupling],
        entries: Array,
        blocks: Array,
        budget: int | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if budget is not None:
            monkeypatch.setattr(coupling_module, "MEMORY_BUDGET", budget)
        flat, factor = entries.reshape(-1, entries.shape[2]), BlockCholesky(torch.tensor(blocks))
        solved = np.linalg.solve(block_diagonal(blocks), flat)
        taken = flat.T @ solved
        corner = taken + np.eye(len(taken))
        coupling, schur = kind(entries), torch.tensor(corner)
        assert np.allclose(numbers(coupling.eliminated(factor)), taken)
        coupling.subtract_from(schur, factor)
        assert np.allclose(np.tril(numbers(schur)), np.eye(len(taken)))
        whole = np.diag(np.arange(1.0, 1.0 + len(taken))) + 0.1
        inverse = np.linalg.inv(whole)
        spread, outer = coupling.inverse_diagonals(factor, Dense(torch.tensor(whole)).factor())
        assert np.allclose(numbers(spread).reshape(-1), np.diagonal(solved @ inverse @ solved.T))
        assert np.allclose(numbers(outer), np.diagonal(inverse))

    def test_its_log_determinant_has_two_derivatives(
        self, kind: Callable[[Array], Coupling], entries: Array, blocks: Array
    ) -> None:
        """Of a matrix H whose blocks grow as 1 + t and whose corner as eᵗ: tr(KH′) and tr(KH″) − tr(KH′KH′)."""
        inner, flat = block_diagonal(blocks), entries.reshape(-1, entries.shape[2])
        corner = np.eye(entries.shape[2]) + flat.T @ np.linalg.solve(inner, flat)
        at = torch.zeros((), dtype=torch.float64, requires_grad=True)
        grown = torch.exp(at) * torch.tensor(corner)
        value = log_determinant([(1 + at) * torch.tensor(blocks)], [kind(entries)], grown)
        (slope,) = torch.autograd.grad(value, at, create_graph=True)
        (bend,) = torch.autograd.grad(slope, at)
        whole = np.block([[inner, flat], [flat.T, corner]])
        first, second = np.zeros_like(whole), np.zeros_like(whole)
        first[: len(inner), : len(inner)] = inner
        first[len(inner) :, len(inner) :] = second[len(inner) :, len(inner) :] = corner
        moved = np.linalg.solve(whole, first)
        assert np.isclose(float(value.detach()), np.linalg.slogdet(whole)[1])
        assert np.isclose(float(slope.detach()), np.trace(moved))
        assert np.isclose(float(bend), np.trace(np.linalg.solve(whole, second)) - np.trace(moved @ moved))

    def test_what_is_detached_has_no_graph(self, kind: Callable[[Array], Coupling], entries: Array) -> None:
        factor = torch.ones((), dtype=torch.float64, requires_grad=True)
        grown = kind(entries).scaled(factor.expand(entries.shape[:2]), torch.ones(entries.shape[2]).double())
        assert grown.entries().requires_grad
        assert not grown.detach().entries().requires_grad
        assert np.array_equal(written_out(grown.detach(), entries.shape), entries)


def test_a_log_determinant_is_nan_where_the_matrix_is_not_positive_definite(entries: Array, blocks: Array) -> None:
    corner = torch.eye(entries.shape[2], dtype=torch.float64)
    for blocks_of, corner_of in ((-blocks, corner), (blocks, -corner)):
        assert torch.isnan(log_determinant([torch.tensor(blocks_of)], [dense(entries)], corner_of))
