"""What every structured matrix must do, each held against the same matrix written out in numpy."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hofit.linear import coupling as coupling_module
from hofit.linear.arrowhead import Arrowhead
from hofit.linear.block_diagonal import BlockDiagonal, Blocks
from hofit.linear.coupling import Coupling
from hofit.linear.dense import Dense
from hofit.linear.diagonal import Diagonal
from hofit.linear.operator import Operator
from hofit.linear.sparse import Sparse
from hofit.linear.sparsity import Sparsity
from hofit.linear.spectrum import inertia
from tests.linear.graphs import GRAPHS
from tests.tolerances import CONDITIONED, SINGLE

Array = NDArray[np.float64]
DTYPES = (torch.float64, torch.float32)
SHIFTS = (0.0, 0.3, 50.0)


@dataclass(frozen=True)
class Layout:
    """Groups of (rows, row length), and how many places the border has; None where there are no rows."""

    groups: tuple[tuple[int, int], ...] | None
    border: int
    build: Callable[[Array, list[NDArray[np.int64]], NDArray[np.int64], torch.dtype], Operator]


def as_diagonal(
    matrix: Array, rows: list[NDArray[np.int64]], border: NDArray[np.int64], dtype: torch.dtype
) -> Operator:
    return Diagonal(torch.tensor(matrix.diagonal().copy(), dtype=dtype))


def blocks_of(matrix: Array, rows: list[NDArray[np.int64]], dtype: torch.dtype) -> list[Blocks]:
    return [
        Blocks(torch.tensor(index), torch.tensor(matrix[index[:, :, None], index[:, None, :]], dtype=dtype))
        for index in rows
    ]


def as_rows(matrix: Array, rows: list[NDArray[np.int64]], border: NDArray[np.int64], dtype: torch.dtype) -> Operator:
    return BlockDiagonal(blocks_of(matrix, rows, dtype))


def as_arrowhead(
    matrix: Array, rows: list[NDArray[np.int64]], border: NDArray[np.int64], dtype: torch.dtype
) -> Operator:
    couplings = [Coupling(torch.tensor(matrix[index[:, :, None], border], dtype=dtype)) for index in rows]
    corner = torch.tensor(matrix[np.ix_(border, border)], dtype=dtype)
    return Arrowhead(blocks_of(matrix, rows, dtype), couplings, torch.tensor(border), corner)


def as_dense(matrix: Array, rows: list[NDArray[np.int64]], border: NDArray[np.int64], dtype: torch.dtype) -> Operator:
    return Dense(torch.tensor(matrix, dtype=dtype))


def as_sparse(matrix: Array, rows: list[NDArray[np.int64]], border: NDArray[np.int64], dtype: torch.dtype) -> Operator:
    sparsity = sparsity_of(len(matrix), *(tuple(place.tolist()) for place in np.nonzero(matrix)))
    return Sparse(sparsity, torch.tensor(matrix, dtype=dtype)[sparsity.rows, sparsity.columns])


@cache
def sparsity_of(size: int, rows: tuple[int, ...], columns: tuple[int, ...]) -> Sparsity:
    """Analysed once, as for a fit whose matrices have one pattern."""
    return Sparsity.of(size, torch.tensor(rows, dtype=torch.int64), torch.tensor(columns, dtype=torch.int64))


MANY = ((5, 1), (4, 2), (6, 3), (3, 7))
LAYOUTS = {
    "diagonal": Layout(((12, 1),), 0, as_diagonal),
    "diagonal of one": Layout(((1, 1),), 0, as_diagonal),
    "rows of 1, 2, 3 and 7": Layout(MANY, 0, as_rows),
    "rows of 1": Layout(((8, 1),), 0, as_rows),
    "arrowhead": Layout(MANY, 4, as_arrowhead),
    "arrowhead, border of 0": Layout(((5, 1), (4, 2)), 0, as_arrowhead),
    "arrowhead, rows of 1": Layout(((9, 1),), 3, as_arrowhead),
    "dense": Layout(None, 9, as_dense),
    "dense of one": Layout(None, 1, as_dense),
    "dense of 300": Layout(None, 300, as_dense),
    "arrowhead of 400": Layout(((120, 3),), 40, as_arrowhead),
    "sparse, rows": Layout(MANY, 0, as_sparse),
    "sparse, arrowhead": Layout(MANY, 4, as_sparse),
    "sparse, arrowhead of 400": Layout(((120, 3),), 40, as_sparse),
    **{f"sparse on a graph: {name}": Layout(None, 0, as_sparse) for name in GRAPHS},
}
KINDS = ("positive definite", "indefinite in a row", "indefinite in the Schur complement", "semidefinite")


def definite(rng: np.random.Generator, count: int, length: int, lowest: float = 0.5) -> Array:
    """(count, length, length), eigenvalues from ``lowest`` to a few times the length."""
    roots = rng.normal(size=(count, length, length))
    found: Array = roots @ roots.transpose(0, 2, 1) + lowest * np.eye(length)
    return found


def with_lowest(matrix: Array, values: tuple[float, ...]) -> Array:
    """The matrix with its lowest eigenvalues replaced."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    eigenvalues[: len(values)] = values[: len(eigenvalues)]
    found: Array = (vectors * eigenvalues) @ vectors.T
    return found


def on_graph(size: int, edges: NDArray[np.int64], kind: str) -> Array:
    """Diagonally dominant; else one number of the diagonal is lowered until the lowest eigenvalue is −2 or 0."""
    rng = np.random.default_rng(4)
    matrix: Array = np.zeros((size, size))
    matrix[edges[:, 0], edges[:, 1]] = rng.normal(size=len(edges))
    matrix += matrix.T.copy()
    matrix += np.diag(np.abs(matrix).sum(1) + rng.uniform(0.5, 5.0, size))
    if kind != "positive definite":
        place = rng.integers(size)
        lowest = 0.0 if kind == "semidefinite" else -2.0
        matrix[place, place] -= 1.0 / np.linalg.inv(matrix - lowest * np.eye(size))[place, place]
    return matrix


@dataclass(frozen=True)
class Written:
    """A matrix as numpy has it, its places shuffled: those of its rows, and of its border."""

    matrix: Array
    rows: list[NDArray[np.int64]]
    border: NDArray[np.int64]


def make(name: str, kind: str, dtype: torch.dtype = torch.float64) -> tuple[Operator, Array]:
    """An operator, and the same matrix from numpy."""
    written = written_out(name, kind)
    return LAYOUTS[name].build(written.matrix, written.rows, written.border, dtype), written.matrix


@cache
def eigenvalues(name: str, kind: str) -> Array:
    """numpy's, ascending."""
    return np.asarray(np.linalg.eigvalsh(written_out(name, kind).matrix), dtype=np.float64)


@cache
def inverse_of(name: str, shift: float) -> Array:
    """That of the positive definite one, shifted, by numpy."""
    matrix = written_out(name, "positive definite").matrix
    return np.asarray(np.linalg.inv(matrix + shift * np.eye(len(matrix))), dtype=np.float64)


@cache
def written_out(name: str, kind: str) -> Written:
    layout = LAYOUTS[name]
    _, on_a_graph, graph = name.partition(" on a graph: ")
    if on_a_graph:
        matrix = on_graph(*GRAPHS[graph], kind)
        return read_only(Written(matrix, [], np.empty(0, np.int64)))
    rng = np.random.default_rng(3)
    sizes = layout.groups or ()
    size = sum(rows * length for rows, length in sizes) + layout.border
    places = rng.permutation(size)
    rows, start = [], 0
    for count, length in sizes:
        rows.append(places[start : start + count * length].reshape(count, length))
        start += count * length
    border = places[start:]
    lowest = {"positive definite": (0.5,), "semidefinite": (0.0, 0.0)}.get(kind, (-2.0, -0.7))
    in_rows = bool(rows) and (kind == "indefinite in a row" or not layout.border)
    inner = np.zeros((size, size))
    for number, index in enumerate(rows):
        blocks = definite(rng, *index.shape)
        if in_rows and number == len(rows) - 1:
            blocks[index.shape[0] // 2] = with_lowest(blocks[index.shape[0] // 2], lowest)
        for places_of_row, block in zip(index, blocks, strict=True):
            inner[np.ix_(places_of_row, places_of_row)] = block
    matrix = inner.copy()
    if layout.border:
        inside = places[:start]
        corner = definite(rng, 1, layout.border)[0]
        if not in_rows:
            corner = with_lowest(corner, lowest)
        coupling = 0.4 * rng.normal(size=(start, layout.border))
        matrix[np.ix_(inside, border)] = coupling
        matrix[np.ix_(border, inside)] = coupling.T
        if start:
            corner = corner + coupling.T @ np.linalg.solve(inner[np.ix_(inside, inside)], coupling)
        matrix[np.ix_(border, border)] = (corner + corner.T) / 2
    return read_only(Written(matrix, rows, border))


def read_only(written: Written) -> Written:
    """What several tests have in common is changed by none."""
    written.matrix.setflags(write=False)
    return written


def tolerance(dtype: torch.dtype) -> float:
    return 1e-9 if dtype == torch.float64 else 2e-3


def numbers(tensor: Tensor) -> Array:
    array: Array = tensor.double().numpy()
    return array


def close(found: Tensor, expected: Array, dtype: torch.dtype) -> bool:
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return np.allclose(numbers(found), expected, rtol=0.0, atol=tolerance(dtype) * scale)


@pytest.fixture(params=DTYPES, ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found: torch.dtype = request.param
    return found


@pytest.mark.parametrize("name", LAYOUTS)
class TestEveryOperator:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_multiplies(self, name: str, kind: str, dtype: torch.dtype) -> None:
        operator, matrix = make(name, kind, dtype)
        vectors = torch.randn(4, 3, operator.size, dtype=dtype)
        assert operator.size == len(matrix)
        assert operator.like.dtype == dtype and operator.like.numel() == 0
        assert close(operator.matvec(vectors), numbers(vectors) @ matrix, dtype)
        assert close(operator.matvec(vectors[0, 0]), matrix @ numbers(vectors[0, 0]), dtype)
        assert close(operator.diagonal(), matrix.diagonal(), dtype)

    @pytest.mark.parametrize("shift", SHIFTS)
    def test_it_solves(self, name: str, shift: float, dtype: torch.dtype) -> None:
        operator, matrix = make(name, "positive definite", dtype)
        factor = operator.factor(shift)
        inverse = inverse_of(name, shift)
        vectors = torch.randn(4, 3, operator.size, dtype=dtype)
        assert factor.positive and factor.direction is None
        assert close(factor.solve(vectors), numbers(vectors) @ inverse, dtype)
        assert close(factor.solve(vectors[0, 0]), inverse @ numbers(vectors[0, 0]), dtype)
        assert close(factor.inverse_diagonal(), inverse.diagonal(), dtype)
        expected = np.linalg.slogdet(matrix + shift * np.eye(operator.size))[1]
        assert factor.log_determinant().shape == ()
        assert close(factor.log_determinant(), np.asarray(expected), dtype)

    @pytest.mark.parametrize("shift", SHIFTS)
    def test_noise_becomes_a_draw_with_the_inverse_as_covariance(
        self, name: str, shift: float, dtype: torch.dtype
    ) -> None:
        operator, _ = make(name, "positive definite", dtype)
        root = operator.factor(shift).draw(torch.eye(operator.size, dtype=dtype))  # (d, d): a row is L⁻ᵀ eᵢ
        inverse = inverse_of(name, shift)
        assert close(root.T @ root, inverse, dtype)
        noise = torch.randn(4, 3, operator.size, dtype=dtype)
        assert close(operator.factor(shift).draw(noise), numbers(noise) @ numbers(root), dtype)
        assert operator.factor(shift).draw(noise[0, 0]).shape == (operator.size,)

    @pytest.mark.parametrize("kind", KINDS)
    def test_held_places_have_the_rows_of_the_identity(self, name: str, kind: str, dtype: torch.dtype) -> None:
        operator, matrix = make(name, kind, dtype)
        places = torch.rand(operator.size) < 0.4
        free = numbers(1.0 - places.double())
        expected = matrix * free[:, None] * free + np.diag(1.0 - free)
        held = operator.held(places)
        assert held.structure == operator.structure
        assert close(held.matvec(torch.eye(operator.size, dtype=dtype)), expected, dtype)
        assert close(held.diagonal(), expected.diagonal(), dtype)

    @pytest.mark.parametrize("kind", KINDS[1:])
    def test_a_direction_proves_that_there_is_no_factor(self, name: str, kind: str, dtype: torch.dtype) -> None:
        operator, matrix = make(name, kind, dtype)
        scale = max(1.0, float(np.abs(matrix).max()))
        for shift in (-0.1, 0.0) if kind != "semidefinite" else (-0.1,):
            factor = operator.factor(shift)
            assert not factor.positive and factor.direction is not None
            d = numbers(factor.direction)
            assert abs(np.linalg.norm(d) - 1) < tolerance(dtype)
            assert d @ matrix @ d + shift <= tolerance(dtype) * scale
        assert operator.factor(0.1 - float(eigenvalues(name, kind)[0])).positive

    @pytest.mark.parametrize("kind", KINDS)
    def test_inertia_is_that_of_the_spectrum(self, name: str, kind: str, dtype: torch.dtype) -> None:
        operator, matrix = make(name, kind, dtype)
        values = eigenvalues(name, kind)
        scale = max(1.0, float(np.abs(matrix).max()))
        noise = (1e-9 if dtype == torch.float64 else 1e-4) * scale
        found = inertia(operator, noise)
        assert found.negative.shape == (operator.size, int((values < -noise).sum()))
        assert found.zero.shape == (operator.size, int((np.abs(values) <= noise).sum()))
        assert found.positive_definite == bool((values > noise).all())
        assert found.lowest <= values[0] + noise
        for direction in numbers(found.negative).T:
            assert abs(np.linalg.norm(direction) - 1) < 1e-3 and direction @ matrix @ direction < -noise / 2
        for direction in numbers(found.zero).T:
            assert abs(np.linalg.norm(direction) - 1) < 1e-3 and abs(direction @ matrix @ direction) <= 2 * noise

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_lowest_eigenpairs(self, name: str, kind: str, dtype: torch.dtype) -> None:
        operator, matrix = make(name, kind, dtype)
        expected = eigenvalues(name, kind)
        scale = float(np.abs(expected).max())
        for count in (1, 3, 8):
            spectrum = operator.lowest(count)
            values, vectors = numbers(spectrum.values), numbers(spectrum.vectors)
            assert values.shape == (min(count, operator.size),) and vectors.shape == (operator.size, len(values))
            assert np.allclose(values, expected[:count], rtol=0, atol=tolerance(dtype) * scale)
            assert np.allclose(vectors.T @ vectors, np.eye(len(values)), atol=tolerance(dtype))
            assert np.abs(matrix @ vectors - vectors * values).max() <= 1e3 * tolerance(dtype) * scale

    @pytest.mark.parametrize("kind", KINDS)
    def test_scaling_and_norms(self, name: str, kind: str, dtype: torch.dtype) -> None:
        operator, matrix = make(name, kind, dtype)
        scale = torch.rand(operator.size, dtype=dtype) + 0.5
        scaled = operator.scaled(scale)
        by_hand = matrix * numbers(scale)[:, None] * numbers(scale)
        vector = torch.randn(operator.size, dtype=dtype)
        assert scaled.structure == operator.structure
        assert close(scaled.matvec(vector), by_hand @ numbers(vector), dtype)
        assert close(scaled.diagonal(), by_hand.diagonal(), dtype)
        for one, reference, spectrum in (
            (operator, matrix, eigenvalues(name, kind)),
            (scaled, by_hand, np.linalg.eigvalsh(by_hand)),
        ):
            largest = np.abs(reference).max()
            assert abs(one.largest() - largest) <= SINGLE * largest
            assert one.norm_bound() >= np.abs(spectrum).max() * (1 - 1e-6)

    @pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
    def test_it_may_be_of_any_size(self, name: str, size: float) -> None:
        operator, _ = make(name, "indefinite in a row")
        huge = operator.scaled(torch.full((operator.size,), size**0.5))
        expected = eigenvalues(name, "indefinite in a row")
        found = numbers(huge.lowest(3).values) / size
        assert np.allclose(found, expected[:3], rtol=0, atol=1e-8 * np.abs(expected).max())
        assert inertia(huge, 1e-8 * size).negative.shape[1] == int((expected < -1e-8).sum())

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("place", ["first", "last"])
    def test_what_is_not_finite_is_never_positive(self, name: str, bad: float, place: str) -> None:
        operator, _ = make(name, "positive definite")
        scale = torch.ones(operator.size)
        scale[0 if place == "first" else -1] = bad
        broken = operator.scaled(scale)
        assert not np.isfinite(broken.largest())
        assert not broken.factor().positive
        assert torch.isnan(broken.lowest(2).values).all()
        assert not inertia(broken, 1e-9).positive_definite

    def test_zero_is_flat_in_every_direction(self, name: str) -> None:
        operator, _ = make(name, "positive definite")
        zero = operator.scaled(torch.zeros(operator.size))
        found = inertia(zero, 1e-12)
        assert found.negative.shape[1] == 0 and found.zero.shape[1] == min(8, operator.size)
        assert zero.norm_bound() == 0.0 and zero.largest() == 0.0


@pytest.mark.parametrize("name", [name for name, one in LAYOUTS.items() if one.groups and one.border])
def test_a_tiny_memory_budget_changes_no_number(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(name, "positive definite")[0].factor(0.1)
    refused = make(name, "indefinite in the Schur complement")[0].factor()
    expected = whole.log_determinant(), whole.inverse_diagonal(), refused.direction
    for budget in (1, 700):
        monkeypatch.setattr(coupling_module, "MEMORY_BUDGET", budget)
        chunked = make(name, "positive definite")[0].factor(0.1)
        again = make(name, "indefinite in the Schur complement")[0].factor()
        found = chunked.log_determinant(), chunked.inverse_diagonal(), again.direction
        for one, other in zip(found, expected, strict=True):
            assert one is not None and other is not None
            assert torch.allclose(one.abs(), other.abs(), rtol=CONDITIONED, atol=CONDITIONED)


def large_arrowhead(rows: int, border: int, lowest: float) -> Arrowhead:
    """Rows of 2 with unit blocks and a border whose Schur complement has the one eigenvalue ``lowest`` below 1."""
    generator = torch.Generator().manual_seed(5)
    index = torch.arange(2 * rows).reshape(rows, 2)
    coupling = torch.randn(rows, 2, border, generator=generator) / rows**0.5
    schur = torch.eye(border)
    schur[0, 0] = lowest
    flat = coupling.reshape(-1, border)
    blocks = torch.eye(2).expand(rows, 2, 2).contiguous()
    return Arrowhead(
        [Blocks(index, blocks)], [Coupling(coupling)], 2 * rows + torch.arange(border), schur + flat.T @ flat
    )


class Work(TorchDispatchMode):
    """Counts the numbers that operations give back."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.numbers += sum(one.numel() for one in tree_leaves(result) if isinstance(one, Tensor))
        return result


@pytest.mark.parametrize("lowest", [0.5, -0.5])
def test_twice_the_rows_are_twice_the_work(lowest: float) -> None:
    counts = []
    for rows in (5_000, 10_000):
        operator = large_arrowhead(rows, 6, lowest)
        with Work() as work:
            inertia(operator, 1e-9)
            factor = operator.factor(1.0)
            factor.solve(operator.matvec(torch.ones(operator.size)))
            factor.inverse_diagonal()
            factor.log_determinant()
        counts.append(work.numbers)
    assert counts[1] <= 2.1 * counts[0]


@pytest.mark.parametrize(("rows", "lowest"), [(200_000, 0.5), (50_000, -0.5)])
def test_many_rows_take_linear_memory(rows: int, lowest: float) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    operator = large_arrowhead(rows, 6, lowest)
    assert operator.size == 2 * rows + 6
    found = inertia(operator, 1e-9)
    assert found.negative.shape[1] == (lowest < 0) and found.zero.shape[1] == 0
    factor = operator.factor(0.0 if lowest > 0 else 1.0)
    vector = torch.randn(operator.size)
    shifted = operator.matvec(vector) + (0.0 if lowest > 0 else 1.0) * vector
    assert torch.allclose(factor.solve(shifted), vector, atol=1e-8)
    assert (factor.inverse_diagonal() > 0).all() and torch.isfinite(factor.log_determinant())
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    assert grown < 3.0  # GB; rows x rows of the larger would be 1280
