"""The mistakes that newcomers make, each with what hofit says of it: what, where, and the edit that mends it.

``test_mistakes.py`` makes each and holds the message against these words; docs/errors.md is written from the table:

    python -m tests.cli.mistakes > docs/errors.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Mistake:
    """``done``: what the user did, in words. The message holds ``what``, ``where`` and ``edit``.

    It is made in the folder of conftest.py (toy.py, data.csv, a.yaml) by writing ``files`` and replacing text by
    ``edits`` (file, old, new), and then giving ``command``.
    """

    done: str
    what: str
    where: str
    edit: str
    command: tuple[str, ...] = ("fit", "toy.py", "-c", "a.yaml")
    files: dict[str, str] = field(default_factory=dict)
    edits: tuple[tuple[str, str, str], ...] = ()
    code: int = 2


def by_command(done: str, what: str, where: str, edit: str, *command: str, **more: Any) -> Mistake:
    return Mistake(done, what, where, edit, command, **more)


def by_set(done: str, what: str, where: str, edit: str, *assignments: str, **more: Any) -> Mistake:
    flags = [part for assignment in assignments for part in ("-s", assignment)]
    return Mistake(done, what, where, edit, ("fit", "toy.py", "-c", "a.yaml", *flags), **more)


def in_config(done: str, what: str, where: str, edit: str, old: str, new: str, **more: Any) -> Mistake:
    return Mistake(done, what, where, edit, edits=(("a.yaml", old, new),), **more)


def in_model(done: str, what: str, where: str, edit: str, body: str, config: str = "", **more: Any) -> Mistake:
    head = "import pyro, torch\nimport pyro.distributions as dist\nfrom torch.distributions import constraints\n"
    config = config or "optimizers:\n  - {params: '*', optimizer: trust_region}\n"
    return Mistake(
        done, what, where, edit, ("fit", "m.py", "-c", "m.yaml"), {"m.py": head + body, "m.yaml": config}, **more
    )


Y = "data: {path: data.csv, columns: {y: y}}\noptimizers:\n  - {params: '*', optimizer: trust_region}\n"
GROUPED = (
    "data:\n  path: data.csv\n  columns: {y: y, group: {column: group, codes: true, levels: n_groups}}\n"
    "optimizers:\n  - {params: '*', optimizer: trust_region}\n"
)
HIERARCHY = """\
def model(y, group, n_groups):
    mean = pyro.param('mean', torch.tensor(0.0))
    tau = pyro.param('tau', torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate('groups', n_groups):
        effect = pyro.sample('effect', dist.Normal(mean, tau))
    with pyro.plate('rows', len(y)):
        pyro.sample('y', dist.Normal(effect[group], 1.0), obs=y)
"""
NET = """\
net = torch.nn.Linear(1, 1)
def model(y):
    pyro.module('net', net)
    with pyro.plate('rows', len(y)):
        pyro.sample('y', dist.Normal(net(y[:, None])[:, 0], 1.0), obs=y)
"""

PAIRS = "a,b,y\nann,bob,1.0\nbob,cid,2.0\ncid,ann,0.5\ndan,ann,0.1\n"
GAMES = (
    "data: {path: games.csv, columns: {y: y, first: {column: a, codes: true}, second: {column: b, codes: true}}}\n"
    "optimizers:\n  - {params: '*', optimizer: trust_region}\n"
)
PLAYERS = """\
def model(y, first, second):
    with pyro.plate('players', 4):
        skill = pyro.sample('skill', dist.Normal(0.0, 1.0))
    with pyro.plate('games', len(y)):
        pyro.sample('y', dist.Normal(skill[first] - skill[second], 1.0), obs=y)
"""

MISTAKES: list[Mistake] = [
    by_command(
        "a typo in the model's path",
        "no model file",
        "tyo.py",
        'did you mean "toy.py"?',
        "fit",
        "tyo.py",
        "-c",
        "a.yaml",
    ),
    by_command(
        "a typo in the function's name",
        "has no `modle`",
        "toy.py",
        'did you mean "model"',
        "fit",
        "toy.py:modle",
        "-c",
        "a.yaml",
    ),
    by_command(
        "a typo in the config's path", "no config file", "b.yaml", "there are: a.yaml", "fit", "toy.py", "-c", "b.yaml"
    ),
    by_command(
        "model and config changed places",
        "is a Python file",
        "--config toy.py",
        "the model is the argument, and a config in YAML follows -c",
        "fit",
        "a.yaml",
        "-c",
        "toy.py",
    ),
    by_command(
        "a model that needs data, and none is given",
        "needs the argument 'y'",
        "model",
        "name the table with --data, or a config with --config",
        "fit",
        "toy.py",
    ),
    by_command("an option that is none", "No such option", "--confg", "--config", "fit", "toy.py", "--confg", "a.yaml"),
    by_command("a command that is none", "No such command", "'fti'", "Did you mean 'fit'?", "fti", "toy.py"),
    by_command(
        "a file that is no table",
        "a data file ends in",
        "data.path: ",
        ".csv, .csv.gz, .json, .npz, .parquet",
        "fit",
        "toy.py",
        "-c",
        "a.yaml",
        "--data",
        "a.yaml",
    ),
    by_command(
        "a run directory that holds a run",
        "holds a run already",
        "done",
        "choose another --run-dir, or --overwrite",
        "fit",
        "toy.py",
        "-c",
        "a.yaml",
        "--run-dir",
        "done",
        files={"done/fit.json": "{}", "done/config.yaml": "x"},
    ),
    by_command(
        "resume of what is no run",
        "no checkpoint or run directory",
        "runs/none",
        "give the directory that `hofit fit` printed after `Run:`",
        "resume",
        "runs/none",
        code=5,
    ),
    by_command(
        "resume of an empty directory",
        "holds no checkpoint",
        "empty",
        "give the directory that `hofit fit` printed after `Run:`",
        "resume",
        "empty",
        files={"empty/note.txt": "x"},
        code=5,
    ),
    by_command(
        "a report of what is no run",
        "holds no finished run",
        ".",
        "give the directory that `hofit fit` printed after `Run:`",
        "report",
        ".",
    ),
    by_command("an optimizer that is none", "no optimizer", "'newtn'", 'did you mean "newton"', "optimizers", "newtn"),
    by_command(
        "an --out without an ending",
        "a table is written to a file",
        "--out table",
        "that ends in .csv or .parquet",
        "predict",
        "runs/a",
        "--out",
        "table",
    ),
    in_config(
        "a typo in the data's path",
        "no data file",
        "a.yaml:2: data.path",
        'did you mean "data.csv"?',
        "data.csv",
        "date.csv",
    ),
    in_config(
        "a typo in a column's name",
        "has no column 'grp'",
        "a.yaml:5: data.columns.group",
        'did you mean "group"?',
        "column: group",
        "column: grp",
    ),
    in_config(
        "a column of text taken for numbers",
        "column 'text' holds text ('one')",
        "a.yaml:4: data.columns.y",
        "write codes: true, or mend the file",
        "y: y",
        "y: text",
    ),
    in_config(
        "a column with empty cells",
        "column 'holes' is missing or NaN (1 of 5 rows)",
        "row 1 (line 3)",
        "`data.missing: drop` leaves such rows out",
        "y: y",
        "y: holes",
    ),
    in_config(
        "a codes column without levels, and the model wants to know how many",
        "needs the argument 'n_groups'",
        "a.yaml:1: data",
        "write levels: n_groups beside codes: true",
        ", levels: n_groups",
        "",
    ),
    in_config(
        "a column that the model does not take",
        "argument 'x': model does not take it",
        "a.yaml:1: data",
        "there are: y, group, n_groups",
        "y: y",
        "y: y\n    x: y",
    ),
    in_config(
        "columns without data.path",
        "needs data.path",
        "a.yaml:2: data.columns",
        "write path: FILE.csv beside it, or give --data FILE.csv",
        "  path: data.csv\n",
        "",
    ),
    in_config(
        "a key that is none", "unknown key", "a.yaml:10: stops", 'did you mean "stop"', "stop: {max", "stops: {max"
    ),
    in_config(
        "a key that belongs elsewhere",
        "unknown key here",
        "a.yaml:10: max_iterations",
        "it belongs under stop (stop: {max_iterations: …})",
        "stop: {max_iterations: 20}",
        "max_iterations: 20",
    ),
    in_config(
        "a tab in the YAML",
        "cannot start any token",
        "a.yaml:9",
        "YAML takes no tabs; indent with spaces",
        "    lr: 0.05",
        "\tlr: 0.05",
    ),
    in_config(
        "one optimizer without the dash",
        "must be a list",
        "a.yaml:6: optimizers",
        "begin every entry with a dash",
        '  - params: "*"\n    optimizer: adam\n    lr: 0.05',
        '  params: "*"\n  optimizer: adam\n  lr: 0.05',
    ),
    in_config(
        "lr on newton",
        "newton has no such option",
        "a.yaml:9: optimizers.0.lr",
        "leave it out; there are: trust_radius, adaptive",
        "optimizer: adam",
        "optimizer: newton",
    ),
    in_config(
        "learning_rate instead of lr",
        "adam has no such option",
        "a.yaml:9: optimizers.0.learning_rate",
        'did you mean "lr"?',
        "lr: 0.05",
        "learning_rate: 0.05",
    ),
    in_config(
        "an optimizer's name as in Python",
        "no optimizer 'Adam'",
        "a.yaml:8: optimizers.0.optimizer",
        'did you mean "adam"',
        "optimizer: adam",
        "optimizer: Adam",
    ),
    in_config(
        "a typo in an optimizer's name",
        "no optimizer 'adma'",
        "a.yaml:8: optimizers.0.optimizer",
        '"adam"',
        "optimizer: adam",
        "optimizer: adma",
    ),
    in_config(
        "a schedule on an optimizer without lr",
        "newton has no lr that a schedule could steer",
        "a.yaml:9: optimizers.0.schedule",
        "leave it out",
        "optimizer: adam\n    lr: 0.05",
        "optimizer: newton\n    schedule: {name: exponential, gamma: 0.9}",
    ),
    in_config(
        "a learning rate in words",
        "not 'fast'",
        "a.yaml:9: optimizers.0.lr",
        "must be a number",
        "lr: 0.05",
        "lr: fast",
    ),
    in_config(
        "a pattern with a typo",
        "no parameter matches 'sgima'",
        "a.yaml:7: optimizers.0.params",
        'did you mean "sigma"?',
        'params: "*"',
        "params: [sgima, '*']",
    ),
    in_config(
        "a parameter that no entry has",
        "no entry matches 'mean', 'sigma'",
        "a.yaml:6: optimizers",
        "add one, or `fixed:`",
        'params: "*"',
        "params: effect",
    ),
    in_config(
        "an entry after one that takes everything",
        "the entry gets no parameter",
        "a.yaml:10: optimizers.1.params",
        "leave it out, or put it above the entry that takes them",
        "    lr: 0.05",
        "    lr: 0.05\n  - {params: sigma, optimizer: sgd}",
    ),
    in_config(
        "a pattern for an observed site",
        "'y' is observed",
        "a.yaml:7: optimizers.0.params",
        "leave it out, for only parameters and latents are fitted",
        'params: "*"',
        "params: [y, '*']",
    ),
    in_config(
        "a pattern for a plate",
        "'groups' is a plate",
        "a.yaml:7: optimizers.0.params",
        "leave it out, for only parameters and latents are fitted",
        'params: "*"',
        "params: [groups, '*']",
    ),
    in_config(
        "a star that YAML takes for an alias",
        "a star begins an alias in YAML",
        "a.yaml:7",
        "put the pattern into quotes",
        'params: "*"',
        "params: *",
    ),
    in_config(
        "a bracket left open in a regular expression",
        "is no regular expression",
        "a.yaml:7: optimizers.0.params",
        "missing )",
        'params: "*"',
        'params: "re:(s"',
    ),
    in_config(
        "a scale held below zero",
        "-1 is not inside its support",
        "a.yaml:6: fixed.sigma",
        "positive",
        "optimizers:",
        "fixed: {sigma: -1}\noptimizers:",
    ),
    in_config(
        "a start of the wrong shape",
        "shape (2,) does not broadcast",
        "a.yaml:6: init.values.effect",
        "to (3,)",
        "optimizers:",
        "init: {values: {effect: [1, 2]}}\noptimizers:",
    ),
    in_config(
        "marginal, and nothing to integrate",
        "a marginal objective needs integrate",
        "a.yaml:6: objective",
        'integrate: {"pattern": laplace | aghq | enumerate}',
        "optimizers:",
        "objective: marginal\noptimizers:",
    ),
    in_config(
        "integrate without marginal",
        "'map' takes `enumerate` only",
        "a.yaml:6: objective",
        "laplace and aghq need type: marginal",
        "optimizers:",
        "objective: {integrate: {effect: laplace}}\noptimizers:",
    ),
    in_config(
        "a parameter integrated, not a latent",
        "'sigma' is a parameter",
        "a.yaml:6: objective.integrate.sigma",
        "only latents (sample sites) can be integrated",
        "optimizers:",
        "objective: {type: marginal, integrate: {sigma: laplace}}\noptimizers:",
    ),
    in_config(
        "a continuous latent enumerated",
        "'effect' is continuous (real)",
        "a.yaml:6: objective.integrate.effect",
        "take laplace",
        "optimizers:",
        "objective: {type: marginal, integrate: {effect: enumerate}}\noptimizers:",
    ),
    in_config(
        "a key twice",
        "the key stands here twice",
        "a.yaml:11: stop",
        "put both into one",
        "stop: {max_iterations: 20}",
        "stop: {max_iterations: 20}\nstop: {gradient: 1.0e-8}",
    ),
    by_set("a --set without a value", "write KEY=VALUE", "--set seed", "-s stop.max_iterations=50", "seed"),
    by_set(
        "a --set of a key that is none",
        "unknown key",
        "--set stop.gradeint=1e-8: stop.gradeint",
        'did you mean "gradient"?',
        "stop.gradeint=1e-8",
    ),
    by_set(
        "a precision that there is not",
        "not 'float16'",
        "--set dtype=float16: dtype",
        "must be one of 'float64' or 'float32'",
        "dtype=float16",
    ),
    by_set(
        "a device that is not here",
        "no device 'cuda:7' here",
        "--set device=cuda:7: device",
        "device: cpu is always there",
        "device=cuda:7",
    ),
    by_set(
        "a metric that is none",
        "not 'tensorbord'",
        "--set metrics=[tensorbord]: metrics.0",
        "must be one of 'tensorboard'",
        "metrics=[tensorbord]",
    ),
    by_set(
        "options for a module without load_data",
        "there is no load_data",
        "data.options",
        "leave them out, or write def load_data(…) there",
        "data.options.rows=10",
    ),
    by_set(
        "float32 with a gradient of 1e-12",
        "is below the rounding of float32",
        "stop.gradient 1e-12",
        "set dtype: float64, or stop.gradient: 1e-4",
        "dtype=float32",
        "stop.gradient=1e-12",
        code=3,
    ),
    in_model(
        "a forgotten obs=",
        "nothing observes the data",
        "m.py:7: ",
        "write obs=y",
        (
            "def model(y):\n"
            "    mean = pyro.param('mean', torch.tensor(0.0))\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('y', dist.Normal(mean, 1.0))\n"
        ),
        Y,
    ),
    in_model(
        "a forgotten obs=, under another name",
        "no site is observed, so that nothing is learned from 'y'",
        "m.py:7: ",
        'pyro.sample("z", …, obs=…)',
        (
            "def model(y):\n"
            "    mean = pyro.param('mean', torch.tensor(0.0))\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('z', dist.Normal(mean, 1.0))\n"
        ),
        Y,
        code=0,
    ),
    Mistake(
        "two columns of one kind, each numbered by itself",
        "each is numbered by itself, so that one level has two numbers",
        "columns 'a' and 'b'",
        "let them share their levels: the same `codes: NAME`",
        ("fit", "m.py", "-c", "m.yaml"),
        {"m.py": "import pyro\nimport pyro.distributions as dist\n" + PLAYERS, "m.yaml": GAMES, "games.csv": PAIRS},
        code=0,
    ),
    in_model(
        "the joint mode of effects and their free scale",
        "the density of effect and its free scale tau together has no bound",
        "at tau = 0",
        'objective: {type: marginal, integrate: {"effect": laplace}}',
        HIERARCHY,
        GROUPED + "stop: {max_iterations: 60}\n",
        code=4,
    ),
    in_model(
        "a discrete latent",
        "is discrete (Bernoulli): it cannot be optimised",
        "the latent 'z'",
        'objective.integrate: {"z": enumerate}',
        "def model():\n    pyro.sample('z', dist.Bernoulli(0.5))\n",
    ),
    in_model(
        "a network's weight by its name in the trace",
        "no parameter matches 'net$$$weight'",
        "m.yaml:3: optimizers.0.params",
        'did you mean "net.weight"?',
        NET,
        Y.replace("'*'", "'net$$$weight'"),
    ),
    in_model(
        "data outside the support",
        "to be within the support (IntegerGreaterThan(lower_bound=0))",
        "at site 'y'",
        "mend the data that lie outside, or take a distribution that has them",
        (
            "def model(y):\n"
            "    rate = pyro.param('rate', torch.tensor(1.0))\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('y', dist.Poisson(rate.exp()), obs=y)\n"
        ),
        Y,
        code=4,
    ),
    in_model(
        "yes and no observed as booleans",
        "with two bool tensors is not supported",
        "last site traced: 'y'",
        "y.double() in the place of y",
        (
            "def model(y):\n"
            "    logit = pyro.param('logit', torch.tensor(0.1))\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('y', dist.Bernoulli(logits=logit), obs=y > 1)\n"
        ),
        Y,
    ),
    in_model(
        "nan under a mask",
        "it has nan, which a mask leaves out of the density but not of its gradient",
        "at site 'y'",
        "torch.nan_to_num(y), and keep the mask",
        (
            "def model(y):\n"
            "    mean = pyro.param('mean', torch.tensor(0.0))\n"
            "    y = torch.where(y > 1, y, torch.nan)\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('y', dist.Normal(mean, 1.0).mask(~y.isnan()), obs=y)\n"
        ),
        Y,
        code=4,
    ),
    in_model(
        "a rate of zero at a value of a discrete latent",
        "the gradient of 'rate', by the density of 'y'",
        "not finite at the start",
        "keep what it takes off the edge, as by .clamp_min(1e-30)",
        (
            "def model(y):\n"
            "    rate = pyro.param('rate', torch.tensor(1.0), constraint=constraints.positive)\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        z = pyro.sample('z', dist.Bernoulli(0.5))\n"
            "        pyro.sample('y', dist.Poisson(rate * z), obs=y.abs().round())\n"
        ),
        Y + "objective: {type: map, integrate: {z: enumerate}}\n",
        code=4,
    ),
    in_model(
        "a scale without its constraint",
        "to satisfy the constraint GreaterThan(lower_bound=0.0)",
        "m.py:7: ",
        "pyro.param(…, constraint=constraints.positive)",
        (
            "def model(y):\n"
            "    sigma = pyro.param('sigma', torch.tensor(-1.0))\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('y', dist.Normal(0.0, sigma), obs=y)\n"
        ),
        Y,
        code=4,
    ),
    in_model(
        "shapes that do not fit",
        "The size of tensor a (5) must match the size of tensor b (2)",
        "m.py:7 in model",
        "a number a row has shape (rows,)",
        (
            "def model(y):\n"
            "    beta = pyro.param('beta', torch.zeros(2))\n"
            "    with pyro.plate('rows', len(y)):\n"
            "        pyro.sample('y', dist.Normal(y * beta, 1.0), obs=y)\n"
        ),
        Y,
    ),
    in_model(
        "no plate around the rows",
        "two sample sites are called 'y'",
        "m.py:7: ",
        "put what is alike into a pyro.plate",
        (
            "def model(y):\n"
            "    mean = pyro.param('mean', torch.tensor(0.0))\n"
            "    for i in range(len(y)):\n"
            "        pyro.sample('y', dist.Normal(mean, 1.0), obs=y[i])\n"
        ),
        Y,
    ),
    in_model(
        "a package that is not installed",
        "No module named 'nothing_like_it'",
        "m.py:4 in <module>",
        "pip install nothing_like_it",
        "import nothing_like_it\ndef model(): ...\n",
    ),
    in_model("a syntax error in the model", "SyntaxError", "m.py:4: ", "def model(:", "def model(:\n"),
    in_model(
        "nothing to fit",
        "there is nothing to fit",
        "the model has no parameter and no latent",
        'pyro.param("name", start)',
        "def model(y):\n    pyro.sample('y', dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1), obs=y)\n",
        Y,
    ),
    in_model(
        "dropout, or another draw of the model's own",
        "the loss is random",
        "traced twice at one point",
        "call module.eval(), draw in load_data, or make it a pyro.sample site",
        "def model():\n    x = pyro.param('x', torch.tensor(1.0))\n    pyro.factor('f', -(x - torch.rand(())) ** 2)\n",
    ),
    in_model(
        "a value taken out of torch",
        "the gradient of the loss is not its slope",
        "'x'",
        "compute with the tensor itself",
        (
            "def model():\n"
            "    x = pyro.param('x', torch.tensor(1.0))\n"
            "    pyro.factor('f', -(x - 1) ** 2 - (x.detach() - 3) ** 2)\n"
        ),
    ),
    in_model(
        "newton on minibatches",
        "second-order optimizers need the whole plate",
        "the plate 'rows' is subsampled",
        "leave subsample_size out",
        (
            "def model(y):\n"
            "    mean = pyro.param('mean', torch.tensor(0.0))\n"
            "    with pyro.plate('rows', len(y), subsample_size=2) as i:\n"
            "        pyro.sample('y', dist.Normal(mean, 1.0), obs=y[i])\n"
        ),
        Y,
    ),
    in_model(
        "load_data that does not take an option",
        "load_data does not take data.options.row",
        "m.yaml:1: data.options.row",
        'did you mean "rows"?',
        (
            "def load_data(rows=3): return {'y': torch.ones(rows)}\n"
            "def model(y):\n"
            "    pyro.factor('f', -(pyro.param('x', torch.tensor(1.0)) - y).square().sum())\n"
        ),
        "data: {options: {row: 5}}\noptimizers:\n  - {params: '*', optimizer: trust_region}\n",
    ),
    in_model(
        "load_data that fails",
        "load_data failed: FileNotFoundError",
        "m.py:4 in load_data",
        "write Path(__file__).parent",
        "def load_data(): return open('nowhere.csv')\ndef model(y): ...\n",
    ),
    in_model(
        "a column and load_data give the same argument",
        "argument 'y' is given twice",
        "m.yaml:1: data",
        "leave one out",
        "def load_data(): return {'y': torch.ones(5)}\ndef model(y): ...\n",
        Y,
    ),
    by_command(
        "a comma before the decimals",
        "column 'y' holds text ('1,5')",
        "row 0 (line 2)",
        "a number has a point, not a comma",
        *("fit", "toy.py", "-c", "a.yaml", "--data", "comma.csv"),
        files={"comma.csv": 'y,group\n"1,5",a\n"2,5",b\n'},
    ),
    by_set(
        "a number for a section of the config",
        "must be a mapping",
        "--set stop=100: stop",
        "of keys (max_iterations, max_seconds, gradient, decrement, …)",
        "stop=100",
    ),
    by_set(
        "a bare name to integrate",
        "must be a mapping",
        "objective.integrate",
        'write integrate: {"pattern": laplace}',
        "objective={type: marginal, integrate: effect}",
    ),
    in_model(
        "a constraint by its name",
        "Cannot transform str constraints",
        "m.py:5 in model",
        "constraint=constraints.positive",
        "def model():\n    pyro.param('s', torch.tensor(1.0), constraint='positive')\n",
    ),
    in_model(
        "a start that is no tensor",
        "'float' object has no attribute 'contiguous'",
        "m.py:5 in model",
        'pyro.param("name", torch.tensor(1.0))',
        "def model():\n    pyro.param('s', 1.0)\n",
    ),
    in_model(
        "a start that is an integer",
        "floating point dtype can require gradients",
        "m.py:5 in model",
        "write the start with a point, torch.tensor(1.0)",
        "def model():\n    pyro.param('s', torch.tensor(1))\n",
    ),
    in_model(
        "a parameter without a start",
        "KeyError: 's'",
        "m.py:5 in model",
        'pyro.param("name", torch.tensor(1.0))',
        "def model():\n    pyro.param('s')\n",
    ),
]


def page() -> str:
    """docs/errors.md."""
    lines = [
        "# What hofit says of common mistakes",
        "",
        "Every message says what is wrong, where (file and line, the dotted key of the config, or the site's name),",
        "and the edit that mends it. Wrong input ends with exit code 2 before anything is written; a checkpoint that",
        "cannot be used with 5; where a fit ran, its remarks say what was found, and the code is that of its status.",
        "`hofit check MODEL -c CONFIG` finds nearly all of these without a step, every mistake of a config at once.",
        "",
        "| what was done | what the message says | where | the edit | exit code |",
        "|---|---|---|---|---|",
    ]
    for one in MISTAKES:
        cells = (one.done, one.what, f"`{one.where.strip().removesuffix(':')}`", one.edit, str(one.code))
        lines.append(f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |")
    closing = (
        "This table is made from the tests (`tests/cli/mistakes.py`), which make each mistake and read the message."
    )
    return "\n".join([*lines, "", closing]) + "\n"


BAR = "\\|"

if __name__ == "__main__":
    print(page(), end="")
