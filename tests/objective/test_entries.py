"""The entries of a log density, and which row each of them depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch

from hofit.coordinates import Coordinates
from hofit.curvature.layout import Rows
from hofit.model.program import Program
from hofit.objective.density import DensityObjective
from hofit.objective.entries import Entries, NotByRow, sums_by_row
from hofit.objective.leaves import Leaves

ROWS = 70
"""More than one digit of a row's number."""
GROUP = torch.randint(ROWS, (200,), generator=torch.Generator().manual_seed(0))
WHERE = Rows(("b",), torch.arange(ROWS)[:, None])


def counts() -> None:
    mu = pyro.param("mu", torch.tensor(0.3))
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("observations", 200):
        pyro.sample("y", dist.Poisson((mu + b[GROUP]).exp()), obs=torch.ones(200))


def differences() -> None:
    with pyro.plate("rows", ROWS):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("pairs", ROWS - 1):
        pyro.sample("y", dist.Normal(b[1:] - b[:-1], 1.0), obs=torch.zeros(ROWS - 1))


Make = Callable[[Callable[[], None]], tuple[Program, Entries]]


@pytest.fixture
def made() -> Iterator[Make]:
    with ExitStack() as stack:

        def make(model: Callable[[], None]) -> tuple[Program, Entries]:
            program = Program(model, {})
            stack.enter_context(program.scope())
            program.discover()
            return program, Entries(program, Leaves(program.leaves), ())

        yield make


def test_the_entries_sum_to_the_log_density_wherever_latents_and_parameters_are(made: Make) -> None:
    program, entries = made(counts)
    places = {"b": torch.linspace(-1.0, 1.0, ROWS), "mu": torch.tensor(-0.5)}
    found = entries.at(places)
    assert found.shape == (ROWS + 200,)
    expected = -DensityObjective(program, "map_unconstrained").at(places).value
    assert found.sum().item() == pytest.approx(expected, rel=1e-12)


def test_many_places_in_one_batch_have_the_entries_of_each(made: Make) -> None:
    _, entries = made(counts)
    like = {"b": torch.zeros(ROWS)}
    coordinates, places = Coordinates.of(like), torch.randn(3, ROWS, generator=torch.Generator().manual_seed(1))
    found = entries.at_places(places, coordinates, ROWS + 200)
    assert torch.allclose(found, torch.stack([entries.at({"b": place}) for place in places]))


def test_every_entry_is_of_the_row_that_it_depends_on(made: Make) -> None:
    _, entries = made(counts)
    coordinates = Coordinates.of({"b": torch.zeros(ROWS)})
    found = entries.row_of_each(WHERE, torch.zeros(ROWS), coordinates, ROWS + 200)
    assert torch.equal(found, torch.cat([torch.arange(ROWS), GROUP]))


def test_an_entry_of_two_rows_is_refused(made: Make) -> None:
    _, entries = made(differences)
    coordinates = Coordinates.of({"b": torch.zeros(ROWS)})
    with pytest.raises(NotByRow, match="several rows of 'b'"):
        entries.row_of_each(WHERE, torch.linspace(0.0, 1.0, ROWS), coordinates, 2 * ROWS - 1)


def test_changes_are_summed_by_row_and_must_be_of_one() -> None:
    rows, base = torch.tensor([1, 0, 1, -1]), torch.ones(4)
    change = torch.tensor([[1.0, 2.0, 3.0, 0.0]])
    assert sums_by_row(change, base, rows, 3).tolist() == [[2.0, 4.0, 0.0]]
    change[0, 3] = 1e-3
    with pytest.raises(NotByRow, match="derivatives do not show"):
        sums_by_row(change, base, rows, 3)
