"""Configs that are wrong: mutants of good ones, YAML's surprises, sizes, and what a hand that errs writes.

Each is a text for the toy folder of ``toy_folder``; ``GOOD`` is the one that is right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tests.cli.conftest import CONFIG, DATA, MODEL

GOOD = CONFIG.replace("max_iterations: 20", "max_iterations: 2")
MARGINAL = GOOD.replace(
    "optimizers:", "objective: {type: marginal, integrate: {effect: laplace}}\noptimizers:"
).replace("adam\n    lr: 0.05", "newton")

NASTY = (
    *(
        "",
        "null",
        "~",
        "yes",
        "no",
        "on",
        "off",
        "true",
        "1",
        "0",
        "-1",
        "1.5",
        "1e3",
        "1e400",
        ".inf",
        "-.inf",
        ".nan",
    ),
    *(
        "[]",
        "{}",
        "[1]",
        "{a: 1}",
        "[[[]]]",
        "text",
        "'*'",
        "'re:('",
        "&a [*a]",
        "*a",
        "!!python/name:os.system",
        "!x 1",
    ),
    *("0o17", "0x1F", "017", "1_000", "12:30:45", "2001-01-01", "=", "<<", "|\n  x", "\x00", "\ufeff", "\u2028", "💥"),
    *("9" * 500, "1" + "0" * 5000, "x" * 5000, "../../../etc/passwd", "/dev/zero", "~nobody/x", "%", "@", "`", "\t"),
)
"""Values that may stand where another was."""


def toy_folder(folder: Path) -> None:
    """Write what the configs are about."""
    for name, text in (("toy.py", MODEL), ("data.csv", DATA), ("good.yaml", GOOD), ("marginal.yaml", MARGINAL)):
        (folder / name).write_text(text, encoding="utf-8")


def mutants(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """So many texts, each a good config after one to three accidents."""
    chance = random.Random(seed)
    for number in range(count):
        text = chance.choice((GOOD, MARGINAL))
        for _ in range(chance.randint(1, 3)):
            text = chance.choice(ACCIDENTS)(text, chance)
        yield f"mutant {number}", text


def _line_lost(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)

    place = chance.randrange(len(lines))
    return "".join(lines[:place] + lines[place + 1 :])


def _line_doubled(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    return "".join([*lines[: place + 1], *lines[place : place + 1], *lines[place + 1 :]])


def _lines_swapped(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "".join(lines)


def _indented(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    lines[place] = chance.choice((" ", "  ", "\t")) + lines[place]
    return "".join(lines)


def _character_lost(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text))
    return text[:place] + text[place + 1 :]


def _character_changed(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text))
    return text[:place] + chr(chance.choice((chance.randrange(32, 127), chance.randrange(0x250)))) + text[place + 1 :]


def _value_replaced(text: str, chance: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    places = [place for place, line in enumerate(lines) if ":" in line]
    place = chance.choice(places or [0])
    key = lines[place].partition(":")[0]
    lines[place] = f"{key}: {chance.choice(NASTY)}\n"
    return "".join(lines)


def _key_added(text: str, chance: random.Random) -> str:
    return f"{chance.choice(KEYS)}: {chance.choice(NASTY)}\n" + text


def _cut(text: str, chance: random.Random) -> str:
    return text[: chance.randrange(1, len(text))]


ACCIDENTS = (
    *(_line_lost, _line_doubled, _lines_swapped, _indented, _character_lost, _character_changed),
    *(_value_replaced, _value_replaced, _key_added, _key_added, _cut),
)

KEYS = (
    *("model", "data", "objective", "init", "fixed", "optimizers", "order", "stop", "progress", "checkpoint", "seed"),
    *(
        "dtype",
        "device",
        "capture",
        "threads",
        "seeds",
        "",
        "?",
        "1",
        "null",
        "true",
        "<<",
        "[a]",
        "{a: 1}",
        "é",
        "a.b",
    ),
)


def by_hand() -> dict[str, str]:
    """Name → text. What is a mapping or a list by the schema, what is a number, what YAML reads otherwise, sizes."""
    found: dict[str, str] = {}
    for section in ("stop", "progress", "checkpoint", "init", "fixed", "objective", "order", "dtype", "device"):
        for value in ("null", "[]", "3", "text", "{x: 1}"):
            found[f"{section}: {value}"] = _top(f"{section}: {value}")
    for line in LINES:
        found[line[:60]] = _top(line)
    for schedule in SCHEDULES:
        found[f"schedule: {schedule}"] = GOOD.replace("lr: 0.05\n", f"lr: 0.05\n    schedule: {schedule}\n")
    for pattern in PATTERNS:
        found[f"params: {pattern[:50]}"] = GOOD.replace('"*"', pattern)
    for options in OPTIONS:
        found[f"optimizer: {options[:50]}"] = GOOD.replace("adam\n    lr: 0.05", options)
    for columns in COLUMNS:
        found[f"columns: {columns[:50]}"] = GOOD.replace("{column: group, codes: true, levels: n_groups}", columns)
    for path in ("x" * 4000 + ".csv", "'x\\0.csv'", '"x\\0.csv"', "~nobody/x.csv", "/", "/dev/zero", "''", "[a.csv]"):
        found[f"path: {path[:30]}"] = GOOD.replace("data.csv", path)
    return found | WHOLE


def _top(line: str) -> str:
    """The good config with this line in the place of what it has under the key."""
    key = line.partition(":")[0]
    lines = GOOD.splitlines(keepends=True)
    kept, inside = [], False
    for old in lines:
        inside = old.startswith(f"{key}:") or (inside and old.startswith(" "))
        if not inside:
            kept.append(old)
    return "".join([line + "\n", *kept])


LINES = (
    *("seed: yes", "seed: 1:30", "seed: 010", "seed: 0x10", "seed: 1e400", "seed: 4294967296", "seed: -1", "seed: '1'"),
    *("seed: 1_0", "seed: 2001-01-01", "seed: !!int '3'", "seed: !!float 3", "seed: !!binary aGk=", "seed: !!set {a}"),
    *("seed: &a 3", "seed: *a", "seed: 0x" + "1" * 900_000, "seed: " + "1" * 900_000, "threads: 2147483648"),
    *("threads: 0", "threads: 1e300", "threads: 999999999999999999999", "checkpoint: {keep: 1000000000}"),
    *("checkpoint: {keep: 1}", "checkpoint: {seconds: 0}", "checkpoint: {every: 1e300}", "checkpoint: {seconds: .inf}"),
    *("progress: {every: 0}", "progress: {every: 99999999999999999999999}", "stop: {gradient: .nan}", "order: no"),
    *("stop: {max_iterations: -1}", "stop: {max_iterations: 1.5}", "stop: {max_seconds: 0}", "stop: {patience: 1e30}"),
    *(
        "dtype: float16",
        "dtype: 64",
        "device: ''",
        "device: 'cpu\\0'",
        "device: cuda:99",
        "device: meta",
        "capture: on",
    ),
    *("capture: off", "device: 'cpu:99999999999999999999'", "fixed: {mean: text}", "fixed: {mean: [[[[1]]]]}"),
    *("fixed: {mean: {a: 1}}", "fixed: {'*': null}", "fixed: {'': 1}", "fixed: {sigma: 0}", "fixed: {sigma: .nan}"),
    *(
        "fixed: {mean: 1" + "0" * 350 + "}",
        "fixed: {mean: [1" + "0" * 350 + "]}",
        "fixed: {'re:(': 1}",
        "fixed: {1: 2}",
    ),
    *(
        "init: {values: {mean: 1e400}}",
        "init: {values: {effect: [1, [2]]}}",
        "init: {jitter: 1e300}",
        "init: {jitter: x}",
    ),
    *("init: {strategy: mode}", "init: {values: {effect: []}}", "objective: {type: marginal}", "objective: marginal"),
    *("objective: {type: marginal, integrate: {'*': laplace}}", "objective: {type: [map]}", "objective: {type: elbo}"),
    *(
        "objective: {type: elbo, autoguide: normal, particles: 1000000000}",
        "objective: {integrate: {effect: [laplace]}}",
    ),
    *("objective: {type: marginal, integrate: {effect: laplace}, logdet: stochastic, probes: 1000000000}",),
    *("objective: {type: marginal, integrate: {effect: {method: [a]}}}", "objective: {nodes: 1e9}"),
    *("objective: {type: marginal, integrate: {effect: {method: laplace, structure: [a]}}}", "model: 3", "model: ''"),
    *("objective: {type: marginal, integrate: {effect: aghq}, nodes: 1000}", "model: " + "x" * 4000 + ".py"),
    *("data: 3", "data: {path: 3}", "data: {columns: [a]}", "data: {arguments: [1]}", "data: {missing: keep}"),
    *("data: {path: data.csv, columns: {y: y}, options: {a: 1}}", "data: {arguments: {y: [1, [2]]}}"),
    *("data: {arguments: {y: [1" + "0" * 350 + "], group: [0], n_groups: 1}}", "data: {observations: 0}"),
    *("data: {arguments: {y: [], group: [], n_groups: 0}}", "data: {arguments: {y: 1, group: 0, n_groups: 1}}"),
    *("data: {arguments: {y: text, group: text, n_groups: text}}", "data: {arguments: {1: 2}}", "optimizers: {a: 1}"),
    *(
        "optimizers: [3]",
        "optimizers: [[]]",
        "optimizers: [{}]",
        "optimizers: [null]",
        "optimizers: []",
        "optimizers: x",
    ),
    *("optimizers: [{params: '*'}]", "optimizers: [{optimizer: adam}]", "optimizers: [{params: '*', optimizer: [a]}]"),
    *(
        "? [a, b]\n: 1",
        "{a: 1}: 2",
        "<<: {seed: 3}",
        "--- 1\n---",
        "%YAML 9.9\n---",
        "!!map {seed: 1}: 2",
        "\ufeffseed: 1",
    ),
)

SCHEDULES = (
    *(
        "3",
        "[1]",
        "{}",
        "{name: [a]}",
        "{name: null}",
        "{name: exponential, gamma: text}",
        "{name: step, step_size: 0}",
    ),
    *("{name: exponential, gamma: [1]}", "{name: exponential, gamma: null}", "{name: step, step_size: 1.5}"),
    *("{name: step, step_size: x}", "{name: step, step_size: 3, gamma: 1e300}", "{name: multi_step, milestones: 3}"),
    *(
        "{name: multi_step, milestones: [a]}",
        "{name: multi_step, milestones: {a: 1}}",
        "{name: cosine_annealing, T_max: 0}",
    ),
    *("{name: cosine_annealing, T_max: x}", "{name: cosine_annealing_warm_restarts, T_0: 0}", "{name: cyclic}"),
    *("{name: reduce_on_plateau, mode: q}", "{name: reduce_on_plateau, patience: x}", "{name: polynomial, power: x}"),
    *("{name: reduce_on_plateau, min_lr: [1, 2]}", "{name: one_cycle, max_lr: x, total_steps: 9}", "{name: linear}"),
    *("{name: one_cycle, max_lr: 1, total_steps: 0}", "{name: linear, total_iters: 0}", "{name: cyclic, base_lr: [a]}"),
    *("{name: cyclic, base_lr: 0.1, max_lr: 1, mode: q}", "{name: cyclic, base_lr: 0.1, max_lr: 1, step_size_up: 0}"),
    *("{name: linear, start_factor: 0}", "{name: constant, factor: x}", "{name: exponential, gamma: 1, last_epoch: 3}"),
    *("{name: one_cycle, max_lr: 1, total_steps: 9, pct_start: 9}", "{name: step, step_size: 10000000000000000000000}"),
)

PATTERNS = (
    *(
        "''",
        "[]",
        "[[a]]",
        "{a: 1}",
        "3",
        "null",
        "'[!'",
        "'" + "*a" * 400 + "'",
        "'" + "[" * 5000 + "'",
        "'re:(?P<a>'",
    ),
    *("'re:" + "(" * 900 + "'", "'re:" + "a" * 400_000 + "'", "'re:(a{4294967295}){99}'", "'re:a{1000000000000}'"),
    *(
        "'re:(a*)*b'",
        "'re:((((.*)*)*)*)*x'",
        "'re:(.|e)*x'",
        "'re:" + ".*" * 20 + "x'",
        "'re:" + "(a?" * 90 + ")*" * 90 + "'",
    ),
    *("'re:\\'", "'re:(?i'", "'re:[z-a]'", "'re:(?<=a*)b'", "'re:\\g<9>'", "'*' # x\n    params: a"),
    "[" + ", ".join(f"p{number}" for number in range(15_000)) + "]",
    "[" + ", ".join(f"'re:p{number}'" for number in range(900)) + "]",
)

OPTIONS = (
    *("newton\n    trust_radius: -1", "newton\n    trust_radius: {}", "newton\n    trust_radius: [1]", "''", "[adam]"),
    *("newton\n    trust_radius: {effect: x}", "newton\n    trust_radius: .nan", "newton\n    adaptive: 3", "null"),
    *("lbfgs\n    history_size: 1e300", "lbfgs\n    history_size: -1", "lbfgs\n    history_size: x", "muon"),
    *("trust_region\n    trust_radius: x", "adam\n    betas: 3", "adam\n    betas: [0.9, x]", "adam\n    eps: -1"),
    *(
        "adam\n    lr: 1e400",
        "adam\n    lr: [1]",
        "adam\n    foreach: x",
        "adam\n    amsgrad: 1",
        "sgd\n    momentum: x",
    ),
    *(
        "sgd\n    nesterov: true",
        "rprop\n    etas: [2, 1]",
        "adafactor\n    eps: [1, x]",
        "nadam\n    momentum_decay: -1",
    ),
    "newton\n    trust_radius: {" + ", ".join(f"k{number}: 1" for number in range(9_000)) + "}",
    "adam\n" + "".join(f"    k{number}: 1\n" for number in range(9_000)),
)

COLUMNS = (
    *(
        "null",
        "3",
        "[]",
        "{}",
        "{column: 3}",
        "{column: []}",
        "{column: group, codes: 3}",
        "{column: group, dtype: text}",
    ),
    *("{column: group, codes: true, order: [a, a]}", "{column: group, codes: true, order: [[1], {a: 1}]}", "nowhere"),
    *("{column: group, codes: true, order: []}", "{column: group, codes: true, levels: group}", "{column: [a, b]}"),
    *(
        "{column: y, dtype: long}",
        "{column: y, dtype: bool}",
        "{column: holes}",
        "{column: text, codes: true, levels: 3}",
    ),
    "{column: group, codes: true, order: [" + ", ".join(map(str, range(15_000))) + "]}",
)

_BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)

WHOLE = {
    "nothing": "",
    "spaces": " \n\t\n",
    "a list": "- 1\n",
    "a word": "word",
    "two documents": GOOD + "---\n" + GOOD,
    "a bomb of lists": _BOMB + GOOD,
    "a bomb of mappings": _BOMB.replace("[", "{x: [").replace("]", "]}") + GOOD,
    "an alias of itself": "fixed: &a {b: *a}\n" + GOOD,
    "deep brackets": "fixed: " + "[" * 100_000 + "\n" + GOOD,
    "deep blocks": "fixed:\n" + "".join(" " * depth + "-\n" for depth in range(1, 900)) + GOOD,
    "deep keys": "? " * 10_000 + "\n" + GOOD,
    "a megabyte of keys": "".join(f"key{number}: 1\n" for number in range(80_000)) + GOOD,
    "a megabyte of fixed": "fixed: {" + ", ".join(f"key{number}: 1" for number in range(60_000)) + "}\n" + GOOD,
    "a megabyte of numbers": "fixed: {mean: [" + "1," * 450_000 + "]}\n" + GOOD,
    "a megabyte of one word": GOOD + "model: " + "x" * 950_000 + "\n",
    "a megabyte of one key": "x" * 950_000 + ": 1\n" + GOOD,
    "a megabyte of remarks": "# x\n" * 240_000 + GOOD,
    "two megabytes": "#" * 2_000_000,
    "30,000 keys": "".join(f"k{number}: 1\n" for number in range(30_000)) + GOOD,
    "20,000 entries": "optimizers:\n" + "- {}\n" * 20_000,
    "30,000 columns": "data: {path: data.csv, columns: {" + ", ".join(f"k{n}: c{n}" for n in range(30_000)) + "}}\n",
    "30,000 arguments": "data: {arguments: {" + ", ".join(f"k{n}: 1" for n in range(30_000)) + "}}\n",
    "20,000 anchors": "fixed: {" + ", ".join(f"a{n}: &a{n} 1" for n in range(9_000)) + "}\n" + GOOD,
    "carriage returns": GOOD.replace("\n", "\r\n"),
    "old Macintosh": GOOD.replace("\n", "\r"),
    "tabs": GOOD.replace("  ", "\t"),
    "a byte order mark": "\ufeff" + GOOD,
    "a zero byte": GOOD + "\0",
    "a surrogate": GOOD + '\nmodel: "\\ud800"\n',
    "a line separator": GOOD.replace("20", "2\u2028"),
}
