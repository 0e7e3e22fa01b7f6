"""Matrices without a factor, held against the sparse factor of the same; their estimates against its exact numbers."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor

from hofit.linear.coloured import Coloured, Sweeps
from hofit.linear.lanczos import krylov
from hofit.linear.sparse import Sparse
from hofit.linear.sparse_log_determinant import sparse_log_determinant
from hofit.linear.sparsity import Sparsity
from hofit.linear.stochastic import Stochastic, StochasticFactor
from hofit.linear.stochastic_log_determinant import stochastic_log_determinant
from tests.linear.graphs import GRAPHS, Graph, crossed
from tests.tolerances import CONDITIONED, DIFFERENCES, ROUNDING, close

FAR = 4.0
"""Standard errors that an estimate may be off: of a hundred right ones a few in a thousand are farther, and seeds are
fixed."""

PROBES = 64

SMALL = {name: GRAPHS[name] for name in ("one number", "two numbers", "no edges", "chain", "grid", "tree", "crossed")}


def matrix(graph: Graph, dtype: torch.dtype = torch.float64, more: float = 0.5) -> Sparse:
    """Diagonally dominant by ``more``."""
    size, edges = graph
    rows, columns = torch.tensor(edges).reshape(-1, 2).unbind(1)
    sparsity = Sparsity.of(size, rows, columns)
    values = torch.randn(len(sparsity.rows), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values[sparsity.diagonal] = 0.0
    values[sparsity.diagonal] = Sparse(sparsity, values.abs()).matvec(torch.ones(size)) + more
    return Sparse(sparsity, values.to(dtype))


def stochastic(exact: Sparse, probes: int = PROBES) -> Stochastic:
    return Stochastic(Coloured(exact.sparsity, probes), exact.values)


def error(factor: StochasticFactor) -> float:
    """The standard error of the log determinant, as the probes have it."""
    logarithms = factor.estimate.logarithms
    return float(logarithms.std()) / sqrt(len(logarithms))


# --- Colours and sweeps -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_numbers_of_one_colour_do_not_touch_and_the_first_colour_has_the_most(name: str) -> None:
    exact = matrix(GRAPHS[name])
    pattern = Coloured(exact.sparsity, PROBES)
    late, early = pattern.ends
    colours = pattern.colours[pattern.order]
    assert bool((colours[late] > colours[early]).all())
    assert pattern.counts == sorted(pattern.counts, reverse=True)
    assert sum(pattern.counts) == exact.size


def test_two_crossed_factors_written_one_after_the_other_have_two_colours() -> None:
    rows = torch.arange(12).repeat_interleave(3)
    columns = 12 + (torch.arange(36) * 7) % 5
    pattern = Coloured(Sparsity.of(17, rows, columns), PROBES)
    assert pattern.counts == [12, 5]
    assert "2 colours" in pattern.describe() and f"{PROBES} probes" in pattern.describe()


@pytest.mark.parametrize("name", SMALL)
def test_a_sweep_each_way_is_the_product_with_the_scaled_schur_complement(name: str) -> None:
    exact = matrix(SMALL[name])
    pattern = Coloured(exact.sparsity, PROBES)
    dense = exact.matvec(torch.eye(exact.size))[pattern.order][:, pattern.order]
    colours = pattern.colours[pattern.order]
    lower = torch.where(colours[:, None] > colours, dense, 0.0) + torch.diag(dense.diagonal())
    half = lower * dense.diagonal().rsqrt()
    inside = torch.linalg.solve(half, torch.linalg.solve(half, dense).T)
    first = pattern.first
    assert close(inside[:first, :first], torch.eye(first), ROUNDING)
    assert close(inside[first:, :first], torch.zeros(exact.size - first, first), ROUNDING)
    found = Sweeps(pattern, exact.values).product(torch.eye(exact.size - first))
    assert close(found, inside[first:, first:], ROUNDING)


# --- Krylov spaces ----------------------------------------------------------------------------------


def test_functions_of_a_matrix_are_those_of_its_spectrum() -> None:
    root = torch.randn(30, 30, generator=torch.Generator().manual_seed(2))
    dense = root @ root.T / 30 + torch.eye(30)
    start = torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
    start[:, 3] = torch.linalg.eigh(dense).eigenvectors[:, 5]  # its space has one dimension
    space = krylov(lambda vectors: dense @ vectors, start, 0.0, 30)
    values, vectors = torch.linalg.eigh(dense)
    along = vectors.T @ start
    assert close(space.logarithms(), (along.square() * values.log()[:, None]).sum(0), CONDITIONED)
    assert close(space.inverse_roots(), vectors @ (along * values.rsqrt()[:, None]), CONDITIONED)
    one, other = space.slopes()
    assert close(torch.einsum("ij,jnr->inr", dense, one), other, 1e-7)  # the space ends by rounding alone


# --- The factor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_solves_as_the_factor_does(name: str, dtype: torch.dtype) -> None:
    exact = matrix(GRAPHS[name], dtype)
    right = torch.randn(3, exact.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64).to(dtype)
    found = stochastic(exact).factor(0.25)
    assert found.positive
    expected = Sparse(exact.sparsity, exact.values.double()).factor(0.25).solve(right.double())
    assert close(found.solve(right).double(), expected, 1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_log_determinant_is_within_its_own_error(name: str) -> None:
    exact = matrix(GRAPHS[name])
    found = stochastic(exact).factor()
    off = float(found.log_determinant() - exact.factor().log_determinant())
    assert abs(off) <= FAR * error(found) + 1e-9


@pytest.mark.parametrize("name", SMALL)
def test_the_gradient_is_that_of_the_estimate_itself(name: str) -> None:
    exact = matrix(SMALL[name])
    pattern = Coloured(exact.sparsity, 9)  # groups of one
    along = torch.randn(exact.values.shape, generator=torch.Generator().manual_seed(5)) * exact.values.abs()
    h = 1e-5
    ahead, behind = (StochasticFactor(pattern, exact.values + by * along).log_determinant() for by in (h, -h))
    values = exact.values.clone().requires_grad_()
    (slope,) = torch.autograd.grad(stochastic_log_determinant(values, StochasticFactor(pattern, exact.values)), values)
    size = float((slope * along).abs().sum())
    assert abs(float((slope * along).sum() - (ahead - behind) / (2 * h))) <= DIFFERENCES * max(1.0, size)


def test_groups_of_unequal_size_make_the_gradient_of_the_whole() -> None:
    exact = matrix(crossed(12, 5, 25))
    factor = stochastic(exact, 21).factor()  # 16 groups, some of two
    along, h = exact.values.abs(), 1e-5
    ahead, behind = (stochastic(Sparse(exact.sparsity, exact.values + by * along), 21) for by in (h, -h))
    expected = (ahead.factor().log_determinant() - behind.factor().log_determinant()) / (2 * h)
    assert close((factor.slope() * along).sum(), expected, DIFFERENCES)


def second_along(log_determinant: Tensor, values: Tensor, along: Tensor) -> float:
    (slope,) = torch.autograd.grad(log_determinant, values, create_graph=True)
    (bend,) = torch.autograd.grad((slope * along).sum(), values)
    return float((bend * along).sum())


def test_gradient_and_second_derivative_are_the_exact_ones_but_for_probes() -> None:
    exact = matrix(GRAPHS["crossed"])
    along = torch.ones_like(exact.values)
    values = exact.values.clone().requires_grad_()
    factor = stochastic(exact).factor()
    (slope,) = torch.autograd.grad(sparse_log_determinant(exact.sparsity, values), values)
    parts = factor.estimate.slopes @ along  # groups of four probes, equal ones
    assert abs(float(parts.mean() - slope @ along)) <= FAR * float(parts.std()) / len(parts) ** 0.5
    expected = second_along(sparse_log_determinant(exact.sparsity, values), values, along)
    found = second_along(stochastic_log_determinant(values, factor), values, along)
    assert abs(found / expected - 1) <= 0.1  # of sixteen draws: √(2 / 16 · 260), four times


def test_draws_have_the_inverse_as_covariance() -> None:
    exact = matrix(GRAPHS["crossed"])
    root = stochastic(exact).factor().draw(torch.eye(exact.size))
    assert close(root.T @ root, exact.factor().solve(torch.eye(exact.size)), 1e-8)  # of spaces to 4e-10


@pytest.mark.parametrize("name", GRAPHS)
def test_the_inverse_s_diagonal_is_as_near_as_it_says(name: str) -> None:
    exact = matrix(GRAPHS[name])
    factor = stochastic(exact).factor()
    off = (factor.inverse_diagonal() / exact.factor().inverse_diagonal()).sqrt() - 1
    assert float(off.square().mean().sqrt()) <= 1.5 * factor.spread() + 1e-9


def test_the_same_bits_come_twice() -> None:
    exact = matrix(GRAPHS["grid"])
    one, other = (stochastic(exact).factor() for _ in range(2))
    assert torch.equal(one.log_determinant(), other.log_determinant())
    assert torch.equal(one.slope(), other.slope())
    assert torch.equal(one.inverse_diagonal(), other.inverse_diagonal())


def test_chunks_of_probes_are_the_same_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = matrix(GRAPHS["crossed"])
    whole = stochastic(exact).factor()
    monkeypatch.setattr("hofit.linear.stochastic.MEMORY_BUDGET", 8 * 24 * 100 * 5)
    parts = stochastic(exact).factor()
    assert close(parts.log_determinant(), whole.log_determinant(), CONDITIONED)
    assert close(parts.slope(), whole.slope(), 1e-6)


@pytest.mark.parametrize("name", ["chain", "grid", "crossed", "star", "full"])
def test_a_direction_proves_that_it_is_not_positive_definite(name: str) -> None:
    exact = matrix(GRAPHS[name])
    lowest = float(torch.linalg.eigvalsh(exact.matvec(torch.eye(exact.size)))[0])
    for shift in (-lowest - 0.5, -float(exact.diagonal().max()) - 1.0):
        factor = stochastic(exact).factor(shift)
        assert not factor.positive and factor.direction is not None
        along = factor.direction
        assert abs(float(along.norm()) - 1) < ROUNDING
        assert float(along @ exact.matvec(along)) + shift <= 0


def test_entries_that_are_not_finite_are_not_positive() -> None:
    exact = matrix(GRAPHS["chain"])
    exact.values[7] = torch.nan
    assert not stochastic(exact).factor().positive


def test_scaled_and_held_have_no_factor_either() -> None:
    exact = matrix(GRAPHS["crossed"])
    own, places = stochastic(exact), torch.arange(exact.size) % 3 == 0
    right = torch.ones(exact.size)
    for found, expected in (
        (own.scaled(1.0 + right), exact.scaled(1.0 + right)),
        (own.held(places), exact.held(places)),
    ):
        assert isinstance(found, Stochastic)
        assert close(found.factor().solve(right), expected.factor().solve(right), CONDITIONED)
