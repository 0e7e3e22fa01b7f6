"""The schema: defaults, and every mistake at once with file, line and key."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import yaml

import hofit
from hofit.config.load import dump, load_source, validate
from hofit.config.schema import Config
from hofit.config.source import parse_source
from hofit.errors import ConfigError, HofitError

MINIMAL = {"optimizers": [{"params": "*", "optimizer": "newton"}]}


def config_of(text: str) -> Config:
    config, mistakes = validate(parse_source(textwrap.dedent(text), "a.yaml"))
    assert mistakes == []
    assert config is not None
    return config


def mistakes_of(text: str) -> list[str]:
    return validate(parse_source(textwrap.dedent(text), "a.yaml"))[1]


def test_every_default_is_the_contract_s() -> None:
    config, mistakes = validate(load_source(MINIMAL))
    assert mistakes == []
    assert config is not None
    whole = dump(config)
    assert whole.pop("threads", None) is None
    assert whole == {
        "model": None,
        "data": {"path": None, "columns": {}, "missing": "error", "arguments": {}, "options": {}},
        "objective": {"type": "map"},
        "init": {"strategy": "median", "values": {}, "jitter": 0.0},
        "starts": 1,
        "fixed": {},
        "optimizers": [{"params": "*", "optimizer": "newton"}],
        "order": "simultaneous",
        "stop": {
            "max_iterations": 1000,
            "max_seconds": None,
            "gradient": 1.0e-6,
            "decrement": None,
            "relative_loss": 1.0e-12,
            "patience": 3,
        },
        "progress": {"every": 10},
        "checkpoint": {"every": None, "seconds": 60.0, "keep": 2},
        "capture": "auto",
        "metrics": [],
        "seed": 0,
        "dtype": "float64",
        "device": "cpu",
    }


CONTRACT = """
    model: ../models/sleepstudy.py
    data:
      path: data/sleepstudy.csv
      columns:
        reaction: Reaction
        days: Days
        subject: {column: Subject, codes: true, levels: n_subjects}
        count: {column: Count, dtype: long}
        mined: {column: mined, codes: true, order: ["yes", "no"]}
        cell: {column: [recipe, replicate], codes: true, levels: n_cells}
      missing: error
      arguments: {scale: 2.5}
      options: {rows: 100}
    objective: map
    init: {strategy: median, values: {"sigma*": 2.0}, jitter: 0.0}
    fixed: {"tau": 2.5, "rho*": null}
    optimizers:
      - params: "b*"
        optimizer: newton
        trust_radius: 1.0
      - params: ["re:^c", d]
        optimizer: adam
        lr: 0.05
        schedule: {name: exponential, gamma: 0.999}
    order: simultaneous
    stop: {max_iterations: 1000, max_seconds: null, gradient: 1.0e-6, decrement: null, relative_loss: 1.0e-12,
           patience: 3}
    progress: {every: 10}
    checkpoint: {every: 50, seconds: 60, keep: 2}
    seed: 0
    dtype: float64
    device: cpu
"""


def test_the_contract_s_example_is_a_config() -> None:
    config = config_of(CONTRACT)
    assert config.data.columns["reaction"].column == "Reaction"
    assert config.data.columns["subject"].levels == "n_subjects"
    assert config.data.columns["mined"].order == ["yes", "no"]
    assert config.objective.type == "map"
    assert config.fixed == {"tau": 2.5, "rho*": None}
    assert config.optimizers[1].patterns == ["re:^c", "d"]
    assert config.optimizers[1].options == {"lr": 0.05}
    assert config.optimizers[1].schedule == {"name": "exponential", "gamma": 0.999}


def test_a_dumped_config_is_the_same_config_again() -> None:
    config = config_of(CONTRACT)
    assert validate(parse_source(yaml.safe_dump(dump(config)), "b.yaml")) == (config, [])


@pytest.mark.parametrize(
    ("given", "expected"),
    [("objective: map_unconstrained", "map_unconstrained"), ("objective: {type: map}", "map")],
)
def test_an_objective_is_a_word_or_a_mapping(given: str, expected: str) -> None:
    assert config_of(f"{given}\noptimizers: [{{params: a, optimizer: b}}]").objective.type == expected


ENTRY = "optimizers: [{params: '*', optimizer: newton}]\n"


UNKNOWN_KEYS = [
    ("seeds: 1", "seeds", '"seed"'),
    ("optimisers: []", "optimisers", '"optimizers"'),
    ("stop: {gradeint: 1}", "stop.gradeint", '"gradient"'),
    ("data: {paht: x}", "data.paht", '"path"'),
    ("data: {columns: {y: {colum: Y}}}", "data.columns.y.colum", '"column"'),
    ("init: {stratgy: zero}", "init.stratgy", '"strategy"'),
    ("progress: {evry: 1}", "progress.evry", '"every"'),
    ("checkpoint: {kep: 3}", "checkpoint.kep", '"keep"'),
    ("objective: {typ: map}", "objective.typ", '"type"'),
    ("fixd: {}", "fixd", '"fixed"'),
]


@pytest.mark.parametrize(("line", "key", "near"), UNKNOWN_KEYS)
def test_an_unknown_key_is_named_with_its_near_misses(line: str, key: str, near: str) -> None:
    mistakes = mistakes_of(ENTRY + line)
    unknown = [mistake for mistake in mistakes if f"a.yaml:2: {key}: unknown key" in mistake]
    assert len(unknown) == 1, mistakes
    assert near in unknown[0]


WRONG_VALUES = [
    ("model: 3", "model"),
    ("data: table.csv", "data"),
    ("data: {path: 3}", "data.path"),
    ("data: {columns: [a]}", "data.columns"),
    ("data: {columns: {y: 3}}", "data.columns.y"),
    ("data: {columns: {y: {codes: true}}}", "data.columns.y.column"),
    ("data: {columns: {y: {column: Y, codes: 1}}}", "data.columns.y.codes"),
    ("data: {columns: {y: {column: Y, dtype: complex}}}", "data.columns.y.dtype"),
    ("data: {columns: {y: {column: Y, levels: n}}}", "data.columns.y"),
    ("data: {columns: {y: {column: Y, order: [a]}}}", "data.columns.y"),
    ("data: {columns: {y: {column: [Y, Z]}}}", "data.columns.y"),
    ("data: {columns: {y: {column: Y, codes: true, dtype: long}}}", "data.columns.y"),
    ("data: {columns: {y: {column: Y, codes: true, order: a}}}", "data.columns.y.order"),
    ("data: {missing: ignore}", "data.missing"),
    ("data: {arguments: 3}", "data.arguments"),
    ("data: {options: [a]}", "data.options"),
    ("objective: mapp", "objective:"),
    ("objective: {type: mapp}", "objective.type"),
    ("objective: 3", "objective"),
    ("init: {strategy: mean}", "init.strategy"),
    ("init: {jitter: -1}", "init.jitter"),
    ("init: {jitter: yes}", "init.jitter"),
    ("init: {values: 3}", "init.values"),
    ("init: {values: {'re:(b': 1}}", "init.values"),
    ("fixed: [tau]", "fixed"),
    ("fixed: {'re:(b': 1}", "fixed"),
    ("order: together", "order"),
    ("stop: 100", "stop"),
    ("stop:", "stop"),
    ("stop: {max_iterations: 1.5}", "stop.max_iterations"),
    ("stop: {max_iterations: -1}", "stop.max_iterations"),
    ("stop: {max_iterations: true}", "stop.max_iterations"),
    ("stop: {max_iterations: '10'}", "stop.max_iterations"),
    ("stop: {max_seconds: 0}", "stop.max_seconds"),
    ("stop: {gradient: -1e-6}", "stop.gradient"),
    ("stop: {gradient: .nan}", "stop.gradient"),
    ("stop: {gradient: small}", "stop.gradient"),
    ("stop: {patience: 0}", "stop.patience"),
    ("progress: {every: 0}", "progress.every"),
    ("checkpoint: {every: 0}", "checkpoint.every"),
    ("checkpoint: {seconds: 0}", "checkpoint.seconds"),
    ("checkpoint: {keep: 1}", "checkpoint.keep"),
    ("checkpoint: {keep: 2.5}", "checkpoint.keep"),
    ("seed: -1", "seed"),
    ("seed: 4294967296", "seed"),
    ("seed: 1.5", "seed"),
    ("dtype: float16", "dtype"),
    ("device: 0", "device"),
]


@pytest.mark.parametrize(("line", "key"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_file_line_and_key(line: str, key: str) -> None:
    mistakes = mistakes_of(ENTRY + line)
    assert mistakes
    assert all(mistake.startswith(f"a.yaml:2: {key}") for mistake in mistakes), mistakes


WRONG_ENTRIES = [
    ("seed: 1", "a.yaml:1: optimizers: is missing"),
    ("optimizers:", "a.yaml:1: optimizers: "),
    ("optimizers: []", "a.yaml:1: optimizers: "),
    ("optimizers: newton", "a.yaml:1: optimizers: "),
    ("optimizers: {params: a, optimizer: b}", "a.yaml:1: optimizers: "),
    ("optimizers:\n  - adam", "a.yaml:2: optimizers.0: "),
    ("optimizers:\n  - params: a", "a.yaml:2: optimizers.0.optimizer: is missing"),
    ("optimizers:\n  - optimizer: adam", "a.yaml:2: optimizers.0.params: is missing"),
    ("optimizers:\n  - optimizer: adam\n    params: 3", "a.yaml:3: optimizers.0.params: "),
    ("optimizers:\n  - optimizer: adam\n    params: []", "a.yaml:3: optimizers.0.params: "),
    ("optimizers:\n  - optimizer: adam\n    params: ''", "a.yaml:3: optimizers.0.params: "),
    ("optimizers:\n  - optimizer: adam\n    params: 're:(a'", "a.yaml:3: optimizers.0.params: "),
    ("optimizers:\n  - optimizer: adam\n    params:\n     - a\n     - 3", "a.yaml:5: optimizers.0.params"),
    ("optimizers:\n  - optimizer: 3\n    params: a", "a.yaml:2: optimizers.0.optimizer: "),
    ("optimizers:\n  - optimizer: adam\n    params: a\n    schedule: x", "a.yaml:4: optimizers.0.schedule: "),
]


@pytest.mark.parametrize(("text", "start"), WRONG_ENTRIES)
def test_a_wrong_optimizer_entry_is_named_with_its_line(text: str, start: str) -> None:
    mistakes = mistakes_of(text)
    assert any(mistake.startswith(start) for mistake in mistakes), mistakes


def test_all_mistakes_come_at_once_each_with_its_own_line() -> None:
    mistakes = mistakes_of(
        """\
        seed: -1
        stop:
          gradient: small
          max_iteration: 5
        data:
          columns:
            y: {colum: Y}
        optimizers:
          - params: a
          - params: "re:(b"
            optimizer: adam
        dtype: float16
        """
    )
    starts = {mistake.split(": ")[0] + ": " + mistake.split(": ")[1] for mistake in mistakes}
    assert starts >= {
        "a.yaml:1: seed",
        "a.yaml:3: stop.gradient",
        "a.yaml:4: stop.max_iteration",
        "a.yaml:7: data.columns.y.colum",
        "a.yaml:9: optimizers.0.optimizer",
        "a.yaml:10: optimizers.1.params",
        "a.yaml:12: dtype",
    }
    assert len(mistakes) == len(set(mistakes))


def test_a_mistake_of_the_command_line_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(ENTRY)
    _, mistakes = validate(load_source(path, ["stop.gradient=small", "seed=-1"]))
    assert [mistake.partition(": ")[0] for mistake in mistakes] == ["--set stop.gradient=small", "--set seed=-1"]


def test_all_bad_sets_come_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(ENTRY)
    with pytest.raises(ConfigError) as caught:
        load_source(path, ["seed", "optimizers.9.lr=1", "stop.patience=2"])
    assert len(caught.value.mistakes) == 2


def test_what_can_be_saved_of_a_wrong_config_is_returned() -> None:
    config, mistakes = validate(
        parse_source("stop: {gradient: x}\nseed: 3\noptimizers: [{params: a}, {params: b, optimizer: c}]", "a.yaml")
    )
    assert len(mistakes) == 2
    assert config is not None
    assert (config.seed, config.stop.gradient, len(config.optimizers)) == (3, 1.0e-6, 1)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("m.py", "{folder}/m.py"),
        ("../models/m.py:other", "{parent}/models/m.py:other"),
        ("package.module:name", "package.module:name"),
        ("package.module", "package.module"),
    ],
)
def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path, model: str, expected: str) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "a.yaml").write_text(f"model: {model}\ndata: {{path: d.csv}}\n")
    data = load_source(folder / "a.yaml").data
    assert data["model"] == expected.format(folder=folder.resolve(), parent=tmp_path.resolve())
    assert data["data"]["path"] == str(folder.resolve() / "d.csv")


def test_paths_of_the_command_line_and_of_a_mapping_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text(ENTRY)
    sets = ["model=m.py", "data.path=d.csv"]
    for data in (
        load_source("configs/a.yaml", sets).data,
        load_source({**MINIMAL, "model": "m.py", "data": {"path": "d.csv"}}).data,
    ):
        assert data["model"] == str(tmp_path.resolve() / "m.py")
        assert data["data"]["path"] == str(tmp_path.resolve() / "d.csv")


@pytest.mark.parametrize("path", ["~nobody_has_this_name/d.csv", "d\x00.csv"])
def test_a_path_that_cannot_be_one_is_a_config_error(path: str) -> None:
    given: dict[str, Any] = {**MINIMAL, "data": {"path": path}}
    with pytest.raises(ConfigError, match=r"data\.path"):
        load_source(given)


@pytest.mark.parametrize(
    "config",
    [
        {"optimizers": [{"params": "*", "optimizer": "adam", "lr": np.float64(0.1)}]},
        {"optimizers": [{"params": "*", "optimizer": "adam", "betas": (np.float32(0.9), 0.99)}]},
        {"stop": {"max_iterations": np.int64(3)}, **MINIMAL},
        {"stop": {"gradient": np.float64(1e-3)}, **MINIMAL},
        {"init": {"values": {"x": np.float64(0.5)}}, **MINIMAL},
        {"init": {"values": {"x": torch.tensor(0.5)}}, **MINIMAL},
        {"fixed": {"z": np.array(0.5)}, **MINIMAL},
    ],
    ids=["option", "tuple", "integer", "float", "start", "tensor", "fixed"],
)
def test_numbers_of_numpy_and_torch_in_a_mapping_are_numbers_or_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    def model() -> None:
        z = pyro.param("z", torch.tensor(1.0))
        pyro.factor("f", -(pyro.param("x", torch.tensor(1.0)) ** 2) - z**2)

    try:
        result = hofit.fit(model, config, run_dir=tmp_path / "run")
    except HofitError:
        assert not (tmp_path / "run").exists()
    else:
        assert result.exit_code in (0, 3)
        again, mistakes = validate(load_source(tmp_path / "run" / "config.yaml"))
        assert again is not None and mistakes == []
