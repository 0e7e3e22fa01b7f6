"""Columns find their arguments by name, and nothing is guessed where two would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hofit.model.table import Table
from hofit.model.text import Text
from hofit.suggestion.columns import match, unmatched, whole_numbers


def table(*names: str, text: tuple[str, ...] = ()) -> Table:
    plain: dict[str, Any] = {name: np.arange(3) for name in names}
    return Table(Path("t.csv"), {**plain, **{name: Text.of(["a", "b", "a"]) for name in text}})


@pytest.mark.parametrize(
    ("needed", "columns", "found"),
    [
        (["x", "y"], ["y", "x"], {"x": "x", "y": "y"}),
        (["days", "reaction_time"], ["Days", "Reaction.Time"], {"days": "Days", "reaction_time": "Reaction.Time"}),
        (["concentration"], ["conc", "dose"], {"concentration": "conc"}),
        (["treated", "age"], ["treatment", "age"], {"treated": "treatment", "age": "age"}),
        (["x", "outcome"], ["x", "response"], {"x": "x", "outcome": "response"}),  # one of each is left
        (["days"], ["Days", "days"], {"days": "days"}),
    ],
)
def test_an_argument_takes_the_column_of_its_name(needed: list[str], columns: list[str], found: dict[str, str]) -> None:
    assert match(needed, [], table(*columns)) == found


@pytest.mark.parametrize("columns", [["Days", "DAYS"], ["other", "further"]])
def test_what_is_not_clear_is_left(columns: list[str]) -> None:
    found = match(["days"], [], table(*columns))
    assert found == {} and unmatched(["days"], found) == ["days"]


def test_what_counts_the_levels_of_a_missing_argument_is_not_missed_itself() -> None:
    assert unmatched(["subject", "n_subjects", "n_items"], {}) == ["subject", "n_items"]


@pytest.mark.parametrize(
    ("argument", "count"),
    [("subject", "n_subjects"), ("county", "n_counties"), ("items", "num_items"), ("herd", "herd_count")],
)
def test_a_count_of_levels_numbers_the_argument_that_it_counts(argument: str, count: str) -> None:
    found = match(["y", argument, count], [], table("y", argument))
    assert found == {"y": "y", argument: {"column": argument, "codes": True, "levels": count}}
    assert unmatched(["y", argument, count], found) == []


def test_text_is_numbered_and_an_option_takes_a_column_of_its_very_name_only() -> None:
    found = match(["y"], ["offset", "seed"], table("y", "Offset", "seeding", text=("city",)))
    assert found == {"y": "y", "offset": "Offset"}
    assert match(["city"], [], table("y", text=("city",))) == {"city": {"column": "city", "codes": True}}


def test_whole_numbers_may_be_an_index() -> None:
    columns = {"x": np.array([0.5, 1.0]), "g": np.array([1, 2])}
    assert whole_numbers({"x": "x", "g": "g"}, Table(Path("t.csv"), columns)) == ["g"]
