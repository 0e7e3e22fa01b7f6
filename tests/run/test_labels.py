"""Which levels of the data the rows of a plate are called by."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import hofit
from hofit.config.schema import Column
from hofit.model.columns import columns_to_arguments
from hofit.model.table import read_table
from hofit.point import Plate, Site
from hofit.run.labels import plate_labels
from tests.command_line import Write

TABLE = """
    y,Subject,kind,batch,cask,big
    1.5,308,low,A,b,1
    2.5,12,high,B,a,0
    0.5,308,low,A,a,0
    3.0,309,mid,B,b,1
    """


def labels(write: Write, plates: Mapping[str, int], **columns: Column) -> Mapping[str, object]:
    sites = {
        name: Site("b", "latent", torch.Size([size]), torch.Size([size]), "real", (Plate(name, size, -1),))
        for name, size in plates.items()
    }
    made = columns_to_arguments(read_table(write("d.csv", TABLE.strip())), columns, "error")
    assert not made.errors
    return plate_labels(sites, columns, made.levels)


def coded(column: str | list[str], **more: object) -> Column:
    return Column.model_validate({"column": column, "codes": True, **more})


@pytest.mark.parametrize("plate", ["subject", "subjects", "Subjects", "sub_jects"])
def test_a_plate_has_the_levels_of_the_argument_that_it_is_called_by(write: Write, plate: str) -> None:
    assert labels(write, {plate: 3}, subject=coded("Subject")) == {plate: [12, 308, 309]}


def test_levels_are_in_the_order_of_their_codes(write: Write) -> None:
    kinds = coded("kind", order=["low", "mid", "high"])
    assert labels(write, {"kinds": 3}, kind=kinds) == {"kinds": ["low", "mid", "high"]}
    assert labels(write, {"kinds": 3}, kind=coded("kind")) == {"kinds": ["high", "low", "mid"]}


def test_a_plate_may_be_called_by_the_column_or_by_the_count(write: Write) -> None:
    who = coded("Subject", levels="n_people")
    assert labels(write, {"subjects": 3, "people": 3, "others": 3}, who=who) == {
        "subjects": [12, 308, 309],
        "people": [12, 308, 309],
    }


def test_combinations_of_columns_are_words(write: Write) -> None:
    cell = coded(["batch", "cask"], levels="n_cells")
    assert labels(write, {"cells": 4}, cell=cell) == {"cells": ["A:a", "A:b", "B:a", "B:b"]}


def test_columns_that_share_their_numbers_share_their_levels(write: Write) -> None:
    one, other = (coded(column, codes="letter") for column in ("batch", "cask"))
    assert labels(write, {"letters": 4}, one=one, other=other) == {"letters": ["A", "B", "a", "b"]}


def test_another_size_or_another_name_has_no_labels(write: Write) -> None:
    assert labels(write, {"subjects": 5, "rows": 3}, subject=coded("Subject")) == {}


def test_a_fit_has_them_as_coordinates(write: Write) -> None:
    model = write(
        "m.py",
        """
        import pyro, pyro.distributions as dist
        def model(y, subject, n_subjects):
            with pyro.plate("subjects", n_subjects):
                b = pyro.sample("b", dist.Normal(0.0, 1.0))
            with pyro.plate("rows", len(y)):
                pyro.sample("y", dist.Normal(b[subject], 1.0), obs=y)
        """,
    )
    write("d.csv", TABLE.strip())
    columns = {"y": "y", "subject": {"column": "Subject", "codes": True, "levels": "n_subjects"}}
    data = {"path": str(Path(model).parent / "d.csv"), "columns": columns}
    result = hofit.fit(model, {"data": data, "optimizers": [{"params": "*", "optimizer": "newton"}]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pytest.importorskip("arviz")
    found = result.to_arviz(2).posterior["b"]
    assert found.coords["subjects"].values.tolist() == [12, 308, 309]
    assert float(found.sel(subjects=309).mean()) == pytest.approx(float(found[..., 2].mean()))
