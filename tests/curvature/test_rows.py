"""Rows, their Hessian blocks against torch.autograd.functional.hessian, and the probe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hofit.coordinates import Coordinates
from hofit.curvature.probed import product
from hofit.curvature.rows import hessian_blocks, rows_by_last_dimension, rows_from_plates, rows_interact
from hofit.point import Params, Plate, Point, Site, TracedPoint
from tests.tolerances import ROUNDING


def site(name: str, shape: tuple[int, ...], *plates: Plate) -> Site:
    return Site(name, "latent", torch.Size(shape), torch.Size(shape), "real", plates)


SITES = {
    "a": site("a", (3, 4, 2), Plate("r", 3, -3), Plate("c", 4, -2)),
    "b": site("b", (4, 3), Plate("c", 4, -2), Plate("r", 3, -1)),  # the same plates the other way round
    "t": site("t", (4, 1, 2), Plate("c", 4, -3)),
    "g": site("g", (2, 2)),
    "s": site("s", ()),
}


def some(seed: int = 0) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(s.shape, generator=generator) for name, s in SITES.items()}


def test_sites_in_the_same_plates_share_rows_and_others_stand_alone() -> None:
    groups = {group.names: group for group in rows_from_plates(list(SITES), SITES)}
    assert set(groups) == {("a", "b"), ("t",), ("g",), ("s",)}
    joined = groups["a", "b"]
    assert (joined.rows, joined.length) == (12, 3)
    assert (groups["t",].rows, groups["t",].length) == (4, 2)
    assert (groups["g",].rows, groups["g",].length) == (1, 4)
    params = some()
    matrix = joined.to_rows(params)
    row = dict.fromkeys(range(12))
    for c in range(4):
        for r in range(3):
            expected = torch.cat([params["a"][r, c], params["b"][c, r][None]])
            assert any(torch.equal(matrix[k], expected) for k in row)


def test_rows_and_parameters_are_each_others_inverse_with_and_without_a_batch() -> None:
    params = some()
    for group in rows_from_plates(list(SITES), SITES):
        for name, value in group.from_rows(group.to_rows(params)).items():
            assert torch.equal(value, params[name])
        batch = {name: torch.stack([params[name], 2 * params[name]]) for name in group.names}
        for name, value in group.from_rows(group.to_rows(batch, 1), 1).items():
            assert torch.equal(value, batch[name])


def point(function: object, params: Params) -> Point:
    leaves = {name: p.clone().requires_grad_(True) for name, p in params.items()}
    return TracedPoint(params, function(leaves), leaves)  # type: ignore[operator]


def by_rows(params: Params) -> Tensor:
    a, b = params["a"], params["b"].T[..., None]
    return ((a**2).sum(-1, keepdim=True) * b.cos() + (a * b).exp()).sum()


def dense_hessian(point: Point, names: list[str]) -> Tensor:
    """One probe a column. Shape (d, d)."""
    coordinates = Coordinates.of(point.params, names)
    return product(point, coordinates, torch.eye(coordinates.size))


def test_blocks_equal_the_dense_hessian_where_rows_are_independent() -> None:
    params = {name: 0.3 * p for name, p in some().items() if name in ("a", "b")}
    (group,) = rows_from_plates(list(params), SITES)
    at = point(by_rows, params)
    blocks = hessian_blocks(group, at.hvp, group.to_rows(params))
    flat = torch.cat([params["a"].reshape(-1), params["b"].reshape(-1)])

    def flattened(vector: Tensor) -> Tensor:
        return by_rows({"a": vector[:24].reshape(3, 4, 2), "b": vector[24:].reshape(4, 3)})

    dense = torch.autograd.functional.hessian(flattened, flat)
    assert torch.allclose(dense_hessian(at, ["a", "b"]), dense, atol=ROUNDING)
    index = group.to_rows(
        {"a": torch.arange(24.0).reshape(3, 4, 2), "b": torch.arange(24.0, 36.0).reshape(4, 3)}
    ).long()
    for block, where in zip(blocks, index, strict=True):
        assert torch.allclose(block, dense[where][:, where], atol=ROUNDING)
    assert not rows_interact(group, blocks, at.hvp)


def test_the_probe_finds_a_weak_interaction() -> None:
    (group,) = rows_by_last_dimension({"x": torch.zeros(50, 2)})

    def weakly(params: Params) -> Tensor:
        x = params["x"]
        return (x.exp()).sum() + 1e-4 * x[3, 0] * x[17, 1]

    at = point(weakly, {"x": torch.zeros(50, 2)})
    blocks = hessian_blocks(group, at.hvp, at.params["x"])
    assert rows_interact(group, blocks, at.hvp)


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_the_probe_tells_a_coupling_of_two_rows_from_their_own_curvature(rows: int) -> None:
    """By a probe with equal entries a coupling would look like a part of the diagonal."""
    (group,) = rows_by_last_dimension({"x": torch.zeros(rows, 1)})

    def coupled(params: Params) -> Tensor:
        x = params["x"][:, 0]
        return 0.5 * (x**2).sum() + 0.9 * x[0] * x[1]

    at = point(coupled, {"x": torch.zeros(rows, 1)})
    assert rows_interact(group, hessian_blocks(group, at.hvp, at.params["x"]), at.hvp)


def test_an_operation_that_cannot_be_batched_over_probes_falls_back_to_one_by_one() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)  # type: ignore[attr-defined]
            return x**3

        @staticmethod
        def backward(ctx: object, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
            if g.numel():
                float(g.sum())  # a number is asked for: not possible under vmap
            slope: Tensor = g * 3 * x**2
            return slope

    def cubes(params: Params) -> Tensor:
        total: Tensor = Cube.apply(params["x"]).sum()  # type: ignore[no-untyped-call]
        return total

    at = point(cubes, {"x": torch.tensor([1.0, 2.0, -1.0])})
    assert torch.allclose(dense_hessian(at, ["x"]), torch.diag(torch.tensor([6.0, 12.0, -6.0])))
