"""YAML as a config is read: what a scalar is, where a key stands, and what no config needs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hofit.config.source import MAX_BYTES, MAX_KEYS, Source, from_mapping, parse_source, read_source, set_override
from hofit.errors import ConfigError


def parse(text: str) -> Source:
    return parse_source(text, "a.yaml")


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-6", 1e-6),
        ("-2E+3", -2000.0),
        ("6.", 6.0),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("10", 10),
        ("-7", -7),
        ("007", 7),
        ("1_000", 1000),
        ("0o17", 15),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30:45", "12:30:45"),
        ("2024-01-31", "2024-01-31"),
        ("1e", "1e"),
        ("b*", "b*"),
        ("re:^b\\d$", "re:^b\\d$"),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("~", None),
        ("null", None),
        ("", None),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse(f"key: {text}").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse("key: .nan").data["key"])


def test_every_key_and_item_has_its_line() -> None:
    source = parse("model: m.py\n\nstop:\n  gradient: 1e-6\noptimizers:\n  - params: a\n    lr: 1\n  - params: b\n")
    assert source.where(("model",)) == "a.yaml:1: model"
    assert source.where(("stop", "gradient")) == "a.yaml:4: stop.gradient"
    assert source.where(("optimizers", 0, "lr")) == "a.yaml:7: optimizers.0.lr"
    assert source.where(("optimizers", 1)) == "a.yaml:8: optimizers.1"


def test_a_key_that_is_not_there_stands_where_its_parent_does() -> None:
    source = parse("seed: 1\nstop:\n  gradient: 1\n")
    assert source.where(("stop", "patience")) == "a.yaml:2: stop.patience"
    assert source.where(("optimizers",)) == "a.yaml:1: optimizers"


def test_a_plain_alias_is_followed() -> None:
    assert parse("a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}


def test_every_duplicate_key_is_named_with_both_lines() -> None:
    message = refused("seed: 1\nstop:\n  gradient: 1\n  gradient: 2\nseed: 3\n")
    first, second = message.splitlines()
    assert first.startswith("a.yaml:4: stop.gradient:") and "line 3" in first
    assert second.startswith("a.yaml:5: seed:") and "line 1" in second


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "a.yaml:"),
        ("a: &a\n  b: *a\n", "a.yaml:1"),
        ("a: &a [*a]\n", "a.yaml:1"),
        ("a: " + "[" * 60 + "]" * 60, "a.yaml:1"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "a.yaml"),
        ("a: " + "{b: " * 20_000, "a.yaml"),
    ],
    ids=["bomb", "recursive mapping", "recursive list", "deep", "too deep for the parser", "deep mappings"],
)
def test_what_expands_without_end_is_refused(text: str, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [ls]",
        "!!python/object:collections.Counter {a: 1}",
        "!!python/name:os.system ''",
        "!!python/tuple [1, 2]",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!binary aGk=",
        "!!timestamp 2024-01-31",
        "!mine [1]",
        "!mine {a: 1}",
        "!mine x",
    ],
)
def test_a_tag_is_refused_with_its_line(value: str) -> None:
    message = refused(f"seed: 1\nkey: {value}\n")
    assert message.startswith("a.yaml:2")
    assert "tag" in message


@pytest.mark.parametrize("value", ["!!bool maybe", "!!int x", "!!float x", "!!int 0o9"])
def test_a_scalar_that_is_not_what_its_tag_says_is_refused(value: str) -> None:
    assert refused(f"seed: 1\nkey: {value}\n").startswith("a.yaml:2")


def test_a_control_character_is_refused() -> None:
    assert refused("a: \x00\n").startswith("a.yaml: ")


def test_an_integer_of_many_thousand_digits_is_refused_with_its_line() -> None:
    assert refused("key: " + "9" * 5000).startswith("a.yaml:1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a {x: 1}\nb:\n  <<: *a\n", "a.yaml:3: merge keys"),
        ("? [1, 2]\n: 3\n", "a.yaml:1: a key must be a word"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a\n- b\n", "a.yaml:1: a config is a mapping"),
        ("just words\n", "a.yaml:1: a config is a mapping"),
        ("a: 1\n---\nb: 2\n", "a.yaml:2"),
        ("a: 1\n\tb: 2\n", "a.yaml:2"),
        ("a: [1, 2\nb: 3\n", "a.yaml:2"),
        ('a: "x\n', "a.yaml:"),
        ("a: *nobody\n", "a.yaml:1"),
        ("a: b: c\n", "a.yaml:1"),
        ("%YAML 7.1\n---\na: 1\n", "a.yaml:1"),
    ],
)
def test_what_is_no_config_is_refused_and_says_where(text: str, says: str) -> None:
    message = refused(text)
    assert says in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("content", [b"seed: \xff\xfe\n", "seed: 1\n".encode("utf-16")])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.yaml is not UTF-8"):
        read_source(tmp_path / "a.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfseed: 1\n")
    assert read_source(tmp_path / "a.yaml").data == {"seed": 1}


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=str(MAX_BYTES + 1)):
        read_source(tmp_path / "a.yaml")


def test_a_missing_file_is_refused_and_its_neighbours_are_named(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").touch()
    with pytest.raises(ConfigError, match=r"none\.yaml; there are: other\.yaml"):
        read_source(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="nowhere"):
        read_source(tmp_path / "nowhere" / "a.yaml")
    with pytest.raises(ConfigError, match="no config file"):
        read_source(tmp_path)


# --set ------------------------------------------------------------------------------------------------------------


def example() -> Source:
    return parse("seed: 1\nstop: {gradient: 1}\noptimizers:\n  - {params: a, lr: 1}\n  - {params: b}\n")


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("stop.max_iterations=50", ("stop", "max_iterations"), 50),
        ("stop.gradient=1e-3", ("stop", "gradient"), 0.001),
        ("stop.max_seconds=", ("stop", "max_seconds"), None),
        (" seed = 7 ", ("seed",), 7),
        ("optimizers.0.lr=0.1", ("optimizers", 0, "lr"), 0.1),
        ("optimizers.1.betas=[0.9, 0.99]", ("optimizers", 1, "betas"), [0.9, 0.99]),
        ("optimizers=[{params: '*', optimizer: adam}]", ("optimizers",), [{"params": "*", "optimizer": "adam"}]),
        ("fixed.tau=2.5", ("fixed", "tau"), 2.5),
        ("fixed.net.weight=null", ("fixed", "net.weight"), None),
        ("fixed.re:^b.\\d$=1", ("fixed", "re:^b.\\d$"), 1),
        ("init.values.net.0.bias=[1, 2]", ("init", "values", "net.0.bias"), [1, 2]),
        ("data.arguments.a.b=x", ("data", "arguments", "a.b"), "x"),
        ("data.columns.y.column=Y", ("data", "columns", "y", "column"), "Y"),
        ("model=a=b.py", ("model",), "a=b.py"),
    ],
)
def test_set_writes_the_value_at_the_key(assignment: str, path: tuple[str | int, ...], value: object) -> None:
    source = example()
    set_override(source, assignment)
    here: object = source.data
    for part in path:
        here = here[part]  # type: ignore[index]
    assert here == value
    assert source.where(path).startswith(f"--set {assignment}: ")


def test_the_last_set_of_a_key_wins() -> None:
    source = example()
    set_override(source, "seed=2")
    set_override(source, "seed=3")
    assert source.data["seed"] == 3


def test_set_leaves_the_other_keys_alone() -> None:
    source = example()
    set_override(source, "optimizers.0.lr=0.1")
    assert source.data["optimizers"] == [{"params": "a", "lr": 0.1}, {"params": "b"}]


@pytest.mark.parametrize(
    "assignment",
    [
        "seed",
        "=1",
        " =1",
        "optimizers.2.lr=1",
        "optimizers.-1.lr=1",
        "optimizers.first.lr=1",
        "optimizers.5={params: x}",
        "seed.deep=1",
        "stop.gradient.x=1",
        "seed=[1",
        "seed={a: 1, a: 2}",
        "seed=!!python/object/apply:os.system [ls]",
        "seed=!!bool maybe",
        "seed=*nobody",
        "seed=&a [*a]",
        "seed=\x00",
    ],
)
def test_a_bad_set_is_refused_and_quoted(assignment: str) -> None:
    source = example()
    with pytest.raises(ConfigError) as caught:
        set_override(source, assignment)
    assert assignment in str(caught.value)
    assert source.data == example().data


def test_a_mapping_from_python_has_string_keys_and_lists() -> None:
    source = from_mapping({"fixed": {1: (1, 2)}})
    assert source.data == {"fixed": {"1": [1, 2]}}
    assert source.where(("fixed",)) == "config: fixed"


def test_the_caller_s_mapping_is_never_written_to() -> None:
    mine = {"stop": {"gradient": 1.0}}
    source = from_mapping(mine)
    set_override(source, "stop.gradient=2")
    assert mine == {"stop": {"gradient": 1.0}}


@pytest.mark.parametrize("place", ["fixed: {{{}}}", "optimizers: [{}]"])
def test_a_place_holds_a_thousand_entries_at_most(place: str) -> None:
    entry = "p{}: 1" if "fixed" in place else "{{params: p{}}}"
    at_most = parse(place.format(", ".join(entry.format(k) for k in range(MAX_KEYS)))).data
    assert len(next(iter(at_most.values()))) == MAX_KEYS == 1000
    assert "1001 entries in one place" in refused(place.format(", ".join(entry.format(k) for k in range(MAX_KEYS + 1))))
