"""Sparse factorisation beyond what every operator must do, against numpy's dense inverse and finite differences."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu
from torch import Tensor

from hofit.linear import elimination as elimination_module
from hofit.linear import multifrontal as multifrontal_module
from hofit.linear import sparse as sparse_module
from hofit.linear import sparse_log_determinant as determinant_module
from hofit.linear import supernodes as supernodes_module
from hofit.linear import updates as updates_module
from hofit.linear.elimination import Elimination
from hofit.linear.multifrontal import SPARSE_MIDDLE, forward, second_traces
from hofit.linear.sparse import Sparse
from hofit.linear.sparse_log_determinant import Bends, sparse_log_determinant
from hofit.linear.sparsity import Sparsity
from hofit.linear.updates import InRoot, Scattered, WholeRoot
from tests.linear.graphs import GRAPHS, Graph, band, beside, chain, crossed, grid, groups, nested, random, skewed
from tests.tolerances import CONDITIONED, ROUNDING, close

Array = NDArray[np.float64]
SMALL: dict[str, Graph] = {
    "chain": chain(23),
    "band": band(17, 3),
    "grid": grid(5),
    "groups": groups(6, 2, 2),
    "nested groups": nested(4, 3, 2),
    "crossed": crossed(12, 5, 25),
    "random": random(20, 24),
    "one number": GRAPHS["one number"],
}


def sparsity_of(graph: Graph) -> Sparsity:
    size, edges = graph
    rows, columns = torch.tensor(edges).reshape(-1, 2).unbind(1)
    return Sparsity.of(size, rows, columns)


def definite(graph: Graph) -> Sparse:
    """Diagonally dominant by a half."""
    sparsity = sparsity_of(graph)
    values = torch.randn(len(sparsity.rows), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values[sparsity.diagonal] = 0.0
    values[sparsity.diagonal] = Sparse(sparsity, values.abs()).matvec(torch.ones(sparsity.size)) + 0.5
    return Sparse(sparsity, values)


def dense(operator: Sparse) -> Tensor:
    return operator.matvec(torch.eye(operator.size))


@pytest.fixture
def many_fronts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small matrices are one front: unless a batch costs nothing."""
    monkeypatch.setattr(elimination_module, "GROUP_SECONDS", 0.0)
    monkeypatch.setattr(supernodes_module, "GROUP_SECONDS", 0.0)


# --- The pattern ------------------------------------------------------------------------------------


def test_places_of_both_triangles_and_twice_are_one_pattern() -> None:
    sparsity = Sparsity.of(4, torch.tensor([0, 2, 3, 3, 1]), torch.tensor([2, 0, 1, 3, 3]))
    places = list(zip(sparsity.rows.tolist(), sparsity.columns.tolist(), strict=True))
    assert places == [(0, 0), (1, 1), (2, 0), (2, 2), (3, 1), (3, 3)]


def test_slots_are_found_in_either_triangle_and_any_order() -> None:
    sparsity = Sparsity(3, torch.tensor([2, 0, 2, 1]), torch.tensor([2, 0, 0, 1]))
    found = sparsity.slots(torch.tensor([[0, 2], [1, 2]]), torch.tensor([[2, 0], [1, 2]]))
    assert found.tolist() == [[2, 2], [3, 0]]
    assert sparsity.diagonal.tolist() == [1, 3, 0]


def test_a_place_that_is_not_part_of_the_pattern_has_no_slot() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\) is not part of the pattern of 4 places"):
        Sparsity(3, torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 0, 2])).slots(torch.tensor([2]), torch.tensor([1]))


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [([0, 1, 0], [0, 1, 1], "lower"), ([0, 1], [0, 0], "diagonal"), ([0, 1, 1, 1], [0, 1, 0, 0], "once")],
    ids=["upper triangle", "no diagonal", "twice"],
)
def test_a_pattern_is_a_lower_triangle_with_its_diagonal(rows: list[int], columns: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sparsity(2, torch.tensor(rows), torch.tensor(columns))


def test_what_a_factorisation_takes_is_said_in_words() -> None:
    sparsity = sparsity_of(chain(20_000))
    assert sparsity.describe().startswith("sparse: 20000 numbers, 39999 entries, fill ")
    assert sparsity.fill < 8 * 20_000 and sparsity.flops < 100 * 20_000 and sparsity.memory < 400 * 20_000


def test_four_times_the_grid_is_little_more_than_four_times_the_fill() -> None:
    """n log n by nested dissection (George 1973), where a natural order has eight times: n^1.5."""
    small, large = (sparsity_of(grid(side)).fill for side in (40, 80))
    assert large < 6.0 * small


FILLED = {
    "crossed": crossed(2_000, 200, 20_000),
    "crossed, skewed": skewed(2_000, 1_200, 100_000),
    "crossed, in schools": beside(*(crossed(60, 20, 200) for _ in range(30))),
    "groups": groups(2_000, 3, 6),
    "random": random(2_000, 2_500),
    "grid": grid(40),
}


@pytest.mark.parametrize("name", FILLED)
def test_no_more_is_filled_in_than_need_be(name: str) -> None:
    """Against SuperLU's, by minimum degree without fronts: zeros that are stored to have larger ones are twice that."""
    operator = definite(FILLED[name])
    whole = csc_matrix(dense(operator).numpy())
    options = {"SymmetricMode": True}
    reference = splu(whole, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    assert operator.sparsity.fill < 3.0 * reference.L.nnz


def test_the_same_pattern_is_analysed_alike() -> None:
    one, other = (sparsity_of(random(700, 900)).elimination for _ in range(2))
    assert torch.equal(one.place, other.place) and torch.equal(one.address, other.address)


def test_importing_hofit_imports_no_scipy() -> None:
    code = "import sys, hofit.linear.sparse_log_determinant; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- The factor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_the_inverse_on_the_pattern_is_that_of_numpy(name: str) -> None:
    operator = definite(GRAPHS[name])
    expected = torch.tensor(np.linalg.inv(dense(operator).numpy()))
    sparsity = operator.sparsity
    assert close(operator.factor().inverse(), expected[sparsity.rows, sparsity.columns], ROUNDING)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("many_fronts")
def test_every_way_through_small_fronts(name: str) -> None:
    operator = definite(SMALL[name])
    factor = operator.factor(0.2)
    matrix = dense(operator) + 0.2 * torch.eye(operator.size)
    vectors = torch.randn(2, 3, operator.size)
    inverse = torch.tensor(np.linalg.inv(matrix.numpy()))
    assert close(factor.solve(vectors), vectors @ inverse, ROUNDING)
    assert close(factor.inverse(), inverse[operator.sparsity.rows, operator.sparsity.columns], ROUNDING)
    assert close(factor.log_determinant(), torch.tensor(np.linalg.slogdet(matrix.numpy())[1]), ROUNDING)
    root = factor.draw(torch.eye(operator.size))
    assert close(root.T @ root, inverse, ROUNDING)
    assert close(factor.half_solve(vectors), vectors @ root.T, ROUNDING)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("many_fronts")
def test_any_one_pivot_that_fails_gives_a_direction(name: str) -> None:
    operator = definite(SMALL[name])
    for place in range(operator.size):
        values = operator.values.clone()
        values[operator.sparsity.diagonal[place]] *= -1
        refused = Sparse(operator.sparsity, values)
        factor = refused.factor()
        assert not factor.positive and factor.direction is not None
        assert abs(float(factor.direction.norm()) - 1) < ROUNDING
        assert float(factor.direction @ refused.matvec(factor.direction)) <= 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.usefixtures("many_fronts")
def test_no_entry_may_be_other_than_finite(bad: float) -> None:
    operator = definite(SMALL["grid"])
    for place in range(len(operator.values)):
        values = operator.values.clone()
        values[place] = bad
        factor = Sparse(operator.sparsity, values).factor()
        assert not factor.positive and factor.direction is None


CROSSED = crossed(300, 60, 1500)
MEETING_ALL = groups(300, 3, 12)


@pytest.mark.parametrize("graph", [CROSSED, MEETING_ALL, grid(30)], ids=["crossed", "groups", "grid"])
def test_addresses_that_are_computed_in_chunks_change_no_number(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for many, chunk in ((10**9, 2**18), (0, 2**18), (10**9, 64), (0, 64)):
        monkeypatch.setattr(supernodes_module, "MANY_UPDATES", many)
        monkeypatch.setattr(updates_module, "CHUNK", chunk)
        monkeypatch.setattr(elimination_module, "ADDRESSES", chunk)
        operator = definite(graph)
        factor = operator.factor()
        solved = factor.solve(torch.ones(operator.size))
        kinds = {type(group.updates) for group in operator.sparsity.elimination.groups}
        assert kinds & ({Scattered, WholeRoot} if many else {InRoot, WholeRoot})
        found.append(torch.cat([factor.inverse(), solved, second(operator), traces(operator, three(operator)).ravel()]))
    assert all(close(one, found[0], ROUNDING) for one in found[1:])


def second(operator: Sparse) -> Tensor:
    """A product with the second derivative of the log determinant, along no direction in particular."""
    values = operator.values.clone().requires_grad_()
    along = torch.linspace(-1, 2, len(values))
    (slope,) = torch.autograd.grad(sparse_log_determinant(operator.sparsity, values), values, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, values, along)
    return curvature


def three(operator: Sparse) -> Tensor:
    """Directions: along everything, along the diagonal of some, and nowhere."""
    along = torch.randn(3, len(operator.values), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    along[1, operator.sparsity.rows != operator.sparsity.columns] = 0.0
    along[1, operator.sparsity.diagonal[: operator.size // 2]] = 0.0
    along[2] = 0.0
    return along


def traces(operator: Sparse, along: Tensor) -> Tensor:
    factor = operator.factor()
    return second_traces(operator.sparsity.elimination, factor.panel, factor.inverse_panel, along)


def expected_traces(operator: Sparse, along: Tensor) -> Tensor:
    moved = torch.stack([torch.linalg.solve(dense(operator), dense(Sparse(operator.sparsity, one))) for one in along])
    return torch.einsum("aij,bji->ab", moved, moved)


# --- The log determinant ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("fronts", ["one front", "many fronts"])
def test_the_log_determinant_has_two_derivatives(name: str, fronts: str, request: pytest.FixtureRequest) -> None:
    if fronts == "many fronts":
        request.getfixturevalue("many_fronts")
    operator = definite(SMALL[name])
    values = operator.values.clone().requires_grad_()

    def of(values: Tensor) -> Tensor:
        return sparse_log_determinant(operator.sparsity, values)

    assert torch.autograd.gradcheck(of, values)
    assert torch.autograd.gradgradcheck(of, values)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("many_fronts")
def test_the_traces_of_every_two_directions_are_those_of_numpy(name: str) -> None:
    operator = definite(SMALL[name])
    along = three(operator)
    assert close(traces(operator, along), expected_traces(operator, along), ROUNDING)


@pytest.mark.parametrize("single", [False, True])
def test_the_traces_at_a_large_root(single: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multifrontal_module, "SINGLE_MIDDLE", 256 if single else 10**9)
    operator = definite(crossed(500, 300, 9000))
    along = three(operator)
    along[2, :10] = 1.0  # few places
    assert close(traces(operator, along), expected_traces(operator, along), 1e-7 if single else ROUNDING)


def test_a_change_of_the_diagonal_alone_meets_no_inverse_of_the_ancestors(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = definite(crossed(500, 300, 9000))
    along = three(operator)[1:2]
    groups = operator.sparsity.elimination.groups
    assert len(groups) > 1
    expected = expected_traces(operator, along)
    operator.factor().inverse_panel  # noqa: B018
    for kind in {type(group.updates) for group in groups if group.updates is not None}:
        monkeypatch.setattr(kind, "product", lambda *_, **__: pytest.fail("a product"))
    assert close(traces(operator, along), expected, ROUNDING)


def pieces_of(operator: Sparse, part: float) -> Tensor:
    """Directions of which the matrix is a sum: one with a part of the diagonal, and the rest on either half of it."""
    sparsity, values = operator.sparsity, operator.values
    found = torch.zeros(3, len(values))
    on, half = sparsity.rows == sparsity.columns, sparsity.diagonal[: operator.size // 2]
    found[0] = torch.where(on, part * values, values)
    found[1, half] = (1 - part) * values[half]
    found[2] = values - found[0] - found[1]
    return found * torch.tensor([[-2.0], [3.0], [0.5]])


@pytest.mark.parametrize(("kind", "swept"), [("a sum", 2), ("nearly", 3), ("none is most", 3), ("alone", 0)])
def test_where_the_matrix_is_a_sum_of_directions_it_stands_for_one(
    kind: str, swept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = definite(grid(5))
    along, taken = pieces_of(operator, 0.4 if kind == "none is most" else 0.9), list[int]()
    if kind == "nearly":
        along[0, 0] *= 1 + 1e-9
    if kind == "alone":
        along = 3.0 * operator.values[None]

    def counted(elimination: Elimination, panel: Tensor, inverse: Tensor, values: Tensor) -> Tensor:
        taken.append(len(values))
        return second_traces(elimination, panel, inverse, values)

    monkeypatch.setattr(determinant_module, "second_traces", counted)
    values, factor = operator.values.clone().requires_grad_(), operator.factor()
    (slope,) = torch.autograd.grad(sparse_log_determinant(operator.sparsity, values, factor), values, create_graph=True)
    with Bends(factor) as bends:
        for one in along:
            torch.autograd.grad(slope @ one, values, retain_graph=True, allow_unused=True)
            bends.take()
    assert close(torch.as_tensor(bends.matrix(estimate=False)), -expected_traces(operator, along), ROUNDING)
    assert sum(taken) == swept


@pytest.mark.parametrize("panels", [0, 2**30])
def test_second_derivatives_that_were_left_out_come_back_together(panels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinant_module, "PANELS", panels)
    operator = definite(grid(5))
    along = three(operator)
    values, factor = operator.values.clone().requires_grad_(), operator.factor()
    found = sparse_log_determinant(operator.sparsity, values, factor) / 2 + values.pow(3).sum()
    (slope,) = torch.autograd.grad(found, values, create_graph=True)

    def rows() -> list[Tensor]:
        return [along @ torch.autograd.grad(slope @ one, values, retain_graph=True)[0] for one in along]

    whole, left = torch.stack(rows()), []
    with Bends(factor) as bends:
        for one in along:
            left.append(along @ torch.autograd.grad(slope @ one, values, retain_graph=True)[0])
            bends.take()
    assert close(torch.stack(left) + bends.matrix(estimate=False), whole, ROUNDING)
    assert close(torch.stack(rows()), whole, ROUNDING)  # nothing is left out any more


@pytest.mark.parametrize("touched", ["all", "few", "diagonal"])
def test_the_second_derivative_at_a_large_root(touched: str) -> None:
    operator = definite(crossed(500, 300, 9000))
    sparsity = operator.sparsity
    assert sparsity.elimination.groups[-1].pivots >= SPARSE_MIDDLE
    along = torch.randn(len(operator.values))
    if touched == "few":
        along[10:] = 0.0
    if touched == "diagonal":
        along[sparsity.rows != sparsity.columns] = 0.0
    values = operator.values.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sparse_log_determinant(sparsity, values), values, create_graph=True)
    (found,) = torch.autograd.grad(slope, values, along)
    inverse = torch.linalg.inv(dense(operator))
    middle = dense(Sparse(sparsity, along))
    expected = -(inverse @ middle @ inverse)[sparsity.rows, sparsity.columns]
    assert close(found, torch.where(sparsity.rows == sparsity.columns, expected, 2 * expected), ROUNDING)


def test_a_factor_that_is_there_is_used_again() -> None:
    operator = definite(grid(6))
    factor = operator.factor()
    values = operator.values.clone().requires_grad_()
    found = sparse_log_determinant(operator.sparsity, values, factor=factor)
    (slope,) = torch.autograd.grad(found, values)
    assert torch.equal(found, factor.log_determinant())
    off = operator.sparsity.rows != operator.sparsity.columns
    assert torch.equal(slope, torch.where(off, 2.0, 1.0) * factor.inverse())


def test_the_factor_of_a_scaled_matrix_is_a_scaled_one() -> None:
    operator = definite(grid(6))
    scale = torch.linspace(0.1, 3.0, operator.size)
    scaled = operator.scaled(scale).scaled(scale)
    factor, own = scaled.factor(), Sparse(operator.sparsity, scaled.values).factor()
    assert factor.panel is operator.factor().panel
    noise = torch.randn(2, operator.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert close(factor.log_determinant(), own.log_determinant(), ROUNDING)
    for name in ("solve", "half_solve", "draw"):
        assert close(getattr(factor, name)(noise), getattr(own, name)(noise), CONDITIONED)
    assert close(factor.inverse(), own.inverse(), CONDITIONED)


def test_a_matrix_that_is_the_same_but_for_rounding_takes_the_factor() -> None:
    operator = definite(grid(6))
    factor = operator.factor()
    eps = torch.finfo(torch.float64).eps
    assert Sparse(operator.sparsity, operator.values * (1 + eps)).factor_as(operator) is factor
    assert Sparse(operator.sparsity, operator.values * 1.0001).factor_as(operator) is not factor
    assert (
        Sparse(operator.sparsity, operator.values).factor_as(Sparse(operator.sparsity, operator.values)) is not factor
    )


def test_what_is_not_positive_definite_has_no_log_determinant() -> None:
    operator = definite(chain(9))
    values = (-operator.values).requires_grad_()
    found = sparse_log_determinant(operator.sparsity, values)
    assert torch.isnan(found) and torch.isnan(torch.autograd.grad(found, values)[0]).all()


@pytest.mark.parametrize("name", ["grid", "crossed"])
def test_single_precision_is_kept(name: str) -> None:
    operator = definite(GRAPHS[name])
    single = Sparse(operator.sparsity, operator.values.float()).factor()
    assert single.inverse().dtype == torch.float32
    assert close(single.inverse().double(), operator.factor().inverse(), 1e4 * CONDITIONED)


def test_an_estimated_second_derivative_is_symmetric_seeded_and_near_the_exact_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(determinant_module, "CLEARLY", 0.0)
    operator = definite(crossed(2_000, 200, 20_000))
    generator = torch.Generator().manual_seed(3)
    # What fits ask for: the scale of one level, and all weights at once.
    first = torch.zeros_like(operator.values)
    first[operator.sparsity.diagonal[:2_000]] = 1.0
    along = operator.values * (1 + 0.1 * torch.rand(len(operator.values), generator=generator, dtype=torch.float64))

    def bends(estimate: bool) -> Tensor:
        values = operator.values.clone().requires_grad_()
        found = sparse_log_determinant(operator.sparsity, values, estimate=estimate)
        (slope,) = torch.autograd.grad(found, values, create_graph=True)
        rows = []
        for one in (first, along):
            (row,) = torch.autograd.grad(slope @ one, values, retain_graph=True)
            rows.append(torch.stack([row @ first, row @ along]))
        return torch.stack(rows)

    exact, estimated = bends(False), bends(True)
    assert torch.equal(estimated, bends(True))
    assert close(estimated, estimated.T, ROUNDING)
    assert float(((estimated - exact) / exact).abs().max()) < 0.05
    assert float(((estimated - exact) / exact).abs().max()) > ROUNDING  # it is an estimate


def test_the_probes_of_several_directions_go_through_the_factor_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinant_module, "CLEARLY", 0.0)
    operator = definite(grid(5))
    along = torch.randn(5, len(operator.values), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    values, factor = operator.values.clone().requires_grad_(), operator.factor()
    (slope,) = torch.autograd.grad(sparse_log_determinant(operator.sparsity, values, factor), values, create_graph=True)
    alone = [factor.half_solve(Sparse(operator.sparsity, one).matvec(factor.probes)) for one in along]
    expected = -torch.einsum("apd,bpd->ab", torch.stack(alone), torch.stack(alone)) / len(factor.probes)
    sweeps: list[int] = []

    def counted(elimination: Elimination, panel: Tensor, vectors: Tensor) -> None:
        sweeps.append(vectors.shape[1])
        forward(elimination, panel, vectors)

    monkeypatch.setattr(sparse_module, "forward", counted)
    with Bends(factor) as bends:
        for one in along:
            torch.autograd.grad(slope @ one, values, retain_graph=True, allow_unused=True)
            bends.take()
    assert close(torch.as_tensor(bends.matrix(estimate=True)), expected, ROUNDING)
    assert len(sweeps) == 2 and sum(sweeps) == 5 * len(factor.probes)
