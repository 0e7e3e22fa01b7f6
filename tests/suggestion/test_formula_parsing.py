"""What a formula says: its bars and offsets apart, as lme4 reads them, and where one is wrong."""

from __future__ import annotations

import pytest

from hofit.errors import ConfigError
from hofit.suggestion.formula.names import Names, identifier
from hofit.suggestion.formula.parsing import Bar, parse, parse_fixed


@pytest.mark.parametrize(
    ("formula", "fixed", "bars"),
    [
        ("y ~ x + (x | g)", "x", [Bar("x", ("g",))]),
        ("y ~ (1|g) + x*z - 1", "x*z - 1", [Bar("1", ("g",))]),
        ("y ~ (1 | a/b)", "1", [Bar("1", ("a",)), Bar("1", ("a", "b"))]),
        ("y ~ 0 + (1 | a:b)", "0", [Bar("1", ("a", "b"))]),
        ("y ~ x + (x || g)", "x", [Bar("1", ("g",)), Bar("0 + x", ("g",))]),
        ("y ~ (0 + x*z || factor(g))", "1", [Bar("0 + x", ("g",)), Bar("0 + z", ("g",)), Bar("0 + x:z", ("g",))]),
        ("y ~ I(x^2) + (1 | `my g`)", "I(x**2)", [Bar("1", ("my g",))]),
        ("y ~ factor(x) + bs(z, df=4)", "C(x) + bs(z, df=4)", []),
    ],
)
def test_a_bar_is_a_block_of_correlated_effects(formula: str, fixed: str, bars: list[Bar]) -> None:
    found = parse(formula)
    assert found.fixed == fixed
    assert list(found.bars) == bars


def test_offsets_stand_apart_and_counts_have_their_trials() -> None:
    found = parse("p(k, n) ~ offset(log(t)) + x + offset(u)")
    assert (found.response.text, found.response.trials) == ("k", "n")
    assert (found.offsets, found.fixed) == (("log(t)", "u"), "x")


@pytest.mark.parametrize(
    ("formula", "place", "said"),
    [
        ("y ~ x + (1 | g", "", "a parenthesis is not closed"),
        ("y ~ x + ", "", "something is missing"),
        ("y ~ x %% 3", "%% 3", "does not belong here"),
        ("y ~ x z", "z", "does not belong here"),
        ("y ~ x $ z", "$ z", "Unexpected character"),
        ("y ~ `x", "`x", "backquote is not closed"),
        ("y ~ x ~ z", "~ z", "more than one '~'"),
        ("y ~ 1 | g", "| g", "a bar stands in parentheses"),
        ("y ~ x * (1 | g)", "(1 | g)", "only be added"),
        ("y ~ (1 | a + b)", "a + b)", "right of a bar stand columns"),
        ("cbind(k, n) ~ x", "cbind(k, n) ~ x", "p(k, n)"),
        ("k/n ~ x", "/n ~ x", "p(k, n)"),
        ("y + x", "y + x", "left of a ~"),
        ("~ x", "~ x", "left of a ~"),
    ],
)
def test_what_is_wrong_is_shown_where_it_stands(formula: str, place: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(formula)
    message, shown, caret = str(raised.value).split("\n")
    assert said in message
    assert shown[caret.index("^") :] == place.strip()


def test_a_part_of_fixed_effects_takes_nothing_else() -> None:
    assert parse_fixed("~ x + z", "--zero-inflated") == "x + z"
    with pytest.raises(ConfigError, match=r"--dispersion: .*fixed effects alone"):
        parse_fixed("~ (1 | g)", "--dispersion")
    with pytest.raises(ConfigError, match="no offset"):
        parse_fixed("~ offset(x)", "--dispersion")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Intercept", "intercept"),
        ("C(period)[2]", "period_2"),
        ("T(period, ref=3)[2]", "period_2"),
        ("treatment[progabide]:log(base / 4)", "treatment_progabide_log_base_4"),
        ("I(Days ** 2)", "Days_2"),
        ("2x", "_2x"),
    ],
)
def test_a_label_becomes_a_word(label: str, name: str) -> None:
    assert identifier(label) == name


def test_a_name_is_given_once() -> None:
    names = Names(("X",))
    assert [names.claim("X"), names.claim("class"), names.claim("a"), names.claim("a")] == ["X_", "class_", "a", "a_"]
