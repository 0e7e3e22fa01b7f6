"""Patterns of parameter names: globs, lists, regular expressions; who has what."""

from __future__ import annotations

import pytest

from hofit.patterns import assign, invalid, matches, near_misses, select, speaking_pattern

NAMES = ["b0", "b1", "beta", "net.0.weight", "net.0.bias", "sigma"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", NAMES),
        ("b*", ["b0", "b1", "beta"]),
        ("b?", ["b0", "b1"]),
        ("b[1-9]", ["b1"]),
        ("*.weight", ["net.0.weight"]),
        ("sigma", ["sigma"]),
        ("SIGMA", []),
        ("sig", []),
        (["sigma", "b0"], ["b0", "sigma"]),
        ("re:^b\\d$", ["b0", "b1"]),
        ("re:et", ["beta", "net.0.weight", "net.0.bias"]),
        (["re:a$", "b0"], ["b0", "beta", "sigma"]),
    ],
)
def test_a_pattern_selects_in_the_order_of_the_names(pattern: str | list[str], expected: list[str]) -> None:
    assert select(pattern, NAMES) == expected


def test_a_name_with_brackets_is_matched_literally() -> None:
    assert matches("x[0]", "x[0]")


def test_the_first_entry_that_matches_has_the_parameter() -> None:
    ownership = assign([["b1"], ["b*"], ["b0", "sigma"], ["zeta"]], NAMES)
    assert ownership.owners == [["b1"], ["b0", "beta"], ["sigma"], []]
    assert ownership.orphans == ["net.0.weight", "net.0.bias"]


def test_a_name_of_its_own_speaks_before_a_pattern() -> None:
    assert speaking_pattern({"b*": 1, "b0": 2}, "b0") == "b0"
    assert speaking_pattern({"b?": 1, "b*": 2}, "b0") == "b?"
    assert speaking_pattern({"z": 1}, "b0") is None


def test_near_misses_are_named_and_else_what_there_is() -> None:
    assert near_misses("sgima", NAMES) == '; did you mean "sigma"?'
    assert near_misses("re:^sigm$", NAMES) == '; did you mean "sigma"?'
    assert near_misses("xyzzy", ["a", "b"]) == "; there are: a, b"
    assert near_misses("xyzzy", []) == "; there are none"
    assert near_misses("q", [f"name{i}" for i in range(20)]).endswith("name11, …")


def test_a_bad_pattern_says_why() -> None:
    assert invalid("b*") is None
    assert invalid("re:^b$") is None
    assert "no regular expression" in str(invalid("re:(b"))
    assert invalid("")
