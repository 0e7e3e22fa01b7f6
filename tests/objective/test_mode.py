"""The search for the mode of the integrated latents, and how a place without one is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch

from hofit.coordinates import Coordinates
from hofit.curvature.structure import Curvature
from hofit.linear.diagonal import Diagonal
from hofit.model.program import Program
from hofit.objective import mode as mode_module
from hofit.objective.density import DensityObjective
from hofit.objective.mode import ModeFinder, NoMode, place_of
from hofit.point import Plate, Site

Find = Callable[[Callable[[], None]], ModeFinder]


@pytest.fixture
def finder() -> Iterator[Find]:
    """finder(model): for all latents of the model."""
    with ExitStack() as stack:

        def make(model: Callable[[], None]) -> ModeFinder:
            program = Program(model, {})
            stack.enter_context(program.scope())
            program.discover()
            return ModeFinder(DensityObjective(program, "marginal", None, program.latents), Curvature())

        yield make


def gaussian() -> None:
    with pyro.plate("rows", 3):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(b, 1.0), obs=torch.tensor([1.0, 2.0, 4.0]))


def test_the_mode_of_a_gaussian_is_found_in_one_newton_step(finder: Find) -> None:
    own = finder(gaussian)
    assert own.find({"b": torch.full((3,), 10.0)})["b"].tolist() == pytest.approx([0.5, 1.0, 2.0], rel=1e-12)
    assert own.objective.evaluations.inner <= 2  # the step, and the one that finds nothing left


def test_a_start_at_the_mode_comes_back_as_it_is(finder: Find) -> None:
    start = {"b": torch.tensor([0.5, 1.0, 2.0 + 1e-9])}
    assert finder(gaussian).find(start)["b"] is start["b"]


@pytest.mark.parametrize(("off", "steps"), [(0.05, 9), (0.28, 1 + 1)], ids=["in time", "too late"])
def test_steps_by_a_factor_nearby_are_taken_only_where_they_will_settle(
    off: float, steps: int, finder: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each leaves ``off`` of the distance; what will not have settled in twelve gives way to Newton's own after one."""
    monkeypatch.setattr(mode_module, "is_slow", lambda factor: True)
    own = finder(gaussian)
    nearby = Diagonal(torch.full((3,), 2.0 / (1 - off))).factor()
    found = own.find({"b": torch.full((3,), 10.0)}, nearby)
    assert found["b"].tolist() == pytest.approx([0.5, 1.0, 2.0], rel=1e-9)
    assert own.objective.evaluations.inner == steps


def test_a_density_without_a_mode_is_refused_by_site_and_row(finder: Find) -> None:
    def model() -> None:
        with pyro.plate("rows", 3):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.factor("wall", torch.tensor([0.0, 1.0, 0.0]) * b.square())

    with pytest.raises(NoMode, match="'b', row 1"):
        finder(model).find({"b": torch.zeros(3)})


def test_a_start_where_the_density_is_not_finite_is_refused(finder: Find) -> None:
    with pytest.raises(NoMode, match="not finite"):
        finder(gaussian).find({"b": torch.tensor([0.0, torch.inf, 0.0])})


def test_a_start_without_a_finite_slope_is_refused_by_site_and_row_before_any_step(finder: Find) -> None:
    def model() -> None:
        with pyro.plate("rows", 3):
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            pyro.factor("kink", -b.square().sqrt())  # 0 · ∞ at zero

    own = finder(model)
    with pytest.raises(NoMode, match="slope is not finite in 'b', row 1"):
        own.find({"b": torch.tensor([1.0, 0.0, 1.0])})
    assert own.objective.evaluations.inner == 0


@pytest.mark.parametrize(("place", "called"), [(0, "'tau'"), (2, "'v' [1]"), (5, "'b', row 1")])
def test_a_place_is_called_by_its_site_and_row(place: int, called: str) -> None:
    shapes = {"tau": torch.Size([]), "v": torch.Size([2]), "b": torch.Size([3, 2])}
    plates = {"b": (Plate("rows", 3, -2),)}
    sites = {n: Site(n, "latent", shape, shape, "real", plates.get(n, ())) for n, shape in shapes.items()}
    direction = torch.zeros(9)
    direction[place] = -1.0
    assert place_of(direction, Coordinates(tuple(shapes), shapes), sites) == called
