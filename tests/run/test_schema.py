"""The JSON Schema against the validator: on every example config, and on every bad one that the tests know."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hofit.config.load import validate
from hofit.config.mistakes import Mistakes
from hofit.config.schema import Config
from hofit.config.source import parse_source
from hofit.errors import ModelError
from hofit.optim.registry import registry
from hofit.optim.schedules import SCHEDULES
from hofit.run.matching import optimizer_specs
from hofit.run.schema import whole_schema
from tests.command_line import Hofit, Write
from tests.config.test_load import CONTRACT, ENTRY, UNKNOWN_KEYS, WRONG_ENTRIES, WRONG_VALUES
from tests.config.test_schema import REFUSED, TAKEN

ROOT = Path(__file__).parents[2]
CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), *(ROOT / "tests" / "cases").rglob("*.yaml")])


@cache
def checker() -> Any:
    schema = whole_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def by_schema(text: str) -> bool:
    """Whether a config is one by the schema. What JSON cannot hold, nan and infinity, is in no file of JSON."""
    try:
        data = json.loads(json.dumps(parse_source(text, "a.yaml").data, allow_nan=False))
    except ValueError:
        return False
    return bool(checker().is_valid(data))


def by_validator(text: str) -> bool:
    """Whether a config is one by the validator and by what the registry says of its optimizers."""
    source = parse_source(text, "a.yaml")
    config, found = validate(source)
    mistakes = Mistakes(source, found)
    if config is not None and not found:
        optimizer_specs(config, registry(), mistakes)
    return config is not None and not mistakes


NO_EXPRESSION = "re:("
"""Whether a regular expression compiles is beyond JSON Schema: an editor lets these pass, and hofit check does not."""


def entries(*options: str) -> list[str]:
    return [f"optimizers: [{{params: a, {option}}}]" for option in options]


GOOD = [
    CONTRACT,
    *(f"objective: {section}\n{ENTRY}" for section, _ in TAKEN),
    *(f"{line}\n{ENTRY}" for line in ("capture: off", "seed: 1.0", "threads: 2", "fixed: {a: null}")),
    "data: {columns: {y: Y}}\n" + ENTRY,
    *entries(
        "optimizer: trust_region, structure: sparse",
        "optimizer: newton, trust_radius: {a: 2.0}, adaptive: true",
        "optimizer: adam, betas: [0.9, 0.99], schedule: null",
        "optimizer: sgd, lr: 0.1, schedule: {name: cosine_annealing, T_max: 10}",
        "optimizer: newton, schedule: null",
        "optimizer: lbfgs, history_size: 5",
        "optimizer: sgd, schedule: {name: one_cycle, max_lr: 0.1, total_steps: null, epochs: 100, steps_per_epoch: 20}",
        "optimizer: sgd, schedule: {name: multi_step, milestones: [3, 9]}",
    ),
]

BAD = [
    *(f"{ENTRY}{line}" for line, *_ in UNKNOWN_KEYS),
    *(f"{ENTRY}{line}" for line, _ in WRONG_VALUES),
    *(text for text, _ in WRONG_ENTRIES),
    *(f"objective: {section}\n{ENTRY}" for section, _ in REFUSED),
    *(
        f"{line}\n{ENTRY}"
        for line in (
            "capture: on",
            "checkpoint: {keep: 9999}",
            "init: {values: {" + 1001 * "a" + ": 1}}",
            "objective: marginal",
            "threads: 0",
            "fixed: {'': 1}",
        )
    ),
    *entries(
        "optimizer: adma",
        "optimizer: newton, lr: 0.1",
        "optimizer: trust_region, structure: spares",
        "optimizer: newton, trust_radius: big",
        "optimizer: adam, lr: fast",
        "optimizer: adam, maximize: true",
        "optimizer: adam, betas: [0.9]",
        "optimizer: adam, amsgrad: 1",
        "optimizer: newton, schedule: {name: exponential, gamma: 0.9}",
        "optimizer: adam, schedule: {gamma: 0.9}",
        "optimizer: adam, schedule: {name: exponential}",
        "optimizer: adam, schedule: {name: exponential, gamma: 0}",
        "optimizer: adam, schedule: {name: exponental, gamma: 0.9}",
        "optimizer: adam, schedule: {name: exponential, gamma: 0.9, factor: 2}",
        "optimizer: lbfgs, history_size: many",
        "optimizer: sgd, schedule: {name: multi_step, milestones: 3}",
        "optimizer: sgd, schedule: {name: multi_step, milestones: [0.5]}",
        "optimizer: sgd, schedule: {name: step, step_size: 0}",
        "optimizer: sgd, schedule: {name: cosine_annealing, T_max: ten}",
        "optimizer: sgd, schedule: {name: cyclic, base_lr: [1], max_lr: 1}",
    ),
]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_a_config_by_both(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert list(checker().iter_errors(parse_source(text, path.name).data)) == []
    assert by_validator(text)


@pytest.mark.parametrize("text", GOOD)
def test_what_the_validator_takes_the_schema_takes(text: str) -> None:
    assert by_validator(text) and by_schema(text)


@pytest.mark.parametrize("text", BAD)
def test_what_the_validator_refuses_the_schema_refuses(text: str) -> None:
    assert not by_validator(text)
    assert by_schema(text) == (NO_EXPRESSION in text)


def test_every_key_and_every_option_of_hofit_s_own_optimizers_is_described() -> None:
    schema = whole_schema()
    assert set(schema["properties"]) == set(Config.model_fields)
    for one in (schema, *(schema["$defs"][name] for name in schema["$defs"] if name != "Schedule")):
        for key, value in one["properties"].items():
            assert value["description"].endswith("."), key
    cases = {
        case["if"]["properties"]["optimizer"]["const"]: case for case in schema["$defs"]["OptimizerEntry"]["allOf"]
    }
    assert set(cases) == set(registry())
    for name, spec in registry().items():
        options = cases[name]["then"]["properties"]
        assert set(options) == {"params", "optimizer", "schedule"} | {option.name for option in spec.options}
        if spec.declared is not None:
            assert all(options[option.name]["description"] == option.help for option in spec.options)
    schedules = {case["if"]["properties"]["name"]["const"] for case in schema["$defs"]["Schedule"]["allOf"]}
    assert schedules == set(SCHEDULES)
    adam = cases["adam"]["then"]["properties"]
    assert adam["weight_decay"]["description"] == "weight decay (L2 penalty)"
    assert (adam["lr"]["default"], adam["lr"]["type"]) == (0.001, "number")


OWN = """
    from pyro.optim.multi import Newton
    def model(): ...
    optimizers = {"mine": Newton}
    """


def test_a_model_s_own_optimizers_are_in_its_schema(write: Write) -> None:
    config = {"optimizers": [{"params": "*", "optimizer": "mine", "trust_radii": {"a": 1.0}}]}
    assert not checker().is_valid(config)
    assert jsonschema.Draft7Validator(whole_schema(str(write("own.py", OWN)))).is_valid(config)
    with pytest.raises(ModelError):
        whole_schema("nowhere.py")


def test_the_command_prints_it_or_writes_it(tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = hofit("schema")
    assert outcome.code == 0 and json.loads(outcome.out) == json.loads(json.dumps(whole_schema()))
    assert hofit("schema", "--out", "hofit.schema.json").code == 0
    assert json.loads(Path("hofit.schema.json").read_text()) == json.loads(outcome.out)
    refused = hofit("schema", "--out", "hofit.schema.json")
    assert refused.code == 2 and "--overwrite" in refused.err
    assert hofit("schema", "--out", "no/x.json").code == 2
    assert hofit("schema", "--out", "hofit.schema.json", "--overwrite").code == 0


def test_hofit_init_names_a_schema_that_lies_beside_a_config_or_above(
    tmp_path: Path, hofit: Hofit, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("m.py", "import pyro, pyro.distributions as dist\ndef model(): pyro.sample('x', dist.Normal(0.0, 1.0))\n")
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert hofit("init", "m.py", "--out", "before").code == 0
    assert "yaml-language-server" not in Path("before.yaml").read_text()
    assert hofit("schema", "-o", "hofit.schema.json").code == 0
    assert hofit("init", "m.py", "--out", "configs/after").code == 0
    text = Path("configs/after.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=../hofit.schema.json\n# A config for ../m.py")
    assert by_schema(text) and by_validator(text)
