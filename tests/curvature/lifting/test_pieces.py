"""Lifted Hessians against autograd's: many small models, at several points each with one and the same Curvature.

The points after the first are where a silent error would hide: nothing is proved there.
"""

from __future__ import annotations

import pyro
import pytest
import torch
from torch import Tensor

from hofit.coordinates import Coordinates
from hofit.curvature.lifting.maps import IndexCache
from hofit.curvature.lifting.pieces import LiftedLoss
from hofit.curvature.structure import Curvature
from hofit.linear.operator import Operator
from hofit.objective.density import DensityObjective
from hofit.point import Params
from tests.curvature.hessians import check, objective, random_point, true_hessian, whole
from tests.curvature.lifting.models import CASES, base, functions, hierarchies
from tests.curvature.lifting.models.base import G, local
from tests.tolerances import CURVATURE_BY_DIFFERENCES, ROUNDING, close


@pytest.mark.parametrize("type", ["map", "map_unconstrained"])
@pytest.mark.parametrize("name", CASES)
def test_the_hessian_is_autograds_at_every_point(name: str, type: str) -> None:
    one = CASES[name]
    with objective(one.make(), type) as at:
        curvature = Curvature()
        like = at.start()
        described = curvature.describe(check(curvature, at, one.first(like) if one.first else random_point(like, 1)))
        if one.lifted is not None:
            assert curvature.lifts is one.lifted, curvature.why_not_lifted
        assert one.structure in described
        check(curvature, at, random_point(like, 2))
        check(curvature, at, random_point(like, 3, 1.2))


def by_differences(at: DensityObjective, params: Params, direction: Params, h: float = 1e-5) -> Tensor:
    """H v by differences of gradients."""

    def gradient(sign: int) -> Tensor:
        moved = at.at({k: p + sign * h * direction[k] for k, p in params.items()})
        return Coordinates.of(params).flatten(moved.gradient())

    return (gradient(1) - gradient(-1)) / (2 * h)


@pytest.mark.parametrize("name", ["hierarchical_indexed", "irt_nested", "lkj_random_effects", "poisson_matmul"])
def test_the_hessian_is_that_of_differences_of_gradients(name: str) -> None:
    with objective(CASES[name].make()) as at:
        params, direction = random_point(at.start(), 1), random_point(at.start(), 2)
        operator = Curvature().at(at.at(params), list(params))
        expected = by_differences(at, params, direction)
        found = operator.matvec(Coordinates.of(params).flatten(direction))
        assert close(found, expected, CURVATURE_BY_DIFFERENCES)


@pytest.mark.parametrize("name", [name for name, one in CASES.items() if one.lifted])
def test_the_gradient_through_the_maps_is_autograds(name: str) -> None:
    with objective(CASES[name].make()) as at:
        params = random_point(at.start(), 1)
        point, expected = at.at(params), at.at(params).gradient()
        lifted = LiftedLoss(point.leaves, lambda watch: at.evaluate(point, list(params), watch), IndexCache(), {})
        lifted.take_apart(prove=True)
        for key, found in lifted.gradient.items():
            assert close(found, expected[key], ROUNDING)


@pytest.mark.parametrize("name", ["hierarchical_indexed", "crossed_effects", "poisson_matmul", "lkj_random_effects"])
def test_single_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with objective(CASES[name].make()) as at:
        params = random_point(at.start(), 1)
        expected = true_hessian(at, params)
    torch.set_default_dtype(torch.float32)
    for module in (base, functions, hierarchies):
        for key, value in list(vars(module).items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                monkeypatch.setattr(module, key, value.float())
    with objective(CASES[name].make()) as at:
        curvature = Curvature()
        operator = curvature.at(at.at({k: p.float() for k, p in params.items()}), list(params))
        assert isinstance(operator, Operator) and operator.like.dtype == torch.float32
        assert float((whole(operator).double() - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
        assert curvature.lifts


def test_what_is_not_finite_only_in_the_maps_is_probed() -> None:
    def model() -> None:
        a, b = local("a", "p", G), local("b", "q", G)
        both = torch.cat([a, b])
        pyro.factor("f", -torch.where(both[:G] != 0, both.abs()[:G] ** 1.5, both[G:] ** 2).sum() - (a**2).sum())

    with objective(model) as at:
        curvature, like = Curvature(), at.start()
        check(curvature, at, random_point(like, 1))
        for params in (random_point(like, 2), {"a": torch.zeros(G), "b": torch.ones(G)}):
            point = at.at(params)
            expected = true_hessian(at, params)
            found = whole(curvature.at(point, list(params)))
            finite = torch.isfinite(expected)
            assert torch.allclose(found[finite], expected[finite]) or not finite.all()
