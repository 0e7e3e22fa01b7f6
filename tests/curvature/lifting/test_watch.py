"""What a watcher tells of a trace, and that it is not noticed: by a model that raises, writes in place, or changes."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from hofit.curvature.lifting.maps import IndexCache
from hofit.curvature.lifting.pieces import LiftedLoss
from hofit.curvature.lifting.watch import Watch
from hofit.curvature.structure import Curvature
from hofit.objective.density import DensityObjective
from tests.curvature.hessians import check, objective, random_point
from tests.curvature.lifting.models import CASES
from tests.curvature.lifting.models.base import GROUP, MIXED, G, N, gaussian, local


@pytest.mark.parametrize(
    "name, separable",
    {
        "hierarchical_nested": True,
        "hierarchical_indexed": True,
        "centred_with_free_scales": True,
        "irt_nested": True,
        "irt_indexed": True,
        "crossed_effects_with_scales": True,
        "non_centred": True,
        "poisson_matmul": True,
        "student_t": True,
        "negative_binomial": True,
        "function_where_of_itself": True,
        "masked_and_scaled": True,
        "categorical_rows": False,
        "gaussian_process": False,
        "softmax_behind_a_zero": False,
        "square_of_a_sum_behind_a_zero": False,
        "sorted_at_first": False,
        "elementwise_and_transposed": True,  # the transposed is a node of its own
        "product_of_rows_behind_a_zero": False,
        "matrix_behind_a_zero": False,
    }.items(),
)
def test_what_a_trace_shows_separable_needs_no_proof(name: str, separable: bool) -> None:
    with objective(CASES[name].make()) as at:
        point = at.at(random_point(at.start(), 1))
        found = LiftedLoss(point.leaves, lambda watch: at.evaluate(point, list(point.params), watch), IndexCache(), {})
        assert found.separable is separable


def is_watched() -> bool:
    """Whether someone looks at what is computed."""
    return isinstance(torch.overrides._get_current_function_mode(), Watch)


def expect_no_trace(at: DensityObjective) -> None:
    assert torch._C._len_torch_function_stack() == 0
    assert torch.is_grad_enabled() and all(leaf.requires_grad for leaf in at.program.leaves.values())
    assert not pyro.poutine.runtime._PYRO_STACK


NO_FACTOR: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [ValueError, RuntimeError, NO_FACTOR, KeyError])
def test_a_model_that_raises_only_when_it_is_watched_is_probed(error: type[Exception]) -> None:
    def model() -> None:
        a, b = local("a", "p", G), local("b", "q", G)
        if is_watched():
            raise error("no")
        gaussian(a[GROUP].exp() + b[MIXED])

    with objective(model) as at:
        curvature, params = Curvature(), random_point(at.start(), 1)
        check(curvature, at, params)
        assert not curvature.lifts and "raises when it is watched" in curvature.why_not_lifted
        curvature = Curvature()
        curvature.at(at.at(params), ["a"])  # b is held
        expect_no_trace(at)


def test_an_interruption_passes_through_and_leaves_no_trace() -> None:
    def model() -> None:
        a, b = local("a", "p", G), local("b", "q", G)
        if is_watched():
            raise KeyboardInterrupt
        gaussian(a[GROUP].exp() + b[MIXED])

    with objective(model) as at:
        with pytest.raises(KeyboardInterrupt):
            Curvature().at(at.at(random_point(at.start(), 1)), ["a"])
        expect_no_trace(at)


def test_a_failure_that_the_model_swallows_is_not_lost() -> None:
    def model() -> None:
        b = local("b", "g", G)
        mean = b[GROUP] * 2
        try:
            mean.view(-1)[0].add_(1.0)
            mean.clamp_(-0.5, 0.5)
        except BaseException:
            mean = b[GROUP] * 3
        gaussian(mean.exp())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, random_point(at.start(), 1))
        assert not curvature.lifts and "in place" in curvature.why_not_lifted
        expect_no_trace(at)


def test_views_of_what_is_written_in_place_are_not_lost() -> None:
    def model() -> None:
        b = local("b", "g", G)
        k = pyro.sample("k", dist.Normal(0.0, 1.0))
        mean = b[GROUP] * 2.0
        view = mean.view(G, N)
        mean += k
        gaussian(view.reshape(-1).exp())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, {name: torch.zeros_like(p) for name, p in at.start().items()})
        check(curvature, at, random_point(at.start(), 1))
        assert not curvature.lifts


def test_an_index_that_changes_between_traces_is_read_anew() -> None:
    index = {"torch": GROUP.clone(), "numpy": GROUP.numpy().copy(), "list": GROUP.tolist()}

    def model() -> None:
        b = local("b", "g", G)
        gaussian((b[index["torch"]] + b[index["numpy"]] + b[index["list"]]).exp())

    with objective(model) as at:
        curvature = Curvature()
        check(curvature, at, random_point(at.start(), 1))
        assert curvature.lifts
        index["torch"].copy_(MIXED)
        check(curvature, at, random_point(at.start(), 2))
        index["numpy"][-1] = 0
        check(curvature, at, random_point(at.start(), 3))
        index["list"][-2] = 1
        check(curvature, at, random_point(at.start(), 4))
        assert curvature.lifts
