"""Whatever the config reader is given, it gives a config or a ConfigError with a place; what it gives, it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hofit.config.load import dump, validate
from hofit.config.schema import Config
from hofit.config.source import dump_yaml, from_mapping, parse_source, set_override
from hofit.errors import ConfigError
from tests.trust.configs import GOOD, KEYS, NASTY

FEW, MANY = 40, 10_000

words = st.one_of(st.text(max_size=20), st.sampled_from(sorted({*KEYS, *Config.model_fields})))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), words)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=12,
)
configs = st.dictionaries(st.sampled_from(sorted(Config.model_fields)), values, max_size=6)
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from([*GOOD.splitlines(keepends=True), *NASTY, ": ", "- ", "\n  "]), max_size=25).map("".join),
)


def fuzz(count: int, strategy: st.SearchStrategy[Any], target: Callable[[Any], None]) -> None:
    """Call the target with so many examples, the same in every run."""
    unhurried = settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    unhurried(given(strategy)(target))()


@pytest.fixture
def count(full: bool) -> int:
    return MANY if full else FEW


def read(text: str) -> None:
    try:
        config, mistakes = validate(parse_source(text, "a.yaml"))
    except ConfigError as refused:
        assert all(line.startswith("a.yaml") for line in refused.mistakes)
    else:
        assert all(line.startswith("a.yaml") for line in mistakes)
        if config is not None and not mistakes:
            assert_read_back(config)


def assert_read_back(config: Config) -> None:
    """What a run writes as config.yaml is the config."""
    again, mistakes = validate(parse_source(dump_yaml(dump(config)), "config.yaml"))
    assert mistakes == [] and again is not None and dump(again) == dump(config)


def test_any_text(count: int) -> None:
    fuzz(count, texts, read)


def test_any_value_under_any_key(count: int) -> None:
    def target(data: dict[str, Any]) -> None:
        read(yaml.safe_dump(data, allow_unicode=True))
        config, mistakes = validate(from_mapping(data))
        assert config is not None or mistakes

    fuzz(count, configs, target)


def test_any_override(count: int) -> None:
    assignments = st.builds("{}.{}={}".format, words, words, st.sampled_from(NASTY))

    def target(assignment: str) -> None:
        source = parse_source(GOOD, "a.yaml")
        try:
            set_override(source, assignment)
        except ConfigError as refused:
            assert str(refused).startswith("--set ")
        else:
            validate(source)

    fuzz(count, st.one_of(st.text(max_size=40), assignments), target)
