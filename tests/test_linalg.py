"""Sparse symmetric matrices of parameters, against dense ones: sums, products, determinants and their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from hofit.linalg import SparseSymmetric, identity, laplacian, log_determinant, pencil, random_walk
from hofit.linear.sparsity import Sparsity
from tests.tolerances import CONDITIONED, DIFFERENCES, ROUNDING, close

N = 12
RING = torch.stack([torch.arange(N), (torch.arange(N) + 1) % N])
CHORDS = torch.tensor([[0, 2, 5], [6, 9, 11]])
WEIGHTS = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
TWO_PARTS = torch.tensor([[0, 1, 2, 4, 5, 7, 8, 9, 10], [1, 2, 3, 5, 6, 8, 9, 10, 11]])  # 0–3, 4–6, 7–11


def dense_laplacian(edges: Tensor, size: int, weights: Tensor | None = None) -> Tensor:
    total = torch.zeros(size, size)
    for k, (i, j) in enumerate(edges.T.tolist()):
        difference = torch.zeros(size)
        difference[i], difference[j] = 1.0, -1.0
        total += (1.0 if weights is None else float(weights[k])) * torch.outer(difference, difference)
    return total


def generalised(dense: Tensor, zeros: int) -> float:
    """The sum of the logs of all but the smallest eigenvalues, which must be zero, by numpy."""
    values = np.linalg.eigvalsh(dense.numpy())
    assert np.abs(values[:zeros]).max(initial=0.0) < CONDITIONED < values[zeros]
    return float(np.log(values[zeros:]).sum())


def test_a_matrix_is_what_its_places_say() -> None:
    indices = torch.tensor([[0, 2, 1, 3], [0, 1, 1, 0]])
    found = SparseSymmetric(indices, torch.tensor([4.0, -1.0, 3.0, 0.5]), 4).to_dense()
    expected = torch.tensor([[4.0, 0, 0, 0.5], [0, 3, -1, 0], [0, -1, 0, 0], [0.5, 0, 0, 0]])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", ["dense", "coo", "csr"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_a_constant_of_torch_is_taken(layout: str) -> None:
    dense = dense_laplacian(RING, N)
    given = {"dense": dense, "coo": dense.to_sparse_coo(), "csr": dense.to_sparse_csr()}[layout]
    assert torch.equal(SparseSymmetric.of(given).to_dense(), dense)


def test_laplacians_and_random_walks_are_sums_of_squared_differences() -> None:
    assert close(laplacian(CHORDS, N, WEIGHTS).to_dense(), dense_laplacian(CHORDS, N, WEIGHTS), ROUNDING)
    for order in (1, 2, 3):
        differences = torch.eye(N)
        for _ in range(order):
            differences = differences.diff(dim=0)
        assert close(random_walk(N, order).to_dense(), differences.T @ differences, ROUNDING)


def test_arithmetic_is_that_of_dense_matrices() -> None:
    ring, chords, tau = laplacian(RING, N), laplacian(CHORDS, N, WEIGHTS), torch.tensor([0.7, 1.9])
    unit = torch.eye(N)
    one, two = dense_laplacian(RING, N), dense_laplacian(CHORDS, N, WEIGHTS)
    mixed = (tau * (np.float64(2.0) * identity(N) + ring) - chords / 4.0).to_dense()
    assert close(mixed, tau[:, None, None] * (2.0 * unit + one) - two / 4, ROUNDING)
    x, precision = torch.randn(2, N), tau * (ring + chords + identity(N))
    dense = precision.to_dense()
    assert close(precision @ x, (dense @ x[..., None])[..., 0], ROUNDING)
    assert close(precision.quadratic_form(x), torch.einsum("bi,bij,bj->b", x, dense, x), ROUNDING)


def test_a_level_far_from_zero_loses_nothing() -> None:
    x, level = torch.randn(N), 1e7
    at_zero = laplacian(RING, N).quadratic_form(x)
    found = (2.0 * laplacian(RING, N)).quadratic_form(x + level)  # x itself is rounded at the ninth digit
    assert close(found, 2.0 * at_zero, DIFFERENCES)


def precision_of(kind: str, tau: Tensor, kappa: Tensor) -> SparseSymmetric:
    """τ (κ I + R) on a ring, in the ways there are to write it."""
    if kind == "sum":
        return tau * (kappa * identity(N) + laplacian(RING, N))
    if kind == "constant":
        return tau * SparseSymmetric.of(0.3 * torch.eye(N) + dense_laplacian(RING, N))
    own = torch.arange(N).expand(2, -1)
    values = torch.cat([-tau * torch.ones(N), tau * (2.0 + kappa) * torch.ones(N)])
    return SparseSymmetric(torch.cat([RING, own], 1), values, N)


KINDS = ("sum", "constant", "values")


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_determinant_is_numpys_and_is_differentiated_twice(kind: str) -> None:
    tau, kappa = torch.tensor(1.3, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    found = log_determinant(precision_of(kind, tau, kappa))
    dense = precision_of(kind, tau.detach(), kappa.detach()).to_dense()
    assert float(found.detach()) == pytest.approx(np.linalg.slogdet(dense.numpy())[1], rel=ROUNDING)

    def function(tau: Tensor, kappa: Tensor) -> Tensor:
        return log_determinant(precision_of(kind, tau, kappa)) + 0.0 * kappa

    assert torch.autograd.gradcheck(function, (tau, kappa))
    assert torch.autograd.gradgradcheck(function, (tau, kappa))


def test_a_batch_has_a_determinant_each() -> None:
    tau = torch.tensor([[0.5], [2.0]])
    found = log_determinant(tau * identity(N) + torch.tensor([1.0, 2.0, 3.0]) * laplacian(RING, N))
    dense = (tau * identity(N) + torch.tensor([1.0, 2.0, 3.0]) * laplacian(RING, N)).to_dense()
    assert close(found, torch.linalg.slogdet(dense)[1], ROUNDING)


INTRINSIC: dict[str, tuple[Callable[[], SparseSymmetric], int]] = {
    "connected": (lambda: laplacian(RING, N), 1),
    "three parts": (lambda: laplacian(TWO_PARTS, N), 3),
    "weighted": (lambda: laplacian(torch.cat([RING, CHORDS], 1), N, torch.linspace(0.5, 2.0, N + 3)), 1),
    "first order": (lambda: random_walk(N, 1), 1),
    "second order": (lambda: random_walk(N, 2), 2),
    "third order": (lambda: random_walk(N, 3), 3),
    "what both have": (lambda: 0.4 * random_walk(N, 2) + random_walk(N, 1), 1),
    "given": (lambda: SparseSymmetric.of(dense_laplacian(RING, N), null=torch.full((N, 1), 3.0)), 1),
}


@pytest.mark.parametrize("name", INTRINSIC)
def test_an_intrinsic_matrix_has_the_product_of_its_other_eigenvalues(name: str) -> None:
    make, zeros = INTRINSIC[name]
    matrix = make()
    assert matrix.null is not None and matrix.null.shape == (N, zeros) and matrix.rank == N - zeros
    dense = matrix.to_dense()
    assert close(dense @ matrix.null, torch.zeros(N, zeros), ROUNDING)
    assert float(log_determinant(matrix)) == pytest.approx(generalised(dense, zeros), rel=CONDITIONED)
    scaled = log_determinant(torch.tensor(2.5) * matrix)
    assert float(scaled) == pytest.approx(generalised(2.5 * dense, zeros), rel=CONDITIONED)


def test_an_intrinsic_determinant_of_two_parameters_is_differentiated_twice() -> None:
    def function(one: Tensor, two: Tensor) -> Tensor:
        return log_determinant(one * random_walk(N, 1) + two * random_walk(N, 2))

    given = (torch.tensor(1.3, requires_grad=True), torch.tensor(0.4, requires_grad=True))
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given)


def test_what_makes_it_definite_takes_the_null_space_away() -> None:
    assert (laplacian(RING, N) + 0.1 * identity(N)).null is None
    apart = laplacian(TWO_PARTS, N) + laplacian(RING, N)
    assert apart.null is not None and close(apart.null.abs(), torch.full((N, 1), N**-0.5), ROUNDING)


def test_a_matrix_that_is_not_definite_has_no_determinant() -> None:
    tau = torch.tensor(1.0, requires_grad=True)
    found = log_determinant(tau * laplacian(RING, N) - identity(N))
    (slope,) = torch.autograd.grad(found, tau, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, tau)
    assert found.isnan() and slope.isnan() and curvature.isnan()


def test_nothing_is_factorised_again_where_the_numbers_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def derivatives(tau: Tensor) -> list[Tensor]:
        value = log_determinant(tau * (0.3 * identity(N) + laplacian(RING, N)))
        (slope,) = torch.autograd.grad(value, tau, create_graph=True)
        return [value.detach(), slope.detach(), *torch.autograd.grad(slope, tau)]

    def again(*_: object) -> None:
        raise AssertionError("factorised again")

    tau = torch.tensor(1.3, requires_grad=True)
    first = derivatives(tau)
    monkeypatch.setattr(pencil, "SparseFactor", again)
    assert derivatives(tau) == first
    with pytest.raises(AssertionError, match="factorised again"):
        derivatives(torch.tensor(1.4, requires_grad=True))


def test_a_long_random_walk_has_its_determinant_in_closed_form() -> None:
    """That of first differences is n, of second ones n² (n² − 1) / 12: a factorisation would lose them."""
    n = 20_000.0
    assert float(log_determinant(random_walk(int(n)))) == pytest.approx(np.log(n), rel=ROUNDING)
    second = np.log(n**2 * (n**2 - 1) / 12)
    assert float(log_determinant(random_walk(int(n), 2))) == pytest.approx(second, rel=ROUNDING)


def test_a_pattern_is_analysed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> None:
        raise AssertionError("analysed again")

    first = precision_of("values", torch.tensor(1.0), torch.tensor(1.0))
    log_determinant(first)
    monkeypatch.setattr(Sparsity, "of", again)
    second = precision_of("values", torch.tensor(2.0), torch.tensor(1.0))
    assert second.sparsity is first.sparsity
    assert laplacian(RING.clone(), N) is laplacian(RING, N) and identity(N) is identity(N)
    assert (torch.tensor(2.0) * (identity(N) + laplacian(RING, N))).sparsity is laplacian(RING, N).sparsity


def test_what_is_wrong_is_refused() -> None:
    ones = torch.ones(2)
    for indices, size, values, message in (
        (torch.tensor([[0, 1], [1, 0]]), 3, ones, "given twice"),
        (torch.tensor([[0, 3], [0, 1]]), 3, ones, "outside"),
        (torch.tensor([[0, 1]]), 3, ones, "places"),
    ):
        with pytest.raises(ValueError, match=message):
            SparseSymmetric(indices, values, size)
    with pytest.raises(ValueError, match="not symmetric"):
        SparseSymmetric.of(torch.tensor([[1.0, 2.0], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="not symmetric"):
        SparseSymmetric.of(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="square"):
        SparseSymmetric.of(torch.ones(2, 3))
    with pytest.raises(ValueError, match="lose the second derivative"):
        SparseSymmetric.of(torch.eye(3, requires_grad=True))
    with pytest.raises(ValueError, match="null space to zero"):
        SparseSymmetric.of(torch.eye(3), null=torch.ones(3, 1))
    with pytest.raises(ValueError, match="depend on one another"):
        SparseSymmetric.of(torch.zeros(3, 3), null=torch.ones(3, 2))
    with pytest.raises(ValueError, match="few columns"):
        SparseSymmetric.of(torch.zeros(3, 3), null=torch.ones(3))
    with pytest.raises(ValueError, match="to itself"):
        laplacian(torch.tensor([[0], [0]]), 3)
    with pytest.raises(ValueError, match="cannot be added"):
        identity(3) + identity(4)
    with pytest.raises(ValueError, match="order 3 over 3"):
        random_walk(3, 3)
    with pytest.raises(TypeError):
        identity(3) + 1.0  # type: ignore[operator]
    with pytest.raises(TypeError):
        "tau" * identity(3)  # type: ignore[operator]
