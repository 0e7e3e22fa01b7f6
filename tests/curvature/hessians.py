"""A Hessian held against autograd's own, and what it takes: a model's objective, and points of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from hofit.curvature.structure import Curvature
from hofit.linear.matrix_free import MatrixFree
from hofit.linear.operator import Operator
from hofit.model.program import Program
from hofit.objective.density import DensityObjective
from hofit.point import Params
from tests.tolerances import CONDITIONED

Model = Callable[[], Any]


@contextmanager
def objective(model: Model, type: str = "map") -> Iterator[DensityObjective]:
    program = Program(model, {})
    with program.scope():
        program.discover("median")
        yield DensityObjective(program, type)


def random_point(like: Params, seed: int, spread: float = 0.6) -> Params:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: spread * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        for name, p in like.items()
    }


def true_hessian(at: DensityObjective, params: Params, names: Sequence[str] | None = None) -> Tensor:
    """Row by row from autograd, with nothing of hofit's curvature in between."""
    point = at.at(params)
    leaves = [point.leaves[name] for name in names or params]
    gradients = torch.autograd.grad(point.loss, leaves, create_graph=True, allow_unused=True)
    flat = torch.cat([(0 * x if g is None else g).reshape(-1) for g, x in zip(gradients, leaves, strict=True)])
    rows = []
    for entry in flat:
        if not entry.requires_grad:
            rows.append(torch.zeros_like(flat))
            continue
        row = torch.autograd.grad(entry, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([r.reshape(-1) for r in row]))
    return torch.stack(rows).detach() if rows else flat.new_zeros(0, 0)


def whole(operator: Operator | MatrixFree) -> Tensor:
    """All entries; in the dtype that the operator has."""
    like = operator.like if isinstance(operator, Operator) else torch.empty(0)
    return operator.matvec(torch.eye(operator.size, dtype=like.dtype))


def check(
    curvature: Curvature, at: DensityObjective, params: Params, names: Sequence[str] | None = None
) -> Operator | MatrixFree:
    """The operator, held against autograd's Hessian."""
    names = list(names or params)
    expected = true_hessian(at, params, names)
    operator = curvature.at(at.at(params), names)
    found = whole(operator)
    assert found.shape == expected.shape
    if expected.numel():
        off = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        assert off <= CONDITIONED, curvature.describe(operator)
    return operator
