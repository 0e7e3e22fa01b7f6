"""Places of a flat vector: there and back, and by name."""

import pytest
import torch

from hofit.coordinates import Coordinates
from hofit.point import Plate, Site

PARAMS = {"a": torch.tensor(1.0), "empty": torch.zeros(0, 2), "b": torch.arange(6.0).reshape(3, 2)}


@pytest.mark.parametrize("lead", [(), (4,), (2, 5)])
def test_unflatten_undoes_flatten_whatever_dimensions_lead(lead: tuple[int, ...]) -> None:
    coordinates = Coordinates.of(PARAMS)
    params = {name: torch.randn((*lead, *value.shape)) for name, value in PARAMS.items()}
    flat = coordinates.flatten(params)
    assert flat.shape == (*lead, 7)
    back = coordinates.unflatten(flat)
    assert all(torch.equal(back[name], params[name]) for name in params)


def test_the_order_is_that_of_the_names() -> None:
    flat = Coordinates.of(PARAMS, ["b", "a"]).flatten(PARAMS)
    assert flat.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1.0]


def test_numbers_and_slices_say_where_a_parameter_stands() -> None:
    coordinates = Coordinates.of(PARAMS)
    assert coordinates.slices == {"a": slice(0, 1), "empty": slice(1, 1), "b": slice(1, 7)}
    assert coordinates.numbers("b").tolist() == [[1, 2], [3, 4], [5, 6]]
    assert coordinates.numbers("a").shape == ()


def test_a_place_is_called_by_name_and_index() -> None:
    coordinates = Coordinates.of(PARAMS)
    assert [coordinates.call(place) for place in range(7)] == ["a", *(f"b[{i},{j}]" for i in range(3) for j in (0, 1))]


def test_a_direction_is_labelled_by_its_heavy_entries_first_the_heaviest() -> None:
    directions = torch.zeros(7, 1)
    directions[0], directions[4], directions[6] = 0.5, -2.0, 0.01
    assert Coordinates.of(PARAMS).label(directions) == "b[1,1], a"
    assert Coordinates.of({"c": torch.zeros(20)}).label(torch.linspace(3.0, 2.0, 20)[:, None]).endswith("c[7], …")


def test_a_row_is_called_by_the_index_of_its_plates() -> None:
    plates = (Plate("groups", 3, -2),)
    sites = {
        "a": Site("a", "parameter", torch.Size(()), torch.Size(()), "real"),
        "b": Site("b", "latent", torch.Size((3, 2)), torch.Size((3, 2)), "real", plates),
        "c": Site("c", "latent", torch.Size((2,)), torch.Size((2,)), "real"),
    }
    coordinates = Coordinates.of({**PARAMS, "c": torch.zeros(2)})
    assert coordinates.row(4, sites) == ("b", "1", True)
    assert coordinates.heaviest_row(torch.eye(9)[6], sites) == "'b', row 2"
    assert coordinates.heaviest_row(torch.eye(9)[0], sites) == "'a'"
    assert coordinates.heaviest_row(torch.eye(9)[8], sites) == "'c' [1]"
