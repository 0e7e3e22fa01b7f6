"""Mistakes are gathered with their places and said at once."""

from __future__ import annotations

import pytest

from hofit.config.mistakes import Mistakes
from hofit.config.source import parse_source
from hofit.errors import ConfigError, DataError, ModelError

SOURCE = parse_source("seed: 1\ndata:\n  path: a.csv\n", "c.yaml")


def test_mistakes_stand_at_their_lines_in_the_order_they_were_found() -> None:
    mistakes = Mistakes(SOURCE, ["c.yaml: first"])
    mistakes.add(("seed",), "second")
    error = mistakes.error(("data", "path"), "third", "fourth")
    assert error.mistakes == [
        "c.yaml: first",
        "c.yaml:1: seed: second",
        "c.yaml:3: data.path: third",
        "c.yaml:3: data.path: fourth",
    ]
    assert len(mistakes.error().mistakes) == 2  # an error is no mistake of the config yet


def test_there_are_none_until_one_is_added() -> None:
    mistakes = Mistakes(SOURCE)
    assert not mistakes
    mistakes.add(("seed",), "wrong")
    assert mistakes


def test_a_stage_that_fails_alone_keeps_its_kind_and_gets_its_place() -> None:
    with pytest.raises(ModelError, match=r"^no model$"), Mistakes(SOURCE).stage():
        raise ModelError("no model")
    with pytest.raises(DataError, match=r"^c.yaml:3: data.path: gone$"), Mistakes(SOURCE).stage():
        raise DataError("gone", ("data", "path"))


@pytest.mark.parametrize("error", [ModelError("gone"), DataError("gone", ("data", "path"))])
def test_a_stage_that_fails_after_mistakes_says_them_too(error: Exception) -> None:
    mistakes = Mistakes(SOURCE)
    mistakes.add(("seed",), "wrong")
    with pytest.raises(ConfigError) as caught, mistakes.stage():
        raise error
    assert caught.value.mistakes[0] == "c.yaml:1: seed: wrong" and caught.value.mistakes[1].endswith("gone")
