"""Each guard against bad input has a mutant: with the guard switched off, what it guards against happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hofit import patterns
from hofit.cli import app
from hofit.config import source
from hofit.config.schema import Column
from hofit.model import columns, csv_exact, expansion, table
from hofit.model.columns import columns_to_arguments
from hofit.model.table import read_table
from hofit.optim import schedules
from hofit.report import console, reading
from tests.command_line import Hofit
from tests.trust.configs import GOOD, WHOLE, by_hand, toy_folder
from tests.trust.forked import WAIT, Trial, command, tried

SECONDS = 2.0
"""With its guard, a trial takes less of the processor, on a busy machine too; without it, none is waited for longer."""


@dataclass(frozen=True)
class Guard:
    """A name of hofit, what stands there when it is switched off, and a trial that ends cleanly only with it."""

    module: Any
    name: str
    off: Any
    trial: Callable[[Path], Trial]


def config(text: str, verb: str = "check") -> Callable[[Path], Trial]:
    def trial(folder: Path) -> Trial:
        (folder / "bad.yaml").write_text(text, encoding="utf-8")
        return command(verb, "toy.py", "-c", "bad.yaml")

    return trial


def codes(name: str, content: bytes) -> Callable[[Path], Trial]:
    """Whether two ids stay two."""

    def trial(folder: Path) -> Trial:
        (folder / name).write_bytes(content)

        def run() -> int:
            made = columns_to_arguments(read_table(folder / name), {"y": Column(column="y", codes=True)}, "drop")
            return 0 if made.values["y"].tolist() == [1, 0] else 1

        return run

    return trial


def report(change: Callable[[Path], object]) -> Callable[[Path], Trial]:
    def trial(folder: Path) -> Trial:
        change(folder / "run")

        def run() -> int:
            return command("report", "run")()

        return run

    return trial


def _deep(run: Path) -> None:
    (run / "fit.json").write_text("[" * 100_000)


BIG, NEXT = 2**53, 2**53 + 1

NO_STEP = by_hand()["schedule: {name: step, step_size: 0}"]

GUARDS = {
    "repeats of a pattern": Guard(
        patterns,
        "_takes_ages",
        lambda expression: False,
        config(GOOD.replace('"*"', "'re:((((.*)*)*)*)*x'")),
    ),
    "options of a schedule": Guard(
        schedules,
        "_not_usable",
        lambda key, value: None,
        config(by_hand()["schedule: {name: step, step_size: 0}"], "fit"),
    ),
    "values of a config": Guard(source, "MAX_NODES", 10**9, config(WHOLE["a megabyte of numbers"])),
    "digits of a number": Guard(source, "MAX_DIGITS", 10**9, config("seed: 0x" + "1" * 9000 + "\n" + GOOD)),
    "paths that are too long": Guard(app, "NO_SUCH_PATH", (), lambda folder: command("report", "x" * 4000)),
    "integers in text": Guard(csv_exact, "EXACT", 2**70, codes("a.csv", f"y,x\n{NEXT},\n,\n{BIG},\n".encode())),
    "integers in JSON": Guard(table, "EXACT", 2**70, codes("a.json", f'{{"y": [{NEXT}, null, {BIG}]}}'.encode())),
    "integers in order": Guard(columns, "EXACT", 2**90, codes("a.csv", f"y\n{2**64 + 2}\n{2**64 + 1}\n".encode())),
    "what a terminal obeys": Guard(console, "printable", lambda text: text, report(lambda run: _obeyed(run))),
    "deep JSON": Guard(reading, "UNREADABLE", (ValueError, KeyError, TypeError), report(_deep)),
}


def _obeyed(run: Path) -> None:
    fit = run / "fit.json"
    fit.write_text(
        fit.read_text().replace('"remarks": [', '"remarks": ["\\u001b]0;title\\u0007",', 1).replace('",]', '"]')
    )


@pytest.fixture
def folder(tmp_path: Path, hofit: Hofit, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    toy_folder(tmp_path)
    assert hofit("fit", "toy.py", "-c", "good.yaml", "--run-dir", "run").code in (0, 3)
    assert hofit("report", "run").code == 0
    return tmp_path


def holds(guard: Guard, folder: Path, wait: float = WAIT) -> bool:
    outcome = tried({"trial": guard.trial(folder)}, folder, wait)["trial"]
    return outcome.clean and outcome.seconds < SECONDS and "\x1b" not in outcome.text


@pytest.mark.parametrize("name", GUARDS)
def test_a_guard_that_is_switched_off_is_missed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    guard = GUARDS[name]
    assert holds(guard, folder)
    monkeypatch.setattr(guard.module, guard.name, guard.off)
    assert not holds(guard, folder, SECONDS)


def test_a_gzip_bomb_is_let_in_without_its_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    from hofit.errors import DataError

    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"y\n" + b"\n" * 3_000_000 + b"1\n"))
    monkeypatch.setattr(expansion, "HARMLESS", 1 << 20)
    with pytest.raises(DataError, match="times its size"):
        read_table(tmp_path / "a.csv.gz")
    monkeypatch.setattr(expansion, "RATIO", 10**9)
    assert len(read_table(tmp_path / "a.csv.gz").columns["y"]) == 1
