"""The rounding of a loss: what it is, and how often the loss is asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

import pytest
import torch
from torch import Tensor

from hofit.point import Params, Point
from hofit.verdict.place import Place
from hofit.verdict.rounding import LOSS_ROUNDING, NUDGES
from tests.verdict.problems import judged, of

ROUNDED = 1e-6
"""Of a loss that is rounded to it."""


def smooth(x: Tensor) -> Tensor:
    return (x - 0.3).square() + 1.0


def rounded(x: Tensor) -> Tensor:
    return smooth(x) + ROUNDED * torch.sin(1e12 * x.detach())


@pytest.fixture
def asked() -> list[int]:
    """As many entries as the loss was asked for since the place was made."""
    return []


@pytest.fixture(params=[smooth, rounded], ids=["smooth", "rounded"])
def place(request: pytest.FixtureRequest, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with judged(of(0.7, loss=request.param), {"p0": torch.tensor(0.7)}) as found:
        at_full = found.objective.at_full

        def counted(params: Params) -> Point:
            asked.append(1)
            return at_full(params)

        monkeypatch.setattr(found.objective, "at_full", counted)
        yield found


def test_it_is_measured_once_a_place_whatever_is_held(place: Place, asked: list[int]) -> None:
    least = LOSS_ROUNDING * torch.finfo(torch.float64).eps * place.point.value
    noise = place.noise
    assert noise == least if noise < ROUNDED else ROUNDED < noise < 10 * ROUNDED
    assert len(asked) == 2 * len(NUDGES)
    again = place.holding(torch.ones_like(place.held))
    assert (again.noise, again.shows(2.0 * noise), again.shows_at(place.here, 0.5 * noise)) == (noise, True, False)
    assert len(asked) == 2 * len(NUDGES)


@pytest.mark.parametrize(("change", "shows", "most"), [(1e-16, False, 0), (1e-2, True, 4), (-1e-2, True, 4)])
def test_what_is_clear_takes_few_looks(place: Place, asked: list[int], change: float, shows: bool, most: int) -> None:
    assert place.shows(change) is shows and len(asked) <= most


def test_what_is_not_clear_is_measured_whole(place: Place, asked: list[int]) -> None:
    noise = Place.noise.func(place)  # type: ignore[attr-defined]
    assert place.shows(1.01 * noise) and not place.shows(0.99 * noise)
    assert len(asked) == 2 * len(NUDGES)


def test_a_slope_s_rounding_is_sought_as_far_as_it_matters(place: Place, asked: list[int]) -> None:
    way = torch.ones_like(place.here)
    slope, found = place.along(place.here, way, 1e-3)
    assert slope == pytest.approx(0.8) and (found, len(asked)) == (0.0, 1)  # the slope alone is more
    slope, whole = place.along(place.here, way)
    assert slope == pytest.approx(0.8) and len(asked) == 8
    assert whole < 1e-12 or ROUNDED < whole < 10 * ROUNDED
    assert place.along(place.here, way, inf) == (slope, whole) and len(asked) == 8


def test_where_there_is_no_loss_beside_a_place_its_rounding_is_not_known(place: Place) -> None:
    here = place.here.clone()

    def alone(params: Params) -> Point:
        point = of_all(params)
        return point if torch.equal(params["p0"], here[0]) else replace(point, failure="no mode")

    of_all, place.objective.at_full = place.objective.at_full, alone  # type: ignore[method-assign]
    assert place.noise == inf and not place.shows(1e3)
