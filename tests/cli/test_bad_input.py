"""Bad input of every kind: one clear message, the contract's exit code, no traceback, nothing written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import Hofit, Write


@dataclass(frozen=True)
class Case:
    """Changes to the toy folder and the command line, and what the message must hold."""

    says: list[str]
    files: dict[str, str] = field(default_factory=dict)
    edits: tuple[tuple[str, str, str], ...] = ()
    arguments: tuple[str, ...] = ("toy.py", "-c", "a.yaml")
    code: int = 2


def edit(name: str, old: str, new: str, *says: str, **more: Any) -> Case:
    return Case(list(says), edits=((name, old, new),), **more)


def added(text: str, *says: str, **more: Any) -> Case:
    """Lines put in front of the config: they begin at line 1."""
    return Case(list(says), edits=(("a.yaml", "data:\n", text + "data:\n"),), **more)


def sets(*assignments: str, says: list[str], **more: Any) -> Case:
    flags = tuple(part for assignment in assignments for part in ("-s", assignment))
    return Case(says, arguments=("toy.py", "-c", "a.yaml", *flags), **more)


def model(body: str, *says: str, **more: Any) -> Case:
    head = "import pyro, torch\nimport pyro.distributions as dist\nfrom torch.distributions import constraints\n"
    config = "optimizers:\n  - params: '*'\n    optimizer: newton\n"
    arguments = ("bad.py", "-c", "b.yaml", *more.pop("extra", ()))
    return Case(list(says), {"bad.py": head + body, "b.yaml": config}, arguments=arguments, **more)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
COLUMN = "group: {column: group, codes: true, levels: n_groups}"

CASES: dict[str, Case] = {
    # the config file
    "no config": Case(["none.yaml", "a.yaml"], arguments=("toy.py", "-c", "none.yaml")),
    "config is a folder": Case(["."], arguments=("toy.py", "-c", ".")),
    "no config option": Case(["--config"], arguments=("toy.py",)),
    "empty config": Case(["b.yaml", "empty"], {"b.yaml": ""}, arguments=("toy.py", "-c", "b.yaml")),
    "not a mapping": Case(["b.yaml:1"], {"b.yaml": "- a\n"}, arguments=("toy.py", "-c", "b.yaml")),
    "duplicate key": added("seed: 1\nseed: 2\n", "a.yaml:2: seed", "line 1"),
    "yaml bomb": added(BOMB, "a.yaml:"),
    "recursive alias": added("fixed: &a\n  b: *a\n", "a.yaml:1"),
    "python tag": added("seed: !!python/object/apply:os.system [ls]\n", "a.yaml:1", "tag"),
    "bad yaml": added("seed: [1\n", "a.yaml:"),
    "unknown key": added("seeds: 1\n", "a.yaml:1: seeds", '"seed"'),
    "wrong type": added("seed: many\n", "a.yaml:1: seed", "'many'"),
    "wrong type below": edit("a.yaml", "20}", "20, gradient: small}", "a.yaml:10: stop.gradient", "'small'"),
    "wrong word": added("order: together\n", "a.yaml:1: order", "'together'", "alternating"),
    "no optimizers": edit("a.yaml", "optimizers:", "fixed: {}\noptimisers:", "optimizers: is missing", '"optimizers"'),
    # optimizers
    "unknown optimizer": edit("a.yaml", "adam", "adan", "a.yaml:8: optimizers.0.optimizer", '"adam"'),
    "unknown option": edit("a.yaml", "lr: 0.05", "learning_rate: 1", "a.yaml:9: optimizers.0.learning_rate", "lr"),
    "negative learning rate": edit("a.yaml", "0.05", "-0.05", "a.yaml:9: optimizers.0.lr", "-0.05"),
    "learning rate is a word": edit("a.yaml", "0.05", "fast", "a.yaml:9: optimizers.0.lr", "'fast'"),
    "learning rate is nan": edit("a.yaml", "0.05", ".nan", "a.yaml:9: optimizers.0.lr"),
    "bad betas": edit("a.yaml", "lr: 0.05", "betas: [0.9]", "a.yaml:9: optimizers.0.betas"),
    "betas out of range": edit("a.yaml", "lr: 0.05", "betas: [0.9, 1.5]", "a.yaml:9: optimizers.0.betas"),
    "negative weight decay": edit("a.yaml", "lr: 0.05", "weight_decay: -1", "a.yaml:9: optimizers.0.weight_decay"),
    "unknown schedule": edit(
        *("a.yaml", "lr: 0.05", "schedule: {name: exponentail, gamma: 0.9}"),
        *("a.yaml:9: optimizers.0.schedule.name", '"exponential"'),
    ),
    "schedule without its option": edit(
        "a.yaml", "lr: 0.05", "schedule: {name: exponential}", "a.yaml:9: optimizers.0.schedule.gamma"
    ),
    "schedule without a name": edit("a.yaml", "lr: 0.05", "schedule: {gamma: 1}", "a.yaml:9: optimizers.0.schedule"),
    "schedule on newton": edit(
        *("a.yaml", "adam\n    lr: 0.05", "newton\n    schedule: {name: exponential, gamma: 1}"),
        *("a.yaml:9: optimizers.0.schedule", "lr"),
    ),
    "negative trust radius": edit(
        "a.yaml", "adam\n    lr: 0.05", "newton\n    trust_radius: -1", "a.yaml:9: optimizers.0.trust_radius"
    ),
    "trust radius of nobody": edit(
        *("a.yaml", "adam\n    lr: 0.05", "newton\n    trust_radius:\n      efect: 1"),
        *("a.yaml:10: optimizers.0.trust_radius.efect", '"effect"'),
    ),
    "maximize": edit("a.yaml", "lr: 0.05", "maximize: true", "a.yaml:9: optimizers.0.maximize", "minimises"),
    "muon on a scalar": edit("a.yaml", "adam", "muon", "a.yaml:7: optimizers.0.params", "matrices"),
    # patterns
    "pattern matches nothing": edit(
        "a.yaml", 'params: "*"', "params: [efect, '*']", "a.yaml:7: optimizers.0.params", '"effect"'
    ),
    "no entry matches": edit("a.yaml", '"*"', "effect", "a.yaml:6: optimizers", "'mean'", "'sigma'"),
    "entry gets nothing": edit(
        "a.yaml", "    lr: 0.05", "  - {params: mean, optimizer: sgd}", "a.yaml:9: optimizers.1.params"
    ),
    "observed site": edit("a.yaml", 'params: "*"', "params: [y, '*']", "a.yaml:7: optimizers.0.params", "'y'"),
    "plate": edit("a.yaml", 'params: "*"', "params: [groups, '*']", "a.yaml:7: optimizers.0.params", "'groups'"),
    "bad regular expression": edit("a.yaml", '"*"', '"re:(b"', "a.yaml:7: optimizers.0.params", "regular expression"),
    "fixed matches nothing": added("fixed: {efect: 1}\n", "a.yaml:1: fixed.efect", '"effect"'),
    "fixed outside the support": added("fixed: {sigma: -1}\n", "a.yaml:1: fixed.sigma", "positive"),
    "value matches nothing": added("init: {values: {sgima: 1}}\n", "a.yaml:1: init.values.sgima", '"sigma"'),
    "value of a wrong shape": added("init: {values: {effect: [1, 2]}}\n", "a.yaml:1: init.values.effect", "shape"),
    "nothing to enumerate": added(
        "objective:\n  integrate: {effect: enumerate, z: enumerate}\n",
        *("a.yaml:2: objective.integrate.effect: 'effect' is continuous", "a.yaml:2: objective.integrate.z", "'z'"),
    ),
    # the command line
    "bad set": sets("seed", says=["--set seed", "KEY=VALUE"]),
    "set of an unknown key": sets("stop.gradeint=1", says=["--set stop.gradeint=1", '"gradient"']),
    "set of a wrong type": sets("stop.gradient=x", says=["--set stop.gradient=x: stop.gradient"]),
    "set past the list": sets("optimizers.3.lr=1", says=["--set optimizers.3.lr=1"]),
    "set of a negative lr": sets("optimizers.0.lr=-1", says=["--set optimizers.0.lr=-1: optimizers.0.lr"]),
    "seed is a word": Case(["--seed"], arguments=("toy.py", "-c", "a.yaml", "--seed", "x")),
    "seed is negative": Case(["seed"], arguments=("toy.py", "-c", "a.yaml", "--seed", "-1")),
    "no such device": Case(["device", "nope"], arguments=("toy.py", "-c", "a.yaml", "--device", "nope")),
    "device not here": Case(["device", "cuda"], arguments=("toy.py", "-c", "a.yaml", "--device", "cuda:99")),
    "no such dtype": Case(["dtype", "float16"], arguments=("toy.py", "-c", "a.yaml", "--dtype", "float16")),
    "unknown option of fit": Case(["--confg"], arguments=("toy.py", "--confg", "a.yaml")),
    "no model": Case(["model"], arguments=("-c", "a.yaml")),
    # the model
    "no model file": Case(["tyo.py", '"toy.py"'], arguments=("tyo.py", "-c", "a.yaml")),
    "no such function": Case(["modle", '"model"'], arguments=("toy.py:modle", "-c", "a.yaml")),
    "no such module": Case(["nowhere.models"], arguments=("nowhere.models:model", "-c", "a.yaml")),
    "model is no function": Case(["PAUSE", "float"], arguments=("toy.py:PAUSE", "-c", "a.yaml")),
    "model does not import": model("import nothing_like_it\n", "ModuleNotFoundError", "bad.py:4", "nothing_like_it"),
    "model has a syntax error": model("def model(:\n", "SyntaxError", "bad.py:4", "def model(:"),
    "model leaves while imported": model("raise SystemExit(0)\n", "bad.py:4"),
    "model raises": model(
        "def helper(x):\n    return x @ torch.ones(3)\n"
        "def model():\n    x = pyro.param('first', torch.zeros(2))\n    helper(x)\n",
        *("'first'", "bad.py:5 in helper: return x @ torch.ones(3)", "bad.py:8 in model: helper(x)", "RuntimeError"),
    ),
    "model leaves": model("def model():\n    x = pyro.param('first', torch.zeros(2))\n    exit(0)\n", "bad.py:6"),
    "model has a discrete latent": model(
        "def model():\n    pyro.sample('z', dist.Bernoulli(0.5))\n", "'z'", "discrete", "Bernoulli"
    ),
    "model has nothing to fit": model(
        "def model():\n    pyro.sample('y', dist.Normal(0, 1), obs=torch.tensor(1.))\n", "nothing to fit"
    ),
    "model is random": model(
        "def model():\n    pyro.factor('f', -(pyro.param('x', torch.tensor(1.)) - torch.rand(())) ** 2)\n", "random"
    ),
    "model subsamples": model(
        "def model():\n    x = pyro.param('x', torch.tensor(1.))\n"
        "    with pyro.plate('rows', 9, subsample_size=3) as i:\n"
        "        pyro.sample('y', dist.Normal(x, 1), obs=i.double())\n",
        "'rows'",
    ),
    "argument missing": edit("a.yaml", "    " + COLUMN + "\n", "", "a.yaml:1", "group", "n_groups"),
    "argument not taken": edit("a.yaml", "y: y", "y: y\n    yy: y", "a.yaml:", "'yy'"),
    "load_data fails": model("def load_data():\n    return 1 / 0\ndef model(): ...\n", "bad.py:5 in load_data"),
    "load_data gives no mapping": model("def load_data(): return [1]\ndef model(): ...\n", "load_data", "list"),
    "load_data is no function": model("load_data = 3\ndef model(): ...\n", "load_data"),
    "load_data does not take an option": model(
        "def load_data(rows=1): return {}\ndef model(): ...\n",
        *("data.options.row", '"rows"'),
        extra=("-s", "data.options.row=1"),
    ),
    "options without load_data": sets("data.options.rows=1", says=["data.options", "load_data"]),
    "argument given twice": model(
        "def load_data(): return {'x': 1}\ndef model(x): ...\n",
        *("'x'", "load_data", "data.arguments"),
        extra=("-s", "data.arguments.x=1"),
    ),
    "optimizers of the model are no dict": model("optimizers = 3\ndef model(): ...\n", "optimizers"),
    "optimizer of the model is no optimizer": model("optimizers = {'mine': 3}\ndef model(): ...\n", "'mine'"),
    # the data
    "no data file": edit("a.yaml", "data.csv", "date.csv", "a.yaml:2: data.path", "date.csv"),
    "no data file on the command line": Case(
        ["no.csv", "data.path"], arguments=("toy.py", "-c", "a.yaml", "--data", "no.csv")
    ),
    "no such column": edit(
        "a.yaml", "column: group", "column: grp", "a.yaml:5: data.columns.group", "data.csv", "'grp'", '"group"'
    ),
    "text without codes": edit("a.yaml", "y: y", "y: text", "a.yaml:4: data.columns.y", "data.csv", "'one'", "codes"),
    "nan": edit("a.yaml", "y: y", "y: holes", "a.yaml:4: data.columns.y", "data.csv", "'holes'", "line 3", "drop"),
    "infinite": edit("data.csv", "1.5,", "inf,", "a.yaml:4: data.columns.y", "data.csv", "'y'", "line 2"),
    "empty table": Case(["a.yaml:2: data.path", "data.csv", "empty"], {"data.csv": "y,group\n"}),
    "empty file": Case(["a.yaml:2: data.path", "data.csv", "empty"], {"data.csv": ""}),
    "ragged table": edit("data.csv", "2.5,b,two,", "2.5,b", "a.yaml:2: data.path", "data.csv", "line 3"),
    "unknown kind of file": edit("a.yaml", "data.csv", "a.yaml", "a.yaml:2: data.path", ".parquet"),
    "columns without a path": edit("a.yaml", "  path: data.csv\n", "", "a.yaml:2: data.columns", "data.path"),
    "levels twice": edit("a.yaml", "levels: n_groups", "levels: y", "a.yaml:5: data.columns.group", "'y'"),
    "a level that is not in order": edit(
        "a.yaml", "codes: true", "codes: true, order: [a, b]", "a.yaml:5: data.columns.group", "'c'"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_ends_with_one_clear_message_and_nothing_written(
    folder: Path, hofit: Hofit, write: Write, name: str
) -> None:
    case = CASES[name]
    for file, text in case.files.items():
        (folder / file).write_text(text)
    for file, old, new in case.edits:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))
    before = sorted(path.name for path in folder.iterdir() if path.name != "__pycache__")
    outcome = hofit("fit", *case.arguments)
    assert outcome.code == case.code, outcome.text
    for part in case.says:
        assert part in outcome.err, outcome.err
    assert "Traceback" not in outcome.text
    assert "site-packages" not in outcome.err
    assert outcome.out == ""
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_check_reports_the_same_mistakes_as_fit(folder: Path, hofit: Hofit) -> None:
    sets_ = ("-s", "optimizers.0.lr=-1", "-s", "fixed.sgima=1")
    checked, fitted = hofit("check", "toy.py", "-c", "a.yaml", *sets_), hofit("fit", "toy.py", "-c", "a.yaml", *sets_)
    assert (checked.code, checked.err) == (fitted.code, fitted.err)


def test_every_mistake_is_reported_at_once_each_in_its_line(folder: Path, hofit: Hofit) -> None:
    (folder / "a.yaml").write_text(
        """\
data:
  path: data.csv
  columns:
    y: y
    group: {column: group, codes: true, levels: n_groups}
seed: many
fixed: {efect: 1}
init:
  values: {sgima: 1}
  jitter: -1
stop:
  gradeint: 1
optimizers:
  - params: mena
    optimizer: adan
  - params: "*"
    optimizer: adam
    lr: -1
device: nope
"""
    )
    outcome = hofit("check", "toy.py", "-c", "a.yaml")
    assert outcome.code == 2
    places = set(re.findall(r"a\.yaml:(\d+: [\w.]+)", outcome.err))
    assert places >= {
        "6: seed",
        "7: fixed.efect",
        "10: init.jitter",
        "12: stop.gradeint",
        "14: optimizers.0.params",
        "15: optimizers.0.optimizer",
        "18: optimizers.1.lr",
        "19: device",
    }, outcome.err
    assert "Traceback" not in outcome.err


def test_two_wrong_options_of_one_entry_are_reported_together(folder: Path, hofit: Hofit) -> None:
    sets_ = ("-s", "optimizers.0.lr=-1", "-s", "optimizers.0.betas=[1]", "-s", "optimizers.0.epz=1")
    outcome = hofit("check", "toy.py", "-c", "a.yaml", *sets_)
    for key in ("optimizers.0.lr", "optimizers.0.betas", "optimizers.0.epz"):
        assert f": {key}: " in outcome.err, outcome.err


def test_a_mistake_of_the_second_of_two_equal_entries_is_reported_in_its_own_line(folder: Path, hofit: Hofit) -> None:
    text = (folder / "a.yaml").read_text()
    second = '  - params: "*"\n    optimizer: adam\n    learning: 1\n'
    (folder / "a.yaml").write_text(text.replace("stop:", second + "stop:"))
    outcome = hofit("check", "toy.py", "-c", "a.yaml")
    assert outcome.code == 2
    assert "a.yaml:12: optimizers.1.learning" in outcome.err


def test_a_key_named_after_an_argument_does_not_hide_the_other_mistakes(folder: Path, hofit: Hofit) -> None:
    sets_ = ("-s", "optimizers.0.argument=1", "-s", "fixed.sgima=1")
    outcome = hofit("check", "toy.py", "-c", "a.yaml", *sets_)
    assert "optimizers.0.argument" in outcome.err and "fixed.sgima" in outcome.err


def test_wrong_data_and_a_wrong_config_are_reported_together(folder: Path, hofit: Hofit) -> None:
    sets_ = ("-s", "optimizers.0.lr=-1", "-s", "data.columns.y=Y", "-s", "data.columns.group.column=Group")
    outcome = hofit("check", "toy.py", "-c", "a.yaml", *sets_)
    for key in ("optimizers.0.lr", "data.columns.y", "data.columns.group"):
        assert key in outcome.err, outcome.err


START = {
    "nan in the density": "pyro.factor('place', torch.log(-x))",
    "a negative scale": "pyro.sample('place', dist.Normal(0.0, -x), obs=torch.tensor(1.0))",
    "no Cholesky factor": "torch.linalg.cholesky(-x * torch.eye(2), out=None)  # place",
    "infinite loss": "pyro.factor('place', torch.log(0 * x))",
    "data outside the support": "pyro.sample('place', dist.Gamma(x, 1.0), obs=torch.tensor(-1.0))",
}


@pytest.mark.parametrize("command", ["fit", "check"])
@pytest.mark.parametrize("kind", START)
def test_a_start_without_a_finite_loss_leaves_with_4_and_says_where(
    folder: Path, hofit: Hofit, write: Write, kind: str, command: str
) -> None:
    head = "import pyro, torch\nimport pyro.distributions as dist\ndef model():\n"
    body = f"    x = pyro.param('x', torch.tensor(1.0))\n    {START[kind]}\n    pyro.factor('g', -x ** 2)\n"
    (folder / "bad.py").write_text(head + body)
    write("b.yaml", "optimizers: [{params: x, optimizer: newton}]\n")
    outcome = hofit(command, "bad.py", "-c", "b.yaml")
    assert outcome.code == 4, outcome.text
    assert "place" in outcome.text
    assert "Traceback" not in outcome.text


def test_a_model_that_is_interrupted_leaves_with_130(folder: Path, hofit: Hofit, write: Write) -> None:
    write("stopped.py", "def model():\n    raise KeyboardInterrupt\n")
    write("b.yaml", "optimizers: [{params: x, optimizer: newton}]\n")
    outcome = hofit("fit", "stopped.py", "-c", "b.yaml")
    assert outcome.code == 130
    assert "Traceback" not in outcome.text
